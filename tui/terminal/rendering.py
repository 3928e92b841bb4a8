"""Between Textual and the terminal: drops what a terminal would interpret, and sends only changed cells."""

from __future__ import annotations

import unicodedata

from rich.console import Console
from rich.control import Control
from rich.segment import Segment
from textual._compositor import ChopsUpdate
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


class ExactUpdate(ChopsUpdate):
    """A partial update cut at both ends.

    Textual 8.2.8 cuts it at its right end only, so every small change is sent from the left edge of its widget; over
    SSH that is most of the traffic of a screen that is being watched.
    """

    @classmethod
    def of(cls, update: ChopsUpdate) -> ExactUpdate:
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal: the start and the cells of each span."""
        sequences: list[str] = []
        for y, start, end in self.spans:
            for chop_end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= end or chop_end <= start:
                    continue
                left, right = max(x, start), min(chop_end, end)
                cut = strip if (left, right) == (x, chop_end) else strip.crop(left - x, right - x)
                sequences.append(Control.move_to(left, y).segment.text)
                sequences.append(cut.render(console))
        return "".join(sequences)
