"""What sftray uses of TRL that TRL does not promise to keep; no other file imports any of it.

Promise: each function gives one piece, and says why and what to do when it moves;
`tests/house/test_private.py` calls them all and looks for each of OVERRIDDEN, so an upgrade that
takes one away fails there by its name.
"""

from __future__ import annotations

from collections.abc import Callable

OVERRIDDEN = (
    "_clip_grad_norm",
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",
    "_load_rng_state",
    "_prepare_inputs",
    "_save_checkpoint",
)
"""Methods of SFTTrainer, most of them transformers' Trainer's, that `sft_trainer.py` overrides
or calls. One that is renamed would not be called any more, and nothing else would say so:
checkpoints would be transformers' own. When one goes: find what `Trainer.train` calls instead."""


def fused_lm_head() -> Callable[..., None]:
    """add_fused_lm_head, which gives a model log-probabilities of its labels without logits in
    memory. TRL's public trainers add it with entropy and accuracy on top, which cost time and which
    nobody reads here. When it moves: SFTTrainer calls it in its constructor."""
    from trl.trainer.utils import add_fused_lm_head

    return add_fused_lm_head  # type: ignore[no-any-return]
