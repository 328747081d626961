"""A value that would fail every trial is refused by `--plan` and by a start, not by each trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_trials import make_sweep

from sftray.config import DataConfig, SweepConfig, TrialConfig, choice, loguniform
from sftray.config.overrides import override, read_points
from sftray.data.packs.packs import Packs
from sftray.demo import FOLDER, demo
from sftray.errors import ConfigError
from sftray.plan.lora_targets import FAMILIES, module_names, require_targets
from sftray.plan.preflight import check_template, check_vocabulary
from sftray.plan.preview import make_plan
from sftray.storage.model_files import model_config

SWEEP = SweepConfig(
    "odd",
    DataConfig(str(FOLDER / "chats.jsonl"), max_length=512),
    TrialConfig(str(FOLDER), base_precision="fp32", effective_batch_size=2),
    points=({"learning_rate": 1e-3},),
    use_gpu=False,
)
REFUSED = {
    "trial.seed=-5": "trial.seed: got -5, must be 0 … 2,147,483,647",
    "trial.seed=99999999999": "trial.seed: got 99999999999, must be 0",
    "data.seed=-7": "data.seed: got -7, must be 0",
    "trial.learning_rate=1e300": "trial.learning_rate: got 1e+300, must be 0 < x < 1e+37",
    "trial.lora_r=100000": "trial.lora_r: got 100000, must be 1 … 8,192",
    "trial.lora_target_modules=[]": "got (), must be 'all-linear', a pattern, or a list",
    "trial.lora_target_modules=[1]": "got (1,), must be 'all-linear', a pattern, or a list",
    "trial.lora_target_modules=(": "as a pattern it has missing )",
    "trial.lora_target_modules=all_linear": "did you mean 'all-linear'?",
    "trial.lora_target_modules=q_proj": "write it as a list: ['q_proj']",
    'trial.lora_target_modules=["q_proj", "k_prj"]': "did you mean 'k_proj'?",
    'trial.lora_target_modules=["lm_head"]': "which matches lm_head, must be of q_proj, k_proj",
    'trial.lora_target_modules=["norm"]': "which matches norm, must be of q_proj",
    "trial.attention=varlen": "got 'varlen' on an fp32 base, must be of sdpa, eager, apart",
    "trial.model_revision=main": "got 'main' with the folder",
    "trial.model_revision=": "trial.model_revision: got '', must be a text that is not empty",
    "data.revision=main": "got 'main' with the files",
    "data.eval_source=": "data.eval_source: got '', must be a text that is not empty",
    "data.template_date=2025-99-99": "got '2025-99-99', must be YYYY-MM-DD, a date",
    "metric=sftray.metrics:nosuch": "nosuch",
    "hang_minutes=1e-300": "hang_minutes: got 1e-300, must be at least 0.1",
    "evals_per_trial=1000000000": "must be 1 … 10,000",
    "max_failures=100000000000000000000": "must be 0 … 10,000",
}


@pytest.mark.parametrize("assignment", REFUSED)
def test_a_value_that_would_fail_every_trial_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(override(SWEEP, assignment), gpu_memory=None)
    assert REFUSED[assignment] in str(error.value)


def test_an_attention_that_needs_a_gpu_is_refused_on_cpus_alone() -> None:
    sweep = override(override(SWEEP, "trial.base_precision=bf16"), "trial.attention=varlen")
    with pytest.raises(ConfigError, match="got 'varlen' on CPUs, must be of sdpa"):
        make_plan(sweep, gpu_memory=None)
    make_plan(sweep, gpu_memory=80e9)


def test_the_demo_of_a_pinned_sweep_has_no_revision_of_its_files() -> None:
    data, trial = DataConfig("org/chats", revision="c0ffee"), TrialConfig("org/base")
    pinned = replace(SWEEP, data=data, trial=replace(trial, model_revision="abc123"))
    small = demo(replace(pinned, points=(), search_space={"learning_rate": loguniform(1e-4, 1e-2)}))
    assert make_plan(small, gpu_memory=None).starts


def test_repetitions_count_on_from_a_seed_that_leaves_them_room() -> None:
    with pytest.raises(ConfigError, match=r"trial\.seed: got 2147483647 with confirm_seeds"):
        make_sweep(confirm_top=1, trial=TrialConfig("base", seed=2**31 - 1))


@pytest.mark.parametrize("targets", ["all-linear", ".*(q|v)_proj", ("q_proj", "embed_tokens")])
def test_modules_that_the_base_has_are_taken(targets: str | tuple[str, ...]) -> None:
    sweep = make_sweep(trial=TrialConfig("base", lora_target_modules=targets))
    require_targets(sweep, model_config(str(FOLDER)))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_calls_the_modules_of_a_family_so(family: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.for_model(family, num_hidden_layers=2)
        names = {name for name, _ in AutoModelForCausalLM.from_config(config).named_modules()}
    assert set(module_names(2)) <= names


def test_of_bases_with_other_names_nothing_is_known() -> None:
    sweep = make_sweep(trial=TrialConfig("base", lora_target_modules=("c_attn",)))
    require_targets(sweep, {"model_type": "gpt2", "num_hidden_layers": 2})
    with pytest.raises(ConfigError, match="'c_attn', which matches no module"):
        require_targets(sweep, model_config(str(FOLDER)))


def test_modules_that_are_searched_are_looked_at_too() -> None:
    searched = choice(["all-linear", ("q_prj",)])
    sweep = make_sweep(search_space={"lora_target_modules": searched})
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        require_targets(sweep, model_config(str(FOLDER)))
    given = make_sweep(search_space={}, points=({"lora_target_modules": ["q_prj"]},))
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        require_targets(given, model_config(str(FOLDER)))


def test_json_that_python_does_not_read_is_a_message(tmp_path: Path) -> None:
    for text in ('{"lora_r": ' + "9" * 6000 + "}", "[" * 100_000):
        file = tmp_path / "points.jsonl"
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"points\.jsonl, line 1: not JSON"):
            read_points(file)
    with pytest.raises(ConfigError, match="must be a whole number"):
        override(SWEEP, f"num_trials={'9' * 6000}")


def test_a_base_without_a_row_for_a_token_of_the_data_is_refused(small_packs: Packs) -> None:
    manifest = small_packs.manifest
    highest = max(int(max(row["input_ids"])) for row in small_packs.dataset("train"))
    assert list(check_vocabulary(manifest, {"vocab_size": 832})) == []
    with pytest.raises(ConfigError, match=f"has 400 rows, must be more than {highest:,}"):
        list(check_vocabulary(manifest, {"vocab_size": 400}))
    with pytest.raises(ConfigError, match="has 97 rows"):
        list(check_vocabulary(manifest, {"text_config": {"vocab_size": 97}}))


def test_a_template_that_is_not_the_bases_own_is_warned_of(tmp_path: Path) -> None:
    own, other = FOLDER / "chat_template.jinja", tmp_path / "other.jinja"
    other.write_text(own.read_text().replace("<|im_start|>", ">>"))
    for template, warned in ((None, 0), (own, 0), (other, 1)):
        data = replace(SWEEP.data, chat_template=template and str(template))
        found = list(check_template(replace(SWEEP, data=data)))
        assert len(found) == warned
        assert all("is not the template that the base brings" in one for one in found)
