"""What goes into some layers of a model, what comes out, and the gradient of what went in."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from sftray.trial.decoder_layers import decoder_layers, has_experts

EMBEDDING, HEAD = "the embedding", "the head"
OUTPUT, GRADIENT = "the output", "the gradient"

Place = tuple[str, str]
"""Which module, and what of it: OUTPUT or GRADIENT (of its input)."""
Forward = Callable[..., Any]


class LayerTrace:
    """Documents that went through a model, one after another or as one row; [tokens, width] each.

    Fed by another trace, each layer computes with that one's input instead of what comes to it, so
    that errors do not add up over layers.
    """

    def __init__(self, fed: LayerTrace | None = None) -> None:
        self._fed = fed
        self._inputs: dict[str, list[Tensor]] = {}
        self._values: dict[Place, list[Tensor]] = {}

    def inputs(self, place: str) -> Tensor:
        """What came to a module, [tokens, width] in float32."""
        return torch.cat(self._inputs[place])

    def values(self) -> dict[Place, Tensor]:
        """Outputs and gradients in float32, tokens in the order in which they came."""
        return {place: torch.cat(parts) for place, parts in self._values.items()}

    def run(
        self,
        model: PreTrainedModel,
        compared: Sequence[int],
        inputs: Mapping[str, Tensor | int],
        where: Tensor,
        targets: Tensor,
    ) -> None:
        """Put a batch of one row through `model`, compare the layers of these numbers, let it pass
        the others by, and take the losses of some positions; `targets` are their next tokens."""
        device = model.device
        given = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        keeps = "logits_to_keep" in inspect.signature(type(model).forward).parameters
        given |= {"logits_to_keep": where.to(device)} if keeps else {}
        with torch.enable_grad(), self._watching(model, compared) as last:
            logits = model(**given, use_cache=False).logits[0]
            logits = logits if keeps else logits[where.to(device)]
            losses = cross_entropy(logits.float(), targets.to(device), reduction="none")
            self._keep(HEAD, last[0], losses[:, None])

    @contextmanager
    def _watching(self, model: PreTrainedModel, compared: Sequence[int]) -> Iterator[list[Tensor]]:
        """Layers replaced for one forward pass; yields the list that the head's input comes to."""
        layers = decoder_layers(model)
        last: list[Tensor] = []
        like: list[tuple[object, ...] | None] = [None]
        with contextlib.ExitStack() as stack:
            for number, layer in enumerate(layers):
                name = layer_place(number, layer)
                forward = functools.partial(self._layer, name, layer, layer.forward)
                ends = last if number == len(layers) - 1 else None
                inner = forward if number in compared else None
                watched = functools.partial(self._pass, inner, number == 0, ends, like)
                stack.enter_context(_replaced_forward(layer, watched))
            yield last

    def _pass(
        self,
        forward: Forward | None,
        first: bool,
        last: list[Tensor] | None,
        like: list[tuple[object, ...] | None],
        *args: Any,
        **kwargs: Any,
    ) -> object:
        """A layer, or nothing in its place; the embedding is what comes to the first, the head gets
        what comes from the last. `like`: what the last layer returned besides."""
        hidden = _hidden(args, kwargs)
        if first:
            self._record((EMBEDDING, OUTPUT), hidden)
        if forward is not None:
            result = forward(*args, **kwargs)
            rest = result[1:] if isinstance(result, tuple) else None
            hidden, like[0] = result if rest is None else result[0], rest
        if last is not None:
            hidden = self._input(HEAD, hidden)
            last.append(hidden)
        return hidden if like[0] is None else (hidden, *like[0])

    def _layer(
        self, name: str, layer: nn.Module, forward: Forward, *args: Any, **kwargs: Any
    ) -> object:
        """A layer as one, and each of its parts, where a large residual hides no small error. As
        one it is left out where it has a router: a token that goes to another expert because its
        input is rounded would hide all else."""
        result = None
        if not has_experts(layer):
            result = self._compare(name, forward, *args, **kwargs)
        with contextlib.ExitStack() as stack:
            for part, module in layer.named_children():
                place = f"{part} of {name}"
                watched = functools.partial(self._compare, place, module.forward)
                stack.enter_context(_replaced_forward(module, watched))
            parts = forward(*args, **kwargs)
        return parts if result is None else result

    def _compare(self, place: str, forward: Forward, *args: Any, **kwargs: Any) -> object:
        hidden = self._input(place, _hidden(args, kwargs))
        if args:
            args = (hidden, *args[1:])
        else:
            kwargs["hidden_states"] = hidden
        result = forward(*args, **kwargs)
        output = result[0] if isinstance(result, tuple) else result
        self._keep(place, hidden, output)
        detached: Tensor = output.detach()
        return (detached, *result[1:]) if isinstance(result, tuple) else detached

    def _input(self, place: str, hidden: Tensor) -> Tensor:
        """The hidden state of `place`: what came to it, or to the trace that feeds this one."""
        done = sum(len(part) for part in self._inputs.get(place, ()))
        count = hidden.shape[:-1].numel()
        if self._fed is not None:
            values = self._fed.inputs(place)[done : done + count]
            hidden = values.view(hidden.shape).to(hidden.dtype)
        leaf: Tensor = hidden.detach().clone().requires_grad_()
        self._inputs.setdefault(place, []).append(_rows(leaf))
        return leaf

    def _keep(self, place: str, hidden: Tensor, output: Tensor) -> None:
        """Record an output, and the gradient of `hidden` for a random one of it, of the head for
        the sum of its losses."""
        done = sum(len(part) for part in self._values.get((place, OUTPUT), ()))
        gradient = torch.zeros_like(hidden)  # of a path that passes none back
        if output.requires_grad:
            cotangent = torch.ones_like(output)
            if place != HEAD:
                rows = directions(done, output.shape[:-1].numel(), output.shape[-1])
                cotangent = rows.view(output.shape).to(output.device, output.dtype)
            (found,) = torch.autograd.grad(output, hidden, cotangent, allow_unused=True)
            gradient = gradient if found is None else found
        self._record((place, OUTPUT), output)
        self._record((place, GRADIENT), gradient)

    def _record(self, place: Place, values: Tensor) -> None:
        self._values.setdefault(place, []).append(_rows(values))


def layer_place(number: int, layer: nn.Module) -> str:
    """A layer's name as a place."""
    return f"layer {number} ({type(layer).__name__})"


@contextmanager
def _replaced_forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _rows(values: Tensor) -> Tensor:
    """[…, width] → [tokens, width] in float32, out of the graph."""
    return values.detach().float().reshape(-1, values.shape[-1])


def directions(start: int, count: int, width: int) -> Tensor:
    """The gradients of some tokens' outputs, [count, width]: rows of a fixed random matrix."""
    rows = []
    for token in range(start, start + count):
        generator = torch.Generator().manual_seed(token)
        rows.append(torch.randn(width, generator=generator))
    return torch.stack(rows)
