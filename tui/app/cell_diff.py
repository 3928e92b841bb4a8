"""Sends only the changed cells to the terminal.

Textual 8.2.8 cuts a partial update at its right end only, so every small change is sent from the left edge of
its widget. Over SSH that is most of the traffic of a screen that is being watched.
"""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class ExactUpdate(ChopsUpdate):
    """A partial update cut at both ends."""

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
