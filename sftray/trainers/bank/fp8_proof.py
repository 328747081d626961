"""The proof that a bank's products on an FP8 base are those of layers that round.

Promise: output and input gradient of every group of projections, of a layer of each kind, for the
same input bits. A layer as a whole cannot show it: a sum in another order comes to another code,
and after four products a right path is as far from the reference as one that does not round.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from sftray.errors import ConfigError, UnfitTrainerError
from sftray.plan.layer_description import FAMILIES
from sftray.trainers.bank.batches import assemble, idle_row
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.frozen_base import linear_modules
from sftray.trial.decoder_layers import decoder_layers, first_of_each_kind
from sftray.trial.fp8_rounding import in_fp8
from sftray.trial.layer_trace import directions

MOST_ERROR = 2**-7
"""Of a row of a product. bfloat16 rounds by 2⁻⁹ at most; without rounding to e4m3 it is 2⁻⁵."""
CUT_OFF, LONGEST = 2**-20, 16384
"""What is allowed besides for each number of a sum, and how many count: GPUs may cut sums off."""
CAPABILITY = (8, 9)
TOKENS = 64


def require_units(device: torch.device) -> None:
    """Raise ConfigError for a GPU that does not compute in FP8."""
    if device.type != "cuda" or (has := torch.cuda.get_device_capability(device)) >= CAPABILITY:
        return
    name, must = torch.cuda.get_device_name(device), ".".join(map(str, CAPABILITY))
    raise ConfigError(
        f"trial.base_precision: got 'fp8' on {name} of compute capability {has[0]}.{has[1]}, must "
        f"be {must} or newer: it has no FP8 units",
        "take base_precision='bf16' or 'nf4'",
    )


class ProductReference:
    """What the rounding layers of a loaded model make of random rows, in float32."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises ConfigError on a GPU that does not compute in FP8."""
        require_units(model.device)
        groups = FAMILIES[model.config.model_type].groups
        self._expected: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for number in first_of_each_kind(model):
            modules = linear_modules(decoder_layers(model)[number], groups)
            for group, names in enumerate(groups):
                self._expected[number, group] = _by_layers([modules[name] for name in names])

    def prove(self, decoder: Decoder) -> float:
        """The largest error of a row of the decoder's products, of the row's size.

        Raises UnfitTrainerError where one is too large.
        """
        worst = 0.0
        for (number, group), both in self._expected.items():
            found = _by_decoder(decoder, number, group)
            sums = (found[1].shape[1], found[0].shape[1])  # outputs sum over inputs
            parts = zip(("output", "gradient"), found, both, sums, strict=True)
            for what, ours, theirs, summed in parts:
                off_T = (ours.float() - theirs).norm(dim=1) / theirs.norm(dim=1)
                error, most = float(off_T.max()), MOST_ERROR + CUT_OFF * min(summed, LONGEST)
                if not error <= most:
                    names = ", ".join(decoder.base.shape.groups[group])
                    raise UnfitTrainerError(
                        f"in the bank's decoder the {what} of {names} of layer {number} differs "
                        f"from that of layers that round to FP8 by {error:.1g} of a row, must "
                        f"be {most:.1g} at most",
                        "take base_precision='bf16'",
                    )
                worst = max(worst, error)
        return worst


def _by_layers(modules: list[nn.Linear]) -> tuple[Tensor, Tensor]:
    outputs, device = sum(module.out_features for module in modules), modules[0].weight.device
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        x_TI = _rows(modules[0].in_features, device).requires_grad_()
        parts = []
        for module in modules:
            bias = None if module.bias is None else module.bias.float()
            product = functools.partial(functional.linear, weight=module.weight.float(), bias=bias)
            parts.append(in_fp8(x_TI, product))
        y_TO = torch.cat(parts, dim=1)
        (dx_TI,) = torch.autograd.grad(y_TO, x_TI, _rows(outputs, device))
    return y_TO.detach(), dx_TI


@torch.no_grad()
def _by_decoder(decoder: Decoder, number: int, group: int) -> tuple[Tensor, Tensor]:
    base, linear = decoder.base, decoder.linear(number, group)
    weights = base.layers[number].groups[group]
    work = torch.zeros(1, decoder.layout.size, dtype=base.dtype, device=base.device)
    batch = assemble([idle_row(TOKENS)], base.device)
    x_TI = _rows(base.shape.inputs[base.shape.groups[group][0]], base.device).to(base.dtype)
    y_TO, _ = linear.forward(x_TI, batch, work)
    dy_TO = _rows(sum(weights.widths), base.device).to(base.dtype)
    return y_TO, linear.input_gradient(dy_TO, batch, work)[0]


def _rows(width: int, device: torch.device) -> Tensor:
    """[TOKENS, width] that bfloat16 holds, each row of another size."""
    sizes = torch.logspace(-3, 3, TOKENS)[:, None]
    return (directions(0, TOKENS, width) * sizes).bfloat16().float().to(device)
