"""What the review shows, as plain values. Light: the app imports it."""

from __future__ import annotations

from typing import Any

import msgspec


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of the list."""

    id: str
    state: str
    automatic: str
    """What the filters said; differs from `state` where the person decided."""
    stage: str
    """Stage that dropped, held or changed it; "" for none."""
    reason: str
    """Reason code (`states.REASONS`), or the types of private data."""
    first_line: str
    language: str
    source: str
    pairs: int
    """Answers with content."""
    turns: int
    characters: int
    quality: float
    time: float | None
    """Of its last turn, seconds since the epoch."""
    twin: str | None
    split: str
    cluster: str
    flagged: bool = False
    """The person marked it for later."""
    edited: bool = False
    """The person wrote a turn of it anew."""


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger."""

    stage: str
    action: str
    reason: str
    turn: int
    """-1: the whole conversation."""
    spans: list[tuple[str, int, int]]
    similarity: float | None
    score: float | None
    twin: str | None


class ReviewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn with what the filters marked in it."""

    position: int
    role: str
    text: str
    redacted: str
    """As it is trained on."""
    spans: list[tuple[str, int, int]]
    """(type, start, end) in code points of `text`."""
    masked: str
    """Reason code when the turn bears no loss, else ""."""
    time: float | None
    original: str | None = None
    """Its text as it came, where the person wrote it anew."""
    unread: bool = False
    """Written anew since the last build: the filters have not looked at it yet."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One verdict, edit, flag or rule of the person. `batch` is 0, or shared by those made together."""

    seq: int
    id: str
    verdict: str
    previous: str
    reason: str
    time: float
    batch: int = 0
    turn: int = -1
    text: str = ""


class ReviewDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as the right pane shows it."""

    item: ReviewItem
    title: str
    turns: list[ReviewTurn]
    why: list[Why]
    decisions: list[Decision]
    """Verdicts in force, newest first."""
    kin: list[str]
    """Other conversations of its cluster, at most 20."""


_FIELDS = tuple(field.name for field in msgspec.structs.fields(ReviewItem))

DECISION_COLUMNS = "seq, conversation_id, verdict, previous, reason, time, batch, turn, text"
"""Columns of `decisions` in the order of the fields of `Decision`."""


def make_item(row: tuple[object, ...]) -> ReviewItem:
    """From a row of the review's query."""
    return msgspec.convert(dict(zip(_FIELDS, row, strict=True)), ReviewItem, strict=False)


def make_decision(row: tuple[Any, ...]) -> Decision:
    """From a row of DECISION_COLUMNS. Without checks: one verdict may make 100,000 of them."""
    seq, id_, verdict, previous, reason, time, batch, turn, text = row
    return Decision(
        seq=seq,
        id=id_,
        verdict=verdict,
        previous=previous,
        reason=reason,
        time=time,
        batch=batch,
        turn=turn,
        text=text,
    )
