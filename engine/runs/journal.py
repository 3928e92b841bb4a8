"""The append-only journal of a run: one process writes it, any number read it while it grows.

A line is an `Envelope`; unreadable lines are counted and skipped, so a journal survives crashes, full disks and
newer programs.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.core.i18n import n_
from engine.core.json_text import encode_json
from engine.runs.events import EVENTS, VERSION, Envelope, Event, JournalRecord, Log

RING = 1000
"""Maximum number of records in memory while the disk is full."""
CHUNK = 4 << 20
"""Bytes per read."""
MAX_LINE = 8 << 20
"""A longer line is not a record."""
_TAIL = 64 << 10
_DROPPED_FIRST = frozenset({"step", "progress", "memory"})

_envelope = msgspec.json.Decoder(Envelope)
_decoders = {kind: msgspec.json.Decoder(type_) for kind, type_ in EVENTS.items()}
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class JournalWriter:
    """Appends records, one `os.write` for each line. Safe to use from several threads.

    Attributes:
        lost: records dropped because the disk stayed full and the buffer overflowed.
        error: the last write error, None when everything is written.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Opens `path` for appending. Raises OSError."""
        self._clock = clock
        self._lock = threading.Lock()
        self._ring: deque[tuple[str, bytes]] = deque()
        self._seq, self._torn = _journal_end(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lost_reported = 0
        self.lost = 0
        self.error: OSError | None = None

    def write(self, event: Event) -> JournalRecord:
        """Appends `event`. Never raises for a full disk: the record waits for the next call."""
        with self._lock:
            record = self._queue(event)
            self._flush()
            return record

    def close(self) -> None:
        """Writes waiting records as far as they fit, and syncs the file."""
        with self._lock:
            if self._fd < 0:
                return
            self._flush()
            try:
                os.fsync(self._fd)
            except OSError as problem:
                self.error = problem
            os.close(self._fd)
            self._fd = -1

    def _queue(self, event: Event) -> JournalRecord:
        record = JournalRecord(self._seq, self._clock(), event)
        self._seq += 1
        data = encode_json(event)
        line = (
            msgspec.json.encode(Envelope(VERSION, record.seq, record.t, event.KIND, msgspec.Raw(data)))
            + b"\n"
        )
        if len(self._ring) >= RING:
            self._drop_one()
        self._ring.append((event.KIND, line))
        return record

    def _drop_one(self) -> None:
        self.lost += 1
        for index, (kind, _line) in enumerate(self._ring):
            if kind in _DROPPED_FIRST:
                del self._ring[index]
                return
        self._ring.popleft()

    def _flush(self) -> None:
        while self._ring:
            if not self._write_line(self._ring[0][1]):
                return
            self._ring.popleft()
            if not self._ring and self.lost > self._lost_reported:
                count, self._lost_reported = self.lost - self._lost_reported, self.lost
                text = n_(
                    "{n} record was lost while the disk was full",
                    "{n} records were lost while the disk was full",
                    count,
                )
                self._queue(Log(level="warning", text=text.format(n=count)))
        self.error = None

    def _write_line(self, line: bytes) -> bool:
        """Whether `line` is in the file. A torn line before it is ended by a newline first."""
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._fd, data)
        except OSError as problem:
            self.error = problem
            return False
        self._torn = written < len(data)
        return written >= len(data) - 1


class JournalReader:
    """Reads a journal while it grows. A torn last line waits until it is complete.

    Attributes:
        skipped: unreadable lines, and lines of an unknown kind or version.
        restarts: how often the journal became shorter and was read again from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._buffer = b""
        self._at = 0
        self._overlong = False
        self.skipped = 0
        self.restarts = 0

    def poll(self, limit: int | None = None) -> list[JournalRecord]:
        """The next records, at most `limit` or about `CHUNK` bytes; an empty list when there are none yet.

        A missing or unreadable journal has no records.
        """
        records: list[JournalRecord] = []
        while True:
            self._decode(records, limit)
            if records or not self._fill():
                return records

    def _decode(self, records: list[JournalRecord], limit: int | None) -> None:
        buffer, start = self._buffer, self._at
        decode_envelope, decoders, find = _envelope.decode, _decoders, buffer.find
        while limit is None or len(records) < limit:
            end = find(b"\n", start)
            if end < 0:
                break
            line = buffer[start:end]
            start = end + 1
            try:
                envelope = decode_envelope(line)
                decoder = decoders.get(envelope.kind)
                if decoder is None or envelope.v > VERSION:
                    self.skipped += 1
                else:
                    records.append(JournalRecord(envelope.seq, envelope.t, decoder.decode(envelope.data)))
            except _UNREADABLE:
                if line.strip():
                    self.skipped += 1
        self._at = start

    def _fill(self) -> bool:
        try:
            with self._path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset, self._buffer, self._at, self._overlong = 0, b"", 0, False
                    self.restarts += 1
                file.seek(self._offset)
                data = file.read(CHUNK)
        except OSError:
            return False
        if not data:
            return False
        self._offset += len(data)
        if self._overlong:
            end = data.find(b"\n")
            if end < 0:
                return True
            data, self._overlong = data[end + 1 :], False
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        if len(self._buffer) > MAX_LINE and b"\n" not in self._buffer:
            self._buffer, self._overlong = b"", True
            self.skipped += 1
        return True


def _journal_end(path: Path) -> tuple[int, bool]:
    """The next sequence number of the journal at `path`, and whether its last line lacks its newline."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return 0, False
            for window in (_TAIL, size):
                file.seek(max(0, size - window))
                tail = file.read()
                for line in reversed(tail.split(b"\n")):
                    try:
                        return _envelope.decode(line).seq + 1, not tail.endswith(b"\n")
                    except _UNREADABLE:
                        continue
            return 0, not tail.endswith(b"\n")
    except FileNotFoundError:
        return 0, False
