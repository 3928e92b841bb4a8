"""The panel beside the loss: the learning rate, the list of what happened, or the cycles of an evolution."""

from __future__ import annotations

from enum import StrEnum

from textual.app import ComposeResult
from textual.containers import Vertical

from engine.core.i18n import N_, _
from engine.runs.kinds import RunKind
from engine.runs.view import RunView
from tui.app.glyphs import Glyphs
from tui.app.text import safe
from tui.tabs.train.lineage import lineage
from tui.widgets.annotations import listed, none_yet
from tui.widgets.cell_lines import CellLines
from tui.widgets.log import LogPane
from tui.widgets.plot import Curve, Plot


class SideView(StrEnum):
    """What the panel shows."""

    RATE = "rate"
    MARKS = "marks"
    CYCLES = "cycles"


TITLES = {
    SideView.RATE: N_("Learning rate"),
    SideView.MARKS: N_("What happened"),
    SideView.CYCLES: N_("Evolution"),
}


class SidePanel(Vertical):
    """Shows one face of a run; a person turns it, and an evolution begins with its cycles."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="lr-panel", classes="panel")
        self.glyphs = glyphs
        self._chosen: SideView | None = None
        self._face: SideView | None = None
        self._faces: tuple[SideView, ...] = (SideView.RATE, SideView.MARKS)
        self._listed = 0
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Plot(id="lr", ascii_only=self.glyphs.ascii, x_axis=False)
        yield LogPane(id="marks", alert=self.glyphs.alert)
        yield CellLines(id="cycles")

    def on_mount(self) -> None:
        self._show(SideView.RATE)

    @property
    def face(self) -> SideView:
        """The face on the screen."""
        return self._face or SideView.RATE

    def on_resize(self) -> None:
        """A lineage is laid out for the width of the panel."""
        if self._view is not None and self.face is SideView.CYCLES:
            self._draw_cycles(self._view)

    def turn(self) -> None:
        """The next face that the run has."""
        place = self._faces.index(self.face) if self.face in self._faces else -1
        self._chosen = self._faces[(place + 1) % len(self._faces)]

    def clear(self) -> None:
        """No run, or one whose journal is not read yet."""
        self._view = None
        self.query_one("#lr", Plot).clear("")
        self.query_one("#marks", LogPane).replace((), "")
        self.query_one("#cycles", CellLines).set_lines([])
        self._listed = 0

    def show_run(self, view: RunView, *, new: bool) -> None:
        """Brings the face to the present state of a run; `new` when it is another one than before."""
        self._view = view
        evolves = bool(view.cycles) or (view.spec is not None and view.spec.kind is RunKind.EVOLVE)
        self._faces = (
            (SideView.CYCLES, SideView.MARKS, SideView.RATE) if evolves else (SideView.RATE, SideView.MARKS)
        )
        chosen = self._chosen
        self._show(chosen if chosen is not None and chosen in self._faces else self._faces[0])
        if self.face is SideView.RATE:
            self._draw_rate(view, new=new)
        elif self.face is SideView.MARKS:
            self._list_marks(view, new=new)
        else:
            self._draw_cycles(view)

    def _show(self, face: SideView) -> None:
        if face is self._face:
            return
        self._face = face
        self.border_title = safe(_(TITLES[face]))
        for part, own in (("#lr", SideView.RATE), ("#marks", SideView.MARKS), ("#cycles", SideView.CYCLES)):
            self.query_one(part).display = face is own

    def _draw_cycles(self, view: RunView) -> None:
        width, height = self.content_size
        lines = lineage(view.cycles, self.glyphs, width, height, over=view.status.over)
        self.query_one("#cycles", CellLines).set_lines(lines)

    def _draw_rate(self, view: RunView, *, new: bool) -> None:
        plot = self.query_one("#lr", Plot)
        rate = view.series(view.phase, "lr")
        if not len(rate):
            plot.clear("")
            return
        if new:
            plot.clear()
        plot.set_curves([Curve(rate.x, rate.y)], x_end=float(view.curve_end))

    def _list_marks(self, view: RunView, *, new: bool) -> None:
        pane = self.query_one("#marks", LogPane)
        marks = listed([*view.marks, *view.checkpoint_marks], ascii_only=self.glyphs.ascii)
        if new or len(marks) < self._listed:
            pane.replace(marks, none_yet().plain)
        elif len(marks) > self._listed:
            pane.append(marks[self._listed - len(marks) :])
        self._listed = len(marks)
