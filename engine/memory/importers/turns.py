"""Turns from the text of one message, as the importers of chat programs share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import omitted_question, strip_reasoning
from engine.memory.records import Skipped, Turn


def text_turn(
    role: Role,
    text: object,
    *,
    time: float | None = None,
    external_id: str = "",
    skipped: Iterable[Skipped] = (),
) -> list[Turn | Skipped]:
    """What was skipped in a message, and its turn without reasoning.

    A message without text is counted once; of a question, an empty turn keeps the place.
    """
    clean, stripped = strip_reasoning(text, role) if isinstance(text, str) else ("", ())
    left_out = [*skipped, *stripped]
    if not clean.strip():
        place = [omitted_question(time, external_id)] if role is Role.USER else []
        return [*(left_out or [Skipped(reason="empty message")]), *place]
    return [*left_out, Turn(role=role, text=clean, time=time, external_id=external_id)]


def join_answers(items: Iterable[Turn | Skipped]) -> Iterator[Turn | Skipped]:
    """Joins the answers between two questions: agents write one answer in pieces, between their tool calls.

    Of a joined answer, only the time and the id of its last piece are kept; alternatives of pieces are counted as
    messages of another branch.
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


def _joined(pieces: list[Turn]) -> Iterator[Turn | Skipped]:
    if len(pieces) < 2:
        yield from pieces
        return
    if others := sum(len(piece.alternatives) for piece in pieces):
        yield Skipped(reason="message of another branch", count=others)
    text = "\n\n".join(piece.text.strip("\n") for piece in pieces)
    yield msgspec.structs.replace(pieces[-1], text=text, alternatives=())
