"""Start or follow a run and print it: stages and metrics while it runs, totals at the end.

On a terminal the metrics are one line that is redrawn; with `--plain`, or without a terminal, every event is a line
of its own. Text from data passes through `plain`, so that it cannot control the terminal.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from engine.core.i18n import _, with_percent
from engine.core.local_time import local_time
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.runs.events import JournalRecord, Progress
    from engine.runs.rundir import RunDir
    from engine.runs.spec import RunSpec
    from engine.runs.view import RunView

REDRAW_S = 0.2
PLAIN_S = 5.0
"""Interval of metrics if each is a line of its own."""


@dataclass(frozen=True)
class FollowedRun:
    """A run after it was followed."""

    run: RunDir
    view: RunView
    exit_code: int
    detached: bool = False
    """The user stopped following; the run continues."""


def run_command(ws: Workspace, spec: RunSpec, *, detach: bool = False) -> int:
    """Execute `spec` here and print it, or start it detached. Returns the exit code of the command."""
    return start_detached(ws, spec) if detach else conclude(follow_in_terminal(ws, spec))


def follow_in_terminal(ws: Workspace, spec: RunSpec) -> FollowedRun:
    """Execute `spec` in this process and print its events. Ctrl+C writes a checkpoint and stops."""
    from engine.runs import launch, runner

    printer = RunPrinter(spec)
    runs: list[RunDir] = []
    runner.lower_priority()
    try:
        code = launch.run_in_foreground(ws, spec, printer.show, on_start=runs.append)
    finally:
        printer.close()
    return FollowedRun(runs[0], printer.view, code)


def attach_in_terminal(run: RunDir) -> FollowedRun:
    """Print a run from its beginning until it ends. Ctrl+C stops following; the run continues."""
    from engine.core.errors import RunFailed
    from engine.runs.rundir import follow

    printer = RunPrinter(run.spec)
    try:
        for records in follow(run):
            printer.show_many(records)
    except KeyboardInterrupt:
        printer.close()
        return FollowedRun(run, printer.view, 0, detached=True)
    finally:
        printer.close()
    finished = printer.view.finished
    return FollowedRun(run, printer.view, finished.exit_code if finished else RunFailed.exit_code)


def start_detached(ws: Workspace, spec: RunSpec) -> int:
    """Start `spec` in a process of its own and print how to follow and stop it."""
    from engine.runs import launch
    from engine.runs.rundir import summarise

    run = launch.launch(ws, spec)
    output.echo(_("run {run} has started in the background").format(run=run.run_id))
    output.echo("  " + session.own_command("runs", "attach", run.run_id))
    output.echo("  " + session.own_command("runs", "stop", run.run_id))
    if session.options.json:
        output.echo_json(summarise(run))
    return 0


def conclude(followed: FollowedRun) -> int:
    """Print totals and the report of a followed run (with `--json` its result); returns the exit code."""
    if followed.detached:
        output.echo(_("run {run} continues in the background").format(run=followed.run.run_id))
        output.echo("  " + session.own_command("runs", "attach", followed.run.run_id))
        if session.options.json:
            output.echo_json(followed.view.summary(followed.run.alive()))
        return 0
    finished = followed.view.finished
    for line in totals(followed.view):
        output.echo(line)
    if finished is not None and finished.report:
        output.echo(_("report: {path}").format(path=finished.report))
    error = _error(followed)
    if error:
        output.echo(error, error=followed.exit_code not in (0, 130))
    if session.options.json:
        import msgspec

        if finished is not None and bytes(finished.result) != b"null":
            output.echo_json(msgspec.json.decode(finished.result))
        else:
            summary = followed.view.summary(alive=False)
            sentence, hint = error_fields(error, finished.hint if finished is not None else "")
            fields = {"error": sentence, "hint": hint, "exit_code": followed.exit_code}
            output.echo_json({"run_id": followed.run.run_id, **msgspec.to_builtins(summary), **fields})
    return followed.exit_code


def error_fields(error: str, hint: str) -> tuple[str, str]:
    """The sentence of an error and its hint, from the error with its hint at the end; `hint` is "" where a run of an
    older version did not write it by itself."""
    sentence, arrow, rest = error.rpartition(" → ")
    if hint and error.endswith(f" → {hint}"):
        sentence = error.removesuffix(f" → {hint}")
    elif arrow and not hint and rest.startswith(("h2q-tui ", "less ", "df ")):
        hint = rest
    else:
        sentence = error
    return sentence, session.complete(hint)


def _error(followed: FollowedRun) -> str:
    from engine.runs.kinds import KINDS

    finished = followed.view.finished
    if finished is not None:
        return finished.error
    text = _("the engine of run {run} ended without an error message: killed, or out of memory")
    hint = "resume" if KINDS[followed.run.spec.kind].resumable else "show"
    return (
        text.format(run=followed.run.run_id) + " → " + session.own_command("runs", hint, followed.run.run_id)
    )


def totals(view: RunView) -> list[str]:
    """A line for each training phase, and one for time and memory."""
    from engine.runs.event_text import format_duration, format_figure, format_perplexity, stage_name

    lines = []
    for phase in view.phases:
        losses = view.series(phase, "loss").points()
        if not losses:
            continue
        (step, last), best = losses[-1], min(y for _x, y in losses)
        lines.append(
            _("{phase}: {steps} steps, loss {loss} (best {best}), perplexity {perplexity}").format(
                phase=stage_name(phase),
                steps=f"{int(step):,}",
                loss=format_figure(last),
                best=format_figure(best),
                perplexity=format_perplexity(last),
            )
        )
    if view.started_at is not None and view.finished_at is not None:
        text = _("time {time}").format(time=format_duration(view.finished_at - view.started_at))
        if view.peak_memory_mb is not None and view.memory is not None:
            text += _(", peak memory {peak} of {budget} MB").format(
                peak=f"{view.peak_memory_mb:,.0f}", budget=f"{view.memory.budget_mb:,.0f}"
            )
        lines.append(text)
    return lines


class RunPrinter:
    """Prints records of a run as they arrive and keeps its view."""

    def __init__(self, spec: RunSpec, *, stream: TextIO | None = None, live: bool | None = None) -> None:
        """`live`: redraw the metrics on one line; None: if `stream` is a terminal."""
        from engine.runs.view import RunView

        self.view = RunView(spec)
        self._stream = stream or (sys.stderr if session.options.json else sys.stdout)
        self._live = self._stream.isatty() and not session.options.plain if live is None else live
        self._quiet = session.options.quiet
        self._drawn_width = 0
        self._last = 0.0
        self._pending = ""

    def show(self, record: JournalRecord) -> None:
        """Add one record to the view and print it if it matters to the user. Raises OSError of the stream."""
        from engine.runs.event_text import describe
        from engine.runs.events import EpochDone, Finished, Progress, StageChanged, Started, Step
        from engine.validation.verdict_event import in_own_language

        record = in_own_language(record)
        event = record.event
        self.view.apply(record)
        if self._quiet or isinstance(event, Finished):
            return
        if isinstance(event, Step):
            self._show_metrics(step_line(self.view), last=event.step >= event.max_steps)
        elif isinstance(event, Progress):
            last = event.total is not None and event.done >= event.total
            self._show_metrics(progress_line(event), last=last)
        elif not isinstance(event, Started) and (described := describe(event)) is not None:
            if isinstance(event, StageChanged | EpochDone):
                self._finish_metrics_line()
            level, text = described
            sign = {"warning": "! ", "error": "x "}.get(level, "")
            clock = local_time("%H:%M:%S", record.t)
            self._line(f"{clock} {sign}{text}")

    def show_many(self, records: list[JournalRecord]) -> None:
        """`show` for a batch: only the newest metrics of a long history are drawn."""
        for record in records:
            self.show(record)
        if self._live and self._pending:
            self._draw(self._pending)

    def close(self) -> None:
        """Leave the cursor on a new line."""
        try:
            self._finish_metrics_line()
        except OSError:
            self._drawn_width = 0

    def _show_metrics(self, line: str, *, last: bool) -> None:
        now = time.monotonic()
        if not last and now - self._last < (REDRAW_S if self._live else PLAIN_S):
            self._pending = line
            return
        self._last = now
        self._pending = ""
        if self._live:
            self._draw(line)
        else:
            self._line(line)

    def _finish_metrics_line(self) -> None:
        """End of a stage: leave its last metrics on the screen."""
        if self._live and (self._pending or self._drawn_width):
            if self._pending:
                self._draw(self._pending)
            self._stream.write("\n")
            self._stream.flush()
            self._drawn_width = 0
        self._pending, self._last = "", 0.0

    def _draw(self, line: str) -> None:
        from tui.terminal.text import fit

        width = max(20, shutil.get_terminal_size().columns - 1)
        self._stream.write("\r" + fit(line, width))
        self._stream.flush()
        self._drawn_width, self._pending = width, ""

    def _line(self, text: str) -> None:
        from tui.terminal.text import plain

        if self._drawn_width:
            self._stream.write("\r" + " " * self._drawn_width + "\r")
            self._drawn_width = 0
        self._stream.write(plain(text) + "\n")
        self._stream.flush()


def step_line(view: RunView) -> str:
    """The metrics of a training step on one line."""
    from engine.runs.event_text import format_duration, format_figure, format_rate, work_text
    from engine.runs.work import work_done

    work = work_done(view, view.updated_at or 0.0)
    parts = [
        _("step {step} of {steps}").format(step=f"{view.step:,}", steps=f"{view.max_steps:,}"),
        _("loss {loss} (best {best})").format(
            loss=format_figure(view.loss), best=format_figure(view.best_loss)
        ),
    ]
    if work.left_s is not None:
        parts.append(work_text(work))
    elif view.eta_s is not None:
        parts.append(_("{time} left").format(time=format_duration(view.eta_s)))
    parts += [f"{format_rate(view.tokens_per_s or 0.0)} tok/s", f"lr {view.lr or 0.0:.3g}"]
    if view.memory is not None:
        used, budget = view.memory.used_mb / 1024, view.memory.budget_mb / 1024
        parts.append(f"{used:.1f}/{budget:.1f} GB")
    return "  ".join(parts)


def progress_line(event: Progress) -> str:
    """The progress of a stage on one line."""
    from engine.runs.event_text import format_duration, stage_name

    done = f"{event.done:,.0f}" if event.total is None else f"{event.done:,.0f}/{event.total:,.0f}"
    parts = [stage_name(event.stage), f"{done} {event.unit}".rstrip()]
    if event.total:
        parts.append(with_percent(f"{100 * event.done / event.total:.0f}"))
    if event.eta_s is not None:
        parts.append(_("{time} left").format(time=format_duration(event.eta_s)))
    return "  ".join(parts)
