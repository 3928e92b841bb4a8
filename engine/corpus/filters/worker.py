"""A helper process that filters conversations: what it is asked on stdin it answers on stdout, until stdin ends.

It opens no file and no database; when the process that started it is gone, so is its stdin.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from typing import IO

import msgspec
from msgspec.structs import replace

from engine.corpus.filters.run import assess
from engine.corpus.review.decision_log import Edit, edited
from engine.memory.records import Conversation

_LENGTH = struct.Struct("<Q")


class Filters(msgspec.Struct, frozen=True):
    """What of the settings the filters of one conversation depend on; the first message."""

    sensitive: str
    sensitive_types: dict[str, str]
    low_value: str
    low_value_from: float
    phrases: frozenset[str]
    """The person's own words of courtesy, folded."""


class Work(msgspec.Struct, frozen=True, array_like=True):
    """A conversation as it came, and the edits of its turns by position."""

    conversation: Conversation
    edits: dict[int, Edit] = {}


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What the filters say of a conversation: `Item` and `Facts` as they are kept, and texts to compare by."""

    id: str
    item: bytes
    facts: bytes
    folded: str
    opening: str


FILTERS = msgspec.msgpack.Decoder(Filters)
WORK = msgspec.msgpack.Decoder(list[Work])
ANSWERS = msgspec.msgpack.Decoder(list[Answer])
_ENCODER = msgspec.msgpack.Encoder()


def assess_batch(batch: Sequence[Work], filters: Filters) -> list[Answer]:
    """What the filters say of each conversation, as the person edited it."""
    return [_assess(work, filters) for work in batch]


def _assess(work: Work, filters: Filters) -> Answer:
    edits = work.edits
    found = assess(edited(work.conversation, edits) if edits else work.conversation, filters, filters.phrases)
    facts = found.facts
    if edits:
        # The rows name the decision they are about.
        rows = [
            replace(row, evidence=replace(row.evidence, edit=edits[row.turn].seq))
            if row.turn in edits
            else row
            for row in facts.rows
        ]
        facts = replace(facts, rows=rows)
    return Answer(
        found.item.id, _ENCODER.encode(found.item), _ENCODER.encode(facts), found.folded, found.opening
    )


def send(pipe: IO[bytes], message: bytes) -> None:
    """Raises OSError when the other side is gone."""
    pipe.write(_LENGTH.pack(len(message)) + message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None when there is none, or only a part of it."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    size = _LENGTH.unpack(head)[0]
    body = pipe.read(size)
    return body if len(body) == size else None


def main() -> None:
    with os.fdopen(0, "rb") as asked, os.fdopen(os.dup(1), "wb") as answers:
        # What a library prints must not end up among the answers.
        os.dup2(2, 1)
        first = receive(asked)
        if first is None:
            return
        filters = FILTERS.decode(first)
        while (message := receive(asked)) is not None:
            send(answers, _ENCODER.encode(assess_batch(WORK.decode(message), filters)))


if __name__ == "__main__":
    main()
    sys.exit(0)
