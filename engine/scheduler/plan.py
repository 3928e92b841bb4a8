"""When a workspace trains by itself, what is then run, and whether a time has passed without it."""

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
"""Environment variable that tells a run that nobody sat before it: set by what starts it."""
_CARRIED = ("OLLAMA_MODELS", "OLLAMA_HOST")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class Every(StrEnum):
    DAILY = "daily"
    WEEKLY = "weekly"


class By(StrEnum):
    """What starts the run."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"
    CRON = "cron"


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """`config/schedule.json`. Times are local, as the clock on the wall says them."""

    every: Every
    hour: int
    minute: int
    day: str = "sun"
    """One of `DAYS`; tells nothing for a daily one."""
    by: By
    workspace: str
    program: list[str]
    """Absolute beginning of every command line."""
    environment: dict[str, str]
    language: str = "en"
    installed_at: float
    """Seconds since the epoch."""
    flags: tuple[str, ...] = ()
    """More of `train`, as they were given after `--`."""

    @property
    def tag(self) -> str:
        """Tells the schedule of this workspace from those of others."""
        return sha256(self.workspace.encode()).hexdigest()[:8]

    @property
    def train(self) -> list[str]:
        """The command that is run at the time."""
        return [*self.program, "train", "--run-once", *self._common, *self.flags]

    @property
    def catch_up(self) -> list[str]:
        """The command that runs `train` when a time has passed without it."""
        return [*self.program, "schedule", "catch-up", *self._common]

    @property
    def _common(self) -> list[str]:
        return ["--data-dir", self.workspace, "--lang", self.language, "--quiet"]


def make_schedule(
    ws: Workspace,
    every: Every,
    at: str,
    day: str,
    by: By,
    *,
    language: str,
    now: float,
    flags: Sequence[str] = (),
) -> Schedule:
    """`flags` are more of `train`, checked by who knows them. Raises UsageProblem for a time or day that is none, BadInput for a path that no such file can hold."""
    time = _TIME.fullmatch(at.strip())
    if time is None:
        raise UsageProblem(
            _("--at takes a time of day such as 03:00, not {value}").format(value=at),
            hint=f"h2q-tui schedule {every} --at 03:00",
        )
    short = day.strip().lower()[:3]
    if short not in DAYS:
        raise UsageProblem(
            _("--day takes {choices}, not {value}").format(choices=", ".join(DAYS), value=day),
            hint=f"h2q-tui schedule {every} --day sun",
        )
    program, environment = own_program()
    # What starts the run knows nothing of the shell in which the person says where their Ollama is.
    environment |= {name: value for name in _CARRIED if (value := os.environ.get(name))}
    root = str(ws.root.resolve())
    for word in (root, *program, *environment.values(), *flags):
        if any(ord(sign) < 32 or sign in "\\\x7f" for sign in word):
            raise BadInput(
                _("a path with a backslash or a control character cannot be scheduled"), path=Path(word)
            )
    return Schedule(
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


def own_program() -> tuple[list[str], dict[str, str]]:
    """How this very program is started from anywhere: absolute words, and the environment they need."""
    environment = {SCHEDULED: "1"}
    beside = Path(sys.executable).with_name("h2q-tui")
    if os.access(beside, os.X_OK):
        return [str(beside)], environment
    found = shutil.which("h2q-tui")
    if found:
        return [str(Path(found).absolute())], environment
    home = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-m", "tui.cli.main"], {**environment, "PYTHONPATH": home}


def due(schedule: Schedule, now: datetime) -> datetime:
    """The last time at or before `now` (local, without a zone) at which it was to run."""
    then = now.replace(hour=schedule.hour, minute=schedule.minute, second=0, microsecond=0)
    if schedule.every is Every.WEEKLY:
        then -= timedelta(days=(then.weekday() - DAYS.index(schedule.day)) % 7)
    if then > now:
        then -= timedelta(days=7 if schedule.every is Every.WEEKLY else 1)
    return then


def next_time(schedule: Schedule, now: datetime) -> datetime:
    """The first time after `now` at which it is to run."""
    return due(schedule, now) + timedelta(days=7 if schedule.every is Every.WEEKLY else 1)


def missed(schedule: Schedule, now: float, last_run: float | None) -> bool:
    """Whether a time has passed since it was installed, and since the last scheduled run, without a run."""
    since = max(schedule.installed_at, last_run or 0.0)
    return due(schedule, datetime.fromtimestamp(now)).timestamp() > since


def load_schedule(ws: Workspace) -> Schedule | None:
    """Raises BadInput for a file that is broken."""
    path = ws.config / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Schedule)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError):
        command = shlex.join(["h2q-tui", "schedule", "remove"])
        raise BadInput(_("the schedule cannot be read"), path=path, hint=command) from None


def save_schedule(ws: Workspace, schedule: Schedule | None) -> None:
    """Keeps it, or with None forgets it. Raises OSError."""
    path = ws.config / FILE
    if schedule is not None:
        write_bytes(path, msgspec.json.format(msgspec.json.encode(schedule), indent=2) + b"\n", mode=0o600)
    elif path.exists():
        path.unlink()
        fsync_dir(path.parent)


def tag_of(ws: Workspace) -> str:
    """The tag of this workspace's schedule, whether there is one or not."""
    return sha256(str(ws.root.resolve()).encode()).hexdigest()[:8]
