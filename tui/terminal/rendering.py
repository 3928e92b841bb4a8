"""Between Textual and the terminal: drops what a terminal would interpret, and writes with ASCII where it has nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

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


_ASCII = str.maketrans(
    {
        **dict.fromkeys("…·•‥∙", "."),
        **dict.fromkeys("—–−‐‑‒―─━┄┈", "-"),
        **dict.fromkeys("│┃┊┆├┤┝┥╎", "|"),
        **dict.fromkeys("╭╮╰╯┌┐└┘┼┬┴", "+"),
        **dict.fromkeys("→›»▸▶❯", ">"),
        **dict.fromkeys("←‹«◂◀", "<"),
        **dict.fromkeys("↑▲▴△", "^"),
        **dict.fromkeys("↓▼▾▽", "v"),
        **dict.fromkeys("“”„″", '"'),
        **dict.fromkeys("‘’‚′", "'"),
        **dict.fromkeys("●■◆★█▇▆▅▄▉▊▋▌", "#"),
        **dict.fromkeys("○□◇☆◌", "o"),
        **dict.fromkeys("▁▂▃▏▎▍░", "_"),
        **dict.fromkeys("×✗✘", "x"),
        **dict.fromkeys("≤", "<"),
        **dict.fromkeys("≥", ">"),
        **dict.fromkeys("‖", "|"),
        **dict.fromkeys("±", "~"),
        **dict.fromkeys("⏎", "/"),
        "✓": "+",
        "°": " ",
        "▒": "%",
        "▓": "#",
        "≈": "~",
        "≠": "!",
        "÷": "/",
    }
)
"""Signs of one cell that an ASCII terminal lacks, or that a terminal of the Far East draws two cells wide, each with one
ASCII character for it."""


class AsciiFilter(LineFilter):
    """Draws punctuation, arrows, frames and bars with ASCII characters while `is_on`; letters stay what they are."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        super().__init__()
        self._is_on = is_on

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if not self._is_on() or all(segment.text.isascii() for segment in segments):
            return segments
        return [Segment(text.translate(_ASCII), style, control) for text, style, control in segments]
