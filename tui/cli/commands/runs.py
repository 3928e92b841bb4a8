"""`h2q-tui runs`: list, show, follow and control runs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from engine.core.i18n import N_, _, bracketed, colon
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.options import MAX_MEMORY_GB

if TYPE_CHECKING:
    from engine.runs.rundir import RunDir
    from engine.runs.view import RunSummary, RunView

PLOT_WIDTH, PLOT_HEIGHT = 76, 16
LISTED_ANNOTATIONS = 12
"""Annotations listed below a plot at most, without checkpoints."""


def register(app: typer.Typer) -> None:
    """Add the group `runs`."""
    runs = typer.Typer(
        name="runs",
        help=_("Runs: list, show, follow, control."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(runs)

    @runs.command("list", help=_("All runs, newest first."))
    def list_(
        limit: int = typer.Option(20, "--limit", min=0, help=_("Number of runs to show; 0: all.")),
    ) -> None:
        from engine.runs.rundir import list_runs, summarise

        runs_ = list_runs(session.workspace(create=False))
        summaries = [summarise(run) for run in (runs_[:limit] if limit else runs_)]
        for summary in summaries:
            output.echo(_row(summary))
        if not runs_:
            output.echo(_("no run yet") + " → h2q-tui train")
        elif len(summaries) < len(runs_):
            output.echo(
                _("{n} older runs").format(n=len(runs_) - len(summaries)) + " → h2q-tui runs list --limit 0"
            )
        if session.options.json:
            output.echo_json({"runs": summaries})

    @runs.command("show", help=_("Details of one run. ID: a prefix is enough, or latest."))
    def show(
        run_id: str = typer.Argument(metavar="ID"),
        plot: bool = typer.Option(False, "--plot", help=_("Plot the loss.")),
        log: int = typer.Option(10, "--log", min=0, help=_("Number of log lines to show.")),
    ) -> None:
        from engine.runs.rundir import load_view

        run = _find(run_id)
        view = load_view(run)
        summary = view.summary(run.alive())
        for line in _card(run, view, summary):
            output.echo(line)
        if plot:
            from tui.terminal.glyphs import choose_glyphs

            for phase in view.phases:
                output.echo(loss_plot(view, phase, ascii_only=choose_glyphs().ascii))
        for entry in list(view.log)[-log:] if log else []:
            output.echo(f"{_clock(entry.t)} {entry.text}")
        if session.options.json:
            output.echo_json(summary)

    @runs.command(help=_("Follow a run until it ends; Ctrl+C stops following, not the run."))
    def attach(run_id: str = typer.Argument("latest", metavar="ID")) -> None:
        from tui.cli.run_output import attach_in_terminal, conclude

        raise typer.Exit(conclude(attach_in_terminal(_find(run_id))))

    @runs.command(help=_("Pause a run after the current step."))
    def pause(run_id: str = typer.Argument("latest", metavar="ID")) -> None:
        _send(run_id, "pause")

    @runs.command(help=_("Continue a paused run; resume a stopped or crashed training from its checkpoint."))
    def resume(
        run_id: str = typer.Argument("latest", metavar="ID"),
        max_memory_gb: float = replace(
            MAX_MEMORY_GB, help=N_("New memory budget in GB from here on.")
        ).render(),
    ) -> None:
        run = _find_to_control(run_id, trains=True)
        if not run.alive():
            raise typer.Exit(_resume_training(run, max_memory_gb))
        if max_memory_gb is not None:
            _send(run.run_id, "set", f"max_memory_gb={max_memory_gb:g}")
        _send(run.run_id, "resume")

    @runs.command(help=_("Write a checkpoint and stop."))
    def stop(run_id: str = typer.Argument("latest", metavar="ID")) -> None:
        _send(run_id, "stop")

    @runs.command(help=_("Write a checkpoint now."))
    def checkpoint(run_id: str = typer.Argument("latest", metavar="ID")) -> None:
        _send(run_id, "checkpoint", timeout=60.0)

    @runs.command("set", help=_("Change a running training: lr=0.01, max_steps=500 or max_memory_gb=1.5."))
    def set_(
        run_id: str = typer.Argument(metavar="ID"),
        assignments: list[str] = typer.Argument(metavar="NAME=VALUE..."),  # noqa: B008
    ) -> None:
        from engine.core.errors import UsageProblem

        for assignment in assignments:
            if not is_assignment(assignment):
                raise UsageProblem(
                    _("expected lr=, max_steps= or max_memory_gb= with a number, not {value}").format(
                        value=assignment
                    ),
                    hint="h2q-tui runs set latest lr=0.01",
                )
        for assignment in assignments:
            _send(run_id, "set", assignment)


def is_assignment(text: str) -> bool:
    """Whether `text` is `lr=`, `max_steps=` or `max_memory_gb=` with a number above zero."""
    name, _equals, value = text.partition("=")
    try:
        number = int(value) if name == "max_steps" else float(value)
    except ValueError:
        return False
    return name in ("lr", "max_steps", "max_memory_gb") and 0 < number < float("inf")


def _find(run_id: str) -> RunDir:
    from engine.runs.rundir import find_run

    return find_run(session.workspace(create=False), run_id)


def _find_to_control(run_id: str, *, trains: bool = False) -> RunDir:
    """Like `_find`, but "latest" is the newest running run; without one and with `trains`, the newest training."""
    from engine.runs.kinds import KINDS
    from engine.runs.rundir import list_runs, newest_alive

    if run_id != "latest":
        return _find(run_id)
    runs = list_runs(session.workspace(create=False))
    trained = (run for run in runs if KINDS[run.spec.kind].resumable) if trains else iter(())
    return newest_alive(runs) or next(trained, None) or _find(run_id)


def _send(run_id: str, name: str, value: str = "", timeout: float = 5.0) -> None:
    """Send a command and print the reply. Raises UsageProblem for a run that has ended, RunFailed if refused."""
    from engine.core.errors import RunFailed, UsageProblem
    from engine.runs.control import send_sync
    from engine.runs.event_text import status_name
    from engine.runs.resume import can_resume
    from engine.runs.rundir import load_view

    run = _find_to_control(run_id)
    if not run.alive():
        status = load_view(run).summary(alive=False).status
        raise UsageProblem(
            _("run {run} has ended ({status})").format(run=run.run_id, status=status_name(status)),
            hint=f"h2q-tui runs {'resume' if can_resume(run.spec.kind, status) else 'show'} {run.run_id}",
        )
    reply = send_sync(run, name, value, timeout)
    if not reply.accepted:
        raise RunFailed(reply.text, hint=f"h2q-tui runs show {run.run_id}")
    output.echo(colon(run.run_id, reply.text or _("done")))
    if session.options.json:
        output.echo_json({"run_id": run.run_id, "command": name, "value": value, "reply": reply})


def _resume_training(run: RunDir, max_memory_gb: float | None) -> int:
    """Start a detached run that resumes from the newest checkpoint of `run`."""
    from engine.core.errors import UsageProblem
    from engine.core.i18n import language
    from engine.runs.kinds import RunKind
    from engine.runs.resume import can_resume, has_checkpoint, resume_spec, run_with_checkpoints
    from engine.runs.rundir import summarise
    from tui.cli.run_output import start_detached

    if not can_resume(run.spec.kind, summarise(run).status):
        raise UsageProblem(
            _("run {run} has ended; only a training that failed, stopped or crashed can be resumed").format(
                run=run.run_id
            ),
            hint=f"h2q-tui runs show {run.run_id}",
        )
    ws = session.workspace()
    if run.spec.kind is RunKind.TRAIN and not has_checkpoint(run_with_checkpoints(ws, run.run_id).path):
        output.echo(
            _("run {run} has no checkpoint: it starts again from the beginning").format(run=run.run_id)
        )
    return start_detached(ws, resume_spec(run, language(), max_memory_gb=max_memory_gb))


def _row(summary: RunSummary) -> str:
    from engine.runs.event_text import stage_name, status_name
    from tui.terminal.glyphs import choose_glyphs
    from tui.terminal.text import fit

    figures = _("step {step} of {steps}").format(step=summary.step, steps=summary.max_steps)
    parts = [
        f"{choose_glyphs().status(summary.status)} {summary.id}",
        fit(_(summary.label), 9),
        fit(status_name(summary.status), 10),
        fit(figures if summary.max_steps else stage_name(summary.stage), 22),
        "" if summary.loss is None else _("loss {loss}").format(loss=f"{summary.loss:.3f}"),
    ]
    return "  ".join(parts).rstrip()


def _card(run: RunDir, view: RunView, summary: RunSummary) -> list[str]:
    from engine.runs.event_text import (
        format_duration,
        format_figure,
        format_rate,
        rank_text,
        status_name,
        work_text,
    )
    from engine.runs.events import RunStatus
    from engine.runs.work import work_done
    from tui.terminal.glyphs import choose_glyphs

    status = status_name(summary.status)
    if view.reason:
        status = bracketed(status, view.reason)
    lines = [f"{choose_glyphs().status(summary.status)} {summary.id}  {_(summary.label)}  {status}"]
    if summary.error:
        lines.append(summary.error)
    if summary.started_at is not None:
        text = _("started {time}").format(time=_clock(summary.started_at, day=True))
        if summary.finished_at is not None:
            text += _(", took {time}").format(time=format_duration(summary.finished_at - summary.started_at))
        if summary.paused_s >= 1:
            text += _(", paused {time}").format(time=format_duration(summary.paused_s))
        lines.append(text)
    work = work_done(view, time.time())
    if summary.status is RunStatus.RUNNING and work.left_s is not None:
        lines.append(work_text(work))
    if summary.max_steps:
        lines.append(
            _("step {step} of {steps}, loss {loss} (best {best}), {rate} tok/s").format(
                step=f"{summary.step:,}",
                steps=f"{summary.max_steps:,}",
                loss=format_figure(summary.loss),
                best=format_figure(summary.best_loss),
                rate=format_rate(summary.tokens_per_s or 0.0),
            )
        )
    if view.memory is not None and summary.peak_memory_mb is not None:
        text = _("peak memory {peak} of {budget} MB").format(
            peak=f"{summary.peak_memory_mb:,.0f}", budget=f"{view.memory.budget_mb:,.0f}"
        )
        if summary.streaming_efficiency is not None:
            text += _(", streaming efficiency {share} %").format(
                share=f"{100 * summary.streaming_efficiency:.1f}"
            )
        lines.append(text)
    lines += [rank_text(one) for one in view.ranks]
    if summary.checkpoint:
        lines.append(_("checkpoint {path}").format(path=summary.checkpoint))
    if view.finished is not None and view.finished.report:
        lines.append(_("report: {path}").format(path=view.finished.report))
    lines.append(_("folder {path}").format(path=run.path))
    return lines


def loss_plot(view: RunView, phase: str, *, ascii_only: bool = False) -> str:
    """The loss curve of `phase`, its legend, and a line for each of the newest annotations."""
    import plotext

    from engine.runs.curve import AnnotationKind
    from engine.runs.event_text import stage_name
    from tui.widgets.annotations import annotation_lines, glyph_of, legend, on_curve

    series = view.series(phase, "loss")
    marks = view.annotations_of(phase)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(PLOT_WIDTH, PLOT_HEIGHT)
    plotext.plot(series.x, series.y, marker="." if ascii_only else "braille")
    if series.y:
        low, high = min(series.y), max(series.y)
        for mark in on_curve(marks):
            place = low if mark.kind is AnnotationKind.CHECKPOINT else high
            plotext.text(glyph_of(mark.kind, ascii_only=ascii_only), mark.step, place, alignment="center")
    lines = [stage_name(phase), plotext.uncolorize(plotext.build())]
    if marks:
        lines.append(legend(marks, ascii_only=ascii_only))
    newest = [mark for mark in marks if mark.kind is not AnnotationKind.CHECKPOINT][-LISTED_ANNOTATIONS:]
    lines += [
        f"{local_time('%H:%M:%S', line.t)} {line.text}"
        for line in annotation_lines(newest, ascii_only=ascii_only)
    ]
    return "\n".join(lines)


def _clock(t: float, *, day: bool = False) -> str:
    return local_time("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S", t)
