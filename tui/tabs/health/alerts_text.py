"""The alerts panel of the Health tab: pure functions from states and notices to Content."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

from engine.alerts.alert_state import AlertState
from engine.alerts.readings import AlertLevel
from engine.alerts.rules import RUN_SLOW
from engine.alerts.store import ToldNotice
from engine.alerts.words import words_of
from engine.core.i18n import _, colon
from engine.core.local_time import local_time
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import one_line

_STYLES = {
    AlertLevel.CRITICAL: "bold $text-error",
    AlertLevel.ERROR: "$text-error",
    AlertLevel.WARNING: "$text-warning",
    AlertLevel.INFO: "$foreground-muted",
}


@dataclass(frozen=True)
class AlertBoard:
    """What the panel shows.

    Attributes:
        diagnosis: why the training is slower than usual; "" while it is not.
        open: the alerts in force, the most serious first.
        told: what was told lately, newest first.
        channels: how many channels there are.
        muted_until: when a mute of everything ends; None without one.
    """

    diagnosis: str = ""
    open: tuple[AlertState, ...] = ()
    told: tuple[ToldNotice, ...] = ()
    channels: int = 0
    muted_until: float | None = None


def alert_lines(board: AlertBoard, glyphs: Glyphs, width: int, rows: int) -> list[Content]:
    """At most `rows` lines of `width` cells: the diagnosis, what is in force, then what was reported."""
    lines = []
    if board.diagnosis:
        lines.append(Content.styled(f"{glyphs.alert} {one_line(board.diagnosis)}", "$text-warning"))
    # The diagnosis says the same of the present.
    shown = [state for state in board.open if not board.diagnosis or state.rule != RUN_SLOW.id]
    lines += [_open_line(state, glyphs) for state in shown]
    if not lines:
        lines.append(Content.styled(f"{glyphs.done} " + _("no alert is in force"), "$text-success"))
    if not board.channels:
        lines.append(Content.styled(_("n sets up where alerts are sent"), "$foreground-muted"))
    named = {state.fingerprint for state in board.open}
    past = [notice for notice in board.told if not named.intersection(notice.fingerprints)]
    lines += [_told_line(notice, glyphs) for notice in past]
    whole = [part for line in lines for part in line.wrap(width)] if width > 0 else lines
    # Where not all fit as a whole, each is cut at the edge.
    return (whole if len(whole) <= rows else lines)[: max(1, rows)]


def subtitle(board: AlertBoard) -> str:
    """For the border: until when everything is muted."""
    if board.muted_until is None:
        return ""
    return _("muted until {time}").format(time=local_time("%H:%M", board.muted_until))


def _open_line(state: AlertState, glyphs: Glyphs) -> Content:
    words, seen = words_of(state), state.acknowledged_at is not None
    when = local_time("%H:%M", state.bad_since or 0.0)
    text = one_line(f"{when}  {colon(words.title, words.what)}" if words.what else f"{when}  {words.title}")
    sign = glyphs.dot if seen else glyphs.alert
    note = "  " + _("seen") if seen else ""
    return Content.styled(f"{sign} {text}{note}", "$foreground-muted" if seen else _STYLES[state.level])


def _told_line(notice: ToldNotice, glyphs: Glyphs) -> Content:
    sign = glyphs.done if notice.kind == "recovery" else glyphs.dot
    return Content.styled(
        f"{sign} {local_time('%H:%M', notice.at)}  {one_line(notice.title)}", "$foreground-muted"
    )
