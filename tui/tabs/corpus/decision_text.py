"""What a decision did, and what undo and redo took back, as one line of the footer."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from engine.core.i18n import N_, _, bracketed, colon, n_
from engine.corpus.enums import REJECTION_LABELS, STATE_LABELS, ReviewState
from engine.corpus.review.decision_log import DecisionKind
from engine.corpus.review.types import ReviewDecision, ReviewItem
from tui.terminal.text import cells, fit

LEAST_TITLE = 12
"""Cells of a title on a narrow line; more where there is room."""
MOST_TITLE = 40


class DecisionStep(StrEnum):
    """How decisions came into force, or out of it."""

    DONE = "done"
    UNDONE = "undone"
    REDONE = "redone"


_AGAIN = {
    ReviewState.ACCEPTED: N_("accepted again"),
    ReviewState.REJECTED: N_("rejected again"),
    ReviewState.PENDING: N_("pending again"),
}
_BY_FILTER = {
    ReviewState.ACCEPTED: N_("back to accepted by the filter"),
    ReviewState.PENDING: N_("back to pending"),
    ReviewState.DROPPED: N_("back to dropped by the filter"),
}
_KINDS = {
    (DecisionKind.FLAGGED, DecisionStep.DONE): N_("flagged"),
    (DecisionKind.FLAGGED, DecisionStep.UNDONE): N_("flag taken back"),
    (DecisionKind.FLAGGED, DecisionStep.REDONE): N_("flagged again"),
    (DecisionKind.UNFLAGGED, DecisionStep.DONE): N_("flag cleared"),
    (DecisionKind.UNFLAGGED, DecisionStep.UNDONE): N_("flagged again"),
    (DecisionKind.UNFLAGGED, DecisionStep.REDONE): N_("flag cleared again"),
    (DecisionKind.EDITED, DecisionStep.UNDONE): N_("edit taken back"),
    (DecisionKind.EDITED, DecisionStep.REDONE): N_("edited again"),
    (DecisionKind.RULE, DecisionStep.UNDONE): N_("rule taken back"),
    (DecisionKind.RULE, DecisionStep.REDONE): N_("rule in force again"),
    (DecisionKind.NO_RULE, DecisionStep.UNDONE): N_("rule in force again"),
    (DecisionKind.NO_RULE, DecisionStep.REDONE): N_("rule ended again"),
}


def first_of(decisions: Sequence[ReviewDecision]) -> ReviewDecision:
    """The oldest: undo goes from the newest."""
    return min(decisions, key=lambda decision: decision.seq)


def rejection_text(reason: str) -> str:
    """The user's reason for a rejection as the list of reasons shows it."""
    return _(REJECTION_LABELS[reason]) if reason in REJECTION_LABELS else reason


def decision_text(state: str, reason: str, title: str, count: int, width: int) -> str:
    """ "rejected (unwanted): 你好，可以帮我…" for a decision on `count` conversations, the first one called `title`;
    in at most about `width` cells."""
    what = _(STATE_LABELS[ReviewState(state)])
    return _named(bracketed(what, rejection_text(reason)) if reason else what, title, count, width)


def flag_text(on: bool, title: str, count: int, width: int) -> str:
    """ "flagged: 你好，可以帮我…"."""
    kind = DecisionKind.FLAGGED if on else DecisionKind.UNFLAGGED
    return _named(_(_KINDS[kind, DecisionStep.DONE]), title, count, width)


def step_text(
    step: DecisionStep, decisions: Sequence[ReviewDecision], items: Sequence[ReviewItem], width: int
) -> str:
    """What an undo or redo of `decisions` did: "rejected again: 你好…", "back to accepted by the filter: …".

    `items` are the conversations as they are after it: all of them, or the first ones.
    """
    first = first_of(decisions)
    rule = next((decision for decision in decisions if not decision.id), None)
    if rule is not None:
        return _cut(_(_KINDS[DecisionKind(rule.verdict), step]), rule.text, width)
    texts = {_step_of_one(step, decision, item) for decision, item in _pairs(decisions, items)}
    what = (
        texts.pop()
        if len(texts) == 1
        else _("taken back")
        if step is DecisionStep.UNDONE
        else _("done again")
    )
    title = next((item.first_line for item in items if item.id == first.id), "")
    return _named(what, title, len({decision.id for decision in decisions}), width)


def _pairs(
    decisions: Sequence[ReviewDecision], items: Sequence[ReviewItem]
) -> list[tuple[ReviewDecision, ReviewItem]]:
    by_id = {item.id: item for item in items}
    return [(decision, by_id[decision.id]) for decision in decisions if decision.id in by_id]


def _step_of_one(step: DecisionStep, decision: ReviewDecision, item: ReviewItem) -> str:
    if decision.verdict not in STATE_LABELS:
        return _(_KINDS[DecisionKind(decision.verdict), step])
    state = ReviewState(item.state)
    if item.reviewed or step is DecisionStep.REDONE:
        return _(_AGAIN.get(state, STATE_LABELS[state]))
    return _(_BY_FILTER.get(state, STATE_LABELS[state]))


def _named(what: str, title: str, count: int, width: int) -> str:
    if count == 1:
        return _cut(what, title, width)
    many = n_("{n} conversation {what}", "{n} conversations {what}", count)
    return _cut(many.format(n=f"{count:,}", what=what), title, width)


def _cut(what: str, title: str, width: int) -> str:
    if not title:
        return what
    room = max(LEAST_TITLE, min(MOST_TITLE, width - cells(colon(what, ""))))
    return colon(what, fit(title, room).rstrip())
