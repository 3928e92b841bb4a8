"""A run in a few lines of figures: pure functions from its view to Content."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from engine.core.i18n import _, bracketed, colon, p_, with_percent
from engine.runs.event_text import (
    budget_reason_text,
    format_duration,
    format_figure,
    format_rate,
    stage_name,
    status_name,
    work_text,
)
from engine.runs.events import RunStatus
from engine.runs.view import RunView
from engine.runs.work import StageView, WorkDone, work_done
from tui.terminal.glyphs import STATUS_STYLE, Glyphs
from tui.terminal.text import one_line

_GB = 1024.0
_GAP = "  "
"""Between two parts of a line."""


def no_run() -> str:
    """The text in place of the curves before the first run."""
    return _(
        "No run yet.\nn starts one: your conversations become a model.\nIts loss is drawn here during training."
    )


def no_curve(view: RunView) -> str:
    """The text in place of the curves for a run that has not trained."""
    if view.status is RunStatus.QUEUED:
        return view.reason or _("Waiting in the queue.")
    if view.finished is not None and view.finished.error:
        return view.finished.error
    if view.status.over:
        return _("This run did not train.")
    return _("The curve starts with the first training step.")


def loss_title(view: RunView, log_scale: bool) -> str:
    """`Loss — training on the corpus (log)`."""
    words = _("Loss")
    if view.phase:
        words += f" — {stage_name(view.phase)}"
    return bracketed(words, p_("scale", "log")) if log_scale else words


def figures(
    view: RunView, glyphs: Glyphs, width: int, *, alive: bool, now: float | None = None
) -> list[Content]:
    """Three lines of at most `width` cells: loss, rate, speed and time; memory against its budget; the stages.

    A part that does not fit is dropped, the least important first.
    """
    now = time.time() if now is None else now
    work = work_done(view, now if alive else view.updated_at or now)
    learning, memory = _learning(view), _memory(view, glyphs)
    if clock := _clock(view, work, glyphs):
        # Where the first line is full the time stands in the second, before all but the memory in use.
        full = bool(learning) and _cells(learning) + len(_GAP) + clock.cell_length > width
        (memory if full else learning).insert(1 if full else len(learning), clock)
    return [_joined(parts, width) for parts in (learning, memory, _stages(view, work, glyphs, alive=alive))]


def _cells(parts: Sequence[Content]) -> int:
    """The width of a line of `parts`."""
    return 1 + sum(part.cell_length for part in parts) + len(_GAP) * (len(parts) - 1)


def _joined(parts: list[Content], width: int) -> Content:
    line = Content(" ")
    for number, part in enumerate(parts):
        gap = _GAP if number else ""
        if number and line.cell_length + len(gap) + part.cell_length > width:
            continue
        line = line.append(gap).append(part)
    return line


def _clock(view: RunView, work: WorkDone, glyphs: Glyphs) -> Content:
    """Working time of the run, and its pauses apart: `05:01  ‖ 07:45`."""
    if view.started_at is None:
        return Content("")
    clock = format_duration(work.active_s)
    if work.paused_s < 1:
        return Content(clock)
    return Content(f"{clock}  {glyphs.paused} {format_duration(work.paused_s)}")


def learning_rate(value: float | None) -> str:
    """Six cells at most: `0.0143`, `3.0e-05`."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value >= 0.001 or value == 0 else f"{value:.1e}"


def _learning(view: RunView) -> list[Content]:
    parts: list[Content] = []
    if view.phase:
        best = _(" (best {best})").format(best=format_figure(view.best_loss))
        blank = " " if best.startswith(" ") else ""
        figure = (format_figure(view.loss), "bold")
        parts.append(Content.assemble(_("loss"), " ", figure, blank, (best.strip(), "$foreground-muted")))
        parts.append(Content(_("lr {lr}").format(lr=learning_rate(view.lr))))
        speed = "–" if view.tokens_per_s is None else format_rate(view.tokens_per_s)
        parts.append(Content(_("{speed} tok/s").format(speed=speed)))
    return parts


def _memory(view: RunView, glyphs: Glyphs) -> list[Content]:
    memory = view.memory
    if memory is None:
        return [Content.styled(_("memory not measured yet"), "$foreground-muted")]
    share = memory.used_mb / memory.budget_mb if memory.budget_mb else 0.0
    style = "$text-error" if share > 0.95 else "$text-warning" if share > 0.85 else "$text-success"
    used, budget = f"{memory.used_mb / _GB:.1f}", f"{memory.budget_mb / _GB:.1f}"
    amount = _("{used} of {budget} GB").format(used=used, budget=budget)
    parts = [Content.assemble(_("memory"), " ", (glyphs.bar(share, 12), style), " ", amount)]
    reason = one_line(budget_reason_text(memory.reason))
    if reason:
        parts.append(Content.styled(_("({text})").format(text=reason), "$foreground-muted"))
    if view.streaming_efficiency is not None:
        percent = f"{100 * view.streaming_efficiency:.1f}"
        parts.append(Content(_("streaming {share} %").format(share=percent)))
    if view.peak_memory_mb is not None and memory.budget_mb:
        highest = f"{100 * view.peak_memory_mb / memory.budget_mb:.0f}"
        parts.append(Content(_("peak {share} %").format(share=highest)))
    return parts


def _stages(view: RunView, work: WorkDone, glyphs: Glyphs, *, alive: bool) -> list[Content]:
    """`● 27 %, 14 min left  training on the corpus 2/3 41 %  ✓ corpus`; or how the run ended.

    The figures at the beginning are of the whole run; behind the stage stands its own share.
    """
    if view.finished is not None or (not alive and view.stages):
        return [_ending(view, glyphs, alive=alive)]
    if view.status in (RunStatus.QUEUED, RunStatus.PAUSED):
        sign, style = glyphs.status(view.status), STATUS_STYLE[view.status]
        word = status_name(view.status)
        words = colon(word, one_line(view.reason)) if view.reason else word
        whole = [Content(work_text(work))] if work_text(work) else []
        return [Content.styled(f"{sign} {words}", style), *whole]
    # The whole run and the stage in progress come before the stages that are over.
    parts = [_one_stage(stage, view, glyphs) for stage in view.stages[-1:]]
    if work.left_s is not None:
        parts.insert(0, Content.styled(f"{glyphs.running} {work_text(work)}", "bold $text-accent"))
    elif view.eta_s is not None:
        parts.append(Content(_("{eta} left").format(eta=format_duration(view.eta_s))))
    done = [_one_stage(stage, view, glyphs) for stage in view.stages[:-1]]
    return parts + done[::-1]


def _ending(view: RunView, glyphs: Glyphs, *, alive: bool) -> Content:
    status = view.status if view.status.over or alive else RunStatus.DEAD
    words = status_name(status)
    if status is RunStatus.DEAD:
        words = (
            _("dead: engine gone; the last checkpoint is kept")
            if view.last_checkpoint is not None
            else _("dead: engine gone before its first checkpoint")
        )
    elif view.finished is not None and view.finished.error:
        words = colon(words, one_line(view.finished.error))
    elif view.verdict is not None:
        words = colon(words, one_line(view.verdict.sentence))
    return Content.styled(f"{glyphs.status(status)} {words}", STATUS_STYLE[status])


def _one_stage(stage: StageView, view: RunView, glyphs: Glyphs) -> Content:
    word = one_line(stage_name(stage.name))
    if stage.ended_at is not None:
        sign = {"done": glyphs.done, "skipped": glyphs.kept}.get(stage.state, glyphs.failed)
        return Content.styled(f"{sign} {word}", "$foreground-muted")
    share = ""
    if view.progress is not None and view.progress.total:
        share = " " + with_percent(f"{int(100 * view.progress.done / view.progress.total)}")
    elif stage.name == view.phase and view.max_steps:
        share = " " + with_percent(f"{min(100, int(100 * view.step / view.max_steps))}")
    place = f" {stage.index}/{stage.total}" if stage.total else ""
    return Content.styled(f"{glyphs.running} {word}{place}{share}", "$text-accent")
