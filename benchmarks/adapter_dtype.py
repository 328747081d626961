"""Why adapters are float32: the same trials with float32 and with bfloat16 adapters, as TRL leaves
those of a quantised base, at learning rates from 1e-6 to 1e-4.

    python benchmarks/adapter_dtype.py --model MODEL --data gsm8k_train.jsonl --out dtype.json
    python benchmarks/adapter_dtype.py --plot docs/adapter_dtype.svg --out dtype.json

A trial is a LoRA adapter of rank 16 on an NF4 base, the same rows in the same order, AdamW, cosine
schedule with 5 % warm-up. Kept are the eval loss before and after, and the share of the entries of
lora_A that training has changed at all. The second command draws what the first has found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from console import argument_parser, say
from peft import get_peft_model
from picture import pyplot, save
from timing import device_name, quiet

from sftray.config import DataConfig, TrialConfig
from sftray.data.packs.packs import Packs
from sftray.data.pipeline import packs_from
from sftray.data.recipe import make_recipe
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import learning_rate, plan_trial
from sftray.trainers.ray_train.fused_lora import fuse_lora, make_resident
from sftray.trial.attention import possible_attentions, use_attention
from sftray.trial.base_model import compute_dtype, load_base
from sftray.trial.collate import collate
from sftray.trial.eval_loss import default_device, packed_eval_loss
from sftray.trial.lora_adapter import init_adapters, lora_config, trained_parameters
from sftray.trial.row_order import row_stream

RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    options = _options()
    if options.plot:
        _plot(json.loads(options.out.read_text(encoding="utf-8")), options.plot)
        return
    quiet()
    device = default_device()
    packs = _packs(options)
    found = []
    say(f"{device_name(device)}\n{'rate':>8} {'adapter':9}{'before':>9}{'after':>9}{'changed':>9}")
    for rate in options.rates:
        trial = TrialConfig(
            options.model,
            learning_rate=rate,
            effective_batch_size=options.batch,
            num_train_epochs=options.epochs,
            lora_r=16,
        )
        for name, dtype in DTYPES.items():
            result = {"learning_rate": rate, "adapter": name, **_train(trial, packs, dtype, device)}
            found.append(result)
            say(
                f"{rate:8.0e} {name:9}{result['before']:9.4f}{result['after']:9.4f}"
                f"{result['changed']:9.1%}"
            )
    facts = {"device": device_name(device), "data": Path(options.data).name, "trials": found}
    options.out.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _train(
    trial: TrialConfig, packs: Packs, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    attention = possible_attentions(trial, device)[0]
    base = load_base(trial, device)
    use_attention(base, attention)
    make_resident(base)
    model = get_peft_model(base, lora_config(trial))
    init_adapters(model, trial.seed)
    for parameter in trained_parameters(model).values():
        parameter.data = parameter.data.to(dtype)
    fuse_lora(model)
    rows = packs.dataset("train").with_format("numpy")
    whole = Execution(trial.effective_batch_size)
    plan = plan_trial(trial, len(rows), ladder=(), evals_per_trial=1, execution=whole)
    order = row_stream(len(rows), plan.rows, trial.seed)
    optimizer = torch.optim.AdamW(
        trained_parameters(model).values(),
        betas=(trial.adam_beta1, trial.adam_beta2),
        weight_decay=trial.weight_decay,
    )
    first = {n: p.detach().clone() for n, p in trained_parameters(model).items() if "lora_A" in n}
    before = packed_eval_loss(model, packs.dataset("eval"), attention, trial)
    size = trial.effective_batch_size
    for step in range(1, plan.steps + 1):
        picked = order[(step - 1) * size : step * size]
        batch = collate([rows[int(index)] for index in picked], attention.layout)
        inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        autocast = compute_dtype(trial, device) == torch.bfloat16
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = model(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained_parameters(model).values(), trial.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(trial, plan, step)
        optimizer.step()
        optimizer.zero_grad()
    now = trained_parameters(model)
    changed = sum(int((now[name] != value).sum()) for name, value in first.items())
    return {
        "steps": plan.steps,
        "before": before,
        "after": packed_eval_loss(model, packs.dataset("eval"), attention, trial),
        "changed": changed / sum(value.numel() for value in first.values()),
    }


def _packs(options: argparse.Namespace) -> Packs:
    import ray

    data = DataConfig(options.data, max_length=1024, num_eval_conversations=200, eval_fraction=0.03)
    ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    packs = packs_from(make_recipe(data, options.model), storage=options.storage)
    ray.shutdown()
    return packs


def _plot(found: dict[str, Any], path: Path) -> None:
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, style in (("float32", "o-"), ("bfloat16", "s--")):
        trials = [trial for trial in found["trials"] if trial["adapter"] == name]
        rates = [trial["learning_rate"] for trial in trials]
        fall = [trial["before"] - trial["after"] for trial in trials]
        left.plot(rates, fall, style, label=f"{name} adapters")
        right.plot(rates, [100 * trial["changed"] for trial in trials], style, label=name)
    left.set(title="fall of the eval loss", ylabel="nats a token", yscale="log")
    right.set(title="entries of lora_A changed at all", ylabel="per cent", ylim=(0, 105))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="learning rate")
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    steps = found["trials"][0]["steps"]
    figure.suptitle(f"{steps} steps on {found['data']}, {found['device']}", fontsize=9)
    save(figure, path)


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", help="folder or Hub id of the base")
    add("--data", help="conversations, a .jsonl file")
    add("--rates", nargs="+", type=float, default=RATES)
    add("--batch", type=int, default=8, help="rows of 1,024 tokens a step")
    add("--epochs", type=float, default=1.0)
    add("--out", type=Path, required=True, help="what was found, a JSON file")
    add("--plot", type=Path, help="draw --out into this .svg instead of training")
    add("--storage", default=f"{tempfile.gettempdir()}/sftray-benchmarks")
    options = parser.parse_args()
    if not options.plot and not (options.model and options.data):
        parser.error("--model and --data: got nothing, must be given unless with --plot")
    return options


if __name__ == "__main__":
    main()
