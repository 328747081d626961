"""A chat template as data: the format that conversations are written in.

Promise: transformers renders, in a process of its own (`template_process`), on the day that is
given. TRL's templates are read as files; neither torch nor transformers is imported here.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftray.data.chat.template_process import (
    LIMITS,
    Limits,
    Rendered,
    TemplateTurns,
    template_process,
)
from sftray.data.source.conversations import Message
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
    as_parts: bool
    """The template wants content as a list of text parts."""
    lead: str
    """Text inside the markers that the generation prompt writes already: not trained."""
    gap: str
    """Text before the markers that the generation prompt does not write: trained."""
    ends: tuple[str, str]
    """What closes an answer in the middle, and the last one."""
    end_of_turn_id: int
    """The last token that is trained in an answer."""
    pad_token_id: int
    control_tokens: tuple[str, ...]
    """Tokens that the template builds turns from; no text may contain them."""
    limits: Limits
    """What the template may take."""
    differences: tuple[str, ...] = ()
    """How training writes a conversation otherwise than the model's own template and prompt."""

    def render(
        self,
        conversations: Sequence[list[Message]],
        *,
        own: bool = False,
        prompt: bool = False,
        stops: Sequence[Sequence[int]] | None = None,
    ) -> Rendered:
        """`render` with this format's template, or with the model's `own`."""
        return render(
            self.own_template if own else self.template,
            [as_parts(turns) for turns in conversations] if self.as_parts else conversations,
            variables=dict(self.variables),
            date=self.date,
            prompt=prompt,
            stops=stops,
            limits=self.limits,
        )


def render(
    template: str,
    conversations: Sequence[TemplateTurns],
    *,
    variables: Mapping[str, str],
    date: str,
    prompt: bool = False,
    stops: Sequence[Sequence[int]] | None = None,
    limits: Limits = LIMITS,
) -> Rendered:
    """Each conversation as text, and the (start, stop) characters of its {% generation %} blocks;
    with `stops`, its first so many turns for each of its stops.

    `prompt` adds the generation prompt; `date` (YYYY-MM-DD) is today to the template. Raises
    RefusedError.
    """
    return template_process(limits).render(
        {
            "template": template,
            "conversations": conversations,
            "stops": stops or [[len(turns)] for turns in conversations],
            "date": date,
            "variables": {**variables, "add_generation_prompt": prompt},
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


def as_parts(conversation: Sequence[Message]) -> TemplateTurns:
    """A conversation for templates that want content as a list of text parts."""
    return [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
        for turn in conversation
    ]
