"""Installs, inspects and removes the schedule of a workspace with systemd, launchd or cron."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from engine.core.errors import BadInput, H2QError, RunFailed, ServiceUnreachable
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.runs.last_visit import is_scheduled
from engine.runs.rundir import RunDir, list_runs, summarise
from engine.scheduler import cron, launchd, systemd
from engine.scheduler.plan import (
    RunSchedule,
    ServiceManager,
    load_schedule,
    next_time,
    save_schedule,
    schedule_tag,
)

_TIMEOUT_S = 20.0
_CRON_DAEMONS = {"cron", "crond", "fcron", "cronie", "busybox"}


class ScheduleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule and its state; the JSON of `schedule show --json`."""

    schedule: RunSchedule | None
    present: bool
    """Whether its unit, agent or crontab block exists."""
    places: list[str]
    command: list[str]
    next_at: str | None
    """Local time, ISO 8601."""
    last_run: str
    """Id of the newest scheduled run, "" when there was none."""
    last_status: str
    notes: list[str]
    """Notes for the user, one sentence each."""


def detect_service_manager() -> ServiceManager:
    """The service manager of this machine. Raises ServiceUnreachable when it has none."""
    if sys.platform == "darwin" and shutil.which("launchctl"):
        return ServiceManager.LAUNCHD
    if _systemd_responds():
        return ServiceManager.SYSTEMD
    if shutil.which("crontab"):
        return ServiceManager.CRON
    raise ServiceUnreachable(
        _("this machine has no launchd, systemd user manager or cron to start a run"),
        hint="h2q-tui train --run-once",
    )


def install(ws: Workspace, schedule: RunSchedule) -> ScheduleStatus:
    """Replaces the schedule of the workspace.

    Raises ServiceUnreachable when the service manager fails; the previous schedule is restored then.
    """
    previous = None
    with contextlib.suppress(BadInput):
        previous = load_schedule(ws)
    remove(ws)
    try:
        _install(ws, schedule)
    except BaseException:
        if previous is not None:
            with contextlib.suppress(H2QError, OSError):
                _install(ws, previous)
        raise
    return schedule_status(ws)


def _install(ws: Workspace, schedule: RunSchedule) -> None:
    """Installs completely or not at all."""
    try:
        _INSTALL[schedule.by](schedule)
    except BaseException:
        with contextlib.suppress(H2QError, OSError):
            remove(ws)
        raise
    save_schedule(ws, schedule)


def remove(ws: Workspace) -> list[str]:
    """Removes everything that starts runs of this workspace and returns its names; no schedule is no error."""
    tag = schedule_tag(ws)
    try:
        schedule = load_schedule(ws)
    except BadInput:
        schedule = None
    removed = _remove_systemd(tag) + _remove_launchd(tag)
    try:
        removed += _remove_cron(tag)
    except ServiceUnreachable:
        # A user without access to cron has no crontab.
        if schedule is not None and schedule.by is ServiceManager.CRON:
            raise
    save_schedule(ws, None)
    return removed


def schedule_status(ws: Workspace) -> ScheduleStatus:
    """The current state. Raises BadInput for a damaged `schedule.json` or crontab block."""
    schedule, tag = load_schedule(ws), schedule_tag(ws)
    places = [str(path) for path in (*_units(tag), *_plists(tag)) if path.exists()]
    with contextlib.suppress(ServiceUnreachable):
        if shutil.which("crontab") and cron.has_block(_crontab(), tag):
            places.append("crontab")
    last = last_scheduled(ws)
    present = schedule is not None and bool(places)
    return ScheduleStatus(
        schedule=schedule,
        present=present,
        places=places,
        command=schedule.train if schedule else [],
        next_at=next_time(schedule, datetime.now()).isoformat(timespec="minutes")
        if schedule and present
        else None,
        last_run=last.run_id if last else "",
        last_status=str(summarise(last).status) if last else "",
        notes=_notes(schedule, present),
    )


def last_scheduled(ws: Workspace) -> RunDir | None:
    """The newest scheduled run."""
    return next((run for run in list_runs(ws) if is_scheduled(run)), None)


def _install_systemd(schedule: RunSchedule) -> None:
    service, timer = _units(schedule.tag)
    write_bytes(service, systemd.service_text(schedule).encode())
    write_bytes(timer, systemd.timer_text(schedule).encode())
    _run_checked("systemctl", "--user", "daemon-reload")
    _run_checked("systemctl", "--user", "enable", "--now", timer.name)


def _remove_systemd(tag: str) -> list[str]:
    existing = [path for path in _units(tag) if path.exists()]
    if not existing:
        return []
    timer = _units(tag)[1]
    if shutil.which("systemctl"):
        _run("systemctl", "--user", "disable", "--now", timer.name)
    # The units and the link to the timer have to be deleted even when systemd does not respond.
    (timer.parent / "timers.target.wants" / timer.name).unlink(missing_ok=True)
    for path in existing:
        path.unlink(missing_ok=True)
    if shutil.which("systemctl"):
        _run("systemctl", "--user", "daemon-reload")
    return [str(path) for path in existing]


def _install_launchd(schedule: RunSchedule) -> None:
    for label, text in launchd.agents(schedule).items():
        path = launchd.agent_folder() / f"{label}.plist"
        write_bytes(path, text)
        _run_checked("launchctl", "bootstrap", f"gui/{os.getuid()}", str(path))


def _remove_launchd(tag: str) -> list[str]:
    removed = []
    for path in _plists(tag):
        if path.exists():
            if shutil.which("launchctl"):
                _run("launchctl", "bootout", f"gui/{os.getuid()}/{path.stem}")
            path.unlink()
            removed.append(str(path))
    return removed


def _install_cron(schedule: RunSchedule) -> None:
    _run_checked("crontab", "-", text=cron.with_block(_crontab(), schedule.tag, cron.entries(schedule)))


def _remove_cron(tag: str) -> list[str]:
    if shutil.which("crontab") is None:
        return []
    before = _crontab()
    after = cron.without_block(before, tag)
    if after == before:
        return []
    _run_checked("crontab", "-", text=after)
    return ["crontab"]


_INSTALL = {
    ServiceManager.SYSTEMD: _install_systemd,
    ServiceManager.LAUNCHD: _install_launchd,
    ServiceManager.CRON: _install_cron,
}


def _notes(schedule: RunSchedule | None, present: bool) -> list[str]:
    if schedule is None:
        return []
    if not present:
        hint = f"h2q-tui schedule {schedule.every} --at {schedule.hour:02}:{schedule.minute:02}"
        return [_("Its timer or agent no longer exists; nothing will run") + f" → {hint}"]
    if schedule.by is ServiceManager.SYSTEMD:
        notes = [
            _(
                "A run missed while the machine is off starts once, when your systemd user manager starts again."
            )
        ]
        if not _lingers():
            notes.append(
                _("Lingering is off: runs start only while you are logged in") + " → loginctl enable-linger"
            )
        return notes
    if schedule.by is ServiceManager.LAUNCHD:
        return [
            _(
                "A run missed while the Mac sleeps starts when it wakes; one missed while it is off starts at your next login."
            )
        ]
    notes = [
        _(
            "A run missed while the machine is off starts after the next boot; one missed during sleep does not."
        )
    ]
    if sys.platform != "darwin" and not _cron_runs():
        notes.append(_("No cron daemon is running on this machine: nothing will start until one does."))
    return notes


def _units(tag: str) -> tuple[Path, Path]:
    base = systemd.unit_folder() / systemd.unit_name(tag)
    return base.with_name(base.name + ".service"), base.with_name(base.name + ".timer")


def _plists(tag: str) -> list[Path]:
    return [launchd.agent_folder() / f"{label}.plist" for label in launchd.labels(tag)]


def _systemd_responds() -> bool:
    if shutil.which("systemctl") is None:
        return False
    try:
        return _run("systemctl", "--user", "show-environment").returncode == 0
    except ServiceUnreachable:
        return False


def _lingers() -> bool:
    if shutil.which("loginctl") is None:
        return False
    with contextlib.suppress(ServiceUnreachable):
        answer = _run("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
        return answer.stdout.strip() == "yes"
    return False


def _cron_runs() -> bool:
    try:
        return any(process.info["name"] in _CRON_DAEMONS for process in psutil.process_iter(["name"]))
    except psutil.Error:
        return False


def _crontab() -> str:
    """The user's crontab, "" without one. Raises ServiceUnreachable for any other failure: an empty crontab
    written back would delete the user's entries."""
    answer = _run("crontab", "-l")
    if answer.returncode == 0:
        return answer.stdout
    if "no crontab" in answer.stderr.lower():
        return ""
    raise ServiceUnreachable(
        _("{program} failed: {answer}").format(program="crontab", answer=_first_line(answer.stderr)),
        hint="crontab -l",
    )


def _run_checked(*command: str, text: str | None = None) -> None:
    answer = _run(*command, text=text)
    if answer.returncode != 0:
        raise ServiceUnreachable(
            _("{program} failed: {answer}").format(program=command[0], answer=_first_line(answer.stderr)),
            hint="h2q-tui train --run-once",
        )


def _run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "LC_ALL": "C"},
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServiceUnreachable(
            _("{program} does not answer").format(program=command[0]), hint="h2q-tui schedule show"
        ) from None
    except OSError as error:
        raise RunFailed(
            _("{program} cannot be started: {reason}").format(program=command[0], reason=error.strerror)
        ) from None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else _("no error message")
