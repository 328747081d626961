"""Pretrain the bundled base on generated text: tokenizer, weights, all that sftray/demo ships.

    python benchmarks/demo_base.py --out OUT                    # a GPU
    python benchmarks/demo_base.py --out OUT --steps 300 --batch-size 8    # to try it on a CPU

Promise: nothing is read but this script and what it imports; names are split into short pieces, so
that a name never seen is copied piece by piece, and digits stand alone. Turns of the pretraining
are marked as chats mark them, so the token that ends an answer is trained. Nobody in it is called
user or assistant. Price: 1.4 billion tokens, eight minutes of one H200 and twelve cores.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import string
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from console import argument_parser, say
from demo_pretraining import session, sessions
from demo_world import Draw
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import LlamaConfig, LlamaForCausalLM

from sftray.demo import FOLDER

VOCABULARY = 832
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
PIECES = r"'(?:s|t)| ?\p{Lu}| ?\p{Ll}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\p{L}|\s+(?!\S)|\s+"
"""A capital, small letters, a digit: a name is its capital and pieces of the rest."""
LENGTH = 512
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=2048,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=2,
    pad_token_id=3,
)
WORKERS = 12
"""Processes that write text; another number writes another text."""


def main() -> None:
    options = _options()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are workers enough
    torch.manual_seed(0)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    model = LlamaForCausalLM(CONFIG)
    say(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train(model.to(device), tokenizer, options.steps, options.batch_size, options.learning_rate)
    model.to("cpu", torch.bfloat16).save_pretrained(out)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        if out.resolve() != FOLDER:
            shutil.copy(FOLDER / name, out)


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE of the words that the text has without its names."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = random.Random(0)
    draw = Draw(rng, lambda r: r.choice(string.ascii_uppercase), lambda r: r.choice("ABCDEFGHIJ"))
    texts = [session(draw) for _ in range(5000)]
    roles = ["<|im_start|>user\n<|im_start|>assistant\n<|im_start|>system\n"] * 500
    tokenizer.train_from_iterator(texts + roles, trainer)
    return tokenizer


class Text(IterableDataset[torch.Tensor]):
    """Rows of LENGTH + 1 tokens, each worker its own, without an end."""

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer = tokenizer

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        tokenizer = Tokenizer.from_str(self.tokenizer)
        texts = sessions(1000 + (worker.id if worker else 0))
        tokens: list[int] = []
        while True:
            for one in tokenizer.encode_batch(list(islice(texts, 256))):
                tokens += one.ids
            rows, rest = divmod(len(tokens), LENGTH + 1)
            yield from torch.tensor(tokens[: rows * (LENGTH + 1)]).view(rows, LENGTH + 1)
            tokens = tokens[-rest:] if rest else []


def train(
    model: LlamaForCausalLM, tokenizer: Tokenizer, steps: int, batch_size: int, rate: float
) -> None:
    """AdamW, linear warm-up and decay to zero, bfloat16 products on a GPU."""
    on_gpu = model.device.type == "cuda"
    workers = WORKERS if on_gpu else 0
    rows = DataLoader(Text(tokenizer.to_str()), batch_size, num_workers=workers, pin_memory=on_gpu)
    groups = [[p for p in model.parameters() if (p.ndim > 1) == decayed] for decayed in (1, 0)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
    )
    warmup = max(steps // 50, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(steps - warmup, 1))
    )
    started, seen = time.monotonic(), 0
    for step, row in enumerate(islice(rows, steps), start=1):
        row = row.to(model.device, non_blocking=True)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=on_gpu):
            logits = model(row[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        seen += row[:, 1:].numel()
        if step % max(steps // 60, 1) == 0:
            lost, elapsed = loss.item(), time.monotonic() - started
            say(f"{elapsed:6.1f}s  step {step:5}  loss {lost:.4f}  {seen / elapsed:,.0f} tok/s")


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the base")
    add("--steps", type=int, default=10_500)
    add("--batch-size", type=int, default=256, help=f"rows of {LENGTH} tokens")
    add("--learning-rate", type=float, default=3e-3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
