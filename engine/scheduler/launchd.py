"""The schedule as launchd agents: one for the scheduled time, one that catches up at login."""

from __future__ import annotations

import plistlib
from pathlib import Path

from engine.core.paths import Workspace
from engine.scheduler.plan import DAYS, Frequency, RunSchedule

LOG_NAME = "schedule.log"


def agent_folder() -> Path:
    """The folder of the user's agents."""
    return Path.home() / "Library" / "LaunchAgents"


def labels(tag: str) -> tuple[str, str]:
    """Labels of the agent for the scheduled time and of the one at login."""
    return f"h2q-tui.train.{tag}", f"h2q-tui.catch-up.{tag}"


def agents(schedule: RunSchedule) -> dict[str, bytes]:
    """The property list of each agent, by label.

    launchd catches up a time that the Mac slept through, but not one at which it was off.
    """
    at_time, at_login = labels(schedule.tag)
    calendar = {"Hour": schedule.hour, "Minute": schedule.minute}
    if schedule.every is Frequency.WEEKLY:
        # Sunday is 0.
        calendar["Weekday"] = (DAYS.index(schedule.day) + 1) % 7
    return {
        at_time: _agent(schedule, at_time, schedule.train, {"StartCalendarInterval": calendar}),
        at_login: _agent(schedule, at_login, schedule.catch_up, {"RunAtLoad": True}),
    }


def _agent(schedule: RunSchedule, label: str, command: list[str], trigger: dict[str, object]) -> bytes:
    log = str(Workspace(Path(schedule.workspace)).config / LOG_NAME)
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": command,
            "EnvironmentVariables": schedule.environment,
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "ProcessType": "Background",
            "Nice": 10,
            **trigger,
        }
    )
