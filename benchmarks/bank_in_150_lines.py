"""A bank in 150 lines: three trials trained at once on one frozen Llama, with PyTorch's autograd.

Promise: the losses of `sftray.trainers.bank`, held by a test. K trials' tokens go through the base
together, each trial's also through its own adapter. No loss depends on another's adapter, so one
backward pass of their sum gives every trial its gradient. Price: activations are kept. Names end
in their shape: K slots (a trial each), L tokens, D hidden, I in, O out, R rank, H heads of E.
"""

from __future__ import annotations

import hashlib
import json

import torch
from console import say
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from sftray.config import TrialConfig
from sftray.demo import FOLDER
from sftray.plan.lr_schedule import scheduled_rate, warmup_steps
from sftray.trial.row_order import row_stream

CONFIG = json.loads((FOLDER / "config.json").read_text())
WEIGHTS = load_file(FOLDER / "model.safetensors")
BASE = {name.removesuffix(".weight"): weight.float() for name, weight in WEIGHTS.items()}
Row = dict[str, list[int]]  # input_ids, labels (−100: not trained on), seq_lengths of documents
TRIALS = [
    TrialConfig("demo", learning_rate=rate, lora_r=rank, effective_batch_size=batch)
    for rate, rank, batch in ((1e-3, 4, 1), (3e-3, 8, 2), (1e-2, 16, 4))
]


def train(trials: list[TrialConfig], rows: list[Row]) -> list[list[float]]:
    """The loss of each trial's steps; a trial sees every row once, in the order of its seed."""
    adapters = {name: fresh(name, trials) for name in BASE if name.endswith("proj")}
    params = [matrix for pair in adapters.values() for matrix in pair]
    states = [(param, torch.zeros_like(param), torch.zeros_like(param)) for param in params]
    scale_K = torch.tensor([trial.lora_scale for trial in trials])
    orders = [row_stream(len(rows), len(rows), trial.seed) for trial in trials]
    losses: list[list[float]] = [[] for _ in trials]
    loss_K, tokens_K = torch.zeros(len(trials)), torch.zeros(len(trials))
    for seen in range(1, len(rows) + 1):
        sum_K, count_K = loss_sums(adapters, scale_K, [rows[order[seen - 1]] for order in orders])
        sum_K.sum().backward()  # adds to every param.grad, where [k] is slot k's
        loss_K, tokens_K = loss_K + sum_K.detach(), tokens_K + count_K
        for k, trial in enumerate(trials):
            if seen % trial.effective_batch_size == 0:  # the other slots accumulate gradients
                losses[k].append(float(loss_K[k] / tokens_K[k]))
                step, steps = len(losses[k]), len(rows) // trial.effective_batch_size
                adamw(k, trial, step, steps, float(tokens_K[k]), states)
                loss_K[k] = tokens_K[k] = 0
    return losses


def fresh(name: str, trials: list[TrialConfig]) -> tuple[Tensor, Tensor]:
    """A projection's A and B in every slot; what pads a rank is zero in both, so it stays zero."""
    (outputs, inputs), most = BASE[name].shape, max(trial.lora_r for trial in trials)
    a_KIR = torch.zeros(len(trials), inputs, most)
    for k, trial in enumerate(trials):  # drawn by seed and name, whatever the slot
        digest = hashlib.sha256(f"{trial.seed}/{name}.lora_A.weight".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        a_RI, bound = torch.empty(trial.lora_r, inputs), inputs**-0.5
        a_KIR[k, :, : trial.lora_r] = a_RI.uniform_(-bound, bound, generator=generator).T
    return a_KIR.requires_grad_(), torch.zeros(len(trials), most, outputs, requires_grad=True)


def loss_sums(adapters: dict, scale_K: Tensor, batch: list[Row]) -> tuple[Tensor, Tensor]:
    """Every slot's sum of token losses, and how many tokens it is the sum of."""
    ids_KL, labels_KL = (torch.tensor([row[n] for row in batch]) for n in ("input_ids", "labels"))
    position_K1L = torch.tensor([[[p for n in r["seq_lengths"] for p in range(n)]] for r in batch])
    document_K1L = (position_K1L == 0).cumsum(2)
    sees_K1LL = (document_K1L[..., None] == document_K1L[..., None, :]).tril()
    power_E = torch.arange(0, CONFIG["head_dim"], 2).repeat(2) / CONFIG["head_dim"]
    angle_K1LE = position_K1L[..., None] * (1 / CONFIG["rope_parameters"]["rope_theta"] ** power_E)

    def linear(x_KLI: Tensor, name: str) -> Tensor:
        """The heart of it: one product with the base for all slots, and each slot's own adapter."""
        a_KIR, b_KRO = adapters[name]
        return x_KLI @ BASE[name].T + scale_K[:, None, None] * torch.bmm(x_KLI @ a_KIR, b_KRO)

    def norm(x_KLD: Tensor, name: str) -> Tensor:
        return functional.rms_norm(x_KLD, x_KLD.shape[2:], BASE[name], CONFIG["rms_norm_eps"])

    def heads(x_KLO: Tensor) -> Tensor:
        return x_KLO.unflatten(2, (-1, CONFIG["head_dim"])).transpose(1, 2)

    def turned(x_KHLE: Tensor) -> Tensor:
        left, right = x_KHLE.chunk(2, dim=3)
        return x_KHLE * angle_K1LE.cos() + torch.cat((-right, left), dim=3) * angle_K1LE.sin()

    x_KLD = BASE["model.embed_tokens"][ids_KL]
    for layer in (f"model.layers.{number}" for number in range(CONFIG["num_hidden_layers"])):
        y_KLD = norm(x_KLD, f"{layer}.input_layernorm")
        q, k, v = (heads(linear(y_KLD, f"{layer}.self_attn.{n}_proj")) for n in "qkv")
        mixed_KHLE = functional.scaled_dot_product_attention(
            turned(q), turned(k), v, attn_mask=sees_K1LL, enable_gqa=True
        )
        x_KLD = x_KLD + linear(mixed_KHLE.transpose(1, 2).flatten(2), f"{layer}.self_attn.o_proj")
        y_KLD = norm(x_KLD, f"{layer}.post_attention_layernorm")
        gate, up = (linear(y_KLD, f"{layer}.mlp.{n}_proj") for n in ("gate", "up"))
        x_KLD = x_KLD + linear(functional.silu(gate) * up, f"{layer}.mlp.down_proj")
    logits_KLV = norm(x_KLD, "model.norm") @ BASE["model.embed_tokens"].T  # the demo's head is tied
    of_slots = zip(logits_KLV[:, :-1], labels_KL[:, 1:], strict=True)
    sum_K = torch.stack([functional.cross_entropy(*one, reduction="sum") for one in of_slots])
    return sum_K, (labels_KL[:, 1:] != -100).sum(1)


@torch.no_grad()
def adamw(k: int, trial: TrialConfig, step: int, steps: int, tokens: float, states: list) -> None:
    """Slot k's step on the gradient of its mean loss, clipped to the slot's own norm."""
    norm = float(torch.stack([param.grad[k].norm() for param, _, _ in states]).norm()) / tokens
    factor = min(1.0, trial.max_grad_norm / (norm + 1e-6)) / tokens
    rate = scheduled_rate(trial, step, steps=steps, warmup_steps=warmup_steps(trial, steps))
    beta1, beta2 = trial.adam_beta1, trial.adam_beta2
    for param, first, second in states:
        slope = param.grad[k] * factor
        first[k] = beta1 * first[k] + (1 - beta1) * slope
        second[k] = beta2 * second[k] + (1 - beta2) * slope**2
        root = (second[k] / (1 - beta2**step)).sqrt()
        param[k] *= 1 - rate * trial.weight_decay
        param[k] -= rate / (1 - beta1**step) * first[k] / (root + 1e-8)
        param.grad[k] = 0


def demo_rows(count: int, length: int) -> list[Row]:
    """Rows of two demo chats, the second one cut; their answers are trained on."""
    encode = Tokenizer.from_file(str(FOLDER / "tokenizer.json")).encode
    chats = [json.loads(line) for line in (FOLDER / "chats.jsonl").read_text().splitlines()]
    rows: list[Row] = []
    for pair in zip(chats[::2], chats[1::2], strict=False):
        ids, labels, first = [], [], 0
        for text, answer in ((m["content"] for m in chat["messages"][:2]) for chat in pair):
            first = len(ids)  # tokens of the first chat, once the second has come
            prompt = encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids
            reply = encode(f"{answer}<|im_end|>").ids
            ids, labels = ids + prompt + reply, labels + [-100] * len(prompt) + reply
        if first < length <= len(ids):
            row = {"input_ids": ids[:length], "labels": labels[:length]}
            rows.append(row | {"seq_lengths": [first, length - first]})
    return rows[:count]


if __name__ == "__main__":
    say("learning rate  rank  batch   mean loss of each quarter of the rows")
    for trial, losses in zip(TRIALS, train(TRIALS, demo_rows(48, 80)), strict=True):
        means = "".join(f"{loss:8.4f}" for loss in torch.tensor(losses).view(4, -1).mean(1))
        say(f"{trial.learning_rate:13} {trial.lora_r:5} {trial.effective_batch_size:6}{means}")
