"""README.md of the winner's folder: a model card that the Hub reads, and `repeat.py` beside it.

Promise: made from the bundle's sweep.json alone, so it can be written again without the sweep. The
license is the user's to add. `repeat.py` trains exactly the winner's point.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace

from sftray.config import DataConfig, SweepConfig
from sftray.config.points import short
from sftray.config.shares import at_shares
from sftray.config.sweep_file import as_file
from sftray.data.chat.named_templates import named_template
from sftray.data.source.sources import names_files
from sftray.results.confirmation import Confirmed, half_width
from sftray.results.loss_by_kind import NAMES, end_text
from sftray.storage.paths import is_uri
from sftray.winner.adapter_format import vllm_command
from sftray.winner.bundle import REPEAT, BundleFacts
from sftray.winner.measured import measured_text, test_set_text

HERE = "path/of/this/folder"
SHOWN_VERSIONS = ("sftray", "torch", "transformers", "peft", "trl", "bitsandbytes")


def model_card(facts: BundleFacts) -> str:
    """The card of the adapter, or of the model whose weights were all trained."""
    config = facts.config
    if facts.is_whole:
        about = f"`{config.model}` with all weights trained, in float32: trial\n"
    else:
        about = f"LoRA adapter for `{config.model}` (base held as {config.base_precision}), trial\n"
    return _card(
        facts,
        "transformers" if facts.is_whole else "peft",
        f"{facts.sweep}: the best {facts.kind}",
        f"{about}`{facts.trial}` of the sweep `{facts.sweep}`, at optimizer step {facts.step}.",
        _how_to_load(facts),
        "## How to repeat it\n\n"
        "With sftray installed; with `--plan` it only shows steps, memory and cost:\n\n"
        f"```\npython {REPEAT}\n```",
    )


def merged_card(facts: BundleFacts, dtype: str, losses: str) -> str:
    """The card of the model with the adapter merged in. `losses`: what merging did to them."""
    return _card(
        facts,
        "transformers",
        f"{facts.sweep}: the best adapter, merged",
        f"`{facts.config.model}` with a LoRA adapter merged into its unquantised weights, in "
        f"{dtype}: trial\n`{facts.trial}` of the sweep `{facts.sweep}`, at optimizer step "
        f"{facts.step}.\n{losses}",
        f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({HERE!r}, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained({HERE!r})
```""",
    )


def repeat_file(facts: BundleFacts) -> str:
    """A sweep file of one trial: the winner's point, on the same data, judged at the same rows."""
    sweep = SweepConfig(
        name=f"{facts.sweep}-{facts.trial}-again",
        data=_from_anywhere(facts.data),
        trial=facts.config,
        points=({},),
        scheduler="none",
        rungs=facts.rungs,
        grace_steps=facts.grace_steps,
        evals_per_trial=facts.evals_per_trial,
    )
    says = (
        f"Train the best point of the sweep {facts.sweep!r} again (its trial {facts.trial}): "
        f"python {REPEAT}\n\nEval loss there: {facts.eval_loss:.6f} at step {facts.step}; "
        f"packs {facts.packs_key}, whose key changes with data, tokenizer and library versions."
    )
    return as_file(sweep, says, {"points": "this one point; it is trained to its end"})


def _card(facts: BundleFacts, library: str, title: str, about: str, *sections: str) -> str:
    parts = [
        f"{_front_matter(facts, library)}\n# {title}",
        about,
        f"{_losses(facts)}\n{_scored(facts)}{_by_kind(facts)}{_point(facts)}\n{_trained_on(facts)}",
        *sections,
        *([_board(facts)] if facts.data.has_eval_loss else []),
    ]
    return "\n\n".join(parts) + "\n"


def _how_to_load(facts: BundleFacts) -> str:
    vllm = ""
    if not facts.is_whole:
        command = vllm_command(".", facts.config.model, facts.config.lora_r, facts.sweep)
        vllm = f"With vLLM, from this folder:\n\n```\n{command}\n```\n\n"
    return f"""## How to load it

```python
{facts.loading_code(HERE)}

from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({HERE!r})
```

{vllm}Answers end with token {facts.end_of_turn}; where the base itself stops at another one, ask
with `"stop_token_ids": [{facts.end_of_turn}]`.

{_how_it_was_asked(facts)}"""


def _how_it_was_asked(facts: BundleFacts) -> str:
    lines = [
        "Ask with this folder's chat template, which wrote the training data. Answers in samples\n"
        "and metric are greedy: settings of the base's `generation_config.json` (temperature,\n"
        "repetition_penalty, …) are not applied. vLLM applies them unless it is started with\n"
        "`--generation-config vllm`."
    ]
    if facts.data.enable_thinking is not None:
        lines.append(
            f"The template was given `enable_thinking={facts.data.enable_thinking}`, which is its "
            "default in this folder."
        )
    template = str(facts.chat_format["own_template"])
    if "strftime_now" in template or "date_string" in template:
        lines.append(f"It prints the day: in training that was {facts.data.template_date}.")
    return "\n".join(lines)


def _from_anywhere(data: DataConfig) -> DataConfig:
    """Paths of this machine as they are seen from any folder."""
    changes: dict[str, object] = {}
    if data.sources:
        changes["sources"] = [(_absolute(path), weight) for path, weight in data.sources]
    for name in ("source", "eval_source", "test_source", "chat_template"):
        value = getattr(data, name)
        is_path = named_template(value or "") is None if name == "chat_template" else None
        if value and is_path is None:
            changes[name] = _absolute(value)
        elif value and is_path and not is_uri(value):
            changes[name] = os.path.abspath(os.path.expanduser(value))
    return replace(data, **changes)  # type: ignore[arg-type]


def _absolute(source: str) -> str:
    is_local = not is_uri(source) and names_files(source)
    return os.path.abspath(os.path.expanduser(source)) if is_local else source


def _front_matter(facts: BundleFacts, library: str) -> str:
    """What the Hub shows of a model; text as JSON, which is YAML. A base or dataset that is a local
    path is no id there and left out."""
    model = facts.config.model
    sources = [one.path for one in facts.data.mixture]
    lines = ["---"]
    if not os.path.isdir(model):
        lines.append(f"base_model: {json.dumps(model)}")
    lines += [f"library_name: {library}", "pipeline_tag: text-generation"]
    what = "full-fine-tuning" if facts.is_whole else "lora"
    lines += ["tags:", *(f"- {tag}" for tag in (what, "sft", "sftray"))]
    named = [one for one in sources if not names_files(one) and not os.path.isdir(one)]
    if named:
        lines += ["datasets:", *(f"- {json.dumps(one)}" for one in named)]
    lines += ["# license: yours to add; those of base and dataset still hold", "---", ""]
    return "\n".join(lines)


def _losses(facts: BundleFacts) -> str:
    if facts.data.has_eval_loss:
        return f"{_eval_losses(facts)}{_searched(facts)}"
    tested = f"{test_set_text(facts.test, f'this {facts.kind}', 0)}\n\n" if facts.test else ""
    return (
        f"{tested}There is no eval loss: what it would be of was trained on, too. On that the loss "
        f"is\n{facts.eval_loss:.4f}, and {facts.reloaded_eval_loss:.4f} reloaded with "
        f"{facts.loader}.\n{_searched(facts)}"
    )


def _searched(facts: BundleFacts) -> str:
    """What the search has measured of the point."""
    if (one := facts.searched) is None:
        return ""
    return (
        f"\nThe point is the best of the sweep `{one.sweep}`, which trained it for {one.epochs:g} "
        f"epochs on\nwhat it did not hold out. It says: {one.says}.\n\n"
        "| in the search | eval loss (nats a supervised token) |\n|---|---|\n"
        f"| untrained base | {one.base_eval_loss:.4f} |\n"
        f"| the point | {one.eval_loss:.4f} ({one.eval_loss - one.base_eval_loss:+.4f}) |\n"
    )


def _eval_losses(facts: BundleFacts) -> str:
    base, own, kind = facts.base_eval_loss, facts.eval_loss, facts.kind
    counts = facts.data_counts.values()
    conversations = sum(one["conversations"] for one in counts)
    return (
        f"The sweep says: {facts.says}.\n\n"
        f"{test_set_text(facts.test, f'this {kind}', conversations)}\n\n"
        "| | eval loss (nats a supervised token) |\n|---|---|\n"
        f"| untrained base | {base:.4f} |\n"
        f"| this {kind} | {own:.4f} ({own - base:+.4f}) |\n"
        f"| this {kind}, reloaded with {facts.loader} | {facts.reloaded_eval_loss:.4f} |\n"
        f"{_confirmed_row(facts.confirmed)}"
    )


def _confirmed_row(confirmed: Confirmed | None) -> str:
    if confirmed is None or confirmed["mean"] is None:
        return ""
    half, seeds = half_width(confirmed), len(confirmed["eval_losses"])
    mean = f"{confirmed['mean']:.4f}" + ("" if half is None else f" ± {half:.4f}")
    other = "" if confirmed["trial"] in confirmed["runs"] else "other "
    return f"| its point, mean of {seeds} {other}seeds (95 %) | {mean} |\n"


def _scored(facts: BundleFacts) -> str:
    """What the metric says."""
    return f"{measured_text(facts.metric, 'this ' + facts.kind)}.\n\n" if facts.metric else ""


def _by_kind(facts: BundleFacts) -> str:
    """The losses apart by what their tokens are of."""
    if not (facts.by_kind and facts.data.has_eval_loss):
        return ""
    rows = "".join(
        f"| {NAMES[one['kind']]} | {one['tokens']:,} | {one['best']:.4f} | "
        f"{'' if one['base'] is None else format(one['base'], '.4f')} |\n"
        for one in facts.by_kind
    )
    head = f"| eval loss of | tokens | this {facts.kind} | untrained base |\n|---|---|---|---|\n"
    return f"{head}{rows}\n{end_text(facts.by_kind)}\n\n"


def _point(facts: BundleFacts) -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.point.items())
    return f"| hyper-parameter | value |\n|---|---|\n{rows}"


def _trained_on(facts: BundleFacts) -> str:
    versions = ", ".join(f"{name} {facts.versions[name]}" for name in SHOWN_VERSIONS)
    energy = ""
    if facts.energy_wh is not None:
        energy = f" That took {facts.energy_wh:,.3g} Wh, measured by the GPU's own counter."
    lines = [
        f"Trained on {facts.tokens:,} tokens of {_sources(facts)}; only the "
        f"assistant's tokens count in the loss.{energy}",
        f"Data fingerprint `{facts.packs_key}` (content, tokenizer, template and options):",
        "",
        "| | conversations | rows | tokens | trained |",
        "|---|---|---|---|---|",
    ]
    for split, counts in facts.data_counts.items():
        values = (counts[n] for n in ("conversations", "rows", "tokens", "supervised_tokens"))
        lines.append(f"| {split} | " + " | ".join(f"{value:,}" for value in values) + " |")
    lines += ["", f"Made with {versions}. The resolved configuration is in `sweep.json`."]
    return "\n".join(lines)


def _sources(facts: BundleFacts) -> str:
    """The sources, with their shares where there are several."""
    mixture = at_shares(facts.data.mixture, facts.config.mixture)
    return " and ".join(
        f"`{one.path}`" + (f" ({100 * one.share:.3g} % of the rows)" if len(mixture) > 1 else "")
        for one in mixture
    )


def _board(facts: BundleFacts) -> str:
    axes = list(dict.fromkeys(name for row in facts.leaderboard for name in row.point))
    head = ["trial", *axes, "eval loss", "tokens", "outcome"]
    lines = [
        f"## The best of {facts.trials} trials",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for row in facts.leaderboard:
        loss = "" if row.eval_loss is None else f"{row.eval_loss:.4f}"
        values = [short(row.point.get(name)) for name in axes]
        cells = [row.trial, *values, loss, f"{row.tokens:,}", row.outcome or ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
