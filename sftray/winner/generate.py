"""Answers of the winner, for `sftray generate`."""

from __future__ import annotations

from sftray.winner.bundle import as_trained, open_bundle
from sftray.winner.loading_code import is_whole


def answer(
    folder: str, prompt: str, max_new_tokens: int, *, trust_remote_code: bool = False
) -> dict[str, str]:
    """Greedy answers of the untrained base and of the adapter, or of the trained model, to one user
    turn."""
    local, facts = open_bundle(folder)
    trial = as_trained(folder, facts, trust_remote_code)
    from sftray.trial.base_model import saved_tokenizer
    from sftray.trial.eval_loss import computing_as, load_trained, load_untrained
    from sftray.trial.generation import generate

    tokenizer = saved_tokenizer(local, trial)
    messages = [{"role": "user", "content": prompt}]
    rest = (tokenizer, messages, facts["end_of_turn"], max_new_tokens)
    model, _ = load_trained(local, trial)
    with computing_as(trial, model.device):
        if is_whole(facts):
            said = {"model": generate(model, *rest)}
            del model  # there may be no room for both
            return {"base": generate(load_untrained(trial), *rest), **said}
        with model.disable_adapter():
            base = generate(model, *rest)
        return {"base": base, "adapter": generate(model, *rest)}
