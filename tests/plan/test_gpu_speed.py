"""The speeds that plans count with are those of the pages, and are scaled as they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bases import BASES, LLAMA_8B

from sftray.config import TrialConfig
from sftray.plan.effective_batch import Execution
from sftray.plan.gpu_speed import BANK, BANK_FP8, GPUS, TRAIN, gpu_speed, known_gpu, multiplied
from sftray.plan.model_shape import ModelShape

DOCS = Path(__file__).parents[2] / "docs"
SHAPE, TRIAL, EXECUTION = ModelShape.of(LLAMA_8B), TrialConfig("base"), Execution(1, False, True)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_measured_rates_are_those_on_the_pages() -> None:
    precision = (DOCS / "precision.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| ([\d.]+B), K = [^|]+\| ([\d,]+) \| ([\d,]+) \|", precision)
    measured = [(size, number(bf16), number(fp8)) for size, bf16, fp8 in rows]
    assert [(size, rate) for size, _, rate in BANK.at[::-1]] == [one[:2] for one in measured]
    assert [rate for _, _, rate in BANK_FP8.at[::-1]] == [fp8 for _, _, fp8 in measured]
    performance = (DOCS / "performance.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"as a sweep runs it \|(.*)", performance)
    rates = [number(one) for one in re.findall(r"\*\*([\d,]+)\*\*", row)]
    assert [rate for _, _, rate in TRAIN.at] == rates[::-1]


def test_the_sizes_are_those_of_the_bases_that_were_measured() -> None:
    shapes = [ModelShape.of(config) for config in BASES.values()]
    sizes = sorted(multiplied(shape) for shape in shapes if shape)
    assert [size for _, size, _ in BANK.at] == pytest.approx(sizes, rel=1e-3)


def test_what_was_measured_is_called_so_and_all_else_estimated() -> None:
    def of(gpu: str, trial: TrialConfig = TRIAL, shape: ModelShape | None = SHAPE) -> str:
        speed = gpu_speed(shape, trial, EXECUTION, gpu, bank=True)
        return "" if speed is None else speed.source

    assert of("NVIDIA H200") == "measured of 8B on one H200 (docs/precision.md)"
    assert of("NVIDIA A100-SXM4-80GB").startswith("estimated")
    assert of("NVIDIA H200", shape=ModelShape.of(LLAMA_8B | {"num_hidden_layers": 16})).startswith(
        "estimated"
    )
    assert of("NVIDIA T1000") == of("") == of("NVIDIA H200", shape=None) == ""


def test_another_gpu_lies_between_its_ratios_of_compute_and_of_bandwidth() -> None:
    ours = gpu_speed(SHAPE, TRIAL, EXECUTION, "NVIDIA H200", bank=True)
    theirs = gpu_speed(SHAPE, TRIAL, EXECUTION, "NVIDIA A100-SXM4-80GB", bank=True)
    assert ours
    assert theirs
    assert theirs.fastest / ours.fastest == pytest.approx(1.935 / 4.8)
    assert theirs.slowest / ours.slowest == pytest.approx(312 / 989)


@pytest.mark.parametrize(
    ("slots", "positions"), [("0.5B", 147_012), ("1B", 90_039), ("8B", 17_643)]
)
def test_the_bank_on_an_h100_was_as_fast_as_scaling_from_the_h200_says(
    slots: str, positions: int
) -> None:
    """README's rates of one H100, which the table does not hold."""
    config = BASES[{"0.5B": "Qwen2.5-0.5B", "1B": "Llama-3.2-1B", "8B": "Llama-3-8B"}[slots]]
    speed = gpu_speed(ModelShape.of(config), TRIAL, EXECUTION, "NVIDIA H100 80GB HBM3", bank=True)
    assert speed
    assert speed.slowest < positions < speed.fastest


def test_a_size_between_two_has_a_rate_between_theirs() -> None:
    between, size = BANK.between(3e9)
    assert (18_215 < between < 94_554, size) == (True, "")
    assert BANK.between(75.05e9)[0] == pytest.approx(1_821.5)
    assert BANK.between(2e6)[0] == 164_926


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla V100-SXM2-16GB", None),
        ("", None),
    ],
)
def test_gpus_are_known_by_what_their_driver_calls_them(name: str, known: str | None) -> None:
    assert known_gpu(name) == known
    assert known is None or known in GPUS
