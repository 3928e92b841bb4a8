"""The cycles of an evolution, each a line: champion and candidate, the gain, p, and whether it was kept."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from engine.i18n import N_, _
from engine.runs.events import Cycle
from engine.runs.words import figure, gain_of
from tui.signs import Signs
from tui.text import cells, fit, safe

STATES = {
    "began": N_("goes on"),
    "kept": N_("kept"),
    "dropped": N_("dropped"),
    "collapsed": N_("collapses"),
}
_STYLE = {"began": "$text-accent", "kept": "$text-success", "collapsed": "$text-error"}
WIDE = 92
"""Cells from which the names of both models stand in a line."""
_STATE = 10


def sign_of(cycle: Cycle, signs: Signs) -> str:
    """The sign of how a cycle stands."""
    names = {"began": signs.running, "kept": signs.done, "dropped": signs.kept}
    return names.get(cycle.state, signs.alert)


def lineage(cycles: Sequence[Cycle], signs: Signs, width: int, height: int) -> list[Content]:
    """At most `height` lines of at most `width` cells: how the line of champions goes, then the newest cycles."""
    if not cycles:
        return [Content.styled(_("The first cycle begins when the corpus is built."), "$foreground-muted")]
    arrow = ">" if signs.ascii else "→"
    head = [Content.styled(fit(_line_of(cycles, arrow), width), "bold")] if height > 1 else []
    room = max(1, height - len(head))
    return head + [_cycle(cycle, signs, arrow, width) for cycle in cycles[-room:]]


def _line_of(cycles: Sequence[Cycle], arrow: str) -> str:
    """The champions one after the other; of a long line the first and the last ones."""
    names = list(dict.fromkeys([cycles[0].champion, *(c.candidate for c in cycles if c.state == "kept")]))
    if len(names) > 3:
        names = [names[0], "…", *names[-2:]]
    return f" {arrow} ".join(names)


def _cycle(cycle: Cycle, signs: Signs, arrow: str, width: int) -> Content:
    style = _STYLE.get(cycle.state, "$foreground-muted")
    sign = fit(sign_of(cycle, signs), 2)
    parts = [safe(f"{sign} {cycle.cycle} {fit(_(STATES.get(cycle.state, cycle.state)), _STATE)}", style)]
    if width >= WIDE:
        parts.append(safe(f" {cycle.champion} {arrow} {cycle.candidate} "))
    if cycle.before and cycle.after:
        gain = f"{100 * gain_of(cycle):+.1f}".replace("-", "−")
        parts.append(safe(f" {figure(cycle.before)}{arrow}{figure(cycle.after)}  {gain:>5} %"))
    if cycle.p_value is not None and cycle.alpha is not None:
        sense = "<" if cycle.p_value < cycle.alpha else "≥" if not signs.ascii else ">="
        parts.append(safe(f"  p {cycle.p_value:.2g} {sense} {cycle.alpha:.2g}"))
    elif cycle.state == "began":
        parts.append(safe(f" {cycle.champion} {arrow} {cycle.candidate}"))
    line = Content("")
    for part in parts:
        if cells(line.plain) + cells(part.plain) <= width:
            line = line.append(part)
    return line
