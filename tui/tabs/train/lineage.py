"""The cycles of an evolution, each a line: champion and candidate, the gain, p, and whether it was kept."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from engine.core.i18n import N_, _, p_, with_percent
from engine.runs.event_text import format_figure, relative_gain
from engine.runs.events import EvolutionCycle
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, fit, safe

STATES = {
    "began": N_("running"),
    "kept": N_("kept"),
    "collapsed": N_("collapsed"),
}
_STYLE = {"began": "$text-accent", "kept": "$text-success", "collapsed": "$text-error"}
WIDE = 92
"""Cells from which a line has room for the names of both models."""
_STATE = 10


def _state_text(state: str) -> str:
    return p_("candidate", "dropped") if state == "dropped" else _(STATES.get(state, state))


def glyph_of(cycle: EvolutionCycle, glyphs: Glyphs) -> str:
    """The glyph of the state of a cycle."""
    names = {"began": glyphs.running, "kept": glyphs.done, "dropped": glyphs.kept}
    return names.get(cycle.state, glyphs.alert)


def lineage(
    cycles: Sequence[EvolutionCycle], glyphs: Glyphs, width: int, height: int, *, over: bool = False
) -> list[Content]:
    """At most `height` lines of at most `width` cells: the line of champions, then the newest cycles.

    A narrow panel gives a cycle two lines. `over`: the run has ended, so a cycle without an outcome was interrupted.
    """
    if not cycles:
        return [Content.styled(_("The first cycle starts when the corpus is built."), "$foreground-muted")]
    arrow = ">" if glyphs.ascii else "→"
    head = [Content.styled(fit(_line_of(cycles, arrow), width), "bold")] if height > 1 else []
    room = max(1, height - len(head))
    lines: list[Content] = []
    for cycle in reversed(cycles):
        drawn = _cycle(cycle, glyphs, arrow, width, over=over)
        if lines and len(lines) + len(drawn) > room:
            break
        lines = drawn + lines
    return head + lines[-room:]


def _line_of(cycles: Sequence[EvolutionCycle], arrow: str) -> str:
    """The champions in order; of a long lineage the first and the last ones."""
    names = list(dict.fromkeys([cycles[0].champion, *(c.candidate for c in cycles if c.state == "kept")]))
    if len(names) > 3:
        names = [names[0], "…", *names[-2:]]
    return f" {arrow} ".join(names)


def _cycle(cycle: EvolutionCycle, glyphs: Glyphs, arrow: str, width: int, *, over: bool) -> list[Content]:
    state = _("incomplete") if over and cycle.state == "began" else _state_text(cycle.state)
    sign = glyphs.kept if over and cycle.state == "began" else glyph_of(cycle, glyphs)
    style = (
        "$foreground-muted"
        if over and cycle.state == "began"
        else _STYLE.get(cycle.state, "$foreground-muted")
    )
    first = f"{fit(sign, 2)} {cycle.cycle} {fit(state, _STATE)}"
    names = f"{cycle.champion} {arrow} {cycle.candidate}"
    if not (cycle.before and cycle.after):
        return _in_lines([(first, style), (names, "")], width)
    gain = with_percent(f"{100 * relative_gain(cycle):+.1f}".replace("-", "−"))
    parts = [
        (first, style),
        (f"{gain:>7}", style),
        (f"{format_figure(cycle.before)}{arrow}{format_figure(cycle.after)}", ""),
    ]
    if cycle.p_value is not None and cycle.alpha is not None:
        sense = "<" if cycle.p_value < cycle.alpha else ">=" if glyphs.ascii else "≥"
        parts.append((f"p {cycle.p_value:.3g} {sense} {cycle.alpha:.3g}", ""))
    if width >= WIDE:
        parts.append((names, "$foreground-muted"))
    return _in_lines(parts, width)


def _in_lines(parts: Sequence[tuple[str, str]], width: int) -> list[Content]:
    """The parts, two cells apart, in one line where they fit, else in several, indented."""
    lines: list[Content] = []
    for text, style in parts:
        if lines and cells(lines[-1].plain) + 2 + cells(text) <= width:
            lines[-1] = lines[-1].append("  ").append(safe(text, style))
        else:
            lines.append(safe(fit(("     " if lines else "") + text, width).rstrip(), style))
    return lines
