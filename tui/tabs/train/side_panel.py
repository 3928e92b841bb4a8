"""The panel next to the loss: what the model writes, the learning rate, the events of the run, or the cycles of an
evolution."""

from __future__ import annotations

from enum import StrEnum

from textual.app import ComposeResult
from textual.containers import Vertical

from engine.core.i18n import N_, _
from engine.runs.kinds import RunKind
from engine.runs.view import RunView
from tui.tabs.train.lineage import lineage
from tui.tabs.train.samples import SamplePane
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import safe
from tui.widgets.annotations import annotation_lines, no_annotations
from tui.widgets.axes import fitted_end
from tui.widgets.cell_lines import CellLines
from tui.widgets.log import LogPane
from tui.widgets.plot import Curve, Plot


class SideView(StrEnum):
    """What the panel shows."""

    SAMPLES = "samples"
    LEARNING_RATE = "lr"
    EVENTS = "marks"
    CYCLES = "cycles"


TITLES = {
    SideView.SAMPLES: N_("The model writes"),
    SideView.LEARNING_RATE: N_("Learning rate"),
    SideView.EVENTS: N_("Events"),
    SideView.CYCLES: N_("Evolution"),
}
_VIEWS = (SideView.SAMPLES, SideView.LEARNING_RATE, SideView.EVENTS)
_EVOLUTION_VIEWS = (SideView.CYCLES, SideView.SAMPLES, SideView.EVENTS, SideView.LEARNING_RATE)


class SidePanel(Vertical):
    """Shows one view of a run; the user may choose another, and an evolution begins with its cycles."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="lr-panel", classes="panel")
        self.glyphs = glyphs
        self._samples = SamplePane(id="samples")
        self._rate_plot = Plot(id="lr", ascii_only=glyphs.ascii, x_axis=False)
        self._events = LogPane(id="marks", alert=glyphs.alert)
        self._cycles = CellLines(id="cycles")
        self._chosen: SideView | None = None
        self._shown: SideView | None = None
        self._views: tuple[SideView, ...] = _VIEWS
        self._events_drawn = 0
        self._run: RunView | None = None

    def compose(self) -> ComposeResult:
        yield self._samples
        yield self._rate_plot
        yield self._events
        yield self._cycles

    def on_mount(self) -> None:
        self._switch_to(SideView.LEARNING_RATE)

    @property
    def view(self) -> SideView:
        """The view on the screen."""
        return self._shown or SideView.LEARNING_RATE

    def on_resize(self) -> None:
        """A lineage is laid out for the width of the panel."""
        if self._run is not None and self.view is SideView.CYCLES:
            self._draw_cycles(self._run)

    def next_view(self) -> None:
        """Chooses the next view that the run has."""
        place = self._views.index(self.view) if self.view in self._views else -1
        self._chosen = self._views[(place + 1) % len(self._views)]

    def clear(self) -> None:
        """No run, or one whose journal is not read yet."""
        self._run = None
        self._samples.set_samples((), new=True)
        self._rate_plot.clear("")
        self._events.replace((), "")
        self._cycles.set_lines([])
        self._events_drawn = 0

    def show_run(self, run: RunView, *, new: bool) -> None:
        """Draws the present state of a run; `new` when it is another one than before."""
        self._run = run
        evolves = bool(run.cycles) or (run.spec is not None and run.spec.kind is RunKind.EVOLVE)
        self._views = _EVOLUTION_VIEWS if evolves else _VIEWS
        learns = bool(len(run.series(run.phase, "lr")))
        if not run.samples and (learns or run.status.over):
            self._views = tuple(view for view in self._views if view is not SideView.SAMPLES)
        has_events = bool(run.annotations or run.checkpoint_annotations)
        self.set_class(run.status.over and not (learns or evolves or run.samples or has_events), "-empty")
        chosen = self._chosen
        self._switch_to(chosen if chosen is not None and chosen in self._views else self._views[0])
        if self.view is SideView.SAMPLES:
            self._samples.set_samples(run.samples, new=new)
        elif self.view is SideView.LEARNING_RATE:
            self._draw_rate(run, new=new)
        elif self.view is SideView.EVENTS:
            self._draw_events(run, new=new)
        else:
            self._draw_cycles(run)

    def _switch_to(self, view: SideView) -> None:
        if view is self._shown:
            return
        self._shown = view
        self.border_title = safe(_(TITLES[view]))
        self._samples.display = view is SideView.SAMPLES
        self._rate_plot.display = view is SideView.LEARNING_RATE
        self._events.display = view is SideView.EVENTS
        self._cycles.display = view is SideView.CYCLES

    def _draw_cycles(self, run: RunView) -> None:
        width, height = self.content_size
        self._cycles.set_lines(lineage(run.cycles, self.glyphs, width, height, over=run.status.over))

    def _draw_rate(self, run: RunView, *, new: bool) -> None:
        rate = run.series(run.phase, "lr")
        if not len(rate):
            self._rate_plot.clear("")
            return
        if new:
            self._rate_plot.clear()
        self._rate_plot.set_curves(
            [Curve(rate.x, rate.y)], x_end=fitted_end(rate.x[-1], float(run.curve_end))
        )

    def _draw_events(self, run: RunView, *, new: bool) -> None:
        lines = annotation_lines(
            [*run.annotations, *run.checkpoint_annotations], ascii_only=self.glyphs.ascii
        )
        if new or len(lines) < self._events_drawn:
            self._events.replace(lines, no_annotations().plain)
        elif len(lines) > self._events_drawn:
            self._events.append(lines[self._events_drawn - len(lines) :])
        self._events_drawn = len(lines)
