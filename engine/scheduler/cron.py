"""The schedule as a marked block in the user's crontab; everything else in it stays as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.scheduler.launchd import LOG
from engine.scheduler.plan import DAYS, Every, Schedule


def entries(schedule: Schedule) -> list[str]:
    """One line for the time, one that makes up for it after the next boot."""
    day = str((DAYS.index(schedule.day) + 1) % 7) if schedule.every is Every.WEEKLY else "*"
    return [
        f"{schedule.minute} {schedule.hour} * * {day} {_line(schedule, schedule.train)}",
        f"@reboot {_line(schedule, schedule.catch_up)}",
    ]


def with_block(crontab: str, tag: str, lines: list[str]) -> str:
    """`crontab` with `lines` as its block, at the place of the one before or at the end. Raises BadInput."""
    begin, end = _marks(tag)
    block = "".join(f"{line}\n" for line in (begin, *lines, end))
    found = _find(crontab, tag)
    if found is not None:
        return crontab[: found[0]] + block + crontab[found[1] :]
    return crontab + ("" if not crontab or crontab.endswith("\n") else "\n") + block


def without_block(crontab: str, tag: str) -> str:
    """Raises BadInput for a block whose end is missing: nobody knows what of it is ours."""
    found = _find(crontab, tag)
    return crontab if found is None else crontab[: found[0]] + crontab[found[1] :]


def has_block(crontab: str, tag: str) -> bool:
    """Raises BadInput for a block whose end is missing."""
    return _find(crontab, tag) is not None


def _find(crontab: str, tag: str) -> tuple[int, int] | None:
    begin, end = _marks(tag)
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
        _("the crontab has the line {begin} without the line {end}").format(begin=begin, end=end),
        hint="crontab -e",
    )


def _marks(tag: str) -> tuple[str, str]:
    return f"# h2q-tui {tag} begin", f"# h2q-tui {tag} end"


def _line(schedule: Schedule, command: list[str]) -> str:
    log = Workspace(Path(schedule.workspace)).config / LOG
    words = [f"{name}={shlex.quote(value)}" for name, value in schedule.environment.items()]
    line = f"{' '.join(words)} {shlex.join(command)} >> {shlex.quote(str(log))} 2>&1"
    # To cron a bare % is the end of the line.
    return line.replace("%", "\\%")
