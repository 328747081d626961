"""README.md of the winner's folder: a model card that the Hub reads, and `repeat.py` beside it.

Promise: made from the bundle's sweep.json alone, so it can be written again without the sweep. The
license is the user's to add. `repeat.py` trains exactly the winner's point.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sftray.config import DataConfig, SweepConfig, TrialConfig
from sftray.config.points import short
from sftray.config.sweep_file import as_file
from sftray.data.source.sources import names_files
from sftray.storage.paths import is_uri
from sftray.winner.adapter_format import max_lora_rank
from sftray.winner.loading_code import is_whole, kind_of, loaded_with, loading_code

REPEAT = "repeat.py"
CARD = "README.md"
SHOWN_VERSIONS = ("sftray", "torch", "transformers", "peft", "trl", "bitsandbytes")


def model_card(facts: Mapping[str, Any]) -> str:
    """The card of the adapter, or of the model whose weights were all trained."""
    if is_whole(facts):
        return _whole_card(facts)
    config = facts["config"]
    return f"""{_front_matter(facts, "peft")}
# {facts["sweep"]}: the best adapter

LoRA adapter for `{config["model"]}` (base held as {config["base_precision"]}), trial
`{facts["trial"]}` of the sweep `{facts["sweep"]}`, taken at optimizer step {facts["step"]}.

{_losses(facts)}
{_point(facts)}
{_trained_on(facts)}

## How to load it

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("path/of/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```

With vLLM, from this folder:

```
vllm serve {config["model"]} \\
    --enable-lora --max-lora-rank {max_lora_rank(config["lora_r"])} \\
    --lora-modules {facts["sweep"]}=. --chat-template chat_template.jinja
```

Answers end with token {facts["end_of_turn"]}; where the base itself stops at another one, ask
with `"stop_token_ids": [{facts["end_of_turn"]}]`.

{_repeat_section()}
{_board(facts)}
"""


def _whole_card(facts: Mapping[str, Any]) -> str:
    config = facts["config"]
    return f"""{_front_matter(facts, "transformers")}
# {facts["sweep"]}: the best model

`{config["model"]}` with all weights trained, in float32: trial `{facts["trial"]}` of the sweep
`{facts["sweep"]}`, taken at optimizer step {facts["step"]}.

{_losses(facts)}
{_point(facts)}
{_trained_on(facts)}

## How to load it

```python
{loading_code(facts, "path/of/this/folder")}
```

Answers end with token {facts["end_of_turn"]}; where the base itself stops at another one, ask
with `"stop_token_ids": [{facts["end_of_turn"]}]`.

{_repeat_section()}
{_board(facts)}
"""


def merged_card(facts: Mapping[str, Any], dtype: str, said: str) -> str:
    """The card of the model with the adapter merged in. `said`: what merging did to the loss."""
    config = facts["config"]
    return f"""{_front_matter(facts, "transformers")}
# {facts["sweep"]}: the best adapter, merged

`{config["model"]}` with a LoRA adapter merged into its unquantised weights, in {dtype}: trial
`{facts["trial"]}` of the sweep `{facts["sweep"]}`, at optimizer step {facts["step"]}.
{said}

{_losses(facts)}
{_point(facts)}
{_trained_on(facts)}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/of/this/folder", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```

{_board(facts)}
"""


def repeat_file(facts: Mapping[str, Any]) -> str:
    """A sweep file of one trial: the winner's point, on the same data, judged at the same rows."""
    data, trial = DataConfig(**facts["data"]), TrialConfig(**facts["config"])
    sweep = SweepConfig(
        name=f"{facts['sweep']}-{facts['trial']}-again",
        data=_from_anywhere(data),
        trial=trial,
        points=({},),
        scheduler="none",
        grace_rows=facts["first_rung"],
        evals_per_trial=facts["evals_per_trial"],
    )
    says = (
        f"Train the best point of the sweep {facts['sweep']!r} again (its trial {facts['trial']}): "
        f"python {REPEAT}\n\nEval loss there: {facts['eval_loss']:.6f} at step {facts['step']}; "
        f"packs {facts['packs_key']}, whose key changes with data, tokenizer and library versions."
    )
    return as_file(sweep, says, {"points": "this one point; it is trained to its end"})


def _from_anywhere(data: DataConfig) -> DataConfig:
    """Paths of this machine as they are seen from any folder."""
    changes = {}
    for name in ("source", "eval_source", "chat_template"):
        value = getattr(data, name)
        if value and not is_uri(value) and (name == "chat_template" or names_files(value)):
            changes[name] = os.path.abspath(os.path.expanduser(value))
    return replace(data, **changes)


def _front_matter(facts: Mapping[str, Any], library: str) -> str:
    """What the Hub shows of a model; text as JSON, which is YAML. A base or dataset that is a local
    path is no id there and left out."""
    model, source = facts["config"]["model"], facts["data"]["source"]
    lines = ["---"]
    if not os.path.isdir(model):
        lines.append(f"base_model: {json.dumps(model)}")
    lines += [f"library_name: {library}", "pipeline_tag: text-generation"]
    what = "full-fine-tuning" if is_whole(facts) else "lora"
    lines += ["tags:", *(f"- {tag}" for tag in (what, "sft", "sftray"))]
    if not names_files(source) and not os.path.isdir(source):
        lines += ["datasets:", f"- {json.dumps(source)}"]
    lines += [
        "# license: yours to add; those of base and dataset still hold",
        "---",
        "",
    ]
    return "\n".join(lines)


def _losses(facts: Mapping[str, Any]) -> str:
    base, own, kind = facts["base_eval_loss"], facts["eval_loss"], kind_of(facts)
    return (
        "| | eval loss (nats a supervised token) |\n|---|---|\n"
        f"| untrained base | {base:.4f} |\n"
        f"| this {kind} | {own:.4f} ({own - base:+.4f}) |\n"
        f"| this {kind}, reloaded with {loaded_with(facts)} | {facts['reloaded_eval_loss']:.4f} |\n"
        f"{_confirmed_row(facts['confirmed'])}"
    )


def _confirmed_row(confirmed: Mapping[str, Any] | None) -> str:
    if confirmed is None:
        return ""
    mean, interval, runs = (confirmed[name] for name in ("mean", "interval", "eval_losses"))
    width = f" ± {interval[1] - mean:.4f}" if interval else ""
    return f"| its point, mean of {len(runs)} other seeds (95 %) | {mean:.4f}{width} |\n"


def _point(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts["point"].items())
    return f"| hyper-parameter | value |\n|---|---|\n{rows}"


def _trained_on(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in SHOWN_VERSIONS)
    lines = [
        f"Trained on {facts['tokens']:,} tokens of `{facts['data']['source']}`; only the "
        "assistant's tokens count in the loss.",
        f"Data fingerprint `{facts['packs_key']}` (content, tokenizer, template and options):",
        "",
        "| | conversations | rows | tokens | trained |",
        "|---|---|---|---|---|",
    ]
    for split, counts in facts["data_counts"].items():
        values = (counts[n] for n in ("conversations", "rows", "tokens", "supervised_tokens"))
        lines.append(f"| {split} | " + " | ".join(f"{value:,}" for value in values) + " |")
    lines += ["", f"Made with {versions}. The resolved configuration is in `sweep.json`."]
    return "\n".join(lines)


def _repeat_section() -> str:
    return (
        "## How to repeat it\n\n"
        "With sftray installed; with `--plan` it only shows steps, memory and cost:\n"
        f"\n```\npython {REPEAT}\n```\n"
    )


def _board(facts: Mapping[str, Any]) -> str:
    axes = list(dict.fromkeys(name for row in facts["leaderboard"] for name in row["point"]))
    head = ["trial", *axes, "eval loss", "tokens", "outcome"]
    lines = [
        f"## The best of {facts['trials']} trials",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for row in facts["leaderboard"]:
        loss = "" if row["eval_loss"] is None else f"{row['eval_loss']:.4f}"
        values = [short(row["point"].get(name)) for name in axes]
        told = [row["trial"], *values, loss, f"{row['tokens']:,}", row["outcome"] or ""]
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)
