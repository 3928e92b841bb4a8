"""Putting a schedule where the machine looks for it, looking at what is there, and taking it away again."""

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
from engine.runs.history import summarise
from engine.runs.last_visit import is_scheduled
from engine.runs.rundir import RunDir, list_runs
from engine.scheduler import cron, launchd, systemd
from engine.scheduler.plan import By, Schedule, load_schedule, next_time, save_schedule, tag_of

_PATIENCE_S = 20.0
_CRON = {"cron", "crond", "fcron", "cronie", "busybox"}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`schedule show --json`: the schedule and how it stands."""

    schedule: Schedule | None
    present: bool
    """Whether what starts it is really there."""
    places: list[str]
    command: list[str]
    next_at: str | None
    """Local time, ISO 8601."""
    last_run: str
    """Id of the newest scheduled run, "" when there was none."""
    last_status: str
    notes: list[str]
    """What a person must know, each a sentence."""


def choose() -> By:
    """What this machine starts things with. Raises ServiceUnreachable when it has nothing for that."""
    if sys.platform == "darwin" and shutil.which("launchctl"):
        return By.LAUNCHD
    if _systemd_answers():
        return By.SYSTEMD
    if shutil.which("crontab"):
        return By.CRON
    raise ServiceUnreachable(
        _("there is neither launchd nor a systemd of yours nor cron on this machine to start a run"),
        hint="h2q-tui train --run-once",
    )


def install(ws: Workspace, schedule: Schedule) -> Found:
    """Replaces the schedule of the workspace.

    Raises ServiceUnreachable when what is to start it refuses; the schedule before it is there again then.
    """
    before = None
    with contextlib.suppress(BadInput):
        before = load_schedule(ws)
    remove(ws)
    try:
        _put(ws, schedule)
    except BaseException:
        if before is not None:
            with contextlib.suppress(H2QError, OSError):
                _put(ws, before)
        raise
    return look(ws)


def _put(ws: Workspace, schedule: Schedule) -> None:
    """All of it or nothing."""
    try:
        _PUT[schedule.by](schedule)
    except BaseException:
        with contextlib.suppress(H2QError, OSError):
            remove(ws)
        raise
    save_schedule(ws, schedule)


def remove(ws: Workspace) -> list[str]:
    """Takes away whatever starts runs of this workspace; names what it was. Nothing there is no failure."""
    tag = tag_of(ws)
    try:
        schedule = load_schedule(ws)
    except BadInput:
        schedule = None
    gone = _remove_systemd(tag) + _remove_launchd(tag)
    try:
        gone += _remove_cron(tag)
    except ServiceUnreachable:
        # Whoever may not use cron has nothing in it.
        if schedule is not None and schedule.by is By.CRON:
            raise
    save_schedule(ws, None)
    return gone


def look(ws: Workspace) -> Found:
    """How things stand. Raises BadInput for a broken `schedule.json` or crontab."""
    schedule, tag = load_schedule(ws), tag_of(ws)
    places = [str(path) for path in (*_units(tag), *_plists(tag)) if path.exists()]
    with contextlib.suppress(ServiceUnreachable):
        if shutil.which("crontab") and cron.has_block(_crontab(), tag):
            places.append("crontab")
    last = last_scheduled(ws)
    present = schedule is not None and bool(places)
    return Found(
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
    """The newest run that a schedule started."""
    return next((run for run in list_runs(ws) if is_scheduled(run)), None)


def _put_systemd(schedule: Schedule) -> None:
    service, timer = _units(schedule.tag)
    write_bytes(service, systemd.service(schedule).encode())
    write_bytes(timer, systemd.timer(schedule).encode())
    _must("systemctl", "--user", "daemon-reload")
    _must("systemctl", "--user", "enable", "--now", timer.name)


def _remove_systemd(tag: str) -> list[str]:
    there = [path for path in _units(tag) if path.exists()]
    if not there:
        return []
    timer = _units(tag)[1]
    if shutil.which("systemctl"):
        _run("systemctl", "--user", "disable", "--now", timer.name)
    # Without a systemd that answers the units and the link that starts them still have to go.
    (timer.parent / "timers.target.wants" / timer.name).unlink(missing_ok=True)
    for path in there:
        path.unlink(missing_ok=True)
    if shutil.which("systemctl"):
        _run("systemctl", "--user", "daemon-reload")
    return [str(path) for path in there]


def _put_launchd(schedule: Schedule) -> None:
    for label, text in launchd.agents(schedule).items():
        path = launchd.folder() / f"{label}.plist"
        write_bytes(path, text)
        _must("launchctl", "bootstrap", f"gui/{os.getuid()}", str(path))


def _remove_launchd(tag: str) -> list[str]:
    gone = []
    for path in _plists(tag):
        if path.exists():
            if shutil.which("launchctl"):
                _run("launchctl", "bootout", f"gui/{os.getuid()}/{path.stem}")
            path.unlink()
            gone.append(str(path))
    return gone


def _put_cron(schedule: Schedule) -> None:
    _must("crontab", "-", text=cron.with_block(_crontab(), schedule.tag, cron.entries(schedule)))


def _remove_cron(tag: str) -> list[str]:
    if shutil.which("crontab") is None:
        return []
    before = _crontab()
    after = cron.without_block(before, tag)
    if after == before:
        return []
    _must("crontab", "-", text=after)
    return ["crontab"]


_PUT = {By.SYSTEMD: _put_systemd, By.LAUNCHD: _put_launchd, By.CRON: _put_cron}


def _notes(schedule: Schedule | None, present: bool) -> list[str]:
    if schedule is None:
        return []
    if not present:
        hint = f"h2q-tui schedule {schedule.every} --at {schedule.hour:02}:{schedule.minute:02}"
        return [_("What was to start it is gone; nothing will run") + f" → {hint}"]
    if schedule.by is By.SYSTEMD:
        notes = [_("A time at which the machine is off is made up for once, when your systemd starts again.")]
        if not _lingers():
            notes.append(
                _("Lingering is off: it runs only while you are logged in") + " → loginctl enable-linger"
            )
        return notes
    if schedule.by is By.LAUNCHD:
        return [
            _(
                "A time that the Mac sleeps through is made up for when it wakes, one at which it is off at your next login."
            )
        ]
    notes = [
        _(
            "A time at which the machine is off is made up for after the next boot; one that it sleeps through is not."
        )
    ]
    if sys.platform != "darwin" and not _cron_runs():
        notes.append(_("No cron daemon runs on this machine: nothing will start until one does."))
    return notes


def _units(tag: str) -> tuple[Path, Path]:
    base = systemd.folder() / systemd.unit(tag)
    return base.with_name(base.name + ".service"), base.with_name(base.name + ".timer")


def _plists(tag: str) -> list[Path]:
    return [launchd.folder() / f"{label}.plist" for label in launchd.labels(tag)]


def _systemd_answers() -> bool:
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
        return any(process.info["name"] in _CRON for process in psutil.process_iter(["name"]))
    except psutil.Error:
        return False


def _crontab() -> str:
    """The user's crontab, "" when there is none. An answer that is not understood never becomes an empty one:
    what is written back would wipe out the entries."""
    answer = _run("crontab", "-l")
    if answer.returncode == 0:
        return answer.stdout
    if "no crontab" in answer.stderr.lower():
        return ""
    raise ServiceUnreachable(
        _("{program} refuses: {answer}").format(program="crontab", answer=_first(answer.stderr)),
        hint="crontab -l",
    )


def _must(*words: str, text: str | None = None) -> None:
    answer = _run(*words, text=text)
    if answer.returncode != 0:
        raise ServiceUnreachable(
            _("{program} refuses: {answer}").format(program=words[0], answer=_first(answer.stderr)),
            hint="h2q-tui train --run-once",
        )


def _run(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "LC_ALL": "C"},
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServiceUnreachable(
            _("{program} does not answer").format(program=words[0]), hint="h2q-tui schedule show"
        ) from None
    except OSError as problem:
        raise RunFailed(
            _("{program} cannot be started: {reason}").format(program=words[0], reason=problem.strerror)
        ) from None


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else _("without a word")
