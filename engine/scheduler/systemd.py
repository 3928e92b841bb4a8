"""The schedule as a timer of the user's systemd: text of the units, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path

from engine.scheduler.plan import Every, Schedule

NOT_ENOUGH_DATA = 3


def folder() -> Path:
    """Where the user's own units lie."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def unit(tag: str) -> str:
    """Name of both units, without the ending."""
    return f"h2q-tui-{tag}"


def service(schedule: Schedule) -> str:
    """A corpus that is too small is no failure. A run may take as long as it takes."""
    environment = [
        f"Environment={_quoted(f'{name}={value}')}" for name, value in schedule.environment.items()
    ]
    first, *rest = schedule.train
    # Only the words after the program are searched for variables.
    command = " ".join([_quoted(first), *(_quoted(word).replace("$", "$$") for word in rest)])
    return "\n".join(
        [
            "[Unit]",
            f"Description=h2q-tui trains on {_percent(schedule.workspace)}",
            "",
            "[Service]",
            "Type=oneshot",
            *environment,
            f"ExecStart={command}",
            f"SuccessExitStatus={NOT_ENOUGH_DATA}",
            "TimeoutStartSec=infinity",
            "Nice=10",
            "",
        ]
    )


def timer(schedule: Schedule) -> str:
    """One that was missed is run once, as soon as the user's systemd is there again."""
    day = f"{schedule.day.capitalize()} " if schedule.every is Every.WEEKLY else ""
    return "\n".join(
        [
            "[Unit]",
            f"Description=h2q-tui trains {schedule.every} on {_percent(schedule.workspace)}",
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


def _percent(word: str) -> str:
    return word.replace("%", "%%")


def _quoted(word: str) -> str:
    escaped = _percent(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
