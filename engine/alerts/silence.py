"""When alerts are suppressed: quiet hours and mutes. Critical alerts are not."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import msgspec

from engine.alerts.readings import AlertLevel
from engine.core.errors import UsageProblem
from engine.core.i18n import _

_HOURS = re.compile(r"([01]?\d|2[0-4])[:：]([0-5]\d)\s*[-–—~～至]\s*([01]?\d|2[0-4])[:：]([0-5]\d)")
DAY_MINUTES = 24 * 60


class Mute(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that say nothing until `until`, in seconds since the epoch."""

    pattern: str
    """A fingerprint, or a part of it with `*`: `machine.*`, `*:20261128-1803`, `*` for all."""
    until: float


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """What is suppressed at this moment."""

    quiet: bool = False
    """It is within the quiet hours."""
    mutes: tuple[Mute, ...] = ()

    def holds(self, fingerprint: str, level: AlertLevel, now: float) -> bool:
        """Whether the notice of an alert waits."""
        if level is AlertLevel.CRITICAL:
            return False
        return self.quiet or any(
            now < mute.until and fnmatchcase(fingerprint, mute.pattern) for mute in self.mutes
        )


def parse_quiet_hours(text: str) -> tuple[int, int] | None:
    """`22:00-07:00` as minutes of the day; None for "". Raises UsageProblem."""
    if not text.strip():
        return None
    match = _HOURS.fullmatch(text.strip())
    if match is not None:
        begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
        if begin <= DAY_MINUTES and end <= DAY_MINUTES and begin % DAY_MINUTES != end % DAY_MINUTES:
            return begin % DAY_MINUTES, end % DAY_MINUTES
    raise UsageProblem(
        _("quiet hours are two times of day, such as 22:00-07:00, not {value}").format(value=text)
    )


def is_quiet(hours: tuple[int, int] | None, minute: int) -> bool:
    """Whether `minute` of the day is within `hours`; they may go over midnight, and end before their last minute."""
    if hours is None:
        return False
    begin, end = hours
    return begin <= minute < end if begin < end else minute >= begin or minute < end
