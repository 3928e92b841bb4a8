"""The verdicts of the workspace: date, models, decision and look, newest first; above them what has none yet."""

from __future__ import annotations

from engine.core.i18n import _
from engine.core.local_time import local_time
from engine.validation.stored_verdicts import StoredVerdict
from tui.tabs.validate.measures import DECISION_STYLE, DECISIONS, decision_sign
from tui.tabs.validate.reader import ModelState
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells
from tui.widgets.virtual_list import GLYPH_COLUMN, ListCell, ListRow, VirtualList

UNJUDGED = "unjudged"
"""Id of the row of the two models that have no verdict yet."""
DATE_FORMAT = "%m-%d %H:%M"
_DATE, _DECISION, _LOOK = 12, 14, 12


class VerdictList(VirtualList):
    """One row for each verdict; the cursor picks the one on the screen."""

    def __init__(self) -> None:
        super().__init__((GLYPH_COLUMN, _DATE, 0, _DECISION, _LOOK), id="validate-list")

    def show(self, state: ModelState, glyphs: Glyphs) -> None:
        """Draws the rows of a state; the cursor stays on its verdict."""
        rows = [_unjudged_row(*state.unjudged)] if state.unjudged is not None else []
        rows += [_row(verdict, glyphs) for verdict in state.verdicts]
        self.set_ids([row.id for row in rows])
        self.set_rows(rows)


def _row(verdict: StoredVerdict, glyphs: Glyphs) -> ListRow:
    report = verdict.report
    decision = report.verdict.decision
    kind = DECISION_STYLE.get(decision, "").removeprefix("$text-")
    base, new = verdict.pair
    return ListRow(
        verdict.id,
        (
            ListCell(decision_sign(decision, glyphs), kind),
            ListCell(local_time(DATE_FORMAT, report.created_at), "dim"),
            ListCell(_pair(base, new)),
            ListCell(_(DECISIONS.get(decision, decision)), kind),
            ListCell(_("look {n}").format(n=report.verdict.look), "dim"),
        ),
    )


def _unjudged_row(base: str, new: str) -> ListRow:
    return ListRow(
        UNJUDGED,
        (
            ListCell("?", "dim"),
            ListCell("", "dim"),
            ListCell(_pair(base, new)),
            ListCell(_("not judged"), "dim"),
            ListCell("", "dim"),
        ),
    )


def _pair(base: str, new: str) -> str:
    return f"{base} → {new}"


def used_line(state: ModelState, width: int) -> str:
    """The model in use since when, and the one that `B` goes back to; the date goes first where room is short."""
    if not state.in_use:
        return _("no model is in use")
    used = _("in use: {model}").format(model=state.in_use)
    since = used
    if state.since is not None:
        since = _("in use: {model} since {date}").format(
            model=state.in_use, date=local_time(DATE_FORMAT, state.since)
        )
    if state.backup is None:
        return since
    before = _("before: {model} (B)").format(model=state.backup.model or _("no model"))
    whole = f"{since} · {before}"
    return whole if cells(whole) <= width else f"{used} · {before}"
