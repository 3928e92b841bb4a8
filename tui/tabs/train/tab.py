"""The Train tab: the runs, and the one under the cursor as curves, figures, stages and log."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from engine.core.i18n import N_, _
from engine.runs.event_text import status_name
from engine.runs.events import RunStatus
from engine.runs.view import RunView
from tui.app.actions import AppAction
from tui.app.run_follower import RunEntry, RunUpdated
from tui.app.text import safe
from tui.tabs.train import run_text
from tui.tabs.train.side_panel import SidePanel
from tui.tabs.train.steering import NEEDS_RUN, Steering
from tui.widgets.annotations import legend
from tui.widgets.cell_lines import CellLines
from tui.widgets.log import LogPane
from tui.widgets.plot import Curve, Plot, thin
from tui.widgets.virtual_list import GLYPH_COLUMN, ListCell, ListRow, VirtualList

EVALUATIONS = 12
"""Dots of held-out loss at most, so that they do not hide the curve."""
_STATUS_KIND = {
    RunStatus.DONE: "success",
    RunStatus.PAUSED: "warning",
    RunStatus.FAILED: "error",
    RunStatus.DEAD: "error",
}


class TrainTab(Steering):
    """Left the runs; right the curves, the figures and the log of one of them."""

    TAB_ID: ClassVar[str] = "train"
    TITLE: ClassVar[str] = N_("Train")
    FIRST_FOCUS: ClassVar[str] = "#runs"

    def compose(self) -> ComposeResult:
        plain_signs = self.h2q.glyphs.ascii
        with Horizontal():
            with Vertical(id="runs-panel", classes="panel"):
                yield VirtualList((GLYPH_COLUMN, 0), id="runs")
            with Vertical(id="run"):
                with Vertical(id="curves"):
                    with Vertical(id="loss-panel", classes="panel"):
                        yield Plot(id="loss", ascii_only=plain_signs)
                    yield SidePanel(self.h2q.glyphs)
                yield CellLines(id="figures")
                with Vertical(id="log-panel", classes="panel"):
                    yield LogPane(id="log", alert=self.h2q.glyphs.alert)

    def on_mount(self) -> None:
        self._shown = ""
        self._log = False
        self._loss_title = self._legend = ""
        self._logged = 0
        self.query_one("#runs-panel").border_title = safe(_("Runs"))
        self.query_one("#log-panel").border_title = safe(_("Log"))

    # What is shown

    def activate(self) -> None:
        self.runs_changed()
        self._draw(whole=True)

    def runs_changed(self) -> None:
        runs = self.h2q.board.runs
        table = self.query_one("#runs", VirtualList)
        known = set(table.ids)
        table.set_ids([run.run_id for run in runs])
        table.set_rows(self._row(run) for run in runs)
        new = [run for run in self.h2q.board.live if run.run_id not in known]
        if new and (not known or self._shown not in {run.run_id for run in self.h2q.board.live}):
            table.move_to_id(new[0].run_id)
        self._select(table.cursor_id)

    def _row(self, run: RunEntry) -> ListRow:
        glyphs, status = self.h2q.glyphs, self._status(run)
        kind = _STATUS_KIND.get(status, "")
        return ListRow(
            run.run_id,
            (ListCell(glyphs.status(status), kind), ListCell(f"{run.run_id[:9]} {_(run.label)}", kind)),
        )

    def _status(self, run: RunEntry) -> RunStatus:
        """What a living run does by its journal, which tells of a pause sooner than the list of runs."""
        view = self.h2q.board.view(run.run_id)
        return run.status if view is None or run.status.over or view.status.over else view.status

    @on(VirtualList.Highlighted)
    def _moved(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self._select(message.row_id)
        self.h2q.refresh_footer()

    def _select(self, run_id: str) -> None:
        if run_id != self._shown:
            self._shown = run_id
            self.h2q.board.follow(run_id)
            self._draw(whole=True)
        elif not run_id:
            self._draw(whole=True)

    def run_updated(self, message: RunUpdated) -> None:
        if message.run_id != self._shown:
            return
        if self.entry is not None:
            self.query_one("#runs", VirtualList).set_rows([self._row(self.entry)])
        self._draw()

    def _draw(self, *, whole: bool = False) -> None:
        """Brings the right side to the present state; `whole` when it is another run than before."""
        entry = self.entry
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        if entry is None or view is None:
            words = _("reading its journal …") if entry is not None else run_text.no_run()
            self._title(_("Loss"))
            self._show_legend("")
            self.query_one("#loss", Plot).clear(words)
            self.query_one(SidePanel).clear()
            self.query_one("#figures", CellLines).set_lines([])
            self.query_one("#log", LogPane).replace((), "")
            self._logged = 0
            return
        alive = entry.status is not RunStatus.DEAD
        self._title(run_text.loss_title(view, self._log))
        self._draw_curves(view, new=whole)
        figures = self.query_one("#figures", CellLines)
        figures.set_lines(run_text.figures(view, self.h2q.glyphs, figures.size.width, alive=alive))
        self._draw_log(view, new=whole)

    def _title(self, text: str) -> None:
        # Setting a title repaints the panel, also when it is the same.
        if text != self._loss_title:
            self._loss_title = text
            self.query_one("#loss-panel").border_title = safe(text)

    def _draw_curves(self, view: RunView, *, new: bool) -> None:
        loss_plot = self.query_one("#loss", Plot)
        marks = view.marks_of(view.phase)
        self._show_legend(legend(marks, ascii_only=self.h2q.glyphs.ascii))
        self.query_one(SidePanel).show_run(view, new=new)
        loss = view.series(view.phase, "loss")
        if not len(loss):
            loss_plot.clear(run_text.no_curve(view))
            return
        if new:
            loss_plot.clear()
        curves = [Curve(loss.x, loss.y)]
        for name in view.eval_names(view.phase):
            series = view.series(view.phase, f"eval:{name}")
            points = thin(series.points(), EVALUATIONS)
            curves.append(Curve([x for x, _y in points], [y for _x, y in points], line=False))
        loss_plot.set_curves(curves, x_end=float(view.curve_end), log=self._log, marks=marks)

    def _show_legend(self, text: str) -> None:
        # As with the title: only a new one is painted.
        if text != self._legend:
            self._legend = text
            self.query_one("#loss-panel").border_subtitle = safe(text)

    def _draw_log(self, view: RunView, *, new: bool) -> None:
        pane = self.query_one("#log", LogPane)
        fresh = view.log_total - self._logged
        if new or fresh < 0:
            pane.replace(view.log, _("no line yet"))
        elif fresh:
            lines = list(view.log)
            pane.append(lines[max(0, len(lines) - fresh) :])
        self._logged = view.log_total

    # Actions

    def is_enabled(self, row: AppAction) -> bool:
        if row.verb in NEEDS_RUN:
            entry = self.entry
            return entry is not None and not entry.status.over
        if row.verb == "resume":
            return self.may_go_on()
        return True

    async def action_new(self) -> None:
        from tui.screens.new_run import NewRun

        self.app.push_screen(NewRun(self.workspace), self._started)

    def _started(self, run_id: str | None) -> None:
        if run_id:
            self.show_message(_("run {run} started; q leaves, it goes on").format(run=run_id[:9]), "success")
            self.run_worker(self.h2q.board.refresh(), group="runs:look", exclusive=True)

    def action_log(self) -> None:
        curves = self.query_one("#curves")
        curves.display = not curves.display
        if not curves.display:
            self.query_one("#log", LogPane).focus()

    def action_second(self) -> None:
        """The next view of the second panel: the learning rate, what happened, the cycles of an evolution."""
        self.query_one(SidePanel).turn()
        self._draw(whole=True)

    def action_run_before(self) -> None:
        self.query_one("#runs", VirtualList).action_move(-1)

    def action_run_after(self) -> None:
        self.query_one("#runs", VirtualList).action_move(1)

    def action_scale(self) -> None:
        self._log = not self._log
        self._draw()

    async def action_refresh(self) -> None:
        await self.h2q.board.refresh()
        self._draw(whole=True)

    def action_copy(self) -> None:
        focused = self.app.focused
        if isinstance(focused, LogPane):
            self.app.copy_to_clipboard(focused.text)
            self.show_message(_("the log is on the clipboard"))
        elif self.entry is not None:
            self.app.copy_to_clipboard(self.entry.run_id)
            self.show_message(_("{run} is on the clipboard").format(run=self.entry.run_id))

    def status_words(self) -> str:
        """The status of the run under the cursor in a word, "" without a run."""
        return status_name(self.entry.status) if self.entry is not None else ""
