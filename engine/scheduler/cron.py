"""The schedule as a marked block in the user's crontab; other entries are unchanged."""

from __future__ import annotations

import shlex
from pathlib import Path

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.scheduler.launchd import LOG_NAME
from engine.scheduler.plan import DAYS, Frequency, RunSchedule


def entries(schedule: RunSchedule) -> list[str]:
    """A line for the scheduled time and one that catches up after a boot."""
    day = str((DAYS.index(schedule.day) + 1) % 7) if schedule.every is Frequency.WEEKLY else "*"
    return [
        f"{schedule.minute} {schedule.hour} * * {day} {_line(schedule, schedule.train)}",
        f"@reboot {_line(schedule, schedule.catch_up)}",
    ]


def with_block(crontab: str, tag: str, lines: list[str]) -> str:
    """`crontab` with `lines` as its block, which replaces the previous block or is appended. Raises BadInput."""
    begin, end = _markers(tag)
    block = "".join(f"{line}\n" for line in (begin, *lines, end))
    span = _find_block(crontab, tag)
    if span is not None:
        return crontab[: span[0]] + block + crontab[span[1] :]
    return crontab + ("" if not crontab or crontab.endswith("\n") else "\n") + block


def without_block(crontab: str, tag: str) -> str:
    """`crontab` without its block. Raises BadInput for a block without an end line: its extent is unknown."""
    span = _find_block(crontab, tag)
    return crontab if span is None else crontab[: span[0]] + crontab[span[1] :]


def has_block(crontab: str, tag: str) -> bool:
    """Whether `crontab` has the block. Raises BadInput for a block without an end line."""
    return _find_block(crontab, tag) is not None


def _find_block(crontab: str, tag: str) -> tuple[int, int] | None:
    begin, end = _markers(tag)
    start, at = None, 0
    for line in crontab.splitlines(keepends=True):
        after = at + len(line)
        if line.rstrip("\r\n") == begin and start is None:
            start = at
        elif line.rstrip("\r\n") == end and start is not None:
            return start, after
        at = after
    if start is None:
        return None
    raise BadInput(
        _("the crontab has a line {begin} but no line {end}").format(begin=begin, end=end),
        hint="crontab -e",
    )


def _markers(tag: str) -> tuple[str, str]:
    return f"# h2q-tui {tag} begin", f"# h2q-tui {tag} end"


def _line(schedule: RunSchedule, command: list[str]) -> str:
    log = Workspace(Path(schedule.workspace)).config / LOG_NAME
    words = [f"{name}={shlex.quote(value)}" for name, value in schedule.environment.items()]
    line = f"{' '.join(words)} {shlex.join(command)} >> {shlex.quote(str(log))} 2>&1"
    # cron treats an unescaped % as the end of the command.
    return line.replace("%", "\\%")
