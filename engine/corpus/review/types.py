"""The values of the review: list lines, conversations and decisions. Light: the app imports it.

Field names are those of the JSON output of `h2q-tui corpus`.
"""

from __future__ import annotations

from typing import Any

import msgspec


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of the list."""

    id: str
    state: str
    automatic: str
    """The result of the filters; differs from `state` where the user decided."""
    stage: str
    """The stage that dropped, held or changed it; "" for none."""
    reason: str
    """Reason code (`enums.REASON_LABELS`), or the PII types."""
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
    duplicate_of: str | None = msgspec.field(name="twin")
    """The conversation that this one duplicates."""
    split: str
    cluster: str
    flagged: bool = False
    edited: bool = False
    """The user edited a turn."""
    reviewed: bool = False
    """The user accepted or rejected it; else its state is the filters'."""


class ReviewReason(msgspec.Struct, frozen=True, kw_only=True):
    """One ledger row."""

    stage: str
    action: str
    reason: str
    turn: int
    """-1: the whole conversation."""
    spans: list[tuple[str, int, int]]
    similarity: float | None
    score: float | None
    duplicate_of: str | None = msgspec.field(name="twin")


class ReviewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn with the results of the filters."""

    position: int
    role: str
    text: str
    redacted: str
    """The text as it is trained on."""
    spans: list[tuple[str, int, int]]
    """PII as (type, start, end) in code points of `text`."""
    masked: str
    """Reason code when the loss of the turn is masked, else ""."""
    time: float | None
    original: str | None = None
    """The imported text of an edited turn."""
    unread: bool = False
    """Edited since the last build."""


class ReviewDecision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decision of the user: a state, an edit, a flag or a rule."""

    seq: int
    id: str
    verdict: str
    """A ReviewState or a DecisionKind."""
    previous: str
    reason: str
    time: float
    batch: int = 0
    """0, or the number shared by decisions that are undone together."""
    turn: int = -1
    text: str = ""


class ReviewDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as the right pane shows it."""

    item: ReviewItem
    title: str
    turns: list[ReviewTurn]
    reasons: list[ReviewReason] = msgspec.field(name="why")
    decisions: list[ReviewDecision]
    """Decisions in force, newest first."""
    cluster_members: list[str] = msgspec.field(name="kin")
    """Other conversations of its cluster, at most `detail.MAX_CLUSTER_MEMBERS`."""


_ITEM_FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(ReviewItem))

DECISION_COLUMNS = "seq, conversation_id, verdict, previous, reason, time, batch, turn, text"
"""Columns of `decisions` in the order of the fields of `ReviewDecision`."""


def make_item(row: tuple[object, ...]) -> ReviewItem:
    """From a row of the store's list query."""
    return msgspec.convert(dict(zip(_ITEM_FIELDS, row, strict=True)), ReviewItem, strict=False)


def make_decision(row: tuple[Any, ...]) -> ReviewDecision:
    """From a row of DECISION_COLUMNS. Without validation: one decision may cover 100,000 conversations."""
    seq, id_, verdict, previous, reason, time, batch, turn, text = row
    return ReviewDecision(
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
