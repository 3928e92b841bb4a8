"""The words of the corpus: states of a conversation, stages, actions, splits. Imported by the app."""

from __future__ import annotations

from enum import StrEnum

from engine.core.i18n import N_


class State(StrEnum):
    """Where a conversation stands: what the filters said, unless the person decided otherwise."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DROPPED = "dropped"
    """Left out by a filter; the person may restore it."""


class Stage(StrEnum):
    """Stages in the order in which they run."""

    COLLECT = "collect"
    LOW_VALUE = "low_value"
    SENSITIVE = "sensitive"
    INJECTION = "injection"
    EXACT = "exact"
    NEAR = "near"
    SEMANTIC = "semantic"
    RULE = "rule"
    """A rule of the person's own."""
    REVIEW = "review"
    SPLIT = "split"


class Action(StrEnum):
    """What a ledger row did."""

    DROP = "drop"
    MASK = "mask"
    """A turn lost its loss and stays as context."""
    REDACT = "redact"
    HOLD = "hold"
    GROUP = "group"
    """Alike another; nothing follows from it."""
    RETIRE = "retire"
    """A test window's conversation goes to training."""


class Split(StrEnum):
    """What an accepted conversation is for. NONE: not accepted."""

    NONE = ""
    TRAIN = "train"
    TEST = "test"
    WAITING = "waiting"
    """Newer than the open test window: for the next one."""
    BORDER = "border"
    """Newer than the border, but a near duplicate of something older than it: in neither."""


REASONS: dict[str, str] = {
    "no_pair": N_("no question with an answer"),
    "thanks": N_("only thanks"),
    "welcome": N_("only a reply to thanks"),
    "goodbye": N_("only a good-bye"),
    "offer": N_("only an offer of more help"),
    "greeting": N_("only a greeting"),
    "acknowledgement": N_("only an acknowledgement"),
    "noise": N_("no words"),
    "empty": N_("empty"),
    "repetition": N_("the same words over and over"),
    "truncated": N_("cut off in the middle"),
    "phrase": N_("a phrase of your own list"),
    "courtesy": N_("nothing but courtesy"),
    "private": N_("private data"),
    "marker": N_("text that could act on the template"),
    "duplicate": N_("the same words as another"),
    "near_duplicate": N_("almost the same words as another"),
    "rule": N_("a rule of your own"),
    "same_meaning": N_("the same meaning as another"),
    "alike": N_("alike another"),
    "review": N_("waits for your review"),
    "rejected_before": N_("rejected before it grew"),
    "accepted_before": N_("accepted before it grew"),
    "retired": N_("its test window has retired into training"),
}
"""Reason codes of the ledger, in words (translate with `_()` where shown)."""
