"""Merging: into the unquantised base, rounded once, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_bundle import END_OF_TURN, save_bundle
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftray.config import TrialConfig
from sftray.errors import PacksError, SftrayError
from sftray.winner.merge import Losses, in_words, merge


@pytest.fixture(scope="module")
def bundle(tiny: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("merged"), tiny)


def merged(bundle: Path, out: Path | str, **options: object) -> list[str]:
    lines: list[str] = []
    merge(str(bundle), str(out), log=lines.append, **options)  # type: ignore[arg-type]
    return lines


@pytest.mark.parametrize(
    ("dtype", "held"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_merged_weights_are_the_sum_rounded_once(
    bundle: Path, tiny: TrialConfig, tmp_path: Path, dtype: str, held: torch.dtype
) -> None:
    merged(bundle, tmp_path / "out", dtype=dtype, check=False)
    base = load_file(Path(tiny.model, "model.safetensors"))
    adapter = load_file(bundle / "adapter_model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for module in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.1.{module}"
        a, b = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        whole = base[f"{name}.weight"].to(held).float() + tiny.alpha / tiny.lora_r * (b @ a)
        assert found[f"{name}.weight"].dtype == held
        torch.testing.assert_close(found[f"{name}.weight"], whole.to(held), rtol=1e-6, atol=1e-7)


def test_shards_tokenizer_template_and_end_of_turn_are_there(
    bundle: Path, tiny: TrialConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    lines = merged(bundle, out, check=False, max_shard_size="100KB")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    stored = set()
    for shard in shards:
        with safe_open(out / shard, framework="np") as file:
            stored |= set(file.keys())
    assert stored == set(index["weight_map"])
    model = AutoModelForCausalLM.from_pretrained(out)
    ends = model.generation_config.eos_token_id
    assert END_OF_TURN in (ends if isinstance(ends, list) else [ends])
    assert model.config.use_cache is True
    own, bases = (AutoTokenizer.from_pretrained(folder) for folder in (out, tiny.model))
    assert own.chat_template == bases.chat_template is not None
    assert own("Hello.").input_ids == bases("Hello.").input_ids
    assert (out / "README.md").read_text().count("unquantised weights, in bf16") == 1
    assert lines[-1] == f"saved in {out}"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("out", [".", "empty"])
def test_an_empty_folder_is_filled_the_current_one_too(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    here = tmp_path / "empty"
    here.mkdir()
    same = here.stat().st_ino
    monkeypatch.chdir(here if out == "." else tmp_path)
    assert merged(bundle, out, check=False)[-1] == f"saved in {out}"
    assert here.stat().st_ino == same
    names = {path.name for path in here.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    AutoModelForCausalLM.from_pretrained(here)
    with pytest.raises(SftrayError, match="must be new or empty"):
        merged(bundle, out, check=False)


def test_a_check_without_packs_is_left_out_or_refused(bundle: Path, tmp_path: Path) -> None:
    lines = merged(bundle, tmp_path / "out")
    assert lines[0].startswith("the eval loss is not checked: /home/somebody/results/packs/0123")
    with pytest.raises(PacksError, match="0123"):
        merged(bundle, tmp_path / "other", check=True)
    assert not (tmp_path / "other").exists()


def test_nothing_is_left_where_it_cannot_work(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "out"
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e5))
    with pytest.raises(SftrayError, match=r"got 0\.0 GB of free disk, must be .* in bfloat16"):
        merged(bundle, out, check=False)
    monkeypatch.undo()
    monkeypatch.setattr("torch.isfinite", torch.zeros_like)
    with pytest.raises(SftrayError, match=r"merged weights are not finite .*; take --dtype bf16"):
        merged(bundle, out, dtype="fp16", check=False)
    assert list(out.parent.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(SftrayError, match="must be new or empty"):
        merged(bundle, tmp_path / "full", check=False)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
    with pytest.raises(SftrayError, match="must be a local folder"):
        merged(bundle, "s3://bucket/out", check=False)


def test_what_merging_does_is_one_plain_sentence_or_two() -> None:
    trial = TrialConfig("m")
    assert in_words(Losses(), trial, "bf16", 1.0) == ""
    assert in_words(Losses(merged=1.5), trial, "bf16", 1.0) == (
        "Merged in bf16, the eval loss is 1.5000."
    )
    assert in_words(Losses(1.4, 1.5, 1.75), trial, "fp16", 2.0) == (
        "Merged in fp16, the eval loss is 1.5000 (+0.1000 against the adapter on its nf4 base). In "
        "4 bits (NF4) it is 1.7500: merging into 4-bit would lose 0.2500, 12% of what training "
        "gained."
    )
    assert in_words(Losses(1.4, 1.5, 1.5), trial, "bf16", 2.0).endswith("would lose nothing.")
