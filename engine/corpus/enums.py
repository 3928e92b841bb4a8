"""States, stages, actions and splits of the corpus, with their labels on screen. Imported by the app.

A filter line (`review.filter_query`) accepts the values and the labels, in every language of the app.
"""

from __future__ import annotations

from enum import StrEnum

from engine.core.i18n import N_
from engine.core.pii_types import PII_TYPES


class ReviewState(StrEnum):
    """The state of a conversation: the result of the filters, unless the user decided otherwise."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DROPPED = "dropped"
    """Dropped by a filter; the user may restore it."""


class CorpusStage(StrEnum):
    """Stages of the build, in order."""

    COLLECT = "collect"
    LOW_VALUE = "low_value"
    SENSITIVE = "sensitive"
    INJECTION = "injection"
    EXACT = "exact"
    NEAR = "near"
    SEMANTIC = "semantic"
    RULE = "rule"
    """A rule of the user."""
    REVIEW = "review"
    SPLIT = "split"


class LedgerAction(StrEnum):
    """The action of a ledger row."""

    DROP = "drop"
    MASK = "mask"
    """The loss of a turn is masked; it stays as context."""
    REDACT = "redact"
    HOLD = "hold"
    """The conversation waits for review."""
    GROUP = "group"
    """Similar to another one; without consequence."""
    RETIRE = "retire"
    """A conversation of a test window moves to training."""


class DataSplit(StrEnum):
    """The use of an accepted conversation. NONE: not accepted."""

    NONE = ""
    TRAIN = "train"
    TEST = "test"
    WAITING = "waiting"
    """Newer than the open test window: for the next one."""
    BORDER = "border"
    """Newer than the border, but a near duplicate of something older: used for neither."""


STATE_LABELS: dict[ReviewState, str] = {
    ReviewState.PENDING: N_("pending"),
    ReviewState.ACCEPTED: N_("accepted"),
    ReviewState.REJECTED: N_("rejected"),
    ReviewState.DROPPED: N_("dropped"),
}
"""Translate labels with `_()` where they are shown."""

REVIEW_LABELS: dict[str, str] = {
    "unreviewed": N_("unreviewed"),
    "reviewed": N_("reviewed"),
    "edited": N_("edited"),
    "flagged": N_("flagged"),
    "redacted": N_("redacted"),
}
"""What else the screen says of a conversation; a filter line takes these words as states."""

STAGE_LABELS: dict[CorpusStage, str] = {
    CorpusStage.COLLECT: N_("no pair"),
    CorpusStage.LOW_VALUE: N_("low value"),
    CorpusStage.SENSITIVE: N_("PII"),
    CorpusStage.INJECTION: N_("injection"),
    CorpusStage.EXACT: N_("exact"),
    CorpusStage.NEAR: N_("near"),
    CorpusStage.SEMANTIC: N_("semantic"),
    CorpusStage.RULE: N_("rule"),
    CorpusStage.REVIEW: N_("review"),
    CorpusStage.SPLIT: N_("split"),
}

DUPLICATE_STAGES = (CorpusStage.EXACT, CorpusStage.NEAR, CorpusStage.SEMANTIC)
DUPLICATE_LABELS = (N_("duplicate"), N_("duplicates"))
"""Words for all DUPLICATE_STAGES."""

PII_LABELS: dict[str, str] = {type_: names.label for type_, names in PII_TYPES.items()}
"""Short labels of `filters.pii.PiiType`."""

REASON_LABELS: dict[str, str] = {
    "unchecked": N_("too slow to check"),
    "no_pair": N_("no question with an answer"),
    "omitted_question": N_("its question was not imported"),
    "excluded": N_("excluded by its source"),
    "thanks": N_("thanks only"),
    "welcome": N_("reply to thanks only"),
    "goodbye": N_("goodbye only"),
    "offer": N_("offer of more help only"),
    "greeting": N_("greeting only"),
    "acknowledgement": N_("acknowledgement only"),
    "noise": N_("no words"),
    "empty": N_("empty"),
    "repetition": N_("repetitive"),
    "truncated": N_("truncated"),
    "phrase": N_("a phrase of your own list"),
    "courtesy": N_("small talk only"),
    "private": N_("PII"),
    "marker": N_("prompt injection marker"),
    "duplicate": N_("same text as another"),
    "near_duplicate": N_("almost the same text as another"),
    "rule": N_("a rule of yours"),
    "same_meaning": N_("same meaning as another"),
    "alike": N_("similar to another"),
    "review": N_("waits for your review"),
    "rejected_before": N_("rejected before it grew"),
    "accepted_before": N_("accepted before it grew"),
    "retired": N_("its test window has retired"),
}
"""Labels of the reason codes of the ledger. The reason of a redaction is its PII types instead."""

REJECTION_LABELS: dict[str, str] = {
    "unwanted": N_("unwanted"),
    "wrong": N_("wrong answer"),
    "private": N_("private"),
    "low_value": N_("low value"),
    "duplicate": N_("duplicate"),
}
"""Labels of the reasons that the review offers for a rejection; the user may write another one."""
