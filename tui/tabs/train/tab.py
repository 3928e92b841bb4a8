"""The Train tab: the runs, and the one under the cursor as curves, figures, stages and log."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from engine.core.i18n import N_, _
from engine.runs.events import RunStatus
from engine.runs.kinds import KINDS, RunKind
from tui.actions import AppAction
from tui.host.run_follower import RunEntry, RunUpdated
from tui.tabs.base import Tab
from tui.tabs.train import run_text
from tui.tabs.train.compare import LETTERS, MOST_RUNS, CompareRuns
from tui.tabs.train.run_commands import NEEDS_LIVE_RUN, RunCommands
from tui.tabs.train.run_panel import RunPanel
from tui.terminal.text import safe
from tui.widgets.log import LogPane
from tui.widgets.virtual_list import GLYPH_COLUMN, ListCell, ListRow, VirtualList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

_STATUS_KIND = {
    RunStatus.DONE: "success",
    RunStatus.PAUSED: "warning",
    RunStatus.FAILED: "error",
    RunStatus.DEAD: "error",
}


def trains(run: RunEntry) -> bool:
    """Whether a run trains a model; the others import, filter or judge."""
    return KINDS[RunKind(run.kind)].trains


class TrainTab(Tab):
    """Left the runs, right the panel of the run under the cursor."""

    TAB_ID: ClassVar[str] = "train"
    TITLE: ClassVar[str] = N_("Train")
    FIRST_FOCUS: ClassVar[str] = "#runs"

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.runs = VirtualList((GLYPH_COLUMN, 0), id="runs")
        self._runs_panel = Vertical(self.runs, id="runs-panel", classes="panel")
        self.run_panel = RunPanel(host.glyphs)
        self.commands = RunCommands(host, self._start_worker)
        self._shown_id = ""
        """The run on the screen."""
        self._trainings_only = False
        self._marked: list[str] = []
        """Runs to compare, in the order of their letters."""

    def compose(self) -> ComposeResult:
        yield Horizontal(self._runs_panel, self.run_panel)

    def on_mount(self) -> None:
        self._draw_title()

    def _start_worker(self, group: str, work: Coroutine[Any, Any, None]) -> None:
        """Of the questions only the newest is asked; commands are all sent."""
        self.run_worker(
            work, group=group, exclusive=group == "ask", exit_on_error=group in ("ask", "command")
        )

    # Runs

    def activate(self) -> None:
        self.runs_changed()
        self._draw(new=True)

    def runs_changed(self) -> None:
        runs, live = self._listed, self.host.board.live
        known = set(self.runs.ids)
        self.runs.set_ids([run.run_id for run in runs])
        self.runs.set_rows(self._row(run) for run in runs)
        new = [run for run in live if run.run_id not in known]
        if new and (not known or self._shown_id not in {run.run_id for run in live}):
            self.runs.move_to_id(new[0].run_id)
        self._draw_title()
        self._select(self.runs.cursor_id)

    @property
    def _listed(self) -> list[RunEntry]:
        """The runs of the list; those that are not over are never hidden."""
        runs = self.host.board.runs
        if not self._trainings_only:
            return runs
        return [run for run in runs if trains(run) or not run.status.over]

    def _draw_title(self) -> None:
        hidden = len(self.host.board.runs) - len(self._listed)
        self._runs_panel.border_title = safe(_("Runs"))
        self._runs_panel.border_subtitle = safe(_("z: {n} more").format(n=hidden) if hidden else "")

    async def show_item(self, item_id: str) -> None:
        if self._trainings_only and item_id not in self.runs.ids:
            self.action_hide()
        self.runs.move_to_id(item_id)
        self.runs.focus()

    @property
    def entry(self) -> RunEntry | None:
        """The run under the cursor."""
        return self.host.board.entry(self.runs.cursor_id)

    def _row(self, run: RunEntry) -> ListRow:
        status = self._status(run)
        kind = _STATUS_KIND.get(status, "")
        text = f"{run.run_id[:9]} {_(run.label)}"
        if run.run_id in self._marked:
            text = f"{LETTERS[self._marked.index(run.run_id)]} {text}"
        sign = ListCell(self.host.glyphs.status(status), kind)
        return ListRow(run.run_id, (sign, ListCell(text, kind if trains(run) else "dim")))

    def _status(self, run: RunEntry) -> RunStatus:
        """Of a live run the status in its journal, which has a pause earlier than the list of runs."""
        view = self.host.board.view(run.run_id)
        return run.status if view is None or run.status.over or view.status.over else view.status

    @on(VirtualList.Highlighted)
    def _highlighted(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self._select(message.row_id)
        self.host.refresh_footer()

    def _select(self, run_id: str) -> None:
        if run_id != self._shown_id:
            self._shown_id = run_id
            self.host.board.follow(run_id)
            self._draw(new=True)
        elif not run_id:
            self._draw(new=True)

    def run_updated(self, message: RunUpdated) -> None:
        if message.run_id != self._shown_id:
            return
        if self.entry is not None:
            self.runs.set_rows([self._row(self.entry)])
        self._draw()

    def _draw(self, *, new: bool = False) -> None:
        """Draws the present state of the run; `new` when it is another one than before."""
        entry = self.entry
        view = self.host.board.view(entry.run_id) if entry is not None else None
        if entry is None:
            self.run_panel.clear(run_text.no_run())
        elif view is None:
            self.run_panel.clear(_("reading the journal …"))
        else:
            try:
                self.run_panel.show_run(view, alive=entry.status is not RunStatus.DEAD, new=new)
            except ArithmeticError:
                # A journal may hold any number; the app must open nevertheless.
                self.run_panel.clear(_("this run has figures that cannot be drawn"))

    # Actions

    def is_enabled(self, action: AppAction) -> bool:
        if action.verb in NEEDS_LIVE_RUN:
            entry = self.entry
            return entry is not None and not entry.status.over
        if action.verb == "pause":
            entry = self.entry
            return entry is not None and (not entry.status.over or self.commands.can_resume(entry))
        if action.verb == "mark":
            return self.entry is not None
        if action.verb == "hide":
            return any(not trains(run) for run in self.host.board.runs)
        if action.verb == "compare":
            return len(self._to_compare()) > 1
        return True

    def footer_label(self, action: AppAction) -> str:
        if action.verb == "pause" and self.commands.resumes(self.entry):
            return _("resume")
        if action.verb == "mark" and self.runs.cursor_id in self._marked:
            return _("unmark")
        if action.verb == "hide" and self._trainings_only:
            return _("all runs")
        return super().footer_label(action)

    async def action_new(self) -> None:
        from tui.tabs.train.new_run import NewRun

        self.app.push_screen(NewRun(self.workspace, self.host.glyphs), self._started)

    def _started(self, run_id: str | None) -> None:
        if run_id:
            text = _("run {run} started; it continues when you quit").format(run=run_id[:9])
            self.show_message(text, "success")
            self.run_worker(self.host.board.refresh(), group="runs:refresh", exclusive=True)

    def action_pause(self) -> None:
        if self.entry is not None:
            self.commands.toggle_pause(self.entry)

    def action_checkpoint(self) -> None:
        if self.entry is not None:
            self.commands.checkpoint(self.entry)

    def action_stop(self) -> None:
        if self.entry is not None:
            self.commands.ask_stop(self.entry)

    def action_kill(self) -> None:
        if self.entry is not None:
            self.commands.ask_kill(self.entry)

    def action_rate(self) -> None:
        if self.entry is not None:
            self.commands.ask_learning_rate(self.entry)

    def action_mark(self) -> None:
        """Marks the run under the cursor for a comparison, or takes its mark away."""
        entry = self.entry
        if entry is None:
            return
        if entry.run_id in self._marked:
            self._marked.remove(entry.run_id)
        elif len(self._marked) < MOST_RUNS:
            self._marked.append(entry.run_id)
            self.host.board.follow(entry.run_id)
        else:
            self.show_message(_("at most {n} runs can be compared").format(n=MOST_RUNS), "warning")
        self.runs.set_rows(self._row(run) for run in self.host.board.runs)
        self.host.refresh_footer()

    def action_details(self) -> None:
        """The log with the lines of detail, or without."""
        self.run_panel.log_details = not self.run_panel.log_details
        self._draw(new=True)

    def action_hide(self) -> None:
        """Shows trainings alone, or all runs."""
        self._trainings_only = not self._trainings_only
        self.runs_changed()
        self.host.refresh_footer()

    def _to_compare(self) -> list[str]:
        """The marked runs; with a single mark also the run under the cursor."""
        marked = [run_id for run_id in self._marked if self.host.board.entry(run_id) is not None]
        cursor = self.runs.cursor_id
        return [*marked, cursor] if len(marked) == 1 and cursor and cursor not in marked else marked

    def action_compare(self) -> None:
        """Lays the marked runs over each other."""
        self.app.push_screen(CompareRuns(self.host, self._to_compare()))

    def action_log(self) -> None:
        curves = self.run_panel.curves
        curves.display = not curves.display
        if not curves.display:
            self.run_panel.log_pane.focus()

    def action_second(self) -> None:
        """The next view of the side panel: the learning rate, the events, the cycles of an evolution."""
        self.run_panel.side_panel.next_view()
        self._draw(new=True)

    def action_run_before(self) -> None:
        self.runs.action_move(-1)

    def action_run_after(self) -> None:
        self.runs.action_move(1)

    def action_scale(self) -> None:
        self.run_panel.log_scale = not self.run_panel.log_scale
        self._draw()

    async def action_refresh(self) -> None:
        await self.host.board.refresh()
        self._draw(new=True)

    def action_copy(self) -> None:
        focused = self.app.focused
        if isinstance(focused, LogPane):
            self.app.copy_to_clipboard(focused.text)
            self.show_message(_("the log is on the clipboard"))
        elif self.entry is not None:
            self.app.copy_to_clipboard(self.entry.run_id)
            self.show_message(_("{run} is on the clipboard").format(run=self.entry.run_id))
