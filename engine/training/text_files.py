"""Plain text for training: finding the files, the held-out part of each, their languages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import BadInput, NotEnoughData
from engine.core.i18n import _
from engine.core.paths import Workspace

GENERAL_SHARE = 0.1
"""Share at the end of each text that is held out for the general set."""
MIN_TEXT_BYTES = 16
"""Smaller files are skipped."""
_SAMPLE = 64 * 1024


@dataclass(frozen=True)
class TextSources:
    """Text files sorted by name, and the places they come from."""

    files: list[Path]
    places: list[Path]
    """The folders and single files in use, as the user knows them."""
    skipped: list[Path]
    """Files below `MIN_TEXT_BYTES` bytes."""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class FileSpan:
    """Bytes `start` to `end` of a file."""

    path: Path
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def __getitem__(self, part: slice) -> bytes:
        """A slice of the span, as of bytes. Raises OSError."""
        begin, end, step = part.indices(len(self))
        return self.read(begin, max(0, end - begin))[::step]

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes (None: all) from `offset` within the span, by one pread. Raises OSError."""
        begin = self.start + offset
        count = self.end - begin if length is None else min(length, self.end - begin)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, max(count, 0), begin)
        finally:
            os.close(fd)


def find_text(data: Sequence[str | Path], ws: Workspace, *, relative_to: Path | None = None) -> TextSources:
    """The text files of `data` (files, or folders of `*.txt`), else of the workspace, else of
    `./data/training_data`.

    Raises BadInput for a path that is missing or unreadable, NotEnoughData when there is no text.
    """
    base = relative_to or Path.cwd()
    given = [base / Path(place).expanduser() for place in data]
    for place in given:
        if not place.exists():
            raise BadInput(_("there is no such file or folder of text"), path=place, hint="h2q-tui sample")
    places = (
        given
        or [place for place in (ws.training_data, base / "data" / "training_data") if _text_files(place)][:1]
    )
    candidates = list(dict.fromkeys(file.resolve() for place in places for file in _text_files(place)))
    for file in candidates:
        if not os.access(file, os.R_OK):
            raise BadInput(_("the text cannot be read: permission denied"), path=file)
    files = [file for file in candidates if file.stat().st_size >= MIN_TEXT_BYTES]
    skipped = [file for file in candidates if file not in set(files)]
    if not files:
        where = _(", ").join(
            str(place) for place in given or (ws.training_data, base / "data" / "training_data")
        )
        names = _(", ").join(file.name for file in skipped[:5])
        reason = (
            _("the text files in {where} are empty: {names}").format(where=where, names=names)
            if skipped
            else _("there is no training text (*.txt) in {where}").format(where=where)
        )
        raise NotEnoughData(reason, hint="h2q-tui sample")
    return TextSources(files=files, places=places, skipped=skipped)


def _text_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        return []
    return sorted(
        file
        for file in place.iterdir()
        if file.suffix.lower() == ".txt" and not file.name.startswith(".") and file.is_file()
    )


def training_part(path: Path) -> FileSpan:
    """The first 90 % of a text: the part for training. Raises OSError."""
    return FileSpan(path, 0, general_tail(path).start)


def general_tail(path: Path) -> FileSpan:
    """The last 10 % of a text from a character boundary: the general set, never trained on. Raises OSError."""
    size = path.stat().st_size
    start = size - int(size * GENERAL_SHARE)
    head = FileSpan(path, start, min(start + 4, size)).read()
    while head and head[0] & 0xC0 == 0x80:  # inside a UTF-8 sequence
        head, start = head[1:], start + 1
    return FileSpan(path, start, size)


def held_out_opening(files: Sequence[Path], length: int = 48) -> str:
    """The first whole words of the general set of the first of `files` that has one, at most `length` bytes; "" without."""
    for file in files:
        text = general_tail(file).read(0, 8 * length).decode("utf-8", "ignore")
        # The tail begins inside a sentence: what follows its first line break is whole.
        text = text.partition("\n")[2].strip() or text.partition(" ")[2]
        line = next((line.strip() for line in text.splitlines() if len(line.strip()) >= length // 4), "")
        cut = line.encode("utf-8")[:length].decode("utf-8", "ignore")
        if cut:
            return cut if cut == line or " " not in cut else cut.rpartition(" ")[0]
    return ""


def languages_of(files: Sequence[Path]) -> list[str]:
    """ "zh" and "en", the more frequent first, each where it has more than 5 % of the bytes."""
    share = chinese_share(files)
    names = [(share, "zh"), (1 - share, "en")]
    return [name for part, name in sorted(names, reverse=True) if part > 0.05]


def chinese_share(files: Sequence[Path]) -> float:
    """Share of CJK bytes, 0 to 1, estimated from samples of each file. Raises OSError."""
    chinese = total = 0.0
    for file in files:
        size = file.stat().st_size
        span = FileSpan(file, 0, size)
        for part in range(4):
            sample = span.read(part * size // 4, _SAMPLE // 4)
            # A sample stands for a quarter of its file, so that each file counts by its size.
            chinese += cjk_bytes(sample) / max(len(sample), 1) * size / 4
        total += size
    return min(1.0, chinese / max(total, 1))


def cjk_bytes(data: bytes) -> int:
    """Number of bytes of CJK ideographs, kana and their punctuation (UTF-8; broken sequences are ignored)."""
    text = data.decode("utf-8", errors="ignore")
    return 3 * sum(
        "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef" for character in text
    )
