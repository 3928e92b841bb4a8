"""A chat template with turns before every conversation, as the MESSAGE lines of a Modelfile put them there.

A verdict reads each conversation whole behind all of these turns. In a chat that has grown too long they are dropped
first, as the oldest turns, which is also what Ollama does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.answer_windows import AnswerTokens, answer_windows
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import MaskedTokens
from engine.models.history import FittedPrompt, fit_prompt

_UNSURE = 4
"""Tokens before a difference that may be joined otherwise, where no control token parts them."""


def with_turns(turns: Sequence[ChatMessage], messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages with `turns` behind their system turns."""
    start = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    return [*messages[:start], *turns, *messages[start:]]


class MessageTemplate(ChatTemplate):
    """A `ChatTemplate` whose prompts and windows all begin with the same turns."""

    def __init__(self, tokenizer: Any, turns: Sequence[ChatMessage]) -> None:
        """Raises BadInput for a template that rejects the turns."""
        super().__init__(tokenizer)
        self.turns = [msgspec.structs.replace(turn, train=False) for turn in turns]
        self._plain = ChatTemplate(tokenizer)
        self._prefixes: dict[tuple[str, ...], tuple[int, ...]] = {}

    @property
    def turn_ids(self) -> tuple[int, ...]:
        """What every prompt without a system turn of its own begins with, up to about the end of the turns."""
        return self._prefix([])

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        return super().prompt(with_turns(self.turns, messages))

    def text(self, messages: Sequence[ChatMessage]) -> str:
        return super().text(with_turns(self.turns, messages))

    def fit(self, messages: Sequence[ChatMessage], space: int) -> FittedPrompt:
        return fit_prompt(self._plain, with_turns(self.turns, messages), space)

    def tool_prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> str:
        start = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
        before = [{"role": turn.role, "content": turn.content} for turn in self.turns]
        return super().tool_prompt([*turns[:start], *before, *turns[start:]], tools)

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        """As `ChatTemplate.windows`; each window has the turns before its `context` tokens."""
        start = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
        system = list(messages[:start])
        prefix = self._prefix(system)
        return [
            msgspec.structs.replace(
                window,
                ids=[*prefix, *window.ids],
                loss_mask=[*[False] * len(prefix), *window.loss_mask],
            )
            for window in answer_windows(_Behind(self, system, prefix), messages[start:], context)
        ]

    def _prefix(self, system: Sequence[ChatMessage]) -> tuple[int, ...]:
        key = tuple(message.content for message in system)
        if key not in self._prefixes:
            first, second = (
                self.prompt([*system, ChatMessage(role="user", content=text)]) for text in ("a", "b")
            )
            length = next(
                (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), 0
            )
            controls = [at for at in range(length) if first[at] in self._tokens.controls]
            end = controls[-1] + 1 if controls else max(0, length - _UNSURE)
            self._prefixes[key] = tuple(first[:end])
        return self._prefixes[key]


class _Behind:
    """Encodes conversations as they stand behind a prefix, which is left out."""

    def __init__(self, chat: MessageTemplate, system: Sequence[ChatMessage], prefix: tuple[int, ...]) -> None:
        self._chat, self._system, self._prefix = chat, list(system), list(prefix)

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        ids = self._chat.prompt([*self._system, *messages])
        if ids[: len(self._prefix)] != self._prefix:
            raise BadInput(
                _("the model's chat template writes the turns before a conversation in several ways")
            )
        return ids[len(self._prefix) :]

    def answer(self, message: ChatMessage) -> AnswerTokens:
        return self._chat.answer(message)

    def encode(self, text: str) -> list[int]:
        return self._chat.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._chat.decode(ids)
