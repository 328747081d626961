"""A plan as text for a person."""

from __future__ import annotations

from collections.abc import Mapping

from sftray.config import SweepConfig
from sftray.config.points import point_text, short
from sftray.config.sweep_config import BUDGETS
from sftray.config.trainings import LEAST_KEPT, expected_trainings
from sftray.data.packs.manifest import drawn_text, overlap_lines, share_text
from sftray.data.packs.packing import padding_text
from sftray.data.packs.packs import Packs
from sftray.data.packs.readings import drop_table, dropped_text, mask_text, notes
from sftray.data.source.eval_split import apart_text, no_test_set
from sftray.metrics import answer_tokens
from sftray.plan.bank_settings import BankSettings
from sftray.plan.disk import Disk
from sftray.plan.preview import NO_FIT, Preview
from sftray.plan.trial_shape import TrialShape


def plan_text(plan: Preview) -> str:
    """The plan for a person to read."""
    least, most = plan.tokens()
    lines = [
        f"sweep {plan.sweep.name}: {plan.sweep.total_trials} trials{_confirm_text(plan.sweep)}",
        f"trainer: {plan.trainer} ({plan.why_trainer})",
        *([_bank_text(plan.bank)] if plan.bank else []),
        *([f"precision: {plan.precision}"] if plan.precision else []),
        *([f"experts: {plan.experts}"] if plan.experts else []),
        *_memory_text(plan),
        *_other_gpus_text(plan.gpus),
        *_data_text(plan),
        "trials:",
        *(_shape_text(shape) for shape in plan.shapes),
    ]
    if plan.first:
        points = "; ".join(point_text(point) for point in plan.first)
        lines.append(f"first: {points} (published as good for bases of this size)")
    if plan.rungs:
        lines.append(f"rungs: after {_rungs_text(plan)} {_judgement(plan.sweep)}")
    lines += [
        f"tokens: {least:,} (all stopped at the first rung) to {most:,} (none stopped)"
        f"{_trainings_text(plan)}",
        time_text(plan),
        *_metric_text(plan),
        *_budgets_text(plan.sweep),
        _disk_text(plan.disk),
        *(f"warning: {warning}" for warning in plan.warnings),
        *(f"error: {refusal}: the sweep would not start" for refusal in plan.refusals),
    ]
    return "\n".join(lines)


def _confirm_text(sweep: SweepConfig) -> str:
    top, seeds = sweep.confirm_top, sweep.confirm_seeds
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
    if plan.memory is None or plan.gpu_memory is None:
        return []
    total = f"{plan.memory.total / 2**30:.1f} of {plan.gpu_memory / 2**30:.0f} GiB"
    return [f"memory: {total} a GPU ({plan.memory})"]


def _other_gpus_text(gpus: Mapping[str, str]) -> list[str]:
    """How trials would run on other GPUs, those together on which they would run alike; nothing
    where that is all of them."""
    names: dict[str, list[str]] = {}
    for name, how in gpus.items():
        names.setdefault(how, []).append(name)
    if len(names) == 1 and NO_FIT not in names:
        return []
    together = (f"{', '.join(of)} {how}" for how, of in names.items())
    return [f"on other GPUs: {'; '.join(together)}"]


def _data_text(plan: Preview) -> list[str]:
    lines = [f"data ({_origin_text(plan)}):"]
    splits = plan.manifest["splits"]
    for split, counts in splits.items():
        lines.append(
            f"  {split:<6}{counts['conversations']:>9,} conversations {counts['rows']:>8,} rows "
            f"{counts['tokens']:>12,} tokens {counts['supervised_tokens']:>12,} supervised"
        )
    lines += _drawn_text(plan)
    for split, facts in splits.items():
        if dropped := dropped_text(facts):
            lines += [f"  {split}: {dropped}", *drop_table(facts, facts["dropped"], first="  ")]
        lines += [f"  {split}: {text}" for text in notes(facts, plan.sweep.data.thinking)]
    if mask := mask_text(plan.manifest["mask_beside_trl"]):
        lines.append(mask)
    if "test" not in splits:
        conversations = sum(one["conversations"] for one in splits.values())
        lines += filter(None, [no_test_set(conversations, plan.sweep.data.test_fraction)])
    lines += overlap_lines(plan.manifest["overlaps"])
    lines += filter(None, [apart_text(plan.manifest["apart"])])
    return [*lines, padding_text(splits["train"], plan.sweep.data.max_length)]


def _drawn_text(plan: Preview) -> list[str]:
    """What is drawn of several sources; where a share is searched, at its least and greatest."""
    lines = []
    for name, (low, high) in plan.share_ends().items():
        pairs = zip(plan.drawn(low), plan.drawn(high), strict=True)
        each = "; ".join(share_text(*pair) for pair in pairs)
        lines.append(f"  {name} {short(low[name])} … {short(high[name])}, an epoch: {each}")
    return lines or [f"  train: {drawn_text(one)}" for one in plan.drawn({})]


def _origin_text(plan: Preview) -> str:
    if isinstance(plan.data, Packs):
        return "exact, from packs"
    sampled, read = plan.data["sampled"], plan.data["read"]
    if sampled >= read:
        return f"estimated from its {read:,} rows"
    return f"estimated from {sampled:,} of {read:,} rows"


def _shape_text(shape: TrialShape) -> str:
    trial, plan = shape.trial, shape.plan
    rungs = ", ".join(f"{rung.rows:,}" for rung in plan.rungs)
    return (
        f"  batch {trial.effective_batch_size:>4} = {plan.micro_batch_size} micro × "
        f"{plan.accumulation} accumulation × {trial.num_workers} workers, "
        f"{trial.num_train_epochs:g} epochs: {plan.steps:,} steps ({plan.warmup_steps} "
        f"warm-up), {shape.tokens:,} tokens, {plan.rows_dropped} rows dropped, judged at "
        + (f"{rungs} rows" if rungs else "its end")
    )


def time_text(plan: Preview) -> str:
    """Minutes and money; that they are not known, where they are not."""
    if plan.speed is None or plan.duration is None:
        where = plan.gpu_name or ("these GPUs" if plan.gpu_memory else "this CPU")
        return f"time: not known on {where}; --plan --probe measures it here in ten seconds"
    number = plan.devices.number * plan.sweep.trial.num_workers
    where = f" on {number} × {plan.gpu_name}" if plan.gpu_name else ""
    rate = f"{plan.speed.slowest:,.0f} to {plan.speed.fastest:,.0f} positions a second"
    text = f"time: {plan.duration.text()}{where} ({rate}, {plan.speed.source})"
    if plan.cost:
        price = plan.sweep.price_per_gpu_hour
        text += f"\ncost: {plan.cost[0]:,.2f} to {plan.cost[1]:,.2f} at {price:g} a GPU-hour"
    return text


def _metric_text(plan: Preview) -> list[str]:
    """What the metric costs: answers, and the tokens that are generated for them at most."""
    sweep, prompts = plan.sweep, plan.manifest["sample_prompts"][: plan.sweep.num_metric_prompts]
    if sweep.metric is None or not prompts:
        return []
    rungs = max(map(len, plan.rungs.values()), default=0) if sweep.metric_at == "rungs" else 0
    answers = sweep.total_trials * (rungs + 1) * len(prompts)
    most = answer_tokens(one["reference_tokens"] for one in prompts)
    where = f"{rungs} rungs and the end" if rungs else "the end"
    return [
        f"metric: {sweep.metric} of {len(prompts)} answers of at most {most} tokens at {where}: at "
        f"most {answers:,} answers, {answers * most:,} tokens generated"
    ]


def _trainings_text(plan: Preview) -> str:
    """What the search is expected to cost, in full trainings."""
    sweep = plan.sweep
    if not sweep.rungs or sweep.scheduler == "none":
        return ""
    shapes = [
        [((one.plan.bracket, rung.rows), rung.step / one.plan.steps) for rung in one.plan.rungs]
        for one in plan.shapes
    ]
    expected = expected_trainings(sweep.total_trials, shapes, sweep.reduction_factor)
    return f"; the search costs about {expected:.1f} full trainings"


def _rungs_text(plan: Preview) -> str:
    """The rows of each rung, by epochs where those differ."""
    of = [
        ", ".join(f"{one:,}" for one in rows)
        + " rows"
        + (f" of {epochs:g} epochs" if len(plan.rungs) > 1 else "")
        for epochs, rows in plan.rungs.items()
    ]
    return "; ".join(of)


def _judgement(sweep: SweepConfig) -> str:
    """What happens at a rung, and who is compared with whom."""
    alike = "all have seen the same rows"
    if sweep.scheduler == "none":
        return f"all are evaluated, and none is stopped; {alike}"
    return (
        f"the best 1/{sweep.reduction_factor} continue, and never fewer than {LEAST_KEPT}, of the "
        f"trials with the same number of epochs: there {alike}. A trial is judged only after "
        f"{sweep.grace_steps} steps at its full rate"
    )


def _budgets_text(sweep: SweepConfig) -> list[str]:
    budgets = {name: getattr(sweep, name) for name in BUDGETS}
    given = [name for name, value in budgets.items() if value is not None]
    if given in ([], ["price_per_gpu_hour"]):  # a price limits nothing
        return []
    limits = [f"{name} {budgets[name]:g}" for name in given]
    return [
        f"budget: {', '.join(limits)}; when one is used up, the sweep ends with what it has "
        "and can be continued"
    ]


def _disk_text(disk: Disk) -> str:
    free = "" if disk.free is None else f" of {disk.free / 1e9:,.0f} free"
    return (
        f"disk: about {disk.total / 1e9:.2f} GB{free} (packs {disk.packs / 1e9:.2f} + checkpoints "
        f"{disk.checkpoints / 1e9:.2f} + bundle {disk.bundle / 1e9:.2f})"
    )
