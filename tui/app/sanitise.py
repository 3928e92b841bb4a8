"""The last line of defence: whatever a widget draws, no control or bidi character leaves for the terminal.

`tui.app.text` makes such characters visible where text enters; this filter drops those that got past it.
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
    """Removes characters that take no cell but that a terminal acts on."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(_harmless(text), style, control) for text, style, control in segments]
