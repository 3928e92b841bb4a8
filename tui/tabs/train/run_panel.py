"""The right side of the Train tab: curves, figures and log of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from engine.core.i18n import _, n_
from engine.runs.view import LogLine, RunView
from tui.tabs.train import run_text
from tui.tabs.train.loss_chart import legend_line, loss_curves
from tui.tabs.train.run_result import CountBar, bar_lines, result_bars
from tui.tabs.train.side_panel import SidePanel
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import safe
from tui.widgets.annotations import legend
from tui.widgets.axes import fitted_end
from tui.widgets.cell_lines import CellLines
from tui.widgets.log import LogPane
from tui.widgets.plot import Plot

MAX_BARS = 16
"""Counts of a result that are drawn."""


class RunPanel(Vertical):
    """Draws the view of a run. Titles are only set when they differ: setting one repaints its panel."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="run")
        self.glyphs = glyphs
        self.log_scale = False
        self.log_details = False
        """The log has the lines of level "detail" too."""
        self.curves = Vertical(id="curves")
        self._loss_panel = Vertical(id="loss-panel", classes="panel")
        self._curve_legend = CellLines(id="loss-legend")
        self._loss_plot = Plot(id="loss", ascii_only=glyphs.ascii)
        self._result = CellLines(id="run-result")
        self.side_panel = SidePanel(glyphs)
        self._figures = CellLines(id="figures")
        self._log_panel = Vertical(id="log-panel", classes="panel")
        self.log_pane = LogPane(id="log", alert=glyphs.alert)
        self._title = self._legend = ""
        self._lines_drawn = 0

    def compose(self) -> ComposeResult:
        with self.curves:
            with self._loss_panel:
                yield self._curve_legend
                yield self._loss_plot
                yield self._result
            yield self.side_panel
        yield self._figures
        with self._log_panel:
            yield self.log_pane

    def on_mount(self) -> None:
        self._log_panel.border_title = safe(_("Log"))

    @on(LogPane.UnseenChanged)
    def _unseen_changed(self, message: LogPane.UnseenChanged) -> None:
        """Says in the border that the log has stopped following, and how to follow again."""
        message.stop()
        if message.pane is not self.log_pane:
            return
        new = n_("{n} new line, G: follow", "{n} new lines, G: follow", message.unseen).format(
            n=message.unseen
        )
        sign = "v" if self.glyphs.ascii else "▼"
        self._log_panel.border_subtitle = safe(f"{sign} {new}") if message.unseen else ""

    def clear(self, text: str) -> None:
        """No run, or one whose journal is not read yet: `text` stands where the curves would be."""
        self.curves.remove_class("-untrained")
        self._set_titles(_("Loss"), "")
        self._loss_plot.clear(text)
        self._curve_legend.display = False
        self._show_result([])
        self.side_panel.clear()
        self._figures.set_lines([])
        self.log_pane.replace((), "")
        self._lines_drawn = 0

    def show_run(self, view: RunView, *, alive: bool, new: bool) -> None:
        """Draws the present state of a run; `new` when it is another one than before."""
        annotations = view.annotations_of(view.phase)
        result = result_bars(view)
        self._set_titles(
            _("Result") if result else run_text.loss_title(view, self.log_scale),
            legend(annotations, ascii_only=self.glyphs.ascii),
        )
        self.side_panel.show_run(view, new=new)
        self._show_result(result)
        self._draw_loss(view, new=new, result=bool(result))
        self._figures.set_fitted(lambda width: run_text.figures(view, self.glyphs, width, alive=alive))
        self._draw_log(view, new=new)

    def _set_titles(self, title: str, legend_text: str) -> None:
        if title != self._title:
            self._title = title
            self._loss_panel.border_title = safe(title)
        if legend_text != self._legend:
            self._legend = legend_text
            self._loss_panel.border_subtitle = safe(legend_text)

    def _show_result(self, result: Sequence[CountBar]) -> None:
        """Bars in the place of the curves: what an import or a corpus build has brought."""
        self._result.display = bool(result)
        self._loss_plot.display = not result
        self._result.set_fitted(lambda width: bar_lines(result, self.glyphs, width, MAX_BARS))

    def _draw_loss(self, view: RunView, *, new: bool, result: bool) -> None:
        curves = loss_curves(view)
        self._curve_legend.display = bool(curves)
        self.curves.set_class(not curves and view.status.over and not result, "-untrained")
        if not curves:
            self._loss_plot.clear(run_text.no_curve(view))
            return
        if new:
            self._loss_plot.clear()
        self._curve_legend.set_fitted(
            lambda width: [legend_line(view, width, ascii_only=self.glyphs.ascii, log_scale=self.log_scale)]
        )
        self._loss_plot.set_curves(
            curves,
            x_end=fitted_end(curves[0].x[-1], float(view.curve_end)),
            log=self.log_scale,
            robust=True,
            marks=view.annotations_of(view.phase),
        )

    def _draw_log(self, view: RunView, *, new: bool) -> None:
        fresh = view.log_total - self._lines_drawn
        if new or fresh < 0:
            self.log_pane.replace(self._log_lines(view.log), _("no log lines yet"))
        elif fresh:
            lines = list(view.log)
            self.log_pane.append(self._log_lines(lines[max(0, len(lines) - fresh) :]))
        self._lines_drawn = view.log_total

    def _log_lines(self, lines: Iterable[LogLine]) -> list[LogLine]:
        """Those for a person, or all of them."""
        return [line for line in lines if self.log_details or line.level != "detail"]
