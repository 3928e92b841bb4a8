"""The schedule as agents of launchd: one for the time, one that makes up for it at the next login."""

from __future__ import annotations

import plistlib
from pathlib import Path

from engine.core.paths import Workspace
from engine.scheduler.plan import DAYS, Every, Schedule

LOG = "schedule.log"


def folder() -> Path:
    """Where the user's own agents lie."""
    return Path.home() / "Library" / "LaunchAgents"


def labels(tag: str) -> tuple[str, str]:
    """Of the agent for the time, and of the one at login."""
    return f"h2q-tui.train.{tag}", f"h2q-tui.catch-up.{tag}"


def agents(schedule: Schedule) -> dict[str, bytes]:
    """Text of each agent, by its label.

    launchd itself makes up for a time that the Mac slept through; one at which it was off it forgets.
    """
    at_time, at_login = labels(schedule.tag)
    moment = {"Hour": schedule.hour, "Minute": schedule.minute}
    if schedule.every is Every.WEEKLY:
        # Sunday is 0.
        moment["Weekday"] = (DAYS.index(schedule.day) + 1) % 7
    return {
        at_time: _agent(schedule, at_time, schedule.train, {"StartCalendarInterval": moment}),
        at_login: _agent(schedule, at_login, schedule.catch_up, {"RunAtLoad": True}),
    }


def _agent(schedule: Schedule, label: str, command: list[str], when: dict[str, object]) -> bytes:
    log = str(Workspace(Path(schedule.workspace)).config / LOG)
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": command,
            "EnvironmentVariables": schedule.environment,
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "ProcessType": "Background",
            "Nice": 10,
            **when,
        }
    )
