"""Random windows of text read directly from the files: a few preads per step, no file is loaded.

The texts form one sequence of bytes with an end-of-text token after each. The reads of a step depend on the
seed and the step alone, so the cursor of a run is one number and resuming is exact. Pages of a memory-mapped
file would count as memory of the run; those of `pread` do not. Several threads may read from one stream.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import BadInput, NotEnoughData
from engine.core.i18n import _
from engine.models.tokenizer import END_OF_TEXT
from engine.training.retry import retry_transient
from engine.training.text_files import FileSpan, general_tail, training_part

Tokens = NDArray[np.uint16]
AnyTokens = NDArray[np.uint16] | NDArray[np.int64]
_MAX_OPEN_FILES = 32
MIN_CACHED_SHARE = 1 / 4
"""Minimum share of the text that fits into the chunk cache: below it random windows rarely hit a cached
chunk, and each miss reads a whole chunk for one window."""


class _OpenFile:
    """A file descriptor that closes when its last reader is gone."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class TextStream:
    """Random windows over spans of files. Close it, or use it as a context manager."""

    def __init__(
        self, spans: Sequence[FileSpan], *, seed: int = 0, chunk_bytes: int = 0, cached_chunks: int = 0
    ) -> None:
        """Caches `cached_chunks` chunks of `chunk_bytes` bytes where that pays off (`MIN_CACHED_SHARE`); else
        reads each window by itself.

        Raises NotEnoughData when the spans are empty.
        """
        self.spans = [span for span in spans if len(span) > 0]
        self.seed = seed
        self.chunk_bytes, self.cached_chunks = chunk_bytes, cached_chunks
        if not self.spans:
            names = _(", ").join(span.path.name for span in spans[:5])
            raise NotEnoughData(_("the training text is empty: {names}").format(names=names))
        # One more token per text: the end-of-text token after it.
        self._ends = np.cumsum([len(span) + 1 for span in self.spans])
        self.chunked = 0 < MIN_CACHED_SHARE * self.size <= chunk_bytes * cached_chunks
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()
        self._chunks: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.reads = 0
        """Number of file reads so far."""
        self.on_retry: Callable[[OSError], None] | None = None
        """Called with each transient error before the retry."""

    @classmethod
    def training(
        cls, files: Sequence[Path], *, seed: int, shortest: int, chunk_bytes: int = 0, cached_chunks: int = 0
    ) -> TextStream:
        """The training part of `files`.

        Raises NotEnoughData when it is shorter than one window of `shortest` tokens, BadInput for a file that
        cannot be read.
        """
        try:
            parts = [training_part(file) for file in files]
            stream = cls(parts, seed=seed, chunk_bytes=chunk_bytes, cached_chunks=cached_chunks)
        except OSError as problem:
            raise BadInput(
                _("the text cannot be read: {reason}").format(reason=problem.strerror),
                path=Path(problem.filename or "."),
            ) from problem
        if stream.size <= shortest:
            names = _(", ").join(file.name for file in files[:5])
            raise NotEnoughData(
                _("the text has {size} bytes, a batch needs {need}: {names}").format(
                    size=stream.size, need=shortest + 1, names=names
                ),
                hint="h2q-tui sample",
            )
        return stream

    @property
    def size(self) -> int:
        """Tokens of all texts."""
        return int(self._ends[-1])

    def windows(self, step: int, count: int, length: int, out: NDArray[np.int64] | None = None) -> AnyTokens:
        """`(count, length)` tokens of random windows for `step`, one from each of `count` equal parts of the
        sequence.

        Every start is equally likely, so a text counts by its size; a window that reaches the end of a text
        continues in the next. Written into `out` where given. Raises BadInput when a file became unreadable
        or shorter.
        """
        rows: AnyTokens = np.empty((count, length), dtype=np.uint16) if out is None else out
        for row, start in zip(rows, self.starts(step, count, length), strict=True):
            self._fill(row, start)
        return rows

    def starts(self, step: int, count: int, length: int) -> list[int]:
        """Start positions of the windows of `step`."""
        rng = np.random.default_rng((self.seed, step, length))
        starts = ((np.arange(count) + rng.random(count)) / count * self.size).astype(np.int64)
        rng.shuffle(starts)
        return [int(start) for start in starts]

    def place(self, start: int) -> str:
        """A position in the sequence as `file:byte`."""
        number = int(np.searchsorted(self._ends, start % self.size, side="right"))
        span = self.spans[number]
        offset = start % self.size - (int(self._ends[number]) - len(span) - 1)
        return f"{span.path.name}:{span.start + offset}"

    def read(self, start: int, length: int) -> Tokens:
        """`length` tokens from position `start`, wrapping around at the end."""
        out = np.empty(length, dtype=np.uint16)
        self._fill(out, start)
        return out

    def _fill(self, out: AnyTokens, start: int) -> None:
        filled, place = 0, start % self.size
        while filled < len(out):
            number = int(np.searchsorted(self._ends, place, side="right"))
            span = self.spans[number]
            offset = place - (int(self._ends[number]) - len(span) - 1)
            count = min(len(out) - filled, len(span) - offset)
            if count > 0:
                data = self._bytes(span, span.start + offset, count)
                count = len(data)
                out[filled : filled + count] = np.frombuffer(data, dtype=np.uint8)
            else:
                out[filled], count = END_OF_TEXT, 1
            filled, place = filled + count, (place + count) % self.size

    def _bytes(self, span: FileSpan, position: int, length: int) -> bytes | memoryview:
        """Bytes of the file from `position`: `length` of them, or fewer at the end of their chunk."""
        if not self.chunked:
            return self._pread(span, position, length, length)
        number, offset = divmod(position, self.chunk_bytes)
        length = min(length, self.chunk_bytes - offset)
        key = (span.path, number)
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is not None:
                self._chunks.move_to_end(key)
        if chunk is None:
            chunk = self._pread(span, position - offset, self.chunk_bytes, offset + length)
            with self._lock:
                self._chunks[key] = chunk
                while len(self._chunks) > self.cached_chunks:
                    self._chunks.popitem(last=False)
        return memoryview(chunk)[offset : offset + length]

    def _pread(self, span: FileSpan, position: int, length: int, needed: int) -> bytes:
        """Up to `length` bytes; the file must have at least `needed`."""

        def read() -> bytes:
            self.reads += 1
            return os.pread(self._file(span.path).fd, length, position)

        try:
            data = retry_transient(read, self._reopen)
        except OSError as problem:
            raise BadInput(
                _("the text cannot be read: {reason}").format(reason=problem.strerror), path=span.path
            ) from problem
        if len(data) < needed:
            raise BadInput(_("the text became shorter during training"), path=span.path)
        return data

    def _reopen(self, problem: OSError) -> None:
        """Handles a transient error: reopens the files and calls `on_retry`."""
        with self._lock:
            self._open.clear()
        if self.on_retry is not None:
            self.on_retry(problem)

    def _file(self, path: Path) -> _OpenFile:
        with self._lock:
            file = self._open.pop(path, None)
            if file is None:
                if len(self._open) >= _MAX_OPEN_FILES:
                    self._open.popitem(last=False)
                file = _OpenFile(path)
            self._open[path] = file
            return file

    def close(self) -> None:
        with self._lock:
            self._open.clear()
            self._chunks.clear()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()


def general_windows(files: Sequence[Path], length: int, limit: int) -> Iterator[Tokens]:
    """Windows of up to `length + 1` tokens over the general tails, `length` apart, about `limit` tokens at
    most.

    Of a longer text evenly spaced windows are used, the same ones at each call. Raises BadInput when a file
    cannot be read.
    """
    try:
        tails = [tail for file in files if len(tail := general_tail(file)) > 1]
        places = [(tail, start) for tail in tails for start in range(0, len(tail) - 1, length)]
        keep = max(1, limit // length)
        if len(places) > keep:
            places = [places[index * len(places) // keep] for index in range(keep)]
        for tail, start in places:
            yield np.frombuffer(tail.read(start, length + 1), dtype=np.uint8).astype(np.uint16)
    except OSError as problem:
        raise BadInput(
            _("the text cannot be read: {reason}").format(reason=problem.strerror),
            path=Path(problem.filename or "."),
        ) from problem
