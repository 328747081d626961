"""A plan as text for a person."""

from __future__ import annotations

from dataclasses import asdict

from sftray.config.points import point_text
from sftray.data.packs.manifest import reasons_text
from sftray.data.packs.packing import padding_text
from sftray.plan.bank_settings import BankSettings
from sftray.plan.memory import memory_text
from sftray.plan.preview import Preview, TrialShape


def plan_text(plan: Preview) -> str:
    """The plan for a person to read."""
    lines = [
        f"sweep {plan.sweep}: {plan.trials} trials{_confirm_text(plan)}",
        f"trainer: {plan.trainer} ({plan.why_trainer})",
        *([_bank_text(plan.bank)] if plan.bank else []),
        *_memory_text(plan),
        f"on other GPUs: {'; '.join(plan.gpus)}",
        *_data_text(plan),
        "trials:",
        *(_shape_text(shape) for shape in plan.shapes),
    ]
    if plan.first:
        points = "; ".join(point_text(point) for point in plan.first)
        lines.append(f"first: {points} (published as good for bases of this size)")
    if plan.rungs:
        rungs = ", ".join(f"{rows:,}" for rows in plan.rungs)
        lines.append(f"rungs: after {rungs} rows {_judgement(plan)}")
    lines += [
        f"tokens: {plan.tokens.least:,} (all stopped at the first rung) to "
        f"{plan.tokens.most:,} (none stopped)",
        *_budgets_text(plan),
        _disk_text(plan),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]
    return "\n".join(lines)


def _confirm_text(plan: Preview) -> str:
    top, seeds = plan.confirm.top, plan.confirm.seeds
    if not top:
        return "; the best is not confirmed with other seeds (confirm_top=3 does)"
    return f", then the best {top} points {seeds} times again with new seeds, to the end"


def _bank_text(bank: BankSettings) -> str:
    base = "dequantised once" if bank.resident else "dequantised in every pass"
    again = ", activation checkpointing" if bank.activation_checkpointing else ""
    return (
        f"bank: {bank.slots} slots × {bank.micro_batch_size} rows, ranks up to {bank.lora_r}, "
        f"base {base}{again}"
    )


def _memory_text(plan: Preview) -> list[str]:
    memory = plan.memory
    if memory is None:
        return []
    total = f"{memory.total:.1f} of {memory.gpu:.0f} GiB"
    return [f"memory: {total} a GPU ({memory_text(asdict(memory))})"]


def _data_text(plan: Preview) -> list[str]:
    lines = [f"data ({_origin_text(plan)}):"]
    for split, counts in plan.data.items():
        lines.append(
            f"  {split:<6}{counts['conversations']:>9,} conversations {counts['rows']:>8,} rows "
            f"{counts['tokens']:>12,} tokens {counts['supervised_tokens']:>12,} supervised"
        )
    for split, drops in plan.dropped.items():
        if drops.reasons:
            lines.append(
                f"  {split}: {sum(drops.reasons.values()):,} of {drops.rows:,} rows dropped "
                f"({reasons_text(drops.reasons)})"
            )
    if plan.overlap:
        lines.append(plan.overlap.text())
    return [*lines, padding_text(plan.padding, plan.config.data.max_length)]


def _origin_text(plan: Preview) -> str:
    if plan.sample is None:
        return "exact, from packs"
    sampled, read = plan.sample.sampled, plan.sample.read
    if sampled >= read:
        return f"estimated from its {read:,} rows"
    return f"estimated from {sampled:,} of {read:,} rows"


def _shape_text(shape: TrialShape) -> str:
    rungs = ", ".join(f"{rung.rows:,}" for rung in shape.rungs)
    return (
        f"  batch {shape.effective_batch_size:>4} = {shape.micro_batch_size} micro × "
        f"{shape.accumulation} accumulation × {shape.num_workers} workers, "
        f"{shape.num_train_epochs:g} epochs: {shape.steps:,} steps ({shape.warmup_steps} "
        f"warm-up), {shape.tokens:,} tokens, {shape.rows_dropped} rows dropped, judged at "
        + (f"{rungs} rows" if rungs else "its end")
    )


def _judgement(plan: Preview) -> str:
    """What happens at a rung, and who is compared with whom."""
    alike = "all have seen the same rows"
    if plan.scheduler == "none":
        return f"all are evaluated, and none is stopped; {alike}"
    return (
        f"the best 1/{plan.reduction_factor} continue, of the trials with the same number of "
        f"epochs: there {alike}"
    )


def _budgets_text(plan: Preview) -> list[str]:
    limits = [f"{name} {value:g}" for name, value in plan.budgets.items() if value is not None]
    if not limits:
        return []
    return [
        f"budget: {', '.join(limits)}; when one is spent, the sweep ends with what it has and can "
        "be continued"
    ]


def _disk_text(plan: Preview) -> str:
    disk = plan.disk
    free = "" if disk.free is None else f" of {disk.free / 1e9:,.0f} free"
    return (
        f"disk: about {disk.total / 1e9:.2f} GB{free} (packs {disk.packs / 1e9:.2f} + checkpoints "
        f"{disk.checkpoints / 1e9:.2f} + bundle {disk.bundle / 1e9:.2f})"
    )
