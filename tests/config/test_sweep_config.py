"""Configs: checked when made, with messages that name what, got, must and the fix."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftray.cli.launch import launch
from sftray.config import (
    DataConfig,
    SweepConfig,
    TrialConfig,
    choice,
    fitting,
    loguniform,
    randint,
    uniform,
)
from sftray.config.config_json import differing_fields, sweep_from_json, to_json
from sftray.config.overrides import override, read_points
from sftray.errors import ConfigError

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.py"))
DATA, TRIAL = DataConfig("chats.jsonl"), TrialConfig("base")


def make_sweep(**changes: Any) -> SweepConfig:
    values: dict[str, Any] = {
        "name": "x",
        "data": DATA,
        "trial": TRIAL,
        "search_space": {"learning_rate": loguniform(1e-5, 1e-3)},
    }
    return SweepConfig(**(values | changes))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (DataConfig, {"source": ""}, "data.source: got '', must be a path, a URI or a Hub id"),
        (
            DataConfig,
            {"sources": [("a", 1)]},
            "data.source and data.sources: got both, must be one of them",
        ),
        (
            DataConfig,
            {"source": None},
            "data.source and data.sources: got neither, must be one of them",
        ),
        *(
            (
                DataConfig,
                {"source": None, "sources": sources},
                "must be pairs of a path and a weight",
            )
            for sources in (["a"], [("a", -1)], [("a", 0)], [("a", 1), ("a", 2)], [("", 1)], 5)
        ),
        (
            DataConfig,
            {"source": None, "sources": [("a", 1)], "revision": "abc"},
            "data.revision: got 'abc' with data.sources, must be None: it is of one dataset",
        ),
        (
            DataConfig,
            {"columns": {"question": "prompt", "answer": "prompt"}},
            "data.columns: got {'question': 'prompt', 'answer': 'prompt'}, must be one of auto",
        ),
        (DataConfig, {"columns": {"text": "texts"}}, "or names mapped to one each of messages"),
        (
            DataConfig,
            {"columns": "chatml"},
            "data.columns: got 'chatml', must be one of auto, messages, conversations, "
            "prompt_completion, instruction",
        ),
        (
            SweepConfig,
            {"sample_prompts": "Who are you?"},
            "sample_prompts: got 'Who are you?', must be a list of questions, none of them empty",
        ),
        (SweepConfig, {"sample_prompts": ["Who?", " "]}, "sample_prompts: got ['Who?', ' '], must"),
        (
            SweepConfig,
            {"sample_at": "rungs"},
            "sample_at: got 'rungs', must be one of end, evaluations",
        ),
        (DataConfig, {"max_length": 4}, "data.max_length: got 4, must be 8 … 1,048,576 tokens"),
        (DataConfig, {"max_length": 512.5}, "data.max_length: got 512.5, must be a whole number"),
        (DataConfig, {"eval_fraction": 1.0}, "data.eval_fraction: got 1.0, must be 0 < x < 1"),
        (DataConfig, {"max_bad_fraction": 2.0}, "data.max_bad_fraction: got 2.0, must be 0 … 1"),
        (
            DataConfig,
            {"max_conversations": 0},
            "data.max_conversations: got 0, must be a whole number of at least 1, or None for all",
        ),
        (
            DataConfig,
            {"template_date": "1 May"},
            "data.template_date: got '1 May', must be YYYY-MM-DD",
        ),
        (
            DataConfig,
            {"eval_source": "a", "eval_split": "b"},
            "data.eval_source and data.eval_split: got both, must be one of them",
        ),
        (TrialConfig, {"model": ""}, "trial.model: got '', must be a folder or a Hub model id"),
        (
            TrialConfig,
            {"base_precision": "int4"},
            "trial.base_precision: got 'int4', must be one of nf4, bf16, fp8, fp32, fp4, int8",
        ),
        (
            TrialConfig,
            {"learning_rate": -1e-4},
            "trial.learning_rate: got -0.0001, must be 0 < x < 1e+37",
        ),
        (
            TrialConfig,
            {"learning_rate": float("nan")},
            "trial.learning_rate: got nan, must be 0 < x < 1e+37",
        ),
        (
            TrialConfig,
            {"finetune": "all"},
            "trial.finetune: got 'all', must be one of lora, full",
        ),
        (
            TrialConfig,
            {"finetune": "full"},
            "trial.base_precision: got 'nf4' with finetune='full', must be 'bf16' or 'fp32': 4-bit "
            "weights cannot be trained",
        ),
        (TrialConfig, {"warmup_ratio": 1}, "trial.warmup_ratio: got 1, must be 0 <= x < 1"),
        (TrialConfig, {"lora_r": 0}, "trial.lora_r: got 0, must be 1 … 8,192"),
        (TrialConfig, {"lora_r": 8.0}, "trial.lora_r: got 8.0, must be a whole number"),
        (TrialConfig, {"lora_r": True}, "trial.lora_r: got True, must be a whole number"),
        (
            TrialConfig,
            {"micro_batch_size": "2"},
            "trial.micro_batch_size: got '2', must be a whole number, or None",
        ),
        (
            TrialConfig,
            {"effective_batch_size": 6, "num_workers": 4},
            "trial.effective_batch_size: got 6 with num_workers=4, must be a multiple of "
            "num_workers",
        ),
        (
            SweepConfig,
            {"name": "../other"},
            "name: got '../other', must be letters, digits, '.', '_' or '-', starting with a "
            "letter or digit",
        ),
        (SweepConfig, {"num_trials": 0}, "num_trials: got 0, must be a whole number of at least 1"),
        (
            SweepConfig,
            {"reduction_factor": 1},
            "reduction_factor: got 1, must be a whole number of at least 2",
        ),
        (
            SweepConfig,
            {"rungs": (0.5, 0.2)},
            r"rungs: got (0.5, 0.2), must be ascending numbers between 0 and 1",
        ),
        (SweepConfig, {"use_gpu": "yes"}, "use_gpu: got 'yes', must be true or false, or None"),
        (SweepConfig, {"search_space": {}}, "search_space: got nothing, must be at least one"),
        (
            SweepConfig,
            {"search_space": {"learning_rat": loguniform(1e-5, 1e-3)}},
            "search_space: TrialConfig has no field 'learning_rat'; did you mean 'learning_rate'?",
        ),
        (
            SweepConfig,
            {"search_space": {"learning_rate": [1e-4, 1e-3]}},
            "search_space['learning_rate']: got [0.0001, 0.001], must be loguniform(…), "
            "uniform(…), randint(…) or choice([…])",
        ),
        (
            SweepConfig,
            {"search_space": {"lora_r": fitting([8])}},
            "search_space['lora_r']: got fitting([…]), must be choice([…])",
        ),
        (
            SweepConfig,
            {"points": ({"lora_rank": 8},)},
            "point: TrialConfig has no field 'lora_rank'",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_got_and_must(
    make: type, changes: dict[str, Any], message: str
) -> None:
    required = {DataConfig: {"source": "x"}, TrialConfig: {"model": "x"}}.get(make, {})
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_sweep(**changes) if make is SweepConfig else make(**(required | changes))


def test_both_ends_of_a_space_must_be_possible() -> None:
    with pytest.raises(ConfigError, match=r"trial\.warmup_ratio: got 1\.2, must be 0 <= x < 1"):
        make_sweep(search_space={"warmup_ratio": uniform(0.0, 1.2)})
    with pytest.raises(ConfigError, match=r"trial\.lora_r: got 0, must be 1 … 8,192"):
        make_sweep(search_space={"lora_r": randint(0, 8)})


def test_alpha_is_the_same_at_every_rank_or_follows_it_by_a_ratio() -> None:
    fixed, ratio = TrialConfig("base", lora_r=8), TrialConfig("base", lora_r=8, lora_alpha_ratio=2)
    assert (fixed.alpha, fixed.lora_scale) == (32.0, 4.0)
    assert (fixed.at({"lora_r": 64}).alpha, ratio.at({"lora_r": 64}).alpha) == (32.0, 128.0)
    assert fixed.at({"lora_alpha_ratio": 2.0}).alpha == 16.0
    assert TrialConfig("base", lora_r=16, use_rslora=True).lora_scale == 8.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_alpha": 16, "lora_alpha_ratio": 2}, "got 16 with lora_alpha_ratio=2, must be one"),
        ({"lora_alpha": None}, "lora_alpha: got None, must be a number"),
        ({"use_rslora": True, "lora_alpha_ratio": 2}, "got 2 with use_rslora, must be one of them"),
    ],
)
def test_one_thing_says_how_alpha_meets_the_rank(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig("base", **changes)
    both = {"lora_alpha": choice([16, 32]), "lora_alpha_ratio": choice([1, 2])}
    with pytest.raises(ConfigError, match="the ratio takes the place of alpha"):
        make_sweep(search_space=both)


FULL = TrialConfig("base", finetune="full", base_precision="bf16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search_space": {"lora_r": choice([8, 16]), "learning_rate": loguniform(1e-6, 1e-4)}},
            "search_space: got lora_r with trial.finetune='full', must be other fields",
        ),
        (
            {"search_space": {}, "points": ({"lora_dropout": 0.1},)},
            "search_space: got lora_dropout with trial.finetune='full'",
        ),
        (
            {"search_space": {"base_precision": choice(["nf4", "bf16"])}},
            "trial.base_precision: got 'nf4' with finetune='full'",
        ),
        ({"trainer": "bank"}, "trainer: got 'bank' with trial.finetune='full', must be 'train'"),
        ({"confirm_trainer": "bank"}, "confirm_trainer: got 'bank' with trial.finetune='full'"),
        ({"wandb_adapter": True}, "wandb_adapter: got True with trial.finetune='full'"),
        (
            {"search_space": {"finetune": choice(["lora", "full"])}},
            "search_space: got 'finetune' as an axis, must be one for all trials",
        ),
    ],
)
def test_full_fine_tuning_refuses_what_only_an_adapter_has(
    changes: dict[str, Any], message: str
) -> None:
    assert make_sweep(trial=FULL).trial.finetune == "full"
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_sweep(**{"trial": FULL, **changes})


def test_spaces_are_checked_when_made() -> None:
    for wrong in (
        lambda: uniform(2.0, 1.0),
        lambda: loguniform(0.0, 1.0),
        lambda: randint(3, 3),
        lambda: choice([]),
        lambda: choice([1, 1]),
    ):
        with pytest.raises(ConfigError):
            wrong()
    assert randint(1, 3).contains(3)  # both ends included, as in Optuna
    assert not randint(1, 3).contains(2.5)
    assert loguniform(1e-5, 1e-3).contains(1e-3)
    assert not choice([8, 16]).contains(12)


@pytest.mark.parametrize("config", [DATA, TRIAL, make_sweep()], ids=lambda c: type(c).__name__)
def test_configs_are_frozen(config: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


def test_a_point_is_applied_and_checked_again() -> None:
    assert TRIAL.at({"lora_r": 4}) == TrialConfig("base", lora_r=4)
    with pytest.raises(ConfigError, match=r"trial\.lora_r: got -1"):
        TRIAL.at({"lora_r": -1})


def test_a_sweep_survives_json() -> None:
    sweep = make_sweep(
        trial=TrialConfig("base", lora_target_modules=("q_proj", "v_proj"), micro_batch_size=2),
        search_space={
            "learning_rate": loguniform(1e-5, 1e-3),
            "weight_decay": uniform(0.0, 0.1),
            "effective_batch_size": fitting([8, 16]),
            "lora_r": randint(4, 64),
            "base_precision": choice(["nf4", "bf16"]),
        },
        points=({"lora_r": 4, "learning_rate": 1e-4}, {"lora_r": 8}),
        sample_prompts=("Who are you?",),
    )
    assert sweep_from_json(json.loads(json.dumps(to_json(sweep)))) == sweep


def test_differing_fields_are_named_by_their_dotted_paths() -> None:
    old = make_sweep(search_space={"learning_rate": loguniform(1e-5, 1e-3)})
    new = make_sweep(
        data=DataConfig("chats.jsonl", max_length=512),
        trial=TrialConfig("base", lora_r=8),
        search_space={"learning_rate": loguniform(1e-5, 1e-2), "lora_dropout": uniform(0.0, 0.1)},
        seed=1,
    )
    assert differing_fields(to_json(old), to_json(new)) == [
        "data.max_length",
        "search_space.learning_rate",
        "search_space.lora_dropout",
        "seed",
        "trial.lora_r",
    ]
    assert differing_fields(to_json(old), to_json(old)) == []


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (
            lambda: TrialConfig("m", epochs=2),
            "TrialConfig has no field 'epochs'; did you mean 'num_tr",
        ),
        (
            lambda: DataConfig("d", max_len=2),
            "DataConfig has no field 'max_len'; did you mean 'max_le",
        ),
    ],
)
def test_a_keyword_that_is_no_field_has_the_nearest_that_is_one(
    make: Callable[[], object], hint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(hint)):
        make()


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("data.max_length=512", lambda s: s.data.max_length == 512),
        ("trial.weight_decay=3e-4", lambda s: s.trial.weight_decay == 3e-4),
        ("trial.micro_batch_size=None", lambda s: s.trial.micro_batch_size is None),
        ('trial.lora_target_modules=["o"]', lambda s: s.trial.lora_target_modules == ("o",)),
        ("trial.model=other=model", lambda s: s.trial.model == "other=model"),
        ("scheduler=none", lambda s: s.scheduler == "none"),
        ("use_gpu=false", lambda s: s.use_gpu is False),
    ],
)
def test_set_overrides_any_field(assignment: str, read: Any) -> None:
    assert read(override(make_sweep(), assignment))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("max_length", "--set: got 'max_length', must be field=value, as in data.max_length=512"),
        ("trial.learning_rate=3e-4", "hold it with --set 'search_space.learning_rate=choice([3e-4"),
        ("trial.epochs=3", "has no field 'epochs'; did you mean 'num_train_epochs'?"),
        ("train.lora_r=8", "got 'train', must be data., trial., search_space. or nothing"),
        ("trial.lora_rr=8", "TrialConfig has no field 'lora_rr'; did you mean 'lora_r'?"),
        ("lora_r=8", "the sweep has no field 'lora_r'; did you mean trial.lora_r=8?"),
        ("data.max_lenght=8", "did you mean 'max_length'?"),
        ("data.max_length=2", "data.max_length: got 2, must be 8 … 1,048,576 tokens"),
        ("num_trials=many", "num_trials: got 'many', must be a whole number"),
        ("trial.lora_r=null", "trial.lora_r: got None, must be a whole number"),
        ("search_space=3", "search_space is no single value"),
        ("data=chats.jsonl", "set a field of it, as in data.max_length=512"),
    ],
)
def test_a_wrong_set_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        override(make_sweep(), assignment)


def test_points_are_read_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "points.jsonl"
    file.write_text('{"lora_r": 4}\n\n{"lora_r": 8, "learning_rate": 1e-4}\n')
    assert read_points(file) == ({"lora_r": 4}, {"lora_r": 8, "learning_rate": 1e-4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"lora_r": 4}\n{"lora_r": ', "line 2: not JSON"),
        ("[4]\n", "line 1: got '[4]', must be an object"),
        ("\n", "got no points, must be one JSON object a line"),
    ],
)
def test_a_wrong_points_file_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "points.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_points(file)
    with pytest.raises(ConfigError, match="there is no such file"):
        read_points(tmp_path / "none.jsonl")


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_a_shipped_sweep_loads_and_plans_its_demo(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.sweep.name == file.stem
    with pytest.raises(SystemExit, match=r"^0$"):
        launch(module.sweep, ["--plan", "--demo", "--json", "--storage", str(tmp_path)])
    plan = json.loads(capsys.readouterr().out)
    assert plan["sweep"] == f"demo-{file.stem}"
    assert plan["exact"] is False
    assert plan["config"]["search_space"].keys() == module.sweep.search_space.keys()
    assert all(shape["steps"] >= 10 for shape in plan["shapes"])
    assert list(tmp_path.iterdir()) == []  # a plan writes nothing


def test_a_search_space_can_be_set_from_the_command_line() -> None:
    sweep = SweepConfig(
        "s", DataConfig("rows.jsonl"), TrialConfig("base"), {"lora_r": choice([4, 8])}
    )
    wider = override(sweep, "search_space.learning_rate=loguniform(1e-5, 1e-2)")
    assert wider.search_space == {"lora_r": choice([4, 8]), "learning_rate": loguniform(1e-5, 1e-2)}
    with pytest.raises(ConfigError, match="must be one of loguniform"):
        override(sweep, "search_space.lora_r=eval('1')")
