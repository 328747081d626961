"""GSM8K by exact match of the last number: a sweep's winner and its base, once by `sftray generate`
and once by plain transformers and PEFT, which must agree.

    python benchmarks/gsm8k.py --model BASE --data gsm8k_train.jsonl --template template.jinja \
        --out gsm8k.json

The last `--held-out` problems of the file are no part of the sweep. Exit status 1 where the two
ways give other scores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sftray.cli.terminal import say
from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.metrics import load_metric
from sftray.sweep.run import run_sweep
from sftray.winner.generate import answer_all
from sftray.winner.measured import measured_text, of_metric

METRIC = "sftray.metrics:last_number"


def main() -> None:
    options = _options()
    began, options.storage = time.perf_counter(), options.storage.absolute()
    options.storage.mkdir(parents=True, exist_ok=True)
    rows = options.data.read_text(encoding="utf-8").strip().split("\n")
    held_out = options.storage / "held_out.jsonl"
    held_out.write_text("\n".join(rows[-options.held_out :]), encoding="utf-8")
    seconds: dict[str, float] = {}
    with _timed(seconds, "sweep"):
        found = run_sweep(_sweep(options, rows), log=say)
    with _timed(seconds, "sftray"):
        facts, pairs = answer_all(found.folder, str(held_out), options.max_new_tokens)
    references = [one.question.reference or "" for one in pairs]
    ours = {"base": [one.base for one in pairs], "winner": [one.winner for one in pairs]}
    scored = of_metric(METRIC, load_metric(METRIC), ours["base"], ours["winner"], references)
    say(f"sftray: {measured_text(scored, facts.trial)}")
    with _timed(seconds, "transformers"):
        plain = by_transformers(found.folder, held_out, facts.end_of_turn, options)
    report: dict[str, Any] = {"sftray": scored, "transformers": {}, "seconds": seconds}
    report["wall_seconds"] = round(time.perf_counter() - began, 1)
    same = True
    for who, answers in plain.items():
        right = np.array(
            [
                last(a) is not None and last(a) == last(r)
                for a, r in zip(answers, references, strict=True)
            ]
        )
        alike = sum(a == b for a, b in zip(answers, ours[who], strict=True))
        low, high = bootstrap(right)
        say(
            f"transformers: {who} {right.mean():.4f} ({low:.4f} to {high:.4f}), "
            f"{alike} of {len(answers)} answers the same to the last character"
        )
        report["transformers"][who] = {
            "value": float(right.mean()), "low": low, "high": high, "same_answers": alike,
        }  # fmt: skip
        same &= abs(float(right.mean()) - scored[who]["value"]) < 1e-9  # type: ignore[literal-required]
    say(f"equal: {same}; {report['wall_seconds']} s, {seconds}")
    options.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    sys.exit(not same)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--template", help="for a base without a chat template")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--storage", type=Path, default=Path("results"))
    parser.add_argument("--held-out", type=int, default=512)
    parser.add_argument("--conversations", type=int, default=4000)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--max-new-tokens", type=int, default=320)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    return parser.parse_args()


def _sweep(options: argparse.Namespace, rows: Sequence[str]) -> SweepConfig:
    """A few learning rates, one epoch each, on what is not held out."""
    seen = options.storage / "seen.jsonl"
    most = min(options.conversations, len(rows) - options.held_out)
    seen.write_text("\n".join(rows[:most]), encoding="utf-8")
    return SweepConfig(
        name="gsm8k",
        data=DataConfig(
            str(seen),
            max_length=512,
            num_eval_conversations=150,
            test_fraction=0.0,  # what is held out here is the test set
            chat_template=options.template,
        ),
        trial=TrialConfig(
            options.model,
            base_precision=options.precision,
            lora_r=16,
            effective_batch_size=16 if most > 1000 else 2,
            num_train_epochs=1,
        ),
        points=tuple({"learning_rate": rate} for rate in options.rates),
        evals_per_trial=3,
        metric=METRIC,
        storage=str(options.storage),
        wandb="disabled",
    )


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 1)


def by_transformers(
    folder: str, held_out: Path, end_of_turn: int, options: argparse.Namespace
) -> dict[str, list[str]]:
    """The answers of base and winner, with nothing of sftray: `apply_chat_template` of the bundle's
    tokenizer, `generate` of AutoModelForCausalLM, PeftModel."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.precision]
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/best", padding_side="left")
    talks = [
        json.loads(line)["messages"]
        for line in held_out.read_text(encoding="utf-8").strip().split("\n")
    ]
    texts = [
        tokenizer.apply_chat_template(talk[:-1], tokenize=False, add_generation_prompt=True)
        for talk in talks
    ]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).to(device).eval()
    own = model.generation_config.eos_token_id
    ends = sorted({end_of_turn, *([own] if isinstance(own, int) else own or [])})
    model.generation_config = GenerationConfig()
    answers = {"base": _answers(model, tokenizer, texts, ends, options.max_new_tokens)}
    model = PeftModel.from_pretrained(model, f"{folder}/best").eval()
    answers["winner"] = _answers(model, tokenizer, texts, ends, options.max_new_tokens)
    return answers


@torch.no_grad()
def _answers(
    model: Any, tokenizer: Any, texts: Sequence[str], ends: list[int], most: int
) -> list[str]:
    order = sorted(range(len(texts)), key=lambda k: len(tokenizer(texts[k]).input_ids))
    found = {}
    size = 512 if model.device.type == "cuda" else 16
    for start in range(0, len(order), size):
        some = order[start : start + size]
        asked = tokenizer(
            [texts[k] for k in some], padding=True, add_special_tokens=False, return_tensors="pt"
        ).to(model.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
            output = model.generate(
                input_ids=asked.input_ids,
                attention_mask=asked.attention_mask,
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=ends[0],
            )
        for k, row in zip(some, output[:, asked.input_ids.shape[1] :].tolist(), strict=True):
            stop = next((at for at, token in enumerate(row, 1) if token in ends), len(row))
            found[k] = tokenizer.decode(row[:stop], skip_special_tokens=True)
    return [found[k] for k in range(len(texts))]


def last(text: str) -> float | None:
    """The last number of a text, without its commas; a minus that follows a word is none."""
    matches = [*re.finditer(r"\d[\d,]*(\.\d+)?", text)]
    if not matches:
        return None
    value, before = float(matches[-1].group().replace(",", "")), text[: matches[-1].start()]
    negative = before[-1:] in ("-", "−") and not re.match(r"[\w.)]", before[-2:-1])
    return -value if negative else value


def bootstrap(right: Any) -> tuple[float, float]:
    """95 % of the means of 2,000 draws of problems."""
    random = np.random.default_rng(1)
    means = [random.choice(right, len(right)).mean() for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
