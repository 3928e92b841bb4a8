"""Turns from the text of one message, as the importers of chat programs share them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import message_turn, strip_reasoning
from engine.memory.importers.message_tree import MessageNode
from engine.memory.records import Skipped, Turn

_CITATION = re.compile(r" ?\[citation:\d+(?:, ?\d+)*\]")


def text_turn(
    role: Role,
    text: object,
    *,
    time: float | None = None,
    external_id: str = "",
    skipped: Iterable[Skipped] = (),
    reason: str = "empty message",
) -> list[Turn | Skipped]:
    """What is skipped of a message, and its turn; see `message_turn`. Anything but a string is no text."""
    words = text if isinstance(text, str) else ""
    turn, left_out = message_turn(role, words, skipped, time=time, external_id=external_id, reason=reason)
    return [*left_out, turn] if turn is not None else [*left_out]


def without_citations(text: str) -> tuple[str, list[Skipped]]:
    """An answer without the marks `[citation:1]` of web searches, of which the pages are not in the export."""
    clean, marks = _CITATION.subn("", text) if "[citation:" in text else (text, 0)
    return clean, [Skipped(reason="citation", count=marks)] if marks else []


def with_alternatives(items: Iterable[Turn | Skipped], texts: Iterable[object]) -> Iterator[Turn | Skipped]:
    """The items, with the other versions of an answer, without their reasoning, as alternatives of its turn."""
    for item in items:
        if isinstance(item, Turn) and item.role is Role.ASSISTANT:
            clean = [strip_reasoning(text, item.role)[0] for text in texts if isinstance(text, str)]
            others = dict.fromkeys(text for text in clean if text.strip() and text != item.text)
            item = msgspec.structs.replace(item, alternatives=tuple(others))
        yield item


def tree_node(
    items: Iterable[Turn | Skipped],
    role: Role | None,
    parent: str | None,
    children: tuple[str, ...] = (),
    time: float | None = None,
) -> MessageNode:
    """The node of one message, from its turn and what is skipped of it."""
    found = list(items)
    return MessageNode(
        parent=parent,
        children=children,
        turn=next((item for item in found if isinstance(item, Turn)), None),
        role=role,
        skipped=tuple(item for item in found if isinstance(item, Skipped)),
        time=time or 0.0,
    )


def join_answers(items: Iterable[Turn | Skipped]) -> Iterator[Turn | Skipped]:
    """Joins the answers between two questions: agents write one answer in pieces, between their tool calls.

    Of a joined answer, only the time and the id of its last piece are kept; the other pieces are counted, and their
    alternatives as messages of another branch.
    """
    pieces: list[Turn] = []
    for item in items:
        if isinstance(item, Turn) and item.role is Role.ASSISTANT:
            pieces.append(item)
            continue
        if isinstance(item, Turn):
            yield from _joined(pieces)
            pieces = []
        yield item
    yield from _joined(pieces)


def without_unanswered(items: Iterable[Turn | Skipped]) -> Iterator[Turn | Skipped]:
    """Without the places of omitted questions that no answer follows."""
    waiting: Turn | None = None
    for item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        if waiting and item.role is Role.ASSISTANT:
            yield waiting
        waiting = item if item.role is Role.USER and item.is_empty else None
        if waiting is None:
            yield item


def _joined(pieces: list[Turn]) -> Iterator[Turn | Skipped]:
    if len(pieces) < 2:
        yield from pieces
        return
    yield Skipped(reason="message joined to one answer", count=len(pieces) - 1)
    if others := sum(len(piece.alternatives) for piece in pieces):
        yield Skipped(reason="message of another branch", count=others)
    text = "\n\n".join(piece.text.strip("\n") for piece in pieces)
    yield msgspec.structs.replace(pieces[-1], text=text, alternatives=())
