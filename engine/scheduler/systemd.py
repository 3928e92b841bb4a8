"""The schedule as a systemd user timer: the text and folder of its units."""

from __future__ import annotations

import os
from pathlib import Path

from engine.scheduler.plan import Frequency, RunSchedule

_NOT_ENOUGH_DATA = 3
"""Exit code of a run whose corpus is too small."""


def unit_folder() -> Path:
    """The folder of the user's units."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def unit_name(tag: str) -> str:
    """Name of both units, without suffix."""
    return f"h2q-tui-{tag}"


def service_text(schedule: RunSchedule) -> str:
    """The service unit. A corpus that is too small is not a failure; a run has no time limit."""
    environment = [
        f"Environment={_quoted(f'{name}={value}')}" for name, value in schedule.environment.items()
    ]
    first, *rest = schedule.train
    # systemd expands variables only in the words after the program.
    command = " ".join([_quoted(first), *(_quoted(word).replace("$", "$$") for word in rest)])
    return "\n".join(
        [
            "[Unit]",
            f"Description=h2q-tui trains on {_escape_percent(schedule.workspace)}",
            "",
            "[Service]",
            "Type=oneshot",
            *environment,
            f"ExecStart={command}",
            f"SuccessExitStatus={_NOT_ENOUGH_DATA}",
            "TimeoutStartSec=infinity",
            "Nice=10",
            "",
        ]
    )


def timer_text(schedule: RunSchedule) -> str:
    """The timer unit. A missed run starts once, when the user's systemd is running again."""
    day = f"{schedule.day.capitalize()} " if schedule.every is Frequency.WEEKLY else ""
    return "\n".join(
        [
            "[Unit]",
            f"Description=h2q-tui trains {schedule.every} on {_escape_percent(schedule.workspace)}",
            "",
            "[Timer]",
            f"OnCalendar={day}*-*-* {schedule.hour:02}:{schedule.minute:02}:00",
            "Persistent=true",
            "",
            "[Install]",
            "WantedBy=timers.target",
            "",
        ]
    )


def _escape_percent(word: str) -> str:
    return word.replace("%", "%%")


def _quoted(word: str) -> str:
    escaped = _escape_percent(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
