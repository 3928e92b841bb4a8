"""A day of the machine's history on disk: a file of fixed size whose records are written in place.

The record of a time has a fixed place, so the file never grows, and several programs may write it: they write the same
places with readings of the same machine. Nothing is flushed by force; each record has a checksum, and a damaged one is
as if it had never been written. The figures stand alone: no name, no text.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from array import array
from binascii import crc32
from collections.abc import Iterator
from pathlib import Path

from engine.machine.history import DAY_S, SERIES, HistoryPoint

RECORD_S = 30.0
"""Seconds between two records."""
SLOTS = int(DAY_S / RECORD_S)
_FORMAT = struct.Struct(f"<I{len(SERIES)}fI")
_HEADER = struct.Struct("<8sHHI")
# Neither a link nor a pipe that somebody put there is followed or waited for.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAGIC = b"h2qhist1"
FILE_SIZE = _HEADER.size + SLOTS * _FORMAT.size


def encode(point: HistoryPoint) -> bytes:
    """A record: time in units of RECORD_S, the values, and a checksum of both."""
    body = _FORMAT.pack(int(point.t // RECORD_S), *point.values, 0)[:-4]
    return body + struct.pack("<I", crc32(body))


def decode(record: bytes) -> HistoryPoint | None:
    """The point of a record; None for an empty or a damaged one."""
    if len(record) != _FORMAT.size:
        return None
    number, *values, checksum = _FORMAT.unpack(record)
    if not number or crc32(record[:-4]) != checksum:
        return None
    return HistoryPoint(number * RECORD_S, array("f", values))


def _header() -> bytes:
    return _HEADER.pack(_MAGIC, len(SERIES), SLOTS, _FORMAT.size)


class HistoryFile:
    """The file of one workspace. It is made with the first record, in a folder that exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = -1

    def read(self, now: float) -> list[HistoryPoint]:
        """The points of the last day, oldest first; empty for no file and for one that is not a history."""
        data = b""
        with contextlib.suppress(OSError), os.fdopen(os.open(self.path, _READ), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                data = file.read(FILE_SIZE)
        if data[: _HEADER.size] != _header():
            return []
        found = (decode(data[at : at + _FORMAT.size]) for at in self._places())
        return sorted((one for one in found if one is not None and 0 <= now - one.t <= DAY_S), key=_time)

    def write(self, point: HistoryPoint) -> bool:
        """Writes the record of the point's time unless this object wrote it already; False when there was nothing to
        write or no way to."""
        number = int(point.t // RECORD_S)
        if number == self._written:
            return False
        self._written = number
        with contextlib.suppress(OSError):
            fd = os.open(self.path, _WRITE, 0o600)
            try:
                if os.pread(fd, _HEADER.size, 0) != _header():
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, _header(), 0)
                os.pwrite(fd, encode(point), _HEADER.size + (number % SLOTS) * _FORMAT.size)
            finally:
                os.close(fd)
            return True
        return False

    def _places(self) -> Iterator[int]:
        for slot in range(SLOTS):
            yield _HEADER.size + slot * _FORMAT.size


def _time(point: HistoryPoint) -> float:
    return point.t
