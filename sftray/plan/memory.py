"""GPU memory of a training step, from the base's config.json: what a trial takes, what fits a GPU.

Promise: neither torch nor weights are needed; within 10 % of the measured peak for dense decoders
of 0.5 to 8 billion parameters (docs/performance.md has the table). The estimate counts what
PyTorch's allocator holds at the peak; `CONTEXT` and `FREE` leave room for what it does not see.
"""

from __future__ import annotations

from dataclasses import dataclass

from sftray.config import TrialConfig
from sftray.plan.effective_batch import Execution
from sftray.plan.model_shape import ModelShape, adapted, adapter_parameters
from sftray.plan.proof_memory import proof_bytes

NF4_BYTES = 0.516
"""Bytes a parameter in NF4 with double quantisation: half a byte, and an 8-bit scale for 64, with a
float32 one for 256 of those (Dettmers et al. 2023, arXiv:2305.14314)."""
QUANTISED_BYTES = {"nf4": NF4_BYTES, "fp4": 0.5625, "int8": 1.0}
"""The same by precision: fp4 has a float32 scale for 64, int8 one for each row."""
FREE = 0.92
"""Share of a GPU's memory that may be planned with; the allocator wastes some."""
CONTEXT = 1.5e9
"""Bytes of CUDA itself, its libraries and their workspaces."""
TRAINED_BYTES = 16
"""Bytes of a trained parameter: itself, its gradient, AdamW's two moments, all float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step."""

    base: float
    """Frozen weights; none in full fine-tuning."""
    adapters: float
    """What is trained, with gradients and moments: adapters, or all weights."""
    activations: float
    """Kept for the backward pass, and passing."""
    logits: float
    proof: float = 0.0
    """Of the proof, before anything is trained, when only the base is there."""

    @property
    def training(self) -> float:
        """All but the base, once the proof is done."""
        return self.adapters + self.activations + self.logits

    @property
    def total(self) -> float:
        return self.base + max(self.training, self.proof)

    def __str__(self) -> str:
        names = "base adapters" if self.base else "weights"
        parts = [self.base, self.adapters] if self.base else [self.adapters]
        parts += [self.activations, self.logits]
        if self.proof > self.training:
            return f"base {self.base / 2**30:.1f} + its proof {self.proof / 2**30:.1f}"
        named = zip(f"{names} activations logits".split(), parts, strict=True)
        return " + ".join(f"{name} {size / 2**30:.1f}" for name, size in named)

    def fits(self, capacity: float) -> bool:
        """Whether a GPU of so many bytes has room for it."""
        return self.total + CONTEXT <= FREE * capacity


def base_bytes(shape: ModelShape, precision: str, *, resident: bool) -> float:
    """The frozen weights; of a quantised base that is not resident also room to dequantise in.
    Experts are parameters, which bitsandbytes does not quantise."""
    size = element_bytes(precision)
    held = float((shape.embedding + shape.in_experts) * size)
    if precision == "fp8":  # a byte in both directions, and a float32 scale an output
        held += 4 * shape.layers * sum(rows for rows, _ in shape.sizes().values())
    if precision in QUANTISED_BYTES and not resident:
        packed = shape.linear * QUANTISED_BYTES[precision]
        return held + packed + size * shape.inner * shape.hidden
    return held + shape.linear * size


def element_bytes(precision: str) -> int:
    """Bytes of a number that a GPU computes with."""
    return 4 if precision == "fp32" else 2


def train_memory(
    shape: ModelShape, trial: TrialConfig, max_length: int, execution: Execution
) -> Memory:
    """The peak of the `train` trainer's step on a GPU, with Liger's kernels; without them more is
    kept, and it was not measured."""
    if trial.finetune == "full":
        return _full_memory(shape, trial, max_length, execution)
    size = element_bytes(trial.base_precision)
    tokens = execution.micro_batch_size * max_length
    names = adapted(trial.lora_target_modules)
    experts = trial.lora_target_parameters
    trained = adapter_parameters(shape, trial.lora_target_modules, trial.lora_r, experts)
    layer = _layer_activations(shape, trial, size, names)
    base = base_bytes(shape, trial.base_precision, resident=execution.resident)
    if trial.shard_base:
        spread = shape.linear * NF4_BYTES
        base -= spread * (1 - 1 / trial.num_workers)
        base += 2 * spread / shape.layers  # the layer at work, and the next
    tile = min(tokens, HEAD_TOKENS) * min(shape.vocabulary, HEAD_VOCABULARY)
    logits = tile * (size + 4) + 8 * tokens * shape.hidden
    if execution.activation_checkpointing:
        # the head has done when one layer after the other is run again
        again = tokens * (layer + 2 * size * (shape.inner + shape.hidden))
        kept = tokens * shape.layers * size * shape.hidden + max(again - logits, 0)
        low = 0.0
    else:
        kept = tokens * (shape.layers * layer + 3 * size * (shape.inner + shape.hidden))
        low = float(trained * size)  # adapters in the compute dtype, kept with the activations
    if experts:  # PEFT adds adapters to weights; a sum is kept for its layer's backward pass
        layers = 2 if execution.activation_checkpointing else shape.layers
        kept += size * shape.in_experts * layers / shape.layers
    return Memory(
        base=base,
        adapters=TRAINED_BYTES * trained + low,
        activations=float(kept),
        logits=float(logits),
        proof=proof_bytes(shape, size, max_length),
    )


HEAD_TOKENS, HEAD_VOCABULARY = 4096, 8192
"""The tiles in which TRL's fused head computes logits."""


def _layer_activations(
    shape: ModelShape, trial: TrialConfig, size: int, names: tuple[str, ...]
) -> float:
    """Bytes a token that one layer keeps for its backward pass."""
    hidden, inner = shape.hidden, shape.inner
    heads = shape.queries + 2 * shape.keys
    kept = 4 * hidden  # two residual sums and what their norms make of them
    kept += heads + shape.queries  # for attention, and its output
    kept += (heads - shape.keys) if shape.head_norms else 0
    kept += 3 * inner  # gate, up and what they make together
    kept += shape.active * (4 * shape.expert_inner + 2 * hidden)
    kept += len(names) * trial.lora_r
    exact = 4 * (2 + shape.heads)  # norms' and attention's sums, float32
    if trial.lora_dropout:
        sizes = shape.sizes()
        exact += sum(sizes[name][1] for name in names)  # a byte an input: what dropout has kept
    return float(size * kept + exact)


def _full_memory(
    shape: ModelShape, trial: TrialConfig, max_length: int, execution: Execution
) -> Memory:
    """The same where all weights are trained: they, residual sums and norms are float32, whatever
    is computed in. With several workers gradients are in DDP's buckets, too."""
    size = element_bytes(trial.base_precision)
    tokens = execution.micro_batch_size * max_length
    trained = (TRAINED_BYTES + (4 if trial.num_workers > 1 else 0)) * shape.parameters
    copies = shape.linear * size if size == 2 else 0  # autocast's, of all layers
    layer = _full_layer_activations(shape, size)
    tile = min(tokens, HEAD_TOKENS) * min(shape.vocabulary, HEAD_VOCABULARY)
    logits = tile * (size + 4) + 8 * tokens * shape.hidden
    logits += 4 * shape.vocabulary * shape.hidden  # the head's gradient, before it is added
    passing = size * (shape.inner + shape.hidden)
    if execution.activation_checkpointing:
        # copies are let go after the forward pass, and of a layer that is run again
        again = tokens * (layer + 2 * passing) + copies / shape.layers
        kept = 4 * tokens * shape.layers * shape.hidden + max(again - logits, copies - logits, 0)
    else:
        kept = copies + tokens * (shape.layers * layer + 3 * passing)
    return Memory(base=0.0, adapters=float(trained), activations=float(kept), logits=float(logits))


def _full_layer_activations(shape: ModelShape, size: int) -> float:
    """Bytes a token that one layer keeps where all weights are trained."""
    kept = 4 * 2 * shape.hidden  # two residual sums
    # what norms make of them: in float32 once, else a copy for each of the five projections
    kept += 4 * 2 * shape.hidden if size == 4 else size * 5 * shape.hidden
    heads = shape.queries + 2 * shape.keys
    inner = heads + shape.queries + 3 * shape.inner
    inner += (heads - shape.keys) if shape.head_norms else 0
    return float(kept + size * inner + 4 * (2 + shape.heads))
