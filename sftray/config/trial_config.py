"""TrialConfig: one fine-tune; every field can be an axis of the search."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from sftray.config.bounds import (
    Above,
    AtLeast,
    Between,
    Filled,
    Matches,
    OneOf,
    Seed,
    Share,
    ShareByName,
)
from sftray.config.checks import check_fields, known_fields, refuse, require, with_known_fields
from sftray.config.shares import source_of
from sftray.config.spaces import Value
from sftray.storage.paths import with_bundled

LORA_ALPHA = 32.0
LR_SCHEDULERS = ("cosine", "linear", "wsd")
ATTENTIONS = ("flash_attention_3", "flash_attention_2", "varlen", "sdpa", "eager", "apart")


@with_known_fields
@dataclass(frozen=True)
class TrialConfig:
    """One fine-tune. A point of the search is applied with `replace(trial, **point)`."""

    model: Annotated[str, Matches("(?s).+", "a folder or a Hub model id")]
    """The base: a local folder or a Hub model id."""
    model_revision: Annotated[str | None, Filled()] = None
    """Git revision of a Hub model; None takes the newest at the first start, and a later start is
    refused where there is a newer one."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings. Off unless you have read it."""
    finetune: Annotated[str, OneOf("lora", "full")] = "lora"
    """What is trained: lora, an adapter on a frozen base; full, all weights, held in float32."""
    base_precision: Annotated[str, OneOf("nf4", "bf16", "fp8", "fp32", "fp4", "int8")] = "nf4"
    """How the frozen base is held: nf4 (QLoRA, double-quantised), bf16 or fp32; fp8, in a bank
    alone: its products, too, are in FP8 (e4m3, a scale a row); fp4 or int8 where bitsandbytes has
    saved the checkpoint so. On a CPU all is computed in float32, with bf16 and fp8 from numbers
    that were rounded. In full fine-tuning bf16 or fp32: what is computed in."""

    learning_rate: Annotated[float, Above(0, 1e37)] = 1e-4
    """Peak learning rate of AdamW; LoRA usually wants 1e-4 … 2e-4, full fine-tuning
    1e-5 … 5e-5."""
    effective_batch_size: Annotated[int, AtLeast(1)] = 16
    """Packed rows an optimizer step; always micro-batch × accumulation × workers exactly."""
    num_train_epochs: Annotated[float, Above(0)] = 1.0
    """Passes over the packed rows; fractions are allowed."""
    warmup_ratio: Annotated[float, Share()] = 0.05
    """Share of the optimizer steps in which the learning rate rises from 0 (rounded up)."""
    lr_scheduler: Annotated[str, OneOf(*LR_SCHEDULERS)] = "cosine"
    """How the rate falls after the warm-up: along a cosine, linearly, or (wsd) not at all until
    the last lr_decay_ratio of the steps."""
    lr_decay_ratio: Annotated[float, Above(0, 1)] = 0.2
    """Share of the steps in which wsd's rate falls, as 1 - sqrt of their progress."""
    min_lr_ratio: Annotated[float, Share()] = 0.0
    """The schedule ends at this share of the peak."""
    weight_decay: Annotated[float, AtLeast(0.0)] = 0.01
    """AdamW's decoupled decay, on all LoRA weights; in full fine-tuning not on norms and biases."""
    max_grad_norm: Annotated[float, Above(0)] = 1.0
    """Gradients are clipped to this global norm."""
    adam_beta1: Annotated[float, Share()] = 0.9
    adam_beta2: Annotated[float, Share()] = 0.999
    mixture: Annotated[Mapping[str, float], ShareByName()] = field(default_factory=dict, hash=False)
    """Shares of the rows that are drawn from sources, by their short names; the others divide the
    rest by their weights. An axis is the share of one: "mixture.NAME"."""

    lora_r: Annotated[int, Between(1, 8192)] = 16
    """LoRA rank."""
    lora_alpha: Annotated[float | None, Above(0), "or None with lora_alpha_ratio"] = LORA_ALPHA
    """LoRA's alpha, the same at every rank: so the best learning rate hardly moves with the
    rank."""
    lora_alpha_ratio: Annotated[float | None, Above(0)] = None
    """alpha / r, in the place of lora_alpha."""
    use_rslora: bool = False
    """Scale the adapter by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023,
    arXiv:2312.03732)."""
    lora_dropout: Annotated[float, Share()] = 0.0
    """Dropout in front of lora_A."""
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    """The modules that get an adapter, in PEFT's words; all-linear never means experts."""
    lora_target_parameters: tuple[str, ...] = ()
    """Parameters that get an adapter besides, as ("mlp.experts.gate_up_proj",
    "mlp.experts.down_proj"): transformers holds experts as parameters, not as modules."""

    num_workers: Annotated[int, AtLeast(1)] = 1
    """Workers (GPUs) a trial."""
    micro_batch_size: Annotated[int | None, AtLeast(1)] = None
    """Rows a worker holds at once; None derives it."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass; None derives it."""
    attention: Annotated[str | None, OneOf(*ATTENTIONS)] = None
    """flash_attention_3, flash_attention_2, varlen, sdpa, eager, or apart (the documents of a row
    one by one); None takes the fastest that is proved on the loaded base."""
    shard_base: bool = False
    """Spread the base over the trial's workers (FSDP2), instead of a whole one on each."""
    seed: Annotated[int, Seed()] = 0
    """Row order, adapter initialisation and dropout."""

    def __post_init__(self) -> None:
        check_fields("trial.", self)
        object.__setattr__(self, "model", with_bundled(self.model))
        if isinstance(self.lora_target_modules, list):
            object.__setattr__(self, "lora_target_modules", tuple(self.lora_target_modules))
        self._require_targets()
        self._require_parameters()
        self._require_one_scale()
        if self.finetune == "full" and self.base_precision not in ("bf16", "fp32"):
            bits = "4" if self.in_4_bits else "8"
            must = f"'bf16' or 'fp32': {bits}-bit weights cannot be trained"
            refuse("trial.base_precision", f"{self.base_precision!r} with finetune='full'", must)
        if self.effective_batch_size % self.num_workers:
            got = f"{self.effective_batch_size} with num_workers={self.num_workers}"
            refuse("trial.effective_batch_size", got, "a multiple of num_workers")
        if self.shard_base and (self.num_workers == 1 or self.base_precision != "nf4"):
            got = f"num_workers={self.num_workers}, base_precision={self.base_precision!r}"
            refuse("trial.shard_base", f"True with {got}", "with several workers and an nf4 base")
        if self.shard_base and self.lora_target_modules != "all-linear":
            got = f"True with lora_target_modules={self.lora_target_modules!r}"
            must = "with 'all-linear': only adapted layers can be taken apart"
            refuse("trial.shard_base", got, must)

    def _require_one_scale(self) -> None:
        """Alpha or its ratio, and rsLoRA's scale of the one only."""
        if self.lora_alpha_ratio is None:
            if self.lora_alpha is None:
                must = f"a number (the default is {LORA_ALPHA:g}), or given with lora_alpha_ratio"
                refuse("trial.lora_alpha", "None", must)
            return
        if self.lora_alpha not in (None, LORA_ALPHA):
            got = f"{self.lora_alpha:g} with lora_alpha_ratio={self.lora_alpha_ratio:g}"
            refuse("trial.lora_alpha", got, "one of them: the ratio takes the place of alpha")
        if self.use_rslora:
            got = f"{self.lora_alpha_ratio:g} with use_rslora"
            refuse("trial.lora_alpha_ratio", got, "one of them: each sets how alpha meets the rank")
        object.__setattr__(self, "lora_alpha", None)

    def _require_targets(self) -> None:
        targets, what = self.lora_target_modules, "trial.lora_target_modules"
        must = "'all-linear', a pattern, or a list of modules"
        if not targets or not isinstance(targets, str | tuple) or not all(targets):
            refuse(what, repr(targets), must)
        if isinstance(targets, tuple):
            require(all(isinstance(one, str) for one in targets), what, repr(targets), must)
            return
        try:
            re.compile(targets)
        except re.error as error:
            refuse(what, repr(targets), f"{must}; as a pattern it has {error}")

    def _require_parameters(self) -> None:
        names, what = self.lora_target_parameters, "trial.lora_target_parameters"
        if isinstance(names, list):
            object.__setattr__(self, "lora_target_parameters", names := tuple(names))
        texts = isinstance(names, tuple) and all(isinstance(one, str) and one for one in names)
        require(texts, what, repr(names), "a list of parameters")
        if names and (self.lora_dropout or self.shard_base):
            got = f"{names!r} with lora_dropout={self.lora_dropout:g}, shard_base={self.shard_base}"
            refuse(what, got, "without dropout and on one worker's base: PEFT has no other")

    @property
    def in_4_bits(self) -> bool:
        """Whether the base is held in bitsandbytes' 4 bits."""
        return self.base_precision in ("nf4", "fp4")

    @property
    def alpha(self) -> float:
        """LoRA's alpha as PEFT wants it."""
        if self.lora_alpha_ratio is not None:
            return self.lora_alpha_ratio * self.lora_r
        assert self.lora_alpha is not None  # or there is a ratio: __post_init__
        return self.lora_alpha

    @property
    def lora_scale(self) -> float:
        """What B · A is multiplied by."""
        return self.alpha / (math.sqrt(self.lora_r) if self.use_rslora else self.lora_r)

    def at(self, point: Mapping[str, Value]) -> TrialConfig:
        """This baseline with a point of the search applied, checked again."""
        own = {name: value for name, value in point.items() if source_of(name) is None}
        known_fields("point", own, TrialConfig)
        shares = {source: point[name] for name in point if (source := source_of(name)) is not None}
        mixture = {**self.mixture, **shares}
        return dataclasses.replace(self, **{"mixture": mixture, **own})  # type: ignore[arg-type]
