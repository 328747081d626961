"""Answers of the winner, for `sftray generate`."""

from __future__ import annotations

from sftray.data.chat.asking import prompt_ids, prompt_text
from sftray.data.chat.chat_format import ChatFormat
from sftray.winner.bundle import open_bundle


def answer(
    folder: str, prompt: str, max_new_tokens: int, *, trust_remote_code: bool = False
) -> dict[str, str]:
    """Greedy answers of the untrained base and of the adapter, or of the trained model, to one user
    turn."""
    local, facts = open_bundle(folder)
    trial = facts.as_trained(folder, trust_remote_code)
    from sftray.trial.base_model import computing_as, saved_tokenizer
    from sftray.trial.eval_loss import load_trained, load_untrained
    from sftray.trial.generation import reply

    tokenizer = saved_tokenizer(local, trial)
    chat = ChatFormat.from_json(facts.chat_format, tokenizer.backend_tokenizer.to_str())
    asked = prompt_ids(chat, prompt_text(chat, [{"role": "user", "content": prompt}]))
    rest = (tokenizer, asked, facts.end_of_turn, max_new_tokens)
    model, _ = load_trained(local, trial, facts.data.max_length)
    with computing_as(trial, model.device):
        if facts.is_whole:
            trained = {"model": reply(model, *rest)[0]}
            del model  # there may be no room for both
            return {"base": reply(load_untrained(trial), *rest)[0], **trained}
        with model.disable_adapter():
            base, _ = reply(model, *rest)
        return {"base": base, "adapter": reply(model, *rest)[0]}
