"""Train the trials that verdicts and warnings are tried on, healthy ones and broken ones, by the
bank's engine on a CPU, and write what their journals say to tests/recorded/alarms.

The base has two layers and 0.8 million parameters, trained here from nothing on 1,000 of the demo's
chats; the trials fine-tune it on others. Half an hour on one core:

python tests/record_alarms.py FOLDER
"""

from __future__ import annotations

import itertools
import json
import lzma
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent / "fakes"))

from bank_models import save_tiny, settings_for
from packs_here import build_packs_here
from reported import into

from sftray.config import DataConfig, TrialConfig
from sftray.config.config_json import to_json
from sftray.data.packs import manifest
from sftray.data.packs.packs import MappedRows, Packs
from sftray.demo import FOLDER
from sftray.plan.effective_batch import Execution
from sftray.plan.trial_plan import plan_trial
from sftray.trainers.bank.engine import Engine
from sftray.trainers.bank.frozen_base import load_model
from sftray.trial.trial_spec import TrialSpec

OUT = Path(__file__).parent / "recorded" / "alarms"
CPU = torch.device("cpu")
SLOTS = 10
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
"""Tried first; the best of them is what a sweep's rates are counted from."""
NEAR = (0.35, 0.5, 0.7, 1.0, 1.4)
"""Of the best rate: those of healthy trials."""
RANKS_AND_WARMUPS = ((4, 0.05), (8, 0.1), (8, 0.0), (2, 0.03), (4, 0.1))
WRONG_TEMPLATE = (
    "{% for m in messages %}{% if m['role']=='assistant' %}{{'ASSISTANT>>'}}{% generation %}"
    "{{m['content']+'<|im_end|>'}}{% endgeneration %}{% else %}{{'>>'+m['role']+'>>'+m['content']}}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{'ASSISTANT>>'}}{% endif %}"
)


@dataclass(frozen=True)
class Data:
    """What trials are trained on."""

    name: str
    chats: slice
    rows_length: int
    epochs: float


DATA = (
    Data("one_epoch", slice(1000, 1260), 96, 1.0),
    Data("two_epochs", slice(1260, 1400), 96, 2.0),
    Data("long_rows", slice(1400, 1760), 160, 1.0),
)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    OUT.mkdir(parents=True, exist_ok=True)
    chats = [json.loads(line) for line in (FOLDER / "chats.jsonl").read_text().splitlines()]
    trial = pretrained(folder / "base", chats[:1000])
    for number, data in enumerate(DATA):
        record(folder / data.name, data, trial, chats[data.chats], number)


def record(folder: Path, data: Data, trial: TrialConfig, chats: list[Any], number: int) -> None:
    """The sweeps on one kind of data: a healthy one, then the same points, broken in each way."""
    packs = packed(folder / "right", data, trial, chats)
    trial = replace(trial, num_train_epochs=data.epochs, effective_batch_size=2)
    scan = run(folder / "scan", packs, [replace(trial, learning_rate=rate) for rate in RATES])
    rate = RATES[int(np.argmin([one["results"][-1]["eval_loss"] for one in scan]))]
    kinds = itertools.product((1, 2, 4), NEAR, RANKS_AND_WARMUPS)
    healthy = [
        replace(trial, learning_rate=rate * near * (batch / 2) ** 0.5, effective_batch_size=batch,
                lora_r=rank, warmup_ratio=warmup, seed=seed)
        for seed, (batch, near, (rank, warmup)) in enumerate(kinds)
    ]  # fmt: skip
    some = [healthy[place] for place in random.Random(number).sample(range(len(healthy)), 4)]
    poisoned = [replace(one, effective_batch_size=2, seed=number) for one in some[:3]]
    shuffled = with_shuffled_answers(chats)
    template = folder / "wrong.jinja"
    template.write_text(WRONG_TEMPLATE)

    def sweep(what: str, packs: Packs, trials: list[TrialConfig], **how: Any) -> None:
        if not (OUT / f"{data.name}.{what}.jsonl.xz").exists():
            write(f"{data.name}.{what}", packs, run(folder / what, packs, trials, **how))

    def other(name: str, some_chats: list[Any], **options: Any) -> Packs:
        return packed(folder / name, data, trial, some_chats, **options)

    sweep("healthy", packs, healthy)
    for factor in (10, 100):
        fast = [replace(one, learning_rate=rate * factor) for one in some]
        sweep(f"rate_x{factor}", packs, fast)
    sweep("labels_shuffled", other("shuffled", shuffled), some[:3])
    sweep("wrong_template", other("template", chats, chat_template=str(template)), some[:3])
    manifest.DUPLICATES = 2.0  # such data is refused; the trials are made all the same
    sweep("eval_is_train", other("same", chats, evaluated=chats[:20]), some[:3])
    sweep("frozen_adapter", packs, some[:3], after_step=unchanged)
    sweep("poisoned_batch", packs, poisoned, read=poison(packs, poisoned[0]))


def pretrained(folder: Path, chats: list[Any]) -> TrialConfig:
    """The base, trained on what is said in `chats`, as plain text, for 250 steps of AdamW."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if (folder / "done").exists():
        return TrialConfig(str(folder), base_precision="fp32", lora_r=4)
    folder.mkdir(parents=True, exist_ok=True)
    trial = save_tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    said = [turn["content"] for chat in chats for turn in chat["messages"]]
    ids = tokenizer("\n".join(said))["input_ids"]
    rows = torch.tensor(ids[: len(ids) // 96 * 96]).view(-1, 96)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for step in range(250):
        batch = rows[torch.randint(len(rows), (12,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            sys.stdout.write(f"base, step {step}: {loss.item():.3f}\n")
    model.save_pretrained(str(folder))
    (folder / "done").touch()
    return trial


def packed(
    folder: Path,
    data: Data,
    trial: TrialConfig,
    chats: list[Any],
    *,
    evaluated: list[Any] | None = None,
    **options: Any,
) -> Packs:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train.jsonl": chats, **({"eval.jsonl": evaluated} if evaluated else {})}
    for name, some in files.items():
        (folder / name).write_text("".join(json.dumps(chat) + "\n" for chat in some))
    source = str(folder / "eval.jsonl") if evaluated else None
    config = DataConfig(
        str(folder / "train.jsonl"),
        max_length=data.rows_length,
        eval_source=source,
        eval_fraction=0.12,
        num_eval_conversations=24,
        test_fraction=0.0,
        max_bad_fraction=0.5,
        **options,
    )
    return build_packs_here(config, trial.model, storage=str(folder))


def with_shuffled_answers(chats: list[Any]) -> list[Any]:
    """The words of all answers, dealt out anew."""
    turns = [turn for chat in chats for turn in chat["messages"]]
    words = [
        word for turn in turns if turn["role"] == "assistant" for word in turn["content"].split()
    ]
    random.Random(0).shuffle(words)
    dealt = iter(words)

    def dealt_anew(turn: Any) -> Any:
        if turn["role"] != "assistant":
            return turn
        return {**turn, "content": " ".join(itertools.islice(dealt, len(turn["content"].split())))}

    return [{"messages": [dealt_anew(turn) for turn in chat["messages"]]} for chat in chats]


def poison(packs: Packs, trial: TrialConfig) -> Callable[[Any, int], Any]:
    """Random tokens in the rows of one batch, at three fifths of the first epoch."""
    from sftray.trial.row_order import row_stream

    batch, rows = trial.effective_batch_size, packs.rows("train")
    step = round(0.6 * rows / batch)
    poisoned = set(row_stream(rows, rows, trial.seed)[step * batch : (step + 1) * batch].tolist())
    rng = np.random.default_rng(0)

    def read(row: Any, index: int) -> Any:
        if index not in poisoned:
            return row
        ids = rng.integers(100, 8000, len(row["input_ids"])).astype(np.int32)
        labels = ids.copy()
        labels[np.cumsum(np.concatenate([[0], row["seq_lengths"][:-1]]))] = -100
        return {**row, "input_ids": ids, "labels": labels}

    return read


def unchanged(engine: Engine) -> None:
    """The adapters as they begin: what trains does not reach the model."""
    engine._adapters.work.zero_()


def run(
    folder: Path,
    packs: Packs,
    trials: list[TrialConfig],
    *,
    read: Callable[[Any, int], Any] = lambda row, index: row,
    after_step: Callable[[Engine], None] = lambda engine: None,
) -> list[dict[str, Any]]:
    """The trials, some at a time: their points, results and ends."""
    shutil.rmtree(folder, ignore_errors=True)  # checkpoints of another time
    found = []
    for some in batched(trials, SLOTS):
        engine = Engine(
            load_model(some[0], CPU), some[0], packs, settings_for(some, len(some)), CPU
        )
        engine._train = ReadRows(engine._train, read)  # type: ignore[assignment]
        reports: list[list[dict[str, Any]]] = []
        for trial in some:
            plan = plan_trial(trial, packs.rows("train"), ladder=(), evals_per_trial=6,
                              execution=Execution(1))  # fmt: skip
            name = f"{len(found) + len(reports):03d}"
            spec = TrialSpec(name, trial, plan, packs.root, str(folder / name), None, 0)
            reports.append([])
            engine.admit(engine.prepare(spec, into(reports[-1])))
        while engine.advance():
            after_step(engine)
        found += [as_recorded(*pair) for pair in zip(some, reports, strict=True)]
    return found


class ReadRows:
    """A pack's rows, each passed through `read`."""

    def __init__(self, rows: MappedRows, read: Callable[[Any, int], Any]) -> None:
        self._rows, self._read = rows, read

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._read(self._rows[index], index)


def as_recorded(trial: TrialConfig, reports: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("step", "rows", "tokens", "supervised_tokens", "eval_loss", "epoch", "train_loss",
             "learning_rate", "grad_norm", "seconds", "curve")  # fmt: skip
    results = [{name: one[name] for name in names if name in one} for one in reports
               if "step" in one and "outcome" not in one]  # fmt: skip
    end = next(({n: one[n] for n in ("outcome", "message", "last_curve") if n in one}
                for one in reports if "outcome" in one), {})  # fmt: skip
    base = TrialConfig("none")
    point = {name: value for name, value in to_json(trial).items()
             if value != getattr(base, name, value) and name != "model"}  # fmt: skip
    return {"point": point, "results": results, **end}


def write(name: str, packs: Packs, trials: list[dict[str, Any]]) -> None:
    own = (FOLDER / "chat_template.jinja").read_text()
    facts = {"entropy": packs.target_entropy(), "overlap": packs.manifest["overlaps"].get("eval"),
             "template": packs.manifest["own_template"], "own_template": own}  # fmt: skip
    lines = [facts, *trials]
    text = "".join(json.dumps(rounded(line)) + "\n" for line in lines)
    (OUT / f"{name}.jsonl.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    ends = [trial["results"][-1]["eval_loss"] for trial in trials]
    sys.stdout.write(f"{name}: {len(trials)} trials, {min(ends):.3f} … {max(ends):.3f}\n")
    sys.stdout.flush()


def rounded(value: Any) -> Any:
    """Numbers in five digits; a learning rate, which is held to its schedule, in seven."""
    if isinstance(value, dict):
        return {name: float(f"{one:.7g}") if name == "learning_rate" else rounded(one)
                for name, one in value.items() if not (name == "curve" and not one)}  # fmt: skip
    if isinstance(value, list | tuple):
        if len(value) == 4 and all(isinstance(one, float | int) for one in value):
            return [
                int(value[0]),
                *(as_json(one, digits) for one, digits in zip(value[1:], (5, 7, 4), strict=True)),
            ]
        return [rounded(one) for one in value]
    return as_json(value, 7) if isinstance(value, float) else value


def as_json(value: float, digits: int) -> Any:
    return float(f"{value:.{digits}g}") if np.isfinite(value) else str(value)


def batched(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
