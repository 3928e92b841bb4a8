"""`h2q-tui schedule`: start trainings at a time of day, and catch up on a missed one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import typer

from engine.core.filenames import shell_command
from engine.core.i18n import _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.scheduler.install import ScheduleStatus
    from engine.scheduler.plan import RunSchedule


def register(app: typer.Typer) -> None:
    """Add the group `schedule`."""
    group = typer.Typer(
        name="schedule",
        help=_("Train automatically at a time of day: launchd, a systemd user timer, or cron."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(group)
    at_help = _("Local time of day.")
    by_help = _("systemd, launchd or cron. Default: what this machine has.")
    flags_help = _("After --: options of train for each run, with absolute paths, e.g. -- --max-minutes 60.")

    @group.command(help=_("Train once a week."))
    def weekly(
        at: str = typer.Option("03:00", "--at", help=at_help),
        day: str = typer.Option("sun", "--day", help=_("mon, tue, wed, thu, fri, sat or sun.")),
        by: str = typer.Option(None, "--by", help=by_help),
        flags: list[str] = typer.Argument(None, metavar="-- OPTION…", help=flags_help),  # noqa: B008
    ) -> None:
        _install("weekly", at, day, by, flags or [])

    @group.command(help=_("Train every day."))
    def daily(
        at: str = typer.Option("03:00", "--at", help=at_help),
        by: str = typer.Option(None, "--by", help=by_help),
        flags: list[str] = typer.Argument(None, metavar="-- OPTION…", help=flags_help),  # noqa: B008
    ) -> None:
        _install("daily", at, "sun", by, flags or [])

    @group.command(help=_("The schedule, its next run, and how the last run ended."))
    def show() -> None:
        from engine.scheduler.install import schedule_status

        _echo_status(schedule_status(session.workspace(create=False)))

    @group.command(help=_("Remove the schedule of this workspace."))
    def remove() -> None:
        from engine.scheduler.install import remove as remove_

        removed = remove_(session.workspace(create=False))
        output.echo(
            _("Removed: {names}").format(names=_(", ").join(removed))
            if removed
            else _("Nothing was scheduled.")
        )
        if session.options.json:
            output.echo_json({"removed": removed})

    @group.command("catch-up", help=_("Train now if a scheduled run was missed."))
    def catch_up() -> None:
        from engine.scheduler.install import last_scheduled
        from engine.scheduler.plan import is_missed, load_schedule

        ws = session.workspace(create=False)
        schedule = load_schedule(ws)
        last = last_scheduled(ws)
        if schedule is None or not is_missed(schedule, time.time(), last.spec.created_at if last else None):
            output.echo(_("No scheduled run was missed."))
            if session.options.json:
                output.echo_json({"missed": False})
            return
        command = [*schedule.train, *(["--json"] if session.options.json else [])]
        os.execve(command[0], command, {**os.environ, **schedule.environment})  # noqa: S606


def _install(every: str, at: str, day: str, by: str | None, flags: list[str]) -> None:
    from engine.core.errors import UsageProblem
    from engine.core.i18n import language
    from engine.scheduler.install import detect_service_manager, install
    from engine.scheduler.plan import Frequency, ServiceManager, create_schedule

    if by is not None and by not in list(ServiceManager):
        raise UsageProblem(
            _("--by takes {choices}, not {value}").format(choices=_(", ").join(ServiceManager), value=by),
            hint=f"h2q-tui schedule {every} --at 03:00",
        )
    _check_flags(flags)
    ws = session.workspace()
    schedule = create_schedule(
        ws,
        Frequency(every),
        at,
        day,
        ServiceManager(by) if by else detect_service_manager(),
        language=language(),
        now=time.time(),
        flags=flags,
    )
    _echo_status(install(ws, schedule))


def _check_flags(flags: list[str]) -> None:
    """Raises UsageProblem for flags that `train` refuses, as nobody would see the error of a scheduled run."""
    from engine.core.errors import UsageProblem
    from tui.cli.commands import train
    from tui.cli.help import describe_usage_error

    if not flags:
        return
    hint = "h2q-tui train --help"
    reserved = [flag for flag in flags if flag.partition("=")[0] in _RESERVED_FLAGS]
    if reserved:
        raise UsageProblem(_("{option} is set by the schedule").format(option=reserved[0]), hint=hint)
    try:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        train.register(app)
        typer.main.get_command(app).make_context("train", list(flags))
    except typer.TyperException as problem:
        raise UsageProblem(describe_usage_error(problem)[0], hint=hint) from None


_RESERVED_FLAGS = ("--run-once", "--detach", "--data-dir", "--lang", "--quiet", "--json", "--help", "-h")
"""Flags that every scheduled run has, or that make no sense for one."""


def _echo_status(status: ScheduleStatus) -> None:
    from engine.runs.event_text import status_name
    from engine.runs.events import RunStatus

    if status.schedule is None:
        output.echo(_("Nothing is scheduled") + " → h2q-tui schedule weekly --at 03:00")
    else:
        output.echo(_when(status.schedule))
        if status.next_at:
            output.echo(_("next: {when}").format(when=status.next_at.replace("T", " ")))
        output.echo("  " + shell_command(*status.command))
        for place in status.places:
            output.echo("  " + place)
        if status.last_run:
            output.echo(
                _("last run: {run}, {status}").format(
                    run=status.last_run, status=status_name(RunStatus(status.last_status))
                )
            )
    for note in status.notes:
        output.echo(note)
    if session.options.json:
        output.echo_json(status)


def _when(schedule: RunSchedule) -> str:
    at, by = f"{schedule.hour:02}:{schedule.minute:02}", str(schedule.by)
    if schedule.every == "daily":
        return _("trains every day at {at}, started by {by}").format(at=at, by=by)
    days = {
        "mon": _("Monday"),
        "tue": _("Tuesday"),
        "wed": _("Wednesday"),
        "thu": _("Thursday"),
        "fri": _("Friday"),
        "sat": _("Saturday"),
        "sun": _("Sunday"),
    }
    return _("trains every {day} at {at}, started by {by}").format(day=days[schedule.day], at=at, by=by)
