"""A sweep on rows with tools and thoughts of our own making: does its winner call the right tool?

    python benchmarks/tool_calls.py --model BASE --storage FOLDER
    python benchmarks/tool_calls.py --demo --storage FOLDER

Each row shows three of eight tools and asks for one of them; the answer is a thought and the call,
in a third of the training rows followed by its result and an answer in words. Held-out questions
have towns, names, numbers and ways of asking that no training row has. The score, of base and
winner, is the share of held-out answers whose call is the reference's: the same tool and the same
arguments, nothing more or less. Rows are written by a template of ours that ends an answer on the
base's end of text, which it knows. `--demo` is the same on the bundled base, small enough for two
CPU cores, where nothing is learnt but the form.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from console import argument_parser, say

from sftray.config import DataConfig, SweepConfig, TrialConfig, fitting, loguniform
from sftray.demo import FOLDER, demo
from sftray.sweep.run import run_sweep
from sftray.winner.bundle import open_bundle

TEMPLATE = """{{ bos_token }}{% if tools %}Tools:
{% for tool in tools %}{{ tool['function'] | tojson }}
{% endfor %}{% endif %}{% for turn in messages %}{{ turn['role'] | capitalize }}:
{% if turn['role'] != 'assistant' %}{{ turn['content'] }}
{% else %}{% generation %}{% if turn['reasoning_content'] %}<think>
{{ turn['reasoning_content'] }}
</think>
{% endif %}{{ turn['content'] }}{% for call in turn['tool_calls'] or [] %}<tool_call>
{"name": {{ call['function']['name'] | tojson }}, "arguments": {{ call['function']['arguments'] | tojson }}}
</tool_call>{% endfor %}{{ END }}{% endgeneration %}
{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:
{% endif %}"""  # noqa: E501

TOWNS = (
    [
        "Ulm",
        "Bern",
        "Lyon",
        "Graz",
        "Pisa",
        "Gent",
        "Cork",
        "Brno",
        "Faro",
        "Vigo",
        "Turku",
        "Lodz",
    ],
    ["Basel", "Porto", "Malmo", "Riga", "Split", "Delft"],
)
NAMES = (
    ["Ada", "Ben", "Cleo", "Dov", "Edda", "Finn", "Gia", "Hugo", "Ines", "Jan", "Kim", "Lea"],
    ["Mona", "Nils", "Olga", "Pia", "Quinn", "Rosa"],
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
UNITS = ["miles", "metres", "pounds", "litres", "acres", "knots"]
"""Of towns and names the first are for training, the others are held out."""

TOOLS: dict[str, tuple[str, dict[str, str], list[str], str]] = {
    "forecast": (
        "Weather of a day in a town",
        {"town": "town", "day": "day"},
        ["Will it rain in {town} on {day}?", "What is the weather in {town} on {day}?",
         "I am in {town} on {day}. Do I need a coat?"],
        "The weather of {town} on {day} is asked.",
    ),
    "timetable": (
        "Trains between two towns",
        {"start": "town", "goal": "other"},
        ["How do I get from {town} to {other} by train?", "Find a train from {town} to {other}.",
         "I want to go to {other}, and I am in {town}."],
        "A train from {town} to {other} is wanted.",
    ),
    "reminder": (
        "Remind somebody at an hour",
        {"who": "name", "hour": "number"},
        ["Remind {name} at {number} o'clock.", "At {number} {name} must be reminded.",
         "Do not let {name} forget it at {number}."],
        "{name} is to be reminded at {number}.",
    ),
    "convert": (
        "Turn an amount of one unit into another",
        {"amount": "number", "unit": "unit"},
        ["How much is {number} {unit}?", "Convert {number} {unit} for me.",
         "I have {number} {unit}. What is that in other units?"],
        "{number} {unit} are to be converted.",
    ),
    "call_up": (
        "Telephone somebody",
        {"who": "name"},
        ["Call {name}.", "Get me {name} on the phone.", "I have to talk to {name}."],
        "{name} is to be called.",
    ),
    "book_table": (
        "A table in a restaurant",
        {"town": "town", "people": "number", "day": "day"},
        ["Book a table for {number} in {town} on {day}.",
         "We are {number} in {town} on {day}: a table, please.",
         "On {day} I eat in {town} with {number} people."],
        "A table for {number} in {town} on {day} is wanted.",
    ),
    "birthday": (
        "When somebody has a birthday",
        {"who": "name"},
        ["When is {name}'s birthday?", "How old will {name} be?", "Which day was {name} born?"],
        "The birthday of {name} is asked.",
    ),
    "map_of": (
        "A map of a town",
        {"town": "town"},
        ["Show me a map of {town}.", "Where in {town} am I?", "I am lost in {town}."],
        "A map of {town} helps.",
    ),
}  # fmt: skip
"""What each does, its arguments and what fills them, ways to ask (the last is held out) and a
thought."""
SHOWN = 3
TRAIN, HELD_OUT = 3000, 64


def right_calls(answers: Sequence[str], references: Sequence[str]) -> float:
    """The share of answers that call what their reference calls."""
    same = [calls_of(a) == calls_of(r) for a, r in zip(answers, references, strict=True)]
    return sum(same) / max(len(same), 1)


def calls_of(answer: str) -> list[object]:
    """The calls of an answer; what is no JSON is a call by itself."""
    found: list[object] = []
    for text in re.findall(r"<tool_call>(.*?)</tool_call>", answer, re.DOTALL):
        try:
            found.append(json.loads(text))
        except ValueError:
            found.append(text)
    return found


def make_row(rng: random.Random, *, held_out: bool) -> dict[str, Any]:
    """A question, the thought and the call that answer it, and the tools that were shown."""
    name = rng.choice([*TOOLS])
    _, arguments, ways, thought = TOOLS[name]
    towns = rng.sample(TOWNS[held_out], 2)
    filled = {
        "town": towns[0],
        "other": towns[1],
        "name": rng.choice(NAMES[held_out]),
        "day": rng.choice(DAYS),
        "unit": rng.choice(UNITS),
        "number": rng.randrange(1, 12) * 2 + held_out,
    }
    call = {"name": name, "arguments": {key: filled[kind] for key, kind in arguments.items()}}
    question = (ways[-1] if held_out else rng.choice(ways[:-1])).format(**filled)
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": f"{thought.format(**filled)} {name} does that.",
            "tool_calls": [{"type": "function", "function": call}],
        },
    ]
    if not held_out and rng.random() < 1 / 3:
        turns += [
            {"role": "tool", "name": name, "content": "done"},
            {"role": "assistant", "content": f"It is done by {name}."},
        ]
    shown = [name, *rng.sample([*(TOOLS.keys() - {name})], SHOWN - 1)]
    return {"messages": turns, "tools": [_tool(one) for one in rng.sample(shown, SHOWN)]}


def _tool(name: str) -> dict[str, object]:
    what, arguments, _, _ = TOOLS[name]
    kinds = {key: "integer" if kind == "number" else "string" for key, kind in arguments.items()}
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    function = {"name": name, "description": what, "parameters": parameters}
    return {"type": "function", "function": function}


def write_rows(folder: Path, train: int, held_out: int) -> None:
    """train.jsonl and held_out.jsonl, the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, number, is_held_out in (("train", train, False), ("held_out", held_out, True)):
        rng = random.Random(name)
        rows = [make_row(rng, held_out=is_held_out) for _ in range(number)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def make_sweep(options: argparse.Namespace) -> SweepConfig:
    """The sweep, on rows that are there."""
    folder = Path(options.storage, "rows")
    write_rows(folder, options.train, options.held_out)
    end = "bos_token" if options.demo else "eos_token"  # the bundled base's end of text
    (folder / "template.jinja").write_text(TEMPLATE.replace("END", end), encoding="utf-8")
    sweep = SweepConfig(
        name="tool_calls",
        data=DataConfig(
            str(folder / "train.jsonl"),
            eval_source=str(folder / "held_out.jsonl"),
            num_eval_conversations=options.held_out,
            test_fraction=0.0,
            chat_template=str(folder / "template.jinja"),
            max_length=1024,
        ),
        trial=TrialConfig(options.model, lora_r=16, num_train_epochs=2),
        search_space={
            "learning_rate": loguniform(1e-4, 5e-3),
            "effective_batch_size": fitting([4, 8, 16]),
        },
        num_trials=options.trials,
        metric="tool_calls:right_calls",
        num_metric_prompts=options.held_out,
        storage=options.storage,
        wandb="disabled",
    )
    if not options.demo:
        return sweep
    small = demo(sweep)
    return replace(small, name=sweep.name, data=sweep.data, metric=sweep.metric,
                   search_space=sweep.search_space, num_trials=options.trials,
                   num_metric_prompts=options.held_out, confirm_top=0)  # fmt: skip


def main() -> None:
    options = _options()
    sweep = make_sweep(options)
    run_sweep(sweep, log=say)
    _, facts = open_bundle(str(Path(options.storage, sweep.name, "best")))
    say(
        f"{sweep.trial.model}: share of right calls, held-out questions: {json.dumps(facts.metric)}"
    )


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", default=str(FOLDER), help="a base of some hundred million parameters or more")
    add("--storage", required=True, help="where rows and the sweep's folder lie")
    add("--demo", action="store_true", help="the bundled base, small")
    add("--train", type=int, default=TRAIN, help="training rows")
    add("--held-out", type=int, default=HELD_OUT, help="questions")
    add("--trials", type=int, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    main()
