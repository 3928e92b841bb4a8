"""Windows of a conversation in which each answer stands behind the prompt that chat would send for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.models.chatml import MaskedTokens
from engine.models.history import PromptEncoder, fit_prompt

UNLIMITED = 1 << 40
"""A context that no conversation reaches."""


@dataclass(frozen=True)
class AnswerTokens:
    """An answer as the model should write it after its prompt."""

    ids: list[int]
    """With the stop token."""
    bytes: int
    """Of its text, the stop token counted as one."""


class AnswerEncoder(PromptEncoder, Protocol):
    """The part of a chat template that makes windows."""

    def answer(self, message: ChatMessage) -> AnswerTokens: ...


@dataclass
class _Window:
    """A window in the making."""

    messages: list[ChatMessage]
    """What stands in it, perhaps shortened."""
    end: int
    """Number of messages of the conversation up to its last answer."""
    ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)
    scored: int = 0
    cut: int = 0

    def add(self, prompt: Sequence[int], ids: Sequence[int], bytes_: int) -> None:
        """Appends an answer; `prompt` begins with the ids of the window."""
        self.loss_mask += [False] * (len(prompt) - len(self.ids)) + [True] * len(ids)
        self.ids = [*prompt, *ids]
        self.scored += bytes_


def answer_windows(chat: AnswerEncoder, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
    """Windows of at most `context` tokens; each trained answer is trained in one of them, behind its own prompt.

    An answer shares the window of the answer before it where its prompt begins with that window. Otherwise it has a
    window of its own: Qwen3 puts empty reasoning behind its prompt, and leaves it out of the history. A conversation
    that is too long loses its oldest exchanges, as in chat. An answer that is too long loses its end, and one whose
    prompt the template rejects is left out: both count in `truncated_bytes`. Raises BadInput if none can be trained.
    """
    windows: list[_Window] = []
    rejected: list[BadInput] = []
    left_out = 0
    for place, message in enumerate(messages):
        if message.role != "assistant" or not message.train:
            continue
        answer = chat.answer(message)
        history = None
        try:
            prompt = _continued(chat, windows[-1], messages, place) if windows else None
            if prompt is not None and len(prompt) + len(answer.ids) <= context:
                windows[-1].add(prompt, answer.ids, answer.bytes)
            else:
                if prompt is not None:
                    # The answers after this one will share its window, and need room in it.
                    history = max(0, context // 2 - len(answer.ids))
                windows.append(_opened(chat, messages[:place], answer, context, history))
        except BadInput as problem:
            rejected.append(problem)
            left_out += answer.bytes
            continue
        windows[-1].messages += [*messages[windows[-1].end : place + 1]]
        windows[-1].end = place + 1
    if rejected and not windows:
        raise rejected[0]
    if windows:
        windows[-1].cut += left_out
    return [
        MaskedTokens(
            ids=window.ids,
            loss_mask=window.loss_mask,
            truncated_bytes=window.cut,
            scored_bytes=window.scored,
        )
        for window in windows
    ]


def _continued(
    chat: AnswerEncoder, window: _Window, messages: Sequence[ChatMessage], place: int
) -> list[int] | None:
    """The prompt of the answer at `place` after what stands in the window; None where it does not begin with that."""
    prompt = chat.prompt([*window.messages, *messages[window.end : place]])
    return prompt if prompt[: len(window.ids)] == window.ids else None


def _opened(
    chat: AnswerEncoder,
    before: Sequence[ChatMessage],
    answer: AnswerTokens,
    context: int,
    history: int | None,
) -> _Window:
    """A window that begins with this answer. A quarter of it is for the question, however long the answer is."""
    space = context - min(len(answer.ids), context * 3 // 4)
    prompt = fit_prompt(chat, before, space, history)
    ids, scored = answer.ids, answer.bytes
    if len(prompt.ids) + len(ids) > context:
        ids = ids[: max(0, context - len(prompt.ids))]
        scored = min(len(chat.decode(ids).encode("utf-8", "replace")), answer.bytes)
    window = _Window(prompt.messages, len(before), cut=answer.bytes - scored)
    window.add(prompt.ids, ids, scored)
    return window
