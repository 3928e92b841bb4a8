"""Between Textual and the terminal: drops what a terminal would interpret."""

from __future__ import annotations

import unicodedata

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter


def _printable(text: str) -> str:
    return "".join(
        character
        for character in text
        if character in "\u200c\u200d"
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


class PrintableFilter(LineFilter):
    """The last line of defence: removes characters without a cell that a terminal interprets (control, bidi). `tui.terminal.text`
    makes them visible where text enters; this filter drops the rest."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(_printable(text), style, control) for text, style, control in segments]
