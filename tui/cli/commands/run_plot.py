"""The loss of a run as text, with the signs of what happened to it and what they mean."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.runs.view import RunView

WIDTH, HEIGHT = 76, 16
LISTED = 12
"""Lines of the list below a plot at most: the newest, checkpoints left out."""


def loss_plot(view: RunView, phase: str, *, ascii_only: bool = False) -> str:
    """The curve of `phase`, its legend, and a line for each recovery, memory step, change and cycle."""
    import plotext

    from engine.runs.annotations import AnnotationKind
    from engine.runs.event_text import stage_name
    from tui.widgets.annotations import legend, listed, on_curve, sign_of

    series = view.series(phase, "loss")
    marks = view.marks_of(phase)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(WIDTH, HEIGHT)
    plotext.plot(series.x, series.y, marker="." if ascii_only else "braille")
    if series.y:
        low, high = min(series.y), max(series.y)
        for mark in on_curve(marks):
            place = low if mark.kind is AnnotationKind.CHECKPOINT else high
            plotext.text(sign_of(mark.kind, ascii_only=ascii_only), mark.step, place, alignment="center")
    lines = [stage_name(phase), plotext.uncolorize(plotext.build())]
    if marks:
        lines.append(legend(marks, ascii_only=ascii_only))
    told = [mark for mark in marks if mark.kind is not AnnotationKind.CHECKPOINT][-LISTED:]
    lines += [
        f"{time.strftime('%H:%M:%S', time.localtime(line.t))} {line.text}"
        for line in listed(told, ascii_only=ascii_only)
    ]
    return "\n".join(lines)
