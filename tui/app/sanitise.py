"""The last line of defence: no control or bidi character that a widget draws reaches the terminal.

`tui.app.text` makes such characters visible where text enters; this filter drops the rest.
"""

from __future__ import annotations

import unicodedata

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter


def _harmless(text: str) -> str:
    return "".join(
        character
        for character in text
        if character in "\u200c\u200d"
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


class OnlyText(LineFilter):
    """Removes characters without a cell that a terminal interprets."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(_harmless(text), style, control) for text, style, control in segments]
