"""Shortens a conversation to a prompt of a given length: whole exchanges are dropped, the oldest first.

Chat and training use it alike, so an adapter learns from shortened histories of the form that its chat sends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from engine.core.chat import ChatMessage

SYSTEM_SHARE = 4
"""A system turn keeps at most the beginning, a quarter of the space, where the conversation does not fit."""
REPLACEMENT = "\ufffd"


class PromptEncoder(Protocol):
    """The part of a chat template that is needed to measure and shorten a conversation."""

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt with the messages that stand in it."""

    messages: list[ChatMessage]
    ids: list[int]
    dropped: int
    """Turns that were dropped."""

    def cuts_question_of(self, messages: Sequence[ChatMessage] | str) -> bool:
        """Whether the last of the `messages` that it was made of lost its beginning; False for one text."""
        if isinstance(messages, str):
            return False
        return bool(self.messages) and self.messages[-1].content != messages[-1].content


def fit_prompt(
    chat: PromptEncoder, messages: Sequence[ChatMessage], space: int, history: int | None = None
) -> FittedPrompt:
    """The prompt of `messages` in at most `space` tokens, of which earlier exchanges take part up to `history`.

    Exchanges (a question with its answers) are dropped whole, so that roles go on alternating. System turns at the
    beginning stay, shortened to a quarter of `space`. A last question that alone is too long loses its beginning.
    Raises BadInput where the template rejects what remains.
    """
    wanted = space if history is None else min(history, space)
    system, exchanges = split_exchanges(messages)
    first, last = _first_possible(chat, exchanges, wanted), max(len(exchanges) - 1, 0)
    if first == 0:
        ids = chat.prompt(messages)
        if len(ids) <= wanted:
            return FittedPrompt(list(messages), ids, 0)
    system = [_begin_of(chat, message, space // SYSTEM_SHARE) for message in system]

    def shown(start: int) -> list[ChatMessage]:
        return [*system, *(message for exchange in exchanges[start:] for message in exchange)]

    start = bisect_left(
        range(last), True, lo=min(first, last), key=lambda at: len(chat.prompt(shown(at))) <= wanted
    )
    kept = shown(start)
    ids = chat.prompt(kept)
    dropped = len(messages) - len(kept)
    if len(ids) > space:
        kept, ids = _shortened(chat, kept, len(system), space)
    return FittedPrompt(kept, ids, dropped)


def split_exchanges(messages: Sequence[ChatMessage]) -> tuple[list[ChatMessage], list[list[ChatMessage]]]:
    """(system turns at the beginning, exchanges). An exchange begins with the first question after an answer."""
    start = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    exchanges: list[list[ChatMessage]] = []
    for number, message in enumerate(messages[start:], start):
        follows = number > start and messages[number - 1].role in ("assistant", "tool")
        if not exchanges or (message.role == "user" and follows):
            exchanges.append([])
        exchanges[-1].append(message)
    return list(messages[:start]), exchanges


def _first_possible(chat: PromptEncoder, exchanges: Sequence[Sequence[ChatMessage]], space: int) -> int:
    """The first exchange from which the contents alone fit; the last exchange where none does."""
    used = 0
    for number in range(len(exchanges) - 1, -1, -1):
        used += sum(len(chat.encode(message.content)) for message in exchanges[number])
        if used > space:
            return min(number + 1, len(exchanges) - 1)
    return 0


def _shortened(
    chat: PromptEncoder, messages: Sequence[ChatMessage], system: int, space: int
) -> tuple[list[ChatMessage], list[int]]:
    """`messages` in `space` tokens: contents lose their beginnings, the oldest first, then the system turns."""
    kept = list(messages)
    ids = chat.prompt(kept)
    for place in [*range(system, len(kept)), *range(system)]:
        size = len(chat.encode(kept[place].content))
        while len(ids) > space and size > 0:
            # A shortened text may take a few tokens more than were asked for.
            size = max(0, size - (len(ids) - space))
            kept[place] = _end_of(chat, messages[place], size)
            ids = chat.prompt(kept)
    if len(ids) > space:
        # The template alone is longer than the space: its beginning (BOS) and its end remain.
        ids = [*ids[:1], *ids[1 - space :]] if space > 1 else ids[:space]
    return kept, ids


def _end_of(chat: PromptEncoder, message: ChatMessage, tokens: int) -> ChatMessage:
    """`message` with about the last `tokens` tokens of its content, which say more about the answer."""
    ids = chat.encode(message.content)
    text = chat.decode(ids[len(ids) - tokens :]).lstrip(REPLACEMENT) if tokens else ""
    return message if len(ids) <= tokens else msgspec.structs.replace(message, content=text)


def _begin_of(chat: PromptEncoder, message: ChatMessage, tokens: int) -> ChatMessage:
    ids = chat.encode(message.content)
    text = chat.decode(ids[:tokens]).rstrip(REPLACEMENT)
    return message if len(ids) <= tokens else msgspec.structs.replace(message, content=text)
