"""Moments from files and databases as local time, whatever number stands there."""

from __future__ import annotations

import time


def local_time(format_: str, seconds: float) -> str:
    """`time.strftime` of seconds since the epoch; "—" for a number that is no date of this system."""
    try:
        return time.strftime(format_, time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "—"
