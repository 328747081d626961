"""GPU memory of a training step, from the base's config.json: what a trial takes, what fits a GPU.

Promise: neither torch nor weights are needed; within 10 % of the measured peak for dense decoders
of 0.5 to 8 billion parameters (the table is in docs/performance.md). Counted is what PyTorch's
allocator holds at the peak; `CONTEXT` and `FREE` leave room for what it does not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sftray.config import SweepConfig, TrialConfig, Uniform
from sftray.plan.base_config import with_defaults
from sftray.plan.trial_plan import Execution, field_values

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder layer, in the order of the forward pass."""
NF4_BYTES = 0.516
"""Bytes a parameter in NF4 with double quantisation: half a byte, and an 8-bit scale for 64, with a
float32 one for 256 of those (Dettmers et al. 2023, arXiv:2305.14314)."""
FREE = 0.92
"""Share of a GPU's memory that may be planned with; the allocator wastes some."""
CONTEXT = 1.5e9
"""Bytes of CUDA itself, its libraries and their workspaces."""
TRAINED_BYTES = 16
"""Bytes of a trained parameter: itself, its gradient, AdamW's two moments, all float32."""


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, as far as memory depends on them."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    """Input embedding and head are one matrix."""
    head_norms: bool
    """Queries and keys are normed, as in Qwen3."""

    @classmethod
    def of(cls, base: Mapping[str, Any]) -> Shape | None:
        """The shape in a config.json; None where it is not that of a dense decoder."""
        base = with_defaults(base)
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
        if any(not isinstance(base.get(name), int) for name in (*needed, "num_attention_heads")):
            return None
        if any("expert" in name and base[name] for name in base):
            return None
        heads = base["num_attention_heads"]
        return cls(
            hidden=base["hidden_size"],
            inner=base["intermediate_size"],
            layers=base["num_hidden_layers"],
            vocabulary=base["vocab_size"],
            heads=heads,
            kv_heads=base.get("num_key_value_heads") or heads,
            head_dim=base.get("head_dim") or base["hidden_size"] // heads,
            tied=base.get("tie_word_embeddings", False),
            head_norms=base.get("model_type") in ("qwen3", "gemma3_text"),
        )

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(output, input) of every projection of a layer."""
        return {
            "q_proj": (self.queries, self.hidden),
            "k_proj": (self.keys, self.hidden),
            "v_proj": (self.keys, self.hidden),
            "o_proj": (self.hidden, self.queries),
            "gate_proj": (self.inner, self.hidden),
            "up_proj": (self.inner, self.hidden),
            "down_proj": (self.hidden, self.inner),
        }

    @property
    def linear(self) -> int:
        """Parameters of all linear layers but the head."""
        return self.layers * sum(rows * columns for rows, columns in self.sizes().values())

    @property
    def embedding(self) -> int:
        """Parameters of embedding and head, which are not quantised."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding


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

    @property
    def total(self) -> float:
        return self.base + self.adapters + self.activations + self.logits

    def __str__(self) -> str:
        return memory_text(asdict(self), 2**30)

    def fits(self, capacity: float) -> bool:
        """Whether a GPU of so many bytes has room for it."""
        return self.total + CONTEXT <= FREE * capacity


def memory_text(parts: Mapping[str, float], unit: float = 1.0) -> str:
    """What memory is for, in units of so many: `asdict` of a Memory, or of more than that."""
    names = {"base": "base", "adapters": "adapters"} if parts["base"] else {"adapters": "weights"}
    names |= {"activations": "activations", "logits": "logits"}
    return " + ".join(f"{says} {parts[name] / unit:.1f}" for name, says in names.items())


def adapter_parameters(shape: Shape, targets: str | tuple[str, ...], rank: int) -> int:
    """LoRA parameters; targets that are a pattern count as all linear layers."""
    names = adapted(targets)
    sizes = shape.sizes()
    return shape.layers * rank * sum(sum(sizes[name]) for name in names)


def adapted(targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """The projections that `lora_target_modules` names; all of them for what is not such names."""
    names = tuple(name for name in PROJECTIONS if name in targets)
    return PROJECTIONS if isinstance(targets, str) or not names else names


def base_bytes(shape: Shape, precision: str, *, resident: bool) -> float:
    """The frozen weights; of a 4-bit base that is not resident also room to dequantise in."""
    size = element_bytes(precision)
    held = float(shape.embedding * size)
    if precision == "nf4" and not resident:
        return held + shape.linear * NF4_BYTES + size * shape.inner * shape.hidden
    return held + shape.linear * size


def element_bytes(precision: str) -> int:
    """Bytes of a number that a GPU computes with."""
    return 4 if precision == "fp32" else 2


def train_memory(shape: Shape, trial: TrialConfig, max_length: int, execution: Execution) -> Memory:
    """The peak of the `train` trainer's step on a GPU, with Liger's kernels; without them more is
    kept, and it was not measured."""
    if trial.finetune == "full":
        return _full_memory(shape, trial, max_length, execution)
    size = element_bytes(trial.base_precision)
    tokens = execution.micro_batch_size * max_length
    names = adapted(trial.lora_target_modules)
    trained = adapter_parameters(shape, trial.lora_target_modules, trial.lora_r)
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
    return Memory(
        base=base,
        adapters=TRAINED_BYTES * trained + low,
        activations=float(kept),
        logits=float(logits),
    )


HEAD_TOKENS, HEAD_VOCABULARY = 4096, 8192
"""The tiles in which TRL's fused head computes logits."""


def _layer_activations(
    shape: Shape, trial: TrialConfig, size: int, names: tuple[str, ...]
) -> float:
    """Bytes a token that one layer keeps for its backward pass."""
    hidden, inner = shape.hidden, shape.inner
    heads = shape.queries + 2 * shape.keys
    kept = 4 * hidden  # two residual sums and what their norms make of them
    kept += heads + shape.queries  # for attention, and its output
    kept += (heads - shape.keys) if shape.head_norms else 0
    kept += 3 * inner  # gate, up and what they make together
    kept += len(names) * trial.lora_r
    exact = 4 * (2 + shape.heads)  # norms' and attention's sums, float32
    if trial.lora_dropout:
        sizes = shape.sizes()
        exact += sum(sizes[name][1] for name in names)  # a byte an input: what dropout has kept
    return float(size * kept + exact)


def _full_memory(shape: Shape, trial: TrialConfig, max_length: int, execution: Execution) -> Memory:
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


def _full_layer_activations(shape: Shape, size: int) -> float:
    """Bytes a token that one layer keeps where all weights are trained."""
    kept = 4 * 2 * shape.hidden  # two residual sums
    # what norms make of them: in float32 once, else a copy for each of the five projections
    kept += 4 * 2 * shape.hidden if size == 4 else size * 5 * shape.hidden
    heads = shape.queries + 2 * shape.keys
    inner = heads + shape.queries + 3 * shape.inner
    inner += (heads - shape.keys) if shape.head_norms else 0
    return float(kept + size * inner + 4 * (2 + shape.heads))


def choose_execution(
    sweep: SweepConfig, base: Mapping[str, Any], *, memory: float | None
) -> Execution | None:
    """The fastest way to run the sweep's trials by the `train` trainer on a device of `memory`
    bytes (None: a CPU); None where not even the smallest trial fits.

    It fits the largest rank that can be run at all; `too_large` tells of those that cannot. `base`
    is the base's config.json; where its memory cannot be estimated, a micro-batch of FEW_TOKENS
    under activation checkpointing is taken.
    """
    trial, shape, length = sweep.trial, Shape.of(base), sweep.data.max_length
    if memory is None:
        small = shape is not None and 4 * shape.parameters < RESIDENT_ON_CPU
        small = small and not trial.shard_base
        rows = trial.micro_batch_size or max(1, CPU_TOKENS // length)
        return Execution(rows, trial.activation_checkpointing or False, resident=small)
    if shape is None:
        rows = trial.micro_batch_size or max(1, FEW_TOKENS // length)
        return Execution(rows, trial.activation_checkpointing is not False)
    candidates = _from_fastest(shape, trial, length)
    for largest in _by_memory(sweep):
        for execution in candidates:
            if train_memory(shape, largest, length, execution).fits(memory):
                return execution
    return None


def too_large(
    trial: TrialConfig, base: Mapping[str, Any], max_length: int, *, memory: float | None
) -> str | None:
    """Why a trial cannot run by the `train` trainer on a GPU of `memory` bytes; None if it can, or
    if that is not known."""
    shape = Shape.of(base)
    if shape is None or memory is None:
        return None
    execution = _from_fastest(shape, trial, max_length)[-1]
    needed = train_memory(shape, trial, max_length, execution)
    if needed.fits(memory):
        return None
    what, less = f"rank {trial.lora_r}", "lora_r or data.max_length"
    if trial.finetune == "full":
        what = f"training all of {shape.parameters / 1e9:.2f} billion weights"
        less = "data.max_length, train an adapter with finetune='lora'"
    return (
        f"{what} on rows of {max_length:,} tokens takes at least "
        f"{(needed.total + CONTEXT) / 2**30:.1f} GiB ({needed}), and the GPU has "
        f"{memory / 2**30:.1f}; lower {less}, or take a larger GPU"
    )


CPU_TOKENS = 1024
"""Tokens of a micro-batch on a CPU."""
RESIDENT_ON_CPU = 4e9
"""Bytes of a base that is kept dequantised on a CPU."""
FEW_TOKENS, BUSY_TOKENS, SMALL_BASE = 2048, 8192, 2e9
"""A micro-batch of fewer tokens leaves a GPU idle; one of more makes nothing faster, but for a base
of fewer parameters, whose kernels are short: there, four times as many."""


def _from_fastest(shape: Shape, trial: TrialConfig, max_length: int) -> list[Execution]:
    """All ways to run a trial on a GPU, the one that takes the least memory last. Recomputing costs
    a third, a short micro-batch more than that, dequantising a few per cent."""
    busy = BUSY_TOKENS * (4 if shape.parameters < SMALL_BASE else 1)
    rows = trial.micro_batch_size or max(1, busy // max_length)
    sizes = [rows]
    while sizes[-1] > 1 and trial.micro_batch_size is None:
        sizes.append(sizes[-1] // 2)
    long = [size for size in sizes if size * max_length >= FEW_TOKENS]
    found = []
    for checkpointing, some in ((False, long), (True, long), (False, sizes), (True, sizes)):
        if trial.activation_checkpointing not in (None, checkpointing):
            continue
        for size in some:
            for resident in _residences(trial):
                found.append(Execution(size, checkpointing, resident))
    return found


def _residences(trial: TrialConfig) -> tuple[bool, ...]:
    return (True, False) if trial.base_precision == "nf4" and not trial.shard_base else (False,)


def _by_memory(sweep: SweepConfig) -> list[TrialConfig]:
    """The baseline at every rank of the search, the largest first, with the most dropout."""
    ranks = field_values(sweep, "lora_r") or []
    dropout = largest_value(sweep, "lora_dropout")
    return [
        replace(sweep.trial, lora_r=int(rank), lora_dropout=dropout) for rank in reversed(ranks)
    ]


def largest_value(sweep: SweepConfig, name: str) -> float:
    """The largest value of a numeric field in a sweep."""
    values = field_values(sweep, name)
    if values is not None:
        return max(values)
    space = sweep.search_space[name]
    assert isinstance(space, Uniform)
    return space.high
