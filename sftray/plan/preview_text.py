"""A plan as text for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftray.config.points import point_text
from sftray.data.packs.manifest import Overlap, reasons_text
from sftray.data.packs.packing import padding_text
from sftray.plan.memory import memory_text


def plan_text(plan: dict[str, Any]) -> str:
    """The plan for a person to read."""
    data, exact = plan["data"], plan["exact"]
    lines = [
        f"sweep {plan['sweep']}: {plan['trials']} trials{_confirm_text(plan['confirm'])}",
        f"trainer: {plan['trainer']} ({plan['why_trainer']})",
        *([_bank_text(plan["bank"])] if plan["bank"] else []),
        *([_memory_text(plan["memory"])] if plan["memory"] else []),
        f"on other GPUs: {'; '.join(plan['gpus'])}",
        f"data ({'exact, from packs' if exact else _sample_text(plan['sample'])}):",
    ]
    for split in ("train", "eval"):
        counts = data[split]
        lines.append(
            f"  {split:<6}{counts['conversations']:>9,} conversations {counts['rows']:>8,} rows "
            f"{counts['tokens']:>12,} tokens {counts['supervised_tokens']:>12,} supervised"
        )
    lines += [
        *dropped_text(plan["dropped"]),
        *([overlap_text(plan["overlap"])] if plan["overlap"] else []),
        padding_text(plan["padding"], plan["config"]["data"]["max_length"]),
        "trials:",
    ]
    for shape in plan["shapes"]:
        lines.append(
            f"  batch {shape['effective_batch_size']:>4} = {shape['micro_batch_size']} micro × "
            f"{shape['accumulation']} accumulation × {shape['num_workers']} workers, "
            f"{shape['num_train_epochs']:g} epochs: {shape['steps']:,} steps "
            f"({shape['warmup_steps']} warm-up), {shape['tokens']:,} tokens, "
            f"{shape['rows_dropped']} rows dropped, judged at {_rung_rows(shape)}"
        )
    if plan["first"]:
        shown = "; ".join(point_text(point) for point in plan["first"])
        lines.append(f"first: {shown} (published as good for bases of this size)")
    if plan["rungs"]:
        rungs = ", ".join(f"{rows:,}" for rows in plan["rungs"])
        lines.append(f"rungs: after {rungs} rows {_judgement(plan)}")
    lines += [
        f"tokens: {plan['tokens']['least']:,} (all stopped at the first rung) to "
        f"{plan['tokens']['most']:,} (none stopped)",
        *_budgets_text(plan["budgets"]),
        _disk_text(plan["disk"]),
        *(f"warning: {warning}" for warning in plan["warnings"]),
    ]
    return "\n".join(lines)


def _sample_text(sample: dict[str, int]) -> str:
    if sample["sampled"] >= sample["read"]:
        return f"estimated from its {sample['read']:,} rows"
    return f"estimated from {sample['sampled']:,} of {sample['read']:,} rows"


def listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _confirm_text(confirm: dict[str, int]) -> str:
    if not confirm["top"]:
        return "; the best is not confirmed with other seeds (confirm_top=3 does)"
    return (
        f", then the best {confirm['top']} points {confirm['seeds']} times again with new seeds, "
        "to the end"
    )


def _judgement(plan: dict[str, Any]) -> str:
    """What happens at a rung, and who is compared with whom."""
    eta = plan["reduction_factor"]
    alike = "all have seen the same rows"
    if plan["scheduler"] == "none":
        return f"all are evaluated, and none is stopped; {alike}"
    return f"the best 1/{eta} continue, of the trials with the same number of epochs: there {alike}"


def _bank_text(bank: dict[str, Any]) -> str:
    base = "dequantised once" if bank["resident"] else "dequantised in every pass"
    again = ", activation checkpointing" if bank["activation_checkpointing"] else ""
    return (
        f"bank: {bank['slots']} slots × {bank['micro_batch_size']} rows, ranks up to "
        f"{bank['lora_r']}, base {base}{again}"
    )


def _budgets_text(budgets: dict[str, float | None]) -> list[str]:
    given = [f"{name} {value:g}" for name, value in budgets.items() if value is not None]
    if not given:
        return []
    return [
        f"budget: {', '.join(given)}; spent, the sweep ends with what it has, to be gone on with"
    ]


def _disk_text(disk: dict[str, float | None]) -> str:
    parts = " + ".join(
        f"{name} {(disk[name] or 0.0) / 1e9:.2f}" for name in ("packs", "checkpoints", "bundle")
    )
    free = "" if disk["free"] is None else f" of {disk['free'] / 1e9:,.0f} free"
    return f"disk: about {(disk['total'] or 0.0) / 1e9:.2f} GB{free} ({parts})"


def _memory_text(memory: dict[str, Any]) -> str:
    total = f"{memory['total']:.1f} of {memory['gpu']:.0f} GiB"
    return f"memory: {total} a GPU ({memory_text(memory)})"


def _rung_rows(shape: dict[str, Any]) -> str:
    rows = [f"{rung['rows']:,}" for rung in shape["rungs"]]
    return f"{', '.join(rows)} rows" if rows else "its end"


def dropped_text(dropped: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"  {split}: {sum(facts['reasons'].values()):,} of {facts['rows']:,} rows dropped "
        f"({reasons_text(facts['reasons'])})"
        for split, facts in dropped.items()
        if facts["reasons"]
    ]


def overlap_text(counts: Mapping[str, int]) -> str:
    return Overlap(**counts).text()
