"""Every GPU kernel of the bank against its plain twin, on sizes that fill no block.

On a machine without a GPU, with Triton installed:
`TRITON_INTERPRET=1 pytest tests/trainers/bank/test_triton_kernels.py`.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from sftray.trainers.bank import torch_ops

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not torch.cuda.is_available() and not (INTERPRETED and importlib.util.find_spec("triton")):
    pytest.skip("needs CUDA, or Triton's interpreter", allow_module_level=True)

from sftray.trainers.bank import triton_kernels  # noqa: E402

pytestmark = pytest.mark.gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16)
EPS = 1e-6
NAN = float("nan")


WEIGHTS = [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)]
WEIGHTS += [(torch.bfloat16, torch.float32)]
"""Dtypes of what is normed and of the norm's weight, float32 where it is 1 + the checkpoint's."""


def random(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=generator).to(dtype).to(DEVICE)


def assert_close(found: Tensor, expected: Tensor) -> None:
    if expected.dtype == torch.float32:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    else:  # one or two roundings apart; Triton's interpreter truncates where a GPU rounds
        rtol = 4e-2 if INTERPRETED else 2e-2
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)


def assert_only_row_is_nan(found: Tensor, expected: Tensor, row: int) -> None:
    """Row `row` is NaN throughout, the others have the bits of `expected`."""
    others = torch.arange(len(found), device=found.device) != row
    assert found[row].isnan().all()
    assert torch.equal(found[others], expected[others])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 640, 4096, 5000, 14336])
@pytest.mark.parametrize("scaled", [False, True])
def test_quantise(width: int, dtype: torch.dtype, scaled: bool) -> None:
    sizes = torch.logspace(-20, 20, 9, device=DEVICE)[:, None]
    x = random(9, width).mul(sizes).to(dtype)
    x[2] = 0
    x[3], x[4] = x[3] / x[3].abs().max() * 448, x[4] / x[4].abs().max() * 1.75
    factor = random(1, width, seed=1).exp2() if scaled else None
    assert_codes(triton_kernels.quantise(x, factor), torch_ops.quantise(x, factor))


def assert_codes(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """The same bits; but the interpreter's conversion to e4m3 loses carries."""
    assert torch.equal(found[1], expected[1])
    if INTERPRETED:
        same = found[0].float() == expected[0].float()
        assert float(same.float().mean()) > 0.8
    else:
        assert torch.equal(found[0].view(torch.uint8), expected[0].view(torch.uint8))


@pytest.mark.parametrize(("dtype", "exact"), WEIGHTS)
@pytest.mark.parametrize("width", [96, 896, 1000, 4096])
def test_rms_norm_rounded(width: int, dtype: torch.dtype, exact: torch.dtype) -> None:
    x, weight = random(7, width, dtype=dtype), random(width, dtype=exact, seed=1)
    out, rstd, codes = triton_kernels.rms_norm_rounded(x, weight, EPS)
    expected = triton_kernels.rms_norm(x, weight, EPS)
    assert_close(out, expected[0])
    assert_close(rstd, expected[1])
    assert_codes(codes, torch_ops.quantise(out))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("inner", [48, 1000, 4096, 5000, 14336])
def test_glu_rounded(inner: int, gelu: bool, dtype: torch.dtype) -> None:
    gate_up = random(7, 2 * inner, dtype=dtype)
    out, codes = triton_kernels.glu_rounded(gate_up, gelu=gelu)
    assert_close(out, triton_kernels.glu(gate_up, gelu=gelu))
    assert_codes(codes, torch_ops.quantise(out))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("inner", [48, 1000, 2048, 5000, 14336])
def test_glu_backward_rounded(inner: int, gelu: bool, dtype: torch.dtype) -> None:
    gate_up, da = random(7, 2 * inner, dtype=dtype), random(7, inner, dtype=dtype, seed=1)
    same, active = gate_up.clone(), da.clone()
    factor = torch.arange(2 * inner, device=DEVICE).remainder(7).sub(3).exp2().bfloat16()[None]
    codes = triton_kernels.glu_backward_rounded_(gate_up, da, factor, gelu=gelu)
    triton_kernels.glu_backward_(same, active, gelu=gelu)
    assert_close(gate_up, same)
    assert_close(da, active)
    assert_codes(codes, torch_ops.quantise(gate_up, factor))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter's conversion to e4m3 loses NaN")
def test_quantise_what_is_not_finite() -> None:
    x = random(5, 96)
    x[1, 3], x[3, 7] = NAN, float("inf")
    codes, scale = torch_ops.quantise(random(32, 96, seed=1))
    right = codes, scale.T.contiguous()
    product = torch_ops.scaled_product(triton_kernels.quantise(x), right, None, x.dtype)
    assert product[[1, 3]].isnan().all()
    assert product[[0, 2, 4]].isfinite().all()


@pytest.mark.skipif(INTERPRETED, reason="needs FP8 units")
@pytest.mark.parametrize("rows", [1, 7, 129])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (896, 1152), (14336, 4096)])
def test_scaled_product(inputs: int, outputs: int, biased: bool, rows: int) -> None:
    left = torch_ops.quantise(random(rows, inputs, dtype=torch.bfloat16))
    codes, scale = torch_ops.quantise(random(outputs, inputs, seed=1).mul(0.02))
    right = codes, scale.T.contiguous()
    bias = random(outputs, dtype=torch.bfloat16, seed=2) if biased else None
    expected = torch_ops.scaled_product(left, right, bias, torch.float32)
    found = triton_kernels.scaled_product(left, right, bias, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).norm() / expected.norm()) < 2**-7


@pytest.mark.parametrize(("dtype", "exact"), WEIGHTS)
@pytest.mark.parametrize("width", [96, 640, 1000])
def test_rms_norm_on_top_of_a_residual_sum(
    width: int, dtype: torch.dtype, exact: torch.dtype
) -> None:
    x, plus = random(7, width, dtype=dtype), random(7, width, dtype=dtype, seed=2)
    weight = random(width, dtype=exact, seed=1)
    for above in (None, plus):
        found = triton_kernels.rms_norm(x, weight, EPS, above)
        for ours, expected in zip(found, torch_ops.rms_norm(x, weight, EPS, above), strict=True):
            assert ours.dtype == expected.dtype
            assert_close(ours, expected)


@pytest.mark.parametrize(("dtype", "exact"), WEIGHTS)
def test_rms_norm_backward_that_is_not_added(dtype: torch.dtype, exact: torch.dtype) -> None:
    x, weight = random(7, 640, dtype=dtype), random(640, dtype=exact, seed=1)
    dy, dx = random(7, 640, dtype=dtype, seed=2), torch.full_like(x, NAN)
    rstd = torch_ops.rms_norm(x, weight, EPS)[1]
    expected = torch.empty_like(x)
    torch_ops.rms_norm_backward_(expected, dy, x, weight, rstd, add=False)
    triton_kernels.rms_norm_backward_(dx, dy, x, weight, rstd, add=False)
    assert_close(dx, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 896, 1000, 16384])
def test_rms_norm(width: int, dtype: torch.dtype) -> None:
    x, weight = random(7, width, dtype=dtype), random(width, dtype=dtype, seed=1)
    for found, expected in zip(
        triton_kernels.rms_norm(x, weight, EPS), torch_ops.rms_norm(x, weight, EPS), strict=True
    ):
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 896, 1000])
def test_rms_norm_backward(width: int, dtype: torch.dtype) -> None:
    x, weight = random(7, width, dtype=dtype), random(width, dtype=dtype, seed=1)
    dy, dx = random(7, width, dtype=dtype, seed=2), random(7, width, dtype=dtype, seed=3)
    rstd = torch_ops.rms_norm(x, weight, EPS)[1]
    expected = dx.clone()
    torch_ops.rms_norm_backward_(expected, dy, x, weight, rstd)
    triton_kernels.rms_norm_backward_(dx, dy, x, weight, rstd)
    assert_close(dx, expected)


HEADS = [(6, 4, 16), (5, 3, 80), (6, 5, 128), (6, 5, 256)]


@pytest.mark.parametrize(("dtype", "exact"), WEIGHTS)
@pytest.mark.parametrize(("heads", "normed", "width"), HEADS)
def test_head_norm(
    heads: int, normed: int, width: int, dtype: torch.dtype, exact: torch.dtype
) -> None:
    qkv = random(7, heads, width, dtype=dtype)
    weights = random(normed, width, dtype=exact, seed=1)
    found = triton_kernels.head_norm(qkv, weights, EPS)
    assert_close(found, torch_ops.head_norm(qkv, weights, EPS))
    assert torch.equal(found[:, normed:], qkv[:, normed:])


@pytest.mark.parametrize(("dtype", "exact"), WEIGHTS)
@pytest.mark.parametrize(("heads", "normed", "width"), HEADS)
def test_head_norm_backward(
    heads: int, normed: int, width: int, dtype: torch.dtype, exact: torch.dtype
) -> None:
    qkv = random(7, heads, width, dtype=dtype)
    weights = random(normed, width, dtype=exact, seed=1)
    dqkv = random(7, heads, width, dtype=dtype, seed=2)
    expected, before = dqkv.clone(), dqkv.clone()
    torch_ops.head_norm_backward_(expected, qkv, weights, EPS)
    triton_kernels.head_norm_backward_(dqkv, qkv, weights, EPS)
    assert_close(dqkv, expected)
    assert torch.equal(dqkv[:, normed:], before[:, normed:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "rotated", "width"),
    [(4, 3, 16), (16, 14, 64), (5, 4, 80), (48, 40, 128), (3, 2, 256)],
)
@pytest.mark.parametrize("integer", [torch.int64, torch.int32])
def test_rope(
    heads: int, rotated: int, width: int, dtype: torch.dtype, integer: torch.dtype
) -> None:
    qkv = random(7, heads * width, dtype=dtype).view(7, heads, width)
    before, expected = qkv.clone(), qkv.clone()
    cos, sin = random(20, width, dtype=dtype, seed=1), random(20, width, dtype=dtype, seed=2)
    positions = torch.tensor([0, 1, 2, 19, 0, 5, 5], device=DEVICE, dtype=integer)
    torch_ops.rope_(expected, cos, sin, positions, rotated)
    triton_kernels.rope_(qkv, cos, sin, positions, rotated)
    if dtype == torch.bfloat16:  # `ops` rounds both products, which are up to 10
        torch.testing.assert_close(qkv, expected, rtol=4e-2, atol=6e-2)
    else:
        assert_close(qkv, expected)
    assert torch.equal(qkv[:, rotated:], before[:, rotated:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", [8, 24, 80])
@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_of_some_features_and_of_neighbours(
    turned: int, interleaved: bool, dtype: torch.dtype
) -> None:
    qkv = random(7, 5 * 80, dtype=dtype).view(7, 5, 80)
    before, expected = qkv.clone(), qkv.clone()
    cos, sin = random(20, turned, dtype=dtype, seed=1), random(20, turned, dtype=dtype, seed=2)
    positions = torch.tensor([0, 1, 2, 19, 0, 5, 5], device=DEVICE)
    torch_ops.rope_(expected, cos, sin, positions, 4, interleaved=interleaved)
    triton_kernels.rope_(qkv, cos, sin, positions, 4, interleaved=interleaved)
    tolerance = 6e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(qkv, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(qkv[:, 4:], before[:, 4:])
    assert torch.equal(qkv[:, :, turned:], before[:, :, turned:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [352, 353, 4864])
@pytest.mark.parametrize("gelu", [False, True])
def test_glu(inner: int, dtype: torch.dtype, gelu: bool) -> None:
    gate_up = random(7, 2 * inner, dtype=dtype)
    assert_close(triton_kernels.glu(gate_up, gelu=gelu), torch_ops.glu(gate_up, gelu=gelu))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [352, 353, 4864])
@pytest.mark.parametrize("gelu", [False, True])
def test_glu_backward(inner: int, dtype: torch.dtype, gelu: bool) -> None:
    gate_up, da = random(7, 2 * inner, dtype=dtype), random(7, inner, dtype=dtype, seed=1)
    active = triton_kernels.glu(gate_up, gelu=gelu)
    expected = (gate_up.clone(), da.clone())
    torch_ops.glu_backward_(*expected, gelu=gelu)
    triton_kernels.glu_backward_(gate_up, da, gelu=gelu)
    assert_close(gate_up, expected[0])
    assert_close(da, expected[1])
    assert torch.equal(da, active)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocabulary", [5, 1003, 17000])
def test_cross_entropy(vocabulary: int, dtype: torch.dtype) -> None:
    logits = 4 * random(6, vocabulary, dtype=dtype)
    logits[1, 2] = -float("inf")
    last = vocabulary - 1
    targets = torch.tensor([0, last, -1, last // 2, -100, 3], device=DEVICE)
    before, expected = logits.clone(), logits.clone()
    losses = triton_kernels.cross_entropy_(logits, targets, gradient=False)
    assert torch.equal(logits, before)
    assert_close(losses, torch_ops.cross_entropy_(expected, targets, gradient=True))
    assert torch.equal(triton_kernels.cross_entropy_(logits, targets, gradient=True), losses)
    assert_close(logits, expected)
    assert not logits[2].any()
    assert not logits[4].any()


@pytest.mark.skipif(DEVICE == "cpu", reason="needs 4 GiB")
def test_cross_entropy_of_more_than_two_to_the_31_logits() -> None:
    rows, vocabulary = 17000, 128256
    logits = torch.zeros(rows, vocabulary, dtype=torch.bfloat16, device=DEVICE)
    logits[-1] = random(vocabulary, dtype=torch.bfloat16)
    last = logits[-1:].clone()
    targets = torch.full((rows,), -1, device=DEVICE)
    targets[-1] = 7
    losses = triton_kernels.cross_entropy_(logits, targets, gradient=True)
    assert_close(losses[-1:], torch_ops.cross_entropy_(last, targets[-1:], gradient=True))
    assert_close(logits[-1:], last)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_keeps_what_its_twin_keeps(dtype: torch.dtype) -> None:
    rate = torch.tensor([0.0, 0.1, 0.5, 1.0], device=DEVICE)
    seeds = torch.tensor([5, -3, 2**62 + 11, 7], device=DEVICE)
    ones = torch.ones(4 * 9, 250, dtype=dtype, device=DEVICE)
    for module in (0, 1, 16, 223):
        found = triton_kernels.dropout(ones, rate, seeds, module)
        expected = torch_ops.dropout(ones, rate, seeds, module)
        assert torch.equal(found != 0, expected != 0)
        assert_close(found, expected)
        kept = (found != 0).float().view(4, -1).mean(1).cpu()
        torch.testing.assert_close(kept, 1 - rate.cpu(), rtol=0, atol=0.05)
    x = random(4 * 9, 250, dtype=dtype)
    assert_close(triton_kernels.dropout(x, rate, seeds, 3), torch_ops.dropout(x, rate, seeds, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_add(dtype: torch.dtype) -> None:
    rate, seeds = torch.tensor([0.3, 0.0, 1.0], device=DEVICE), torch.arange(3, device=DEVICE)
    dx, dy = random(3 * 5, 96, dtype=dtype), random(3 * 5, 96, dtype=dtype, seed=1)
    expected = dx.clone()
    torch_ops.dropout_add_(expected, dy, rate, seeds, 12)
    triton_kernels.dropout_add_(dx, dy, rate, seeds, 12)
    assert_close(dx, expected)


@pytest.mark.parametrize(("size", "split"), [(1003, 500), (70000, 66001)])
def test_row_norms(size: int, split: int) -> None:
    grad, table = random(3, size), _table(3)
    found = triton_kernels.row_norms(grad, table, split)
    assert_close(found, torch_ops.row_norms(grad, table, split))
    assert torch.equal(triton_kernels.row_norms(grad, table, split), found)
    grad[1, -1] = NAN
    poisoned = triton_kernels.row_norms(grad, table, split)
    assert_only_row_is_nan(poisoned, found, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("due", [(True, False, True), (False, False, False), (True, True, True)])
def test_adamw_steps_the_slots_that_are_due(dtype: torch.dtype, due: tuple[bool, ...]) -> None:
    state, expected = _adamw_state(dtype), _adamw_state(dtype)
    mask = torch.tensor(due, device=DEVICE)
    for _ in range(2):
        _step(triton_kernels, state, mask)
        _step(torch_ops, expected, mask)
        for name, tensor in state.items():
            assert_close(tensor, expected[name])
            assert torch.equal(tensor[~mask], expected[name][~mask])
        assert not state["grad"][mask].any()
        for tensors in (state, expected):
            tensors["grad"] += random(3, 2100, seed=9)


def test_adamw_leaves_a_nan_in_its_slot() -> None:
    clean, state = _adamw_state(torch.float32), _adamw_state(torch.float32)
    for tensor in state.values():
        tensor[1] = NAN
    _step(triton_kernels, clean, torch.tensor([True, False, True], device=DEVICE))
    _step(triton_kernels, state, torch.tensor([True, False, True], device=DEVICE))
    for name, tensor in state.items():
        assert_only_row_is_nan(tensor, clean[name], 1)
    _step(triton_kernels, state, torch.tensor([False, True, False], device=DEVICE))
    assert not state.pop("grad")[1].any()
    for name, tensor in state.items():
        assert_only_row_is_nan(tensor, clean[name], 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_stays_in_its_token(dtype: torch.dtype) -> None:
    inputs = _inputs(dtype)
    clean = _token_results(inputs)
    inputs["x"][3] = NAN
    for found, expected in zip(_token_results(inputs), clean, strict=True):
        assert_only_row_is_nan(found, expected, 3)


def test_a_nan_where_nothing_is_trained_on_gives_no_loss() -> None:
    logits = random(2, 1003)
    logits[1] = NAN
    losses = triton_kernels.cross_entropy_(
        logits, torch.tensor([4, -1], device=DEVICE), gradient=True
    )
    assert losses.isfinite().all()
    assert not logits[1].any()


@pytest.mark.skipif(DEVICE == "cpu", reason="needs CUDA")
def test_all_can_be_captured_in_a_cuda_graph() -> None:
    inputs, state = _inputs(torch.bfloat16), _adamw_state(torch.bfloat16)
    expected = _adamw_state(torch.bfloat16)
    due = torch.tensor([True, False, False], device=DEVICE)

    def run(state: dict[str, Tensor]) -> list[Tensor]:
        rate, seeds = inputs["rate"], inputs["seeds"]
        dropped = triton_kernels.dropout(inputs["x"], rate, seeds, 2)
        triton_kernels.dropout_add_(dropped, inputs["dx"], rate, seeds, 2)
        norms = triton_kernels.row_norms(state["grad"], state["table"], 1001)
        _step(triton_kernels, state, due)
        return [dropped, norms, *_token_results(inputs)]

    run(_adamw_state(torch.bfloat16))  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(state)
    for mask in ((True, False, True), (False, True, False)):
        due.copy_(torch.tensor(mask))
        graph.replay()
        for found, result in zip(captured, run(expected), strict=True):
            assert torch.equal(found, result)
        for name, tensor in state.items():
            assert torch.equal(tensor, expected[name])


def _inputs(dtype: torch.dtype) -> dict[str, Tensor]:
    """Seven tokens of three heads of 32 features, and of a gate and an up of 48."""
    return {
        "x": random(7, 96, dtype=dtype),
        "weight": random(96, dtype=dtype, seed=1),
        "weights": random(3, 32, dtype=dtype, seed=2),
        "cos": random(7, 32, dtype=dtype, seed=3),
        "sin": random(7, 32, dtype=dtype, seed=4),
        "dx": random(7, 96, dtype=dtype, seed=5),
        "da": random(7, 48, dtype=dtype, seed=6),
        "positions": torch.arange(7, device=DEVICE),
        "rate": torch.full((7,), 0.3, device=DEVICE),
        "seeds": torch.arange(7, device=DEVICE),
    }


def _token_results(inputs: dict[str, Tensor]) -> list[Tensor]:
    """What every kernel that works token by token makes of x, token by token."""
    x, positions = inputs["x"], inputs["positions"]
    heads = x.view(7, 3, 32)
    y, rstd = triton_kernels.rms_norm(x, inputs["weight"], EPS)
    dx = inputs["dx"].clone()
    triton_kernels.rms_norm_backward_(dx, y, x, inputs["weight"], rstd)
    normed = triton_kernels.head_norm(heads, inputs["weights"], EPS)
    dheads = inputs["dx"].clone().view(7, 3, 32)
    triton_kernels.head_norm_backward_(dheads, heads, inputs["weights"], EPS)
    turned = heads.clone()
    triton_kernels.rope_(turned, inputs["cos"], inputs["sin"], positions, 3)
    gate_up, da = x.clone(), inputs["da"].clone()
    active = triton_kernels.glu(gate_up, gelu=True)
    triton_kernels.glu_backward_(gate_up, da, gelu=True)
    logits = x.clone()
    losses = triton_kernels.cross_entropy_(logits, positions, gradient=True)
    return [y, rstd, dx, normed, dheads, turned, active, gate_up, da, logits, losses]


def _table(slots: int) -> Tensor:
    """The optimizer's table, another row for every slot."""
    table = torch.empty(slots, 9)
    for k in range(slots):
        table[k] = torch.tensor(
            [1e-3 * (k + 1), 0.9, 0.99, 1e-8, 0.1 * k, 1 - 0.9**3, 1 - 0.99**3, 2.0 + k, 1.0]
        )
    return table.to(DEVICE)


def _adamw_state(dtype: torch.dtype) -> dict[str, Tensor]:
    size = 2100
    return {
        "param": random(3, size, seed=1),
        "grad": random(3, size, seed=2),
        "first": random(3, size, seed=3),
        "second": random(3, size, seed=4).square() + 0.1,
        "work": random(3, size, dtype=dtype, seed=5),
        "table": _table(3),
        "factor": torch.tensor([0.5, 0.25, 2.0], device=DEVICE),
    }


def _step(module: Any, state: dict[str, Tensor], due: Tensor) -> None:
    module.adamw_(
        state["param"],
        state["grad"],
        (state["first"], state["second"]),
        state["work"],
        state["table"],
        state["factor"],
        due,
        1001,
    )
