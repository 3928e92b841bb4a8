"""The training schedule of a workspace: its times, the commands it runs, and missed runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core.errors import BadInput, UsageProblem
from engine.core.files import fsync_dir, write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace

FILE = "schedule.json"
SCHEDULED = "H2Q_SCHEDULED"
"""Environment variable that marks a run as scheduled (unattended)."""
_FORWARDED = ("OLLAMA_MODELS", "OLLAMA_HOST")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class Frequency(StrEnum):
    DAILY = "daily"
    WEEKLY = "weekly"


class ServiceManager(StrEnum):
    """The system service that starts the runs."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"
    CRON = "cron"


class RunSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """`config/schedule.json`. Times are local wall-clock times."""

    every: Frequency
    hour: int
    minute: int
    day: str = "sun"
    """One of `DAYS`; ignored for a daily schedule."""
    by: ServiceManager
    workspace: str
    program: list[str]
    """The first words of every command line; absolute path."""
    environment: dict[str, str]
    language: str = "en"
    installed_at: float
    """Seconds since the epoch."""
    flags: tuple[str, ...] = ()
    """Further flags of `train`, from the command line after `--`."""

    @property
    def tag(self) -> str:
        """Identifies the workspace in the names of units, agents and crontab blocks."""
        return _tag(self.workspace)

    @property
    def train(self) -> list[str]:
        """The command of a scheduled run."""
        return [*self.program, "train", "--run-once", *self._common, *self.flags]

    @property
    def catch_up(self) -> list[str]:
        """The command that runs `train` when a scheduled time was missed."""
        return [*self.program, "schedule", "catch-up", *self._common]

    @property
    def _common(self) -> list[str]:
        return ["--data-dir", self.workspace, "--lang", self.language, "--quiet"]


def create_schedule(
    ws: Workspace,
    every: Frequency,
    at: str,
    day: str,
    by: ServiceManager,
    *,
    language: str,
    now: float,
    flags: Sequence[str] = (),
) -> RunSchedule:
    """A schedule for this workspace and program; the caller has validated `flags`.

    Raises UsageProblem for an invalid time or day, BadInput for a path that a unit file or crontab cannot hold.
    """
    time = _TIME.fullmatch(at.strip())
    if time is None:
        raise UsageProblem(
            _("--at expects a time of day such as 03:00, not {value}").format(value=at),
            hint=f"h2q-tui schedule {every} --at 03:00",
        )
    short = day.strip().lower()[:3]
    if short not in DAYS:
        raise UsageProblem(
            _("--day expects one of {choices}, not {value}").format(choices=_(", ").join(DAYS), value=day),
            hint=f"h2q-tui schedule {every} --day sun",
        )
    program, environment = own_command()
    # The service manager does not inherit the variables of the user's shell.
    environment |= {name: value for name in _FORWARDED if (value := os.environ.get(name))}
    root = str(ws.root.resolve())
    for word in (root, *program, *environment.values(), *flags):
        if any(ord(sign) < 32 or sign in "\\\x7f" for sign in word):
            raise BadInput(
                _("a path with a backslash or a control character cannot be scheduled"), path=Path(word)
            )
    return RunSchedule(
        every=every,
        hour=int(time[1]),
        minute=int(time[2]),
        day=short,
        by=by,
        workspace=root,
        program=program,
        environment=environment,
        language=language,
        installed_at=now,
        flags=tuple(flags),
    )


def own_command() -> tuple[list[str], dict[str, str]]:
    """The command that starts this program from any folder: absolute path, and the required environment."""
    environment = {SCHEDULED: "1"}
    installed = Path(sys.executable).with_name("h2q-tui")
    if os.access(installed, os.X_OK):
        return [str(installed)], environment
    on_path = shutil.which("h2q-tui")
    if on_path:
        return [str(Path(on_path).absolute())], environment
    source_root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-m", "tui.cli.main"], {**environment, "PYTHONPATH": source_root}


def last_time(schedule: RunSchedule, now: datetime) -> datetime:
    """The latest scheduled time at or before `now` (local, naive)."""
    then = now.replace(hour=schedule.hour, minute=schedule.minute, second=0, microsecond=0)
    if schedule.every is Frequency.WEEKLY:
        then -= timedelta(days=(then.weekday() - DAYS.index(schedule.day)) % 7)
    if then > now:
        then -= timedelta(days=7 if schedule.every is Frequency.WEEKLY else 1)
    return then


def next_time(schedule: RunSchedule, now: datetime) -> datetime:
    """The first scheduled time after `now`."""
    return last_time(schedule, now) + timedelta(days=7 if schedule.every is Frequency.WEEKLY else 1)


def is_missed(schedule: RunSchedule, now: float, last_run: float | None) -> bool:
    """Whether a scheduled time has passed since the installation and the last scheduled run."""
    since = max(schedule.installed_at, last_run or 0.0)
    return last_time(schedule, datetime.fromtimestamp(now)).timestamp() > since


def load_schedule(ws: Workspace) -> RunSchedule | None:
    """The schedule of the workspace, None without one. Raises BadInput for a damaged file."""
    path = ws.config / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunSchedule)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError):
        command = shlex.join(["h2q-tui", "schedule", "remove"])
        raise BadInput(_("the schedule cannot be read"), path=path, hint=command) from None


def save_schedule(ws: Workspace, schedule: RunSchedule | None) -> None:
    """Writes `schedule.json`, or deletes it with None. Raises OSError."""
    path = ws.config / FILE
    if schedule is not None:
        write_bytes(path, msgspec.json.format(msgspec.json.encode(schedule), indent=2) + b"\n", mode=0o600)
    elif path.exists():
        path.unlink()
        fsync_dir(path.parent)


def schedule_tag(ws: Workspace) -> str:
    """The `RunSchedule.tag` of a workspace, with or without a schedule."""
    return _tag(str(ws.root.resolve()))


def _tag(workspace: str) -> str:
    return sha256(os.fsencode(workspace)).hexdigest()[:8]
