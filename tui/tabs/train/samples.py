"""What the model in training writes, newest on top: a panel that can be scrolled back through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.core.i18n import _
from engine.runs.events import ModelSample
from tui.terminal.text import cells, fit, one_line, safe
from tui.widgets.cell_lines import content_strip

INDENT = 2
"""Cells before the text of a sample."""
MAX_SAMPLES = 300
"""Of older ones the oldest are left out."""


def sample_rows(samples: Sequence[ModelSample], width: int) -> list[Content]:
    """Lines of at most `width` cells: step and prompt, then the completion; the newest step first."""
    rows: list[Content] = []
    newest = samples[-MAX_SAMPLES:]
    at = len(newest)
    while at > 0:
        start = at - 1
        while start > 0 and (newest[start - 1].phase, newest[start - 1].step) == (
            newest[at - 1].phase,
            newest[at - 1].step,
        ):
            start -= 1
        for sample in newest[start:at]:
            rows += _rows_of(sample, width)
        at = start
    return rows


def _rows_of(sample: ModelSample, width: int) -> list[Content]:
    step = _("step {step}").format(step=f"{sample.step:,}")
    prompt = fit(one_line(sample.prompt), max(4, width - cells(step) - 2)).rstrip()
    head = Content.assemble((step, "$text-accent"), "  ", safe(prompt, "$foreground-muted"))
    text = one_line(sample.text).strip()
    body = safe(text, "bold") if text else Content.styled(_("(ends immediately)"), "$foreground-muted")
    lines = body.wrap(max(8, width - INDENT))
    return [head, *(Content.assemble(" " * INDENT, line) for line in lines)]


class SamplePane(ScrollView, can_focus=True):
    """Draws the samples of a run; a reader who has scrolled down keeps the place when a new one comes."""

    DEFAULT_CSS = """
    SamplePane { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end,G", "scroll_end", show=False),
        Binding("home,g", "scroll_home", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._samples: list[ModelSample] = []
        self._rows: list[Content] = []
        self._drawn: tuple[int, int] = (-1, -1)
        """Samples and width of the rows."""

    def set_samples(self, samples: Sequence[ModelSample], *, new: bool = False) -> None:
        """Shows the samples of a run; `new` when it is another run than before."""
        if not new and (len(samples), self._width) == self._drawn:
            return
        self._samples = list(samples)
        self._lay_out(keep_place=not new)

    @property
    def text(self) -> str:
        """The rows as they are drawn, for copying."""
        return "\n".join(row.plain.rstrip() for row in self._rows)

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width or self.size.width or 40

    def _lay_out(self, *, keep_place: bool) -> None:
        before, offset = len(self._rows), int(self.scroll_offset.y)
        self._rows = sample_rows(self._samples, self._width)
        self._drawn = len(self._samples), self._width
        self.virtual_size = Size(self._width, len(self._rows))
        if keep_place and offset > 0:
            self.scroll_to(y=offset + len(self._rows) - before, animate=False, force=True)
        elif not keep_place:
            self.scroll_home(animate=False, force=True)
        self.refresh()

    def on_resize(self, _event: events.Resize) -> None:
        if self._drawn[1] != self._width:
            self._lay_out(keep_place=True)

    def render_line(self, y: int) -> Strip:
        width, index = self.size.width, int(self.scroll_offset.y) + y
        if index < len(self._rows):
            return content_strip(self, self._rows[index], width)
        return content_strip(self, Content.styled(self._empty_line(y), "$foreground-muted"), width)

    def _empty_line(self, y: int) -> str:
        return _("What the model writes is shown here every so often.") if y == 0 and not self._rows else ""
