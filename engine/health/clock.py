"""Checks of the clock: it decides which conversations are new, when a schedule is due and how old a backup is."""

from __future__ import annotations

import ctypes
import itertools
import platform
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from engine.core.i18n import _
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.health.grades import Judgement, NotKnown, as_root, fails, passes, warns

RELEASED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No machine with this program has an earlier date."""
_SLACK_S = 120.0
"""Seconds that a clock may be set back by without a word."""
_NEWEST = 20
"""Runs whose records are looked at."""
_ADJTIMEX_BYTES, _STATUS_AT = 256, 40
"""More than `struct timex` of a 64-bit Linux takes, and where its `status` is (adjtimex(2))."""
_UNSYNCHRONISED = 0x40
"""STA_UNSYNC."""


class ClockReading(NamedTuple):
    """Times in seconds since the epoch."""

    now: float
    last_record: float
    """When a run of this workspace last wrote its journal; 0 without one."""
    synchronised: bool | None
    """Whether a time server disciplines it; None where it is not known."""
    remedy: str = ""
    """The command that sets it by the network here; "" where none is known."""


def read_clock(ws: Workspace) -> ClockReading:
    try:
        synchronised: bool | None = is_synchronised()
    except NotKnown:
        synchronised = None
    return ClockReading(time.time(), last_record(ws), synchronised, _set_by_network())


def last_record(ws: Workspace) -> float:
    """Time of the newest change of a journal; 0 without one."""
    try:
        newest = sorted(ws.runs.iterdir(), reverse=True)
    except OSError:
        return 0.0
    times = [0.0]
    for run in itertools.islice((folder for folder in newest if not folder.name.startswith(".")), _NEWEST):
        try:
            times.append((run / "events.jsonl").stat().st_mtime)
        except OSError:
            continue
    return max(times)


def is_synchronised() -> bool:
    """Whether the kernel's clock is disciplined by a time server. Raises NotKnown where that cannot be read."""
    if platform.system() != "Linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise NotKnown(_("this system does not say whether its clock is synchronised"))
    buffer = ctypes.create_string_buffer(_ADJTIMEX_BYTES)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)  # modes = 0: only read
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        raise NotKnown(_("this system does not say whether its clock is synchronised"))
    return not int.from_bytes(buffer.raw[_STATUS_AT : _STATUS_AT + 4], "little") & _UNSYNCHRONISED


def judge_clock(reading: ClockReading) -> Judgement:
    shown = local_time("%Y-%m-%d %H:%M", reading.now)
    hint = reading.remedy
    if reading.now < RELEASED:
        return fails(_("{now}: before this program was made").format(now=shown), hint)
    if reading.now < reading.last_record - _SLACK_S:
        text = _("{now}: before the last record of a run ({last}); the clock was set back").format(
            now=shown, last=local_time("%Y-%m-%d %H:%M", reading.last_record)
        )
        return warns(text, hint)
    if reading.synchronised is False:
        return warns(_("{now}, not synchronised with a time server").format(now=shown), hint)
    if reading.synchronised is None:
        return passes(
            _("{now}, after every record; whether it is synchronised is not known").format(now=shown)
        )
    return passes(_("{now}, synchronised").format(now=shown))


def _set_by_network() -> str:
    if platform.system() == "Darwin":
        return as_root("sntp -sS time.apple.com")
    if Path("/run/systemd/system").is_dir():
        return as_root("timedatectl set-ntp true")
    if shutil.which("chronyd"):
        return as_root("chronyd -q 'pool pool.ntp.org iburst'")
    return as_root("ntpd -gq") if shutil.which("ntpd") else ""
