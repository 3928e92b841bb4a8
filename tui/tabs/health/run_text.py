"""The panel of the run in progress. Pure functions to Content."""

from __future__ import annotations

from textual.content import Content

from engine.core.i18n import _, with_percent
from engine.runs.event_text import format_duration, format_figure, format_left, format_rate
from engine.runs.view import RunView
from engine.runs.work import work_done
from tui.tabs.health.scene import MachineScene
from tui.terminal.glyphs import STATUS_STYLE
from tui.terminal.text import cells, fit, one_line
from tui.widgets.area_graph import area, captioned, scaled, spark_line

SILENT_S = 60.0
"""Without a record for longer, the time since the last one is highlighted."""
ROOMY = 6
"""Rows from which two figures that do not fit beside each other have a line each."""
_MUTED = "$foreground-muted"


def training_lines(
    scene: MachineScene, view: RunView | None, run_id: str, width: int, height: int, *, now: float
) -> list[Content]:
    """Step and time left, loss and speed over time, memory against the budget, and how recent all this is."""
    if view is None:
        return [
            Content.styled(_("nothing running"), _MUTED),
            Content.styled(_("n on Train starts a run"), _MUTED),
        ]
    head = _head(scene, view, run_id, now)
    if head.cell_length > width:
        head = _head(scene, view, "", now)
    tail = [Content(_memory_text(view)), *_freshness(view, now, width, height)]
    spare = height - 1 - len(tail)
    curves = _curves(scene, view, width, max(0, spare)) if view.phase else []
    return [head, *curves, *tail]


def _head(scene: MachineScene, view: RunView, run_id: str, now: float) -> Content:
    head = Content.assemble(
        (scene.glyphs.status(view.status), STATUS_STYLE[view.status]),
        f" {one_line(run_id[:9])}  " if run_id else " ",
    )
    if view.phase:
        head = head.append(_("step {step} of {steps}").format(step=view.step, steps=view.max_steps))
    left = work_done(view, now).left_s
    return head if left is None else head.append("  " + _("{time} left").format(time=format_left(left)))


def _curves(scene: MachineScene, view: RunView, width: int, rows: int) -> list[Content]:
    """Loss and speed: as graphs of equal height where there is room, else a line each."""
    best = (
        "" if view.best_loss is None else " " + _("(best {loss})").format(loss=format_figure(view.best_loss))
    )
    loss = _("loss {loss}").format(loss=format_figure(view.loss)) + best
    speed = _("{speed} tok/s").format(
        speed="–" if view.tokens_per_s is None else format_rate(view.tokens_per_s)
    )
    curves = (("loss", loss, "$text-accent"), ("tokens_per_s", speed, "$text-success"))
    lines: list[Content] = []
    if rows >= 6:
        for number, (series, words, style) in enumerate(curves):
            part = rows // 2 - 1 + (rows % 2 if number == 0 else 0)
            lines.append(Content(words))
            lines += captioned(
                area(scaled(scene.columns(series, width)), width, part, scene.glyphs),
                "",
                style,
                fading=scene.fading,
            )
        return lines
    caption = max(cells(words) for _series, words, _style in curves) + 1
    for series, words, style in curves[: max(0, rows)]:
        room = max(0, width - caption)
        bars = spark_line(scene.columns(series, room), room, scene.glyphs) if room else ""
        lines.append(Content.assemble(fit(words, caption), (bars, style)))
    return lines


def _memory_text(view: RunView) -> str:
    """The engine measures its own tree; the peak is what counts against the budget."""
    own = "–" if view.memory is None else f"{view.memory.used_mb / 1024:.1f}"
    peak = "–" if view.peak_memory_mb is None else f"{view.peak_memory_mb / 1024:.1f}"
    budget = "–" if view.memory is None else f"{view.memory.budget_mb / 1024:.1f}"
    return _("memory {own}, peak {peak} of {budget} GB").format(own=own, peak=peak, budget=budget)


def _freshness(view: RunView, now: float, width: int, height: int) -> list[Content]:
    """The share of time not spent waiting for data, and when the run last wrote something: on one line where they fit."""
    parts: list[str] = []
    if view.streaming_efficiency is not None:
        parts.append(
            _("streaming {share}").format(share=with_percent(f"{100 * view.streaming_efficiency:.0f}"))
        )
    silent = None if view.updated_at is None else max(0.0, now - view.updated_at)
    if silent is not None:
        parts.append(_("last event {ago} ago").format(ago=format_duration(silent)))
    style = "$text-warning" if silent is not None and silent > SILENT_S else _MUTED
    whole = Content.styled("  ".join(parts), style)
    if whole.cell_length <= width:
        return [whole]
    return [Content.styled(part, style) for part in (parts if height >= ROOMY else parts[-1:])]


def run_memory(view: RunView | None) -> tuple[float | None, float | None]:
    """Bytes that the run uses and bytes of its budget; None without a run."""
    if view is None or view.memory is None:
        return None, None
    return view.memory.used_mb * 2**20, view.memory.budget_mb * 2**20
