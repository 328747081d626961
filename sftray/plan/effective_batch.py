"""micro-batch × accumulation × workers = the effective batch, exactly."""

from __future__ import annotations

from dataclasses import dataclass

from sftray.config import TrialConfig
from sftray.errors import ConfigError


@dataclass(frozen=True)
class Execution:
    """How a trial is made to fit a device. None of it changes what is learnt."""

    micro_batch_size: int
    """Rows a worker holds at once, at most; a trial takes the largest divisor of its share."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    resident: bool = False
    """A 4-bit base is dequantised once, not in every pass."""


ONE_ROW = Execution(micro_batch_size=1)


def split_batch(trial: TrialConfig, micro_batch_size: int) -> tuple[int, int]:
    """Micro-batch and accumulation with micro × accumulation × workers = effective batch exactly.

    The largest divisor of a worker's share that is at most the wanted micro-batch; the trial's own
    `micro_batch_size` goes before the argument.
    """
    share = trial.effective_batch_size // trial.num_workers
    wanted = trial.micro_batch_size or micro_batch_size
    if trial.micro_batch_size is not None and share % trial.micro_batch_size:
        raise ConfigError(
            f"trial.micro_batch_size: got {trial.micro_batch_size}, must divide the {share} rows "
            f"that each of {trial.num_workers} workers has of an effective batch of "
            f"{trial.effective_batch_size}"
        )
    micro = largest_divisor(share, wanted)
    return micro, share // micro


def largest_divisor(whole: int, most: int) -> int:
    """The largest number, at most `most`, that divides `whole`."""
    return max(d for d in range(1, min(most, whole) + 1) if whole % d == 0)
