"""Pasted text with control sequences in it, which Textual's parser takes for keys: an enter among them would send a draft.

Most terminals strip ESC from what is pasted; tmux's buffers and some others do not.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.message import Message

BEGIN, END = "\x1b[200~", "\x1b[201~"
ESC, SHOWN_ESC = "\x1b", "␛"


class PasteFilter:
    """Replaces ESC inside a bracketed paste by its picture, however the stream is cut into pieces."""

    def __init__(self) -> None:
        self._inside = False
        self._seen = ""
        """The last characters outside, which may begin BEGIN; they have been handed on."""
        self._held = ""
        """The last characters inside, which may begin END."""

    def feed(self, data: str) -> str:
        """What the parser is to read of the next piece."""
        done: list[str] = []
        while data:
            data = self._in_paste(data, done) if self._inside else self._outside(data, done)
        return "".join(done)

    def _outside(self, data: str, done: list[str]) -> str:
        known = self._seen + data
        at = known.find(BEGIN)
        if at < 0:
            self._seen = known[1 - len(BEGIN) :]
            done.append(data)
            return ""
        end = at + len(BEGIN) - len(self._seen)
        done.append(data[:end])
        self._inside, self._seen = True, ""
        return data[end:]

    def _in_paste(self, data: str, done: list[str]) -> str:
        known, self._held = self._held + data, ""
        at = known.find(END)
        if at >= 0:
            done.append(known[:at].replace(ESC, SHOWN_ESC) + END)
            self._inside = False
            return known[at + len(END) :]
        keep = next((size for size in range(len(END) - 1, 0, -1) if known.endswith(END[:size])), 0)
        self._held = known[len(known) - keep :] if keep else ""
        done.append(known[: len(known) - keep].replace(ESC, SHOWN_ESC))
        return ""


class PasteSafeParser(XTermParser):
    """Textual's parser behind a `PasteFilter`."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._filter = PasteFilter()

    def feed(self, data: str) -> Iterable[Message]:
        # Nothing at all is the end of the stream.
        filtered = self._filter.feed(data) if data else data
        return super().feed(filtered) if filtered or not data else ()


def install() -> None:
    """Makes Textual's driver read through `PasteSafeParser`. Its method makes the parser itself, from this name."""
    vars(linux_driver)["XTermParser"] = PasteSafeParser
