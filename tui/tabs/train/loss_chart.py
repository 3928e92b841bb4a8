"""The loss of a run as curves and a legend: pure functions from its view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from textual.content import Content

from engine.core.i18n import _
from engine.runs.event_text import evaluation_name, format_figure
from engine.runs.view import RunView
from tui.terminal.text import one_line
from tui.widgets.axes import thin
from tui.widgets.plot import ABOVE, ABOVE_ASCII, Curve, CurveKind, shown_range

MAX_EVALUATIONS = 12
"""Signs of a held-out loss at most, so that they do not hide the curve."""
LINE_STYLE = "bold $text-accent"
POINTS_STYLE = "$foreground-muted"
HELD_OUT = (("o", "bold $text-warning"), ("x", "bold $text-success"), ("+", "bold $text-primary"))
"""Sign and style of each held-out loss, in order of arrival."""


@dataclass(frozen=True)
class LegendEntry:
    """A curve in the legend: its sign, its name and its last value."""

    sign: str
    name: str
    style: str
    value: float | None
    best: float | None = None
    """Its lowest value, where that is not the last one: a held-out loss that rises tells of overfitting."""


def loss_curves(view: RunView) -> list[Curve]:
    """The training loss as points and a smoothed line, then the held-out losses; empty before the first step."""
    means = view.loss_means(view.phase)
    if not len(means):
        return []
    points, line = means.samples(), means.smoothed()
    curves = [
        Curve(*_columns(points), kind=CurveKind.POINTS, style=POINTS_STYLE),
        Curve(*_columns(line), style=LINE_STYLE),
    ]
    for (sign, style), (_name, values) in zip(HELD_OUT, held_out_values(view), strict=False):
        kept = thin(values, MAX_EVALUATIONS)
        curves.append(Curve(*_columns(kept), kind=CurveKind.SIGNS, style=style, sign=sign))
    return curves


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _y in points], [y for _x, y in points]


def held_out_values(view: RunView) -> list[tuple[str, list[tuple[float, float]]]]:
    """Name and values of each held-out loss of the phase."""
    found = []
    for name in view.eval_names(view.phase):
        values = view.series(view.phase, f"eval:{name}").points()
        if values:
            found.append((name, values))
    return found


def legend_entries(view: RunView, *, ascii_only: bool) -> list[LegendEntry]:
    """The smoothed loss, the held-out losses, and the highest value that the axis leaves out."""
    line = view.loss_means(view.phase).smoothed()
    if not line:
        return []
    entries = [LegendEntry("..." if ascii_only else "⠒⠒", _("smoothed"), LINE_STYLE, line[-1][1])]
    for (sign, style), (name, values) in zip(HELD_OUT, held_out_values(view), strict=False):
        label = one_line(evaluation_name(name))
        last, best = values[-1][1], min(value for _step, value in values)
        entries.append(LegendEntry(sign, label, style, last, best if best < last else None))
    return entries


def outside_entry(view: RunView, *, ascii_only: bool) -> LegendEntry | None:
    """The highest loss that a robust axis leaves out; None where all values are on it."""
    curves = loss_curves(view)
    if not curves:
        return None
    _low, high = shown_range([(curve.kind, curve.y) for curve in curves])
    highest = max(max(curve.y) for curve in curves)
    if highest <= high:
        return None
    sign = ABOVE_ASCII if ascii_only else ABOVE
    return LegendEntry(sign, _("up to"), POINTS_STYLE, highest)


def legend_line(view: RunView, width: int, *, ascii_only: bool, log_scale: bool) -> Content:
    """`⠒⠒ smoothed 1.341  o held out 1.411 (best 1.402)  ▴ up to 5.61   step 412 of 2,000`.

    What does not fit into `width` cells is dropped: first the highest value, then the words of the step, the step, the
    best values, and the curves from the last one.
    """
    entries = legend_entries(view, ascii_only=ascii_only)
    outside = None if log_scale else outside_entry(view, ascii_only=ascii_only)
    step, steps = f"{view.step:,}", f"{view.max_steps:,}"
    curves = [_entry_text(entry) for entry in entries]
    plain = [_entry_text(replace(entry, best=None)) for entry in entries]
    for parts, place in (
        ([*curves, *([_entry_text(outside)] if outside else [])], _("step {step} of {steps}")),
        (curves, _("step {step} of {steps}")),
        (curves, "{step}/{steps}"),
        (curves, ""),
        (plain, "{step}/{steps}"),
        *((plain[:count], "") for count in range(len(plain), 0, -1)),
    ):
        line = Content(" ").append(Content("  ").join(parts))
        end = Content.styled(place.format(step=step, steps=steps), "$foreground-muted")
        gap = width - 1 - line.cell_length - end.cell_length
        if gap >= (2 if place else -1):
            return line.append(" " * gap).append(end) if place else line
    return Content(" ").append(Content("  ").join(plain[:1]))


def _entry_text(entry: LegendEntry) -> Content:
    name, value = (entry.name, "$foreground-muted"), format_figure(entry.value)
    text = Content.assemble((entry.sign, entry.style), " ", name, " ", value)
    if entry.best is None:
        return text
    best = _(" (best {best})").format(best=format_figure(entry.best))
    return text.append(Content.styled(best, "$foreground-muted"))
