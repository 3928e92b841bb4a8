"""The line between the answers of a chat and its field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.chats.record import ChatAnswer
from engine.core.i18n import _, bracketed, n_
from engine.inference.language_model import Sampling
from tui.tabs.chat.transcript_text import context_used, ending, grouped, model_label, rate_text

SHOWN_DRAFT = 9
"""Lines of a draft from which its size is said: the field shows eight."""


class ChatState(NamedTuple):
    """What the line says."""

    model: str
    in_use: bool
    other: str
    """The second model of a comparison, or ""."""
    sampling: Sampling
    has_system: bool
    answer: ChatAnswer | None
    """The answer shown of the selected exchange."""
    seconds: float | None
    """Since the question was sent, while the answer is coming; else None."""
    draft_lines: int
    route: str = ""
    """The rule by which the model of each question is chosen, or ""."""
    tokens_per_s: float = 0.0
    """Of the answer that is coming; 0 while unknown."""


def status_parts(state: ChatState) -> Iterator[str]:
    """The parts, the most useful first; what does not fit is left out."""
    name = model_label(state.model) or _("no model")
    if state.route:
        name = _("answers: {route}").format(route=state.route)
    elif state.other:
        name = _("{one} and {other}").format(one=name, other=model_label(state.other))
    elif state.in_use:
        name = bracketed(name, _("in use"))
    yield name
    if state.draft_lines >= SHOWN_DRAFT:
        yield n_("{n} line to send", "{n} lines to send", state.draft_lines).format(
            n=grouped(state.draft_lines)
        )
    if state.seconds is not None:
        yield _("{s} s   esc stops").format(s=f"{state.seconds:.0f}")
        if state.answer is not None and not state.answer.text:
            yield _("loads the model and reads the question")
        elif state.answer is not None and state.tokens_per_s:
            yield rate_text(state.tokens_per_s)
    elif state.answer is not None:
        yield from filter(None, (context_used(state.answer), ending(state.answer)))
    yield from _changed(state.sampling)
    if state.has_system:
        yield _("system prompt")


def _changed(sampling: Sampling) -> Iterator[str]:
    """The values that differ from the default."""
    usual = Sampling()
    if sampling.temperature != usual.temperature:
        yield _("temperature {value}").format(value=f"{sampling.temperature:g}")
    if sampling.top_p != usual.top_p:
        yield _("top-p {value}").format(value=f"{sampling.top_p:g}")
    if sampling.max_tokens is not None:
        yield _("at most {n} tokens").format(n=grouped(sampling.max_tokens))
    if sampling.seed is not None:
        yield _("seed {seed}").format(seed=sampling.seed)
