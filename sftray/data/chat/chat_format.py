"""A chat template as data: the format that conversations are written in.

Promise: transformers renders, in a process of its own (`template_process`), on the day that is
given. TRL's templates are read as files; neither torch nor transformers is imported here.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sftray.data.chat.template_process import (
    LIMITS,
    Cut,
    Limits,
    Rendered,
    TemplateTurns,
    template_process,
)
from sftray.data.chat.turn_shape import TurnShape
from sftray.data.source.conversations import Conversation
from sftray.data.source.turns import Message, Tool
from sftray.errors import TemplateError

MARKERS = "generation markers"
TRAINING_TEMPLATE = "TRL training template"
PREFIXES = "prefix rendering"


@dataclass(frozen=True)
class ChatFormat:
    """Everything that turns conversations into tokens and a loss mask; plain values only."""

    template: str
    """What conversations are rendered with."""
    own_template: str
    """The model's own template, which writes the prompts at inference."""
    method: str
    """MARKERS, TRAINING_TEMPLATE or PREFIXES."""
    tokenizer: str
    """The fast tokenizer as JSON."""
    variables: tuple[tuple[str, str], ...]
    """bos_token, eos_token, …: what templates may print."""
    date: str
    """Today, for templates (YYYY-MM-DD)."""
    shape: TurnShape
    """How the template wants turns."""
    lead: str
    """Text inside the markers that the generation prompt writes already: not trained."""
    gap: str
    """Text before the markers that the generation prompt does not write: trained."""
    ends: tuple[str, str]
    """What closes an answer in the middle, and the last one."""
    header: str
    """What the generation prompt writes behind a user's words."""
    end_of_turn_id: int
    """The last token that is trained in an answer."""
    pad_token_id: int
    control_tokens: tuple[str, ...]
    """Special tokens that the template builds turns from."""
    limits: Limits
    """What the template may take."""
    thinking: str = "as_template"
    """as_template, last or drop."""
    train_on: str = "assistant"
    """assistant or last."""
    enable_thinking: bool | None = None
    """What templates know by this name; None leaves it to them."""
    allow_special_tokens: bool = False
    """Those that are spelled in a text become tokens."""
    asks_thoughts: bool = False
    """Most conversations have thoughts, so that a question asks for one."""
    beside_trl: str = ""
    """What `assistant_only_loss` of TRL trains on besides, and what it does not; empty where it
    trains on the same, or on nothing because the template has no markers."""
    differences: tuple[str, ...] = ()
    """How training writes a conversation otherwise than the model's own template and prompt."""

    def render(
        self,
        conversations: Sequence[list[Message]],
        *,
        own: bool = False,
        cuts: Sequence[Sequence[Cut]] | None = None,
    ) -> Rendered:
        """`render` with this format's template, or with the model's `own`."""
        return render(
            self.own_template if own else self.template,
            [self.shape.turns(turns) for turns in conversations],
            tools=[Conversation.of(turns).tools for turns in conversations],
            variables=variables_of(self.variables, self.enable_thinking),
            date=self.date,
            cuts=cuts,
            limits=self.limits,
        )

    def to_json(self) -> dict[str, object]:
        """All but the tokenizer, as plain values."""
        return {**asdict(replace(self, tokenizer="")), "shape": self.shape._asdict()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], tokenizer: str) -> ChatFormat:
        """What `to_json` gave, with the tokenizer."""
        lists = ("ends", "control_tokens", "differences")
        given = {**values, **{name: tuple(values[name]) for name in lists}}
        given["variables"] = tuple((name, text) for name, text in values["variables"])
        given["shape"], given["limits"] = TurnShape(**values["shape"]), Limits(*values["limits"])
        return cls(**{**given, "tokenizer": tokenizer})


def variables_of(
    tokens: Sequence[tuple[str, str]], enable_thinking: bool | None
) -> dict[str, object]:
    """What a template may print: the tokenizer's tokens, and whether to think."""
    thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
    return {**dict(tokens), **thinking}


def render(
    template: str,
    conversations: Sequence[TemplateTurns],
    *,
    variables: Mapping[str, object],
    date: str,
    tools: Sequence[Sequence[Tool]] | None = None,
    cuts: Sequence[Sequence[Cut]] | None = None,
    limits: Limits = LIMITS,
) -> Rendered:
    """Each conversation as text, and the (start, stop) characters of its {% generation %} blocks;
    with `cuts`, a text for each of its cuts. `date` (YYYY-MM-DD) is today to the template. Raises
    RefusedError.
    """
    return template_process(limits).render(
        {
            "template": template,
            "conversations": conversations,
            "tools": tools or [()] * len(conversations),
            "cuts": cuts or [[(len(turns), False)] for turns in conversations],
            "date": date,
            "variables": variables,
        }
    )


def has_markers(template: str) -> bool:
    """Whether a template marks the assistant's words with {% generation %}."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def training_template(template: str) -> str | None:
    """TRL's training template of a family it knows by its template's exact text; None of others.

    The same choice as `trl.chat_template_utils.get_training_chat_template`, without torch.
    """
    folder = trl_templates()
    for path in sorted(folder.glob("*_training.jinja")):
        original = folder / path.name.replace("_training.jinja", ".jinja")
        if original.is_file() and original.read_text(encoding="utf-8") == template:
            return path.read_text(encoding="utf-8")
    return None


def trl_templates() -> Path:
    """The folder of templates that TRL bundles."""
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        raise TemplateError("trl is not installed; its chat templates are needed")
    return Path(spec.submodule_search_locations[0]) / "chat_templates"
