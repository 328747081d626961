"""Whether a trial may enter a bank, what it adapts there, and what it runs with."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sftray.errors import ConfigError
from sftray.plan.bank_settings import BankSettings
from sftray.plan.layer_description import Groups
from sftray.plan.trainer_choice import target_projections
from sftray.storage.journal.event_types import RanWith
from sftray.trainers.bank.adapters import Layout
from sftray.trainers.bank.decoder import Decoder
from sftray.trainers.bank.decoder_proof import DecoderProof
from sftray.trial.trial_spec import TrialSpec


def admitted_targets(
    spec: TrialSpec, settings: BankSettings, layout: Layout, groups: Groups
) -> list[str]:
    """The projections that a trial adapts, in the order of PEFT's. groups: of the base's
    projections, by input. Raises ConfigError where the bank was not built for such a trial."""
    plan, trial, refusal = spec.plan, spec.config, None
    targets = set(target_projections(trial.lora_target_modules, groups) or ())
    if plan.micro_batch_size != settings.micro_batch_size:
        rows = settings.micro_batch_size
        refusal = f"a micro-batch of {plan.micro_batch_size} rows in a bank of {rows}"
    elif trial.lora_r > layout.rank:
        refusal = f"lora_r {trial.lora_r} in a bank of at most {layout.rank}"
    elif trial.lora_dropout and not settings.dropout:
        refusal = "lora_dropout in a bank that was built without"
    elif not targets or not targets <= {place.projection for place in layout.places}:
        refusal = f"lora_target_modules {trial.lora_target_modules} in a bank without them"
    if refusal:
        raise ConfigError(f"{spec.trial}: {refusal}")
    return sorted(targets)


def ran_with(
    spec: TrialSpec,
    targets: Collection[str],
    settings: BankSettings,
    decoder: Decoder,
    proof: DecoderProof,
) -> RanWith:
    """What a trial that adapts `targets` runs with."""
    places = [one for one in decoder.layout.places if one.projection in targets]
    device = decoder.base.device
    return {
        "attention": decoder.attention.name,
        "equality": proof.text(),
        "isolation_max_change": proof.isolation,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "trained_parameters": spec.config.lora_r
        * sum(place.inputs + place.outputs for place in places),
        "activation_checkpointing": settings.activation_checkpointing,
        "accumulation": spec.plan.accumulation,
        "bank_slots": settings.slots,
        "resident_base": decoder.base.resident,
    }
