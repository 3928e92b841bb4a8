"""The Train tab: the runs, and the one under the cursor as curves, figures, stages and log."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from engine.errors import H2QError
from engine.i18n import N_, _
from engine.runs import control
from engine.runs.events import RunStatus
from engine.runs.view import RunView
from engine.runs.words import status_word
from tui.actions import Action
from tui.follow import RunEntry, RunUpdated
from tui.screens.ask import AskLine, Confirm
from tui.tabs import run_lines
from tui.tabs.base import Tab
from tui.text import safe
from tui.widgets.lines import Lines
from tui.widgets.log import LogPane
from tui.widgets.plot import Curve, Plot, thin
from tui.widgets.table import SIGN, Cell, Row, VirtualList

_NEEDS_RUN = frozenset({"pause", "checkpoint", "stop", "kill", "rate"})
EVALUATIONS = 12
"""Dots of held-out loss at most, so that they do not hide the curve."""
_STATUS_KIND = {
    RunStatus.DONE: "good",
    RunStatus.PAUSED: "watch",
    RunStatus.FAILED: "act",
    RunStatus.DEAD: "act",
}


class TrainTab(Tab):
    """Left the runs; right the curves, the figures and the log of one of them."""

    TAB_ID: ClassVar[str] = "train"
    TITLE: ClassVar[str] = N_("Train")
    FIRST_FOCUS: ClassVar[str] = "#runs"

    def compose(self) -> ComposeResult:
        plain_signs = self.h2q.signs.ascii
        with Horizontal():
            with Vertical(id="runs-panel", classes="panel"):
                yield VirtualList((SIGN, 0), id="runs")
            with Vertical(id="run"):
                with Vertical(id="curves"):
                    with Vertical(id="loss-panel", classes="panel"):
                        yield Plot(id="loss", ascii_only=plain_signs)
                    with Vertical(id="lr-panel", classes="panel"):
                        yield Plot(id="lr", ascii_only=plain_signs, x_axis=False)
                yield Lines(id="figures")
                with Vertical(id="log-panel", classes="panel"):
                    yield LogPane(id="log", alert=self.h2q.signs.alert)

    def on_mount(self) -> None:
        self._shown = ""
        self._log = False
        self._loss_title = ""
        self._logged = 0
        self.query_one("#runs-panel").border_title = safe(_("Runs"))
        self.query_one("#lr-panel").border_title = safe(_("Learning rate"))
        self.query_one("#log-panel").border_title = safe(_("Log"))

    # What is shown

    @property
    def entry(self) -> RunEntry | None:
        """The run under the cursor."""
        return self.h2q.board.entry(self.query_one("#runs", VirtualList).cursor_id)

    def shown(self) -> None:
        self.runs_changed()
        self._draw(whole=True)

    def runs_changed(self) -> None:
        runs = self.h2q.board.runs
        table = self.query_one("#runs", VirtualList)
        known = set(table.ids)
        table.show([run.run_id for run in runs])
        table.fill(self._row(run) for run in runs)
        new = [run for run in self.h2q.board.live if run.run_id not in known]
        if new and (not known or self._shown not in {run.run_id for run in self.h2q.board.live}):
            table.move_to_id(new[0].run_id)
        self._select(table.cursor_id)

    def _row(self, run: RunEntry) -> Row:
        signs = self.h2q.signs
        kind = _STATUS_KIND.get(run.status, "")
        return Row(
            run.run_id,
            (Cell(signs.status(run.status), kind), Cell(f"{run.run_id[:9]} {_(run.label)}", kind)),
        )

    @on(VirtualList.Highlighted)
    def _moved(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self._select(message.row_id)
        self.h2q.refresh_footer()

    def _select(self, run_id: str) -> None:
        if run_id != self._shown:
            self._shown = run_id
            self.h2q.board.open(run_id)
            self._draw(whole=True)
        elif not run_id:
            self._draw(whole=True)

    def run_updated(self, message: RunUpdated) -> None:
        if message.run_id == self._shown:
            self._draw()

    def _draw(self, *, whole: bool = False) -> None:
        """Brings the right side to the present state; `whole` when it is another run than before."""
        entry = self.entry
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        if entry is None or view is None:
            words = _("reading its journal …") if entry is not None else run_lines.no_run()
            self._title(_("Loss"))
            self.query_one("#loss", Plot).clear(words)
            self.query_one("#lr", Plot).clear("")
            self.query_one("#figures", Lines).show([])
            self.query_one("#log", LogPane).replace((), "")
            self._logged = 0
            return
        alive = entry.status is not RunStatus.DEAD
        self._title(run_lines.loss_title(view, self._log))
        self._draw_curves(view, new=whole)
        figures = self.query_one("#figures", Lines)
        figures.show(run_lines.figures(view, self.h2q.signs, figures.size.width, alive=alive))
        self._draw_log(view, new=whole)

    def _title(self, text: str) -> None:
        # Setting a title repaints the panel, also when it is the same.
        if text != self._loss_title:
            self._loss_title = text
            self.query_one("#loss-panel").border_title = safe(text)

    def _draw_curves(self, view: RunView, *, new: bool) -> None:
        loss_plot, lr_plot = self.query_one("#loss", Plot), self.query_one("#lr", Plot)
        loss = view.series(view.phase, "loss")
        if not len(loss):
            loss_plot.clear(run_lines.no_curve(view))
            lr_plot.clear("")
            return
        if new:
            loss_plot.clear()
            lr_plot.clear()
        end = float(view.max_steps)
        curves = [Curve(loss.x, loss.y)]
        for name in view.eval_names(view.phase):
            series = view.series(view.phase, f"eval:{name}")
            points = thin(series.points(), EVALUATIONS)
            curves.append(Curve([x for x, _y in points], [y for _x, y in points], line=False))
        marks = [float(mark.step) for mark in view.marks if mark.phase == view.phase][-20:]
        loss_plot.show_curves(curves, x_end=end, log=self._log, marks=marks)
        lr = view.series(view.phase, "lr")
        lr_plot.show_curves([Curve(lr.x, lr.y)], x_end=end)

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

    def can(self, row: Action) -> bool:
        if row.verb in _NEEDS_RUN:
            entry = self.entry
            return entry is not None and not entry.status.over
        return True

    async def action_new(self) -> None:
        from tui.screens.new_run import NewRun

        self.app.push_screen(NewRun(self.workspace), self._started)

    def _started(self, run_id: str | None) -> None:
        if run_id:
            self.say(_("run {run} started; q leaves, it goes on").format(run=run_id[:9]), "good")
            self.run_worker(self.h2q.board.look(), group="runs:look", exclusive=True)

    async def action_pause(self) -> None:
        entry = self.entry
        if entry is None:
            return
        view = self.h2q.board.view(entry.run_id)
        paused = (view.status if view is not None else entry.status) is RunStatus.PAUSED
        self._command(entry, "resume" if paused else "pause")

    def action_checkpoint(self) -> None:
        if self.entry is not None:
            self._command(self.entry, "checkpoint")

    @work(group="ask", exclusive=True)
    async def action_stop(self) -> None:
        entry = self.entry
        if entry is None:
            return
        question = _("Checkpoint and stop run {run}?").format(run=entry.run_id[:9])
        if await self.app.push_screen_wait(Confirm(question)):
            self._command(entry, "stop")

    @work(group="ask", exclusive=True)
    async def action_kill(self) -> None:
        entry = self.entry
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        if entry is None or view is None or not view.pid:
            return
        short = entry.run_id[:9]
        question = _("End run {run} at once, without a checkpoint? Type its id").format(run=short)
        typed = await self.app.push_screen_wait(
            AskLine(question, check=lambda text: "" if text in (short, entry.run_id) else _("not its id"))
        )
        if typed is None or not entry.run_dir.alive():
            return
        try:
            os.kill(view.pid, signal.SIGKILL)
        except OSError as problem:
            self.say(
                _("run {run} cannot be ended: {why}").format(run=short, why=problem.strerror or ""), "act"
            )
        else:
            self.say(_("run {run} was ended; its checkpoints stay").format(run=short), "watch")

    @work(group="ask", exclusive=True)
    async def action_rate(self) -> None:
        entry = self.entry
        view = self.h2q.board.view(entry.run_id) if entry is not None else None
        if entry is None or view is None:
            return
        now = "" if view.lr is None else f"{view.lr:.4g}"
        typed = await self.app.push_screen_wait(
            AskLine(_("Learning rate (now {lr})").format(lr=now or "–"), now, check=_rate_problem)
        )
        if typed:
            self._command(entry, "set", f"lr={typed}")

    @work(group="command")
    async def _command(self, entry: RunEntry, name: str, value: str = "") -> None:
        """Sends a command to a run and says what it answered."""
        try:
            reply = await control.send(entry.run_dir, name, value)
        except H2QError as error:
            self.say(str(error), "act")
            return
        words = f"{name} {value}".strip()
        text = reply.text or (_("accepted") if reply.accepted else _("refused"))
        self.say(f"{entry.run_id[:9]} {words}: {text}", "good" if reply.accepted else "watch")
        await self.h2q.board.look()

    def action_log(self) -> None:
        curves = self.query_one("#curves")
        curves.display = not curves.display
        if not curves.display:
            self.query_one("#log", LogPane).focus()

    def action_run_before(self) -> None:
        self.query_one("#runs", VirtualList).action_move(-1)

    def action_run_after(self) -> None:
        self.query_one("#runs", VirtualList).action_move(1)

    def action_scale(self) -> None:
        self._log = not self._log
        self._draw()

    async def action_refresh(self) -> None:
        await self.h2q.board.look()
        self._draw(whole=True)

    def action_copy(self) -> None:
        focused = self.app.focused
        if isinstance(focused, LogPane):
            self.app.copy_to_clipboard(focused.text)
            self.say(_("the log is on the clipboard"))
        elif self.entry is not None:
            self.app.copy_to_clipboard(self.entry.run_id)
            self.say(_("{run} is on the clipboard").format(run=self.entry.run_id))

    def status_words(self) -> str:
        """The status of the run under the cursor in a word, "" without a run."""
        return status_word(self.entry.status) if self.entry is not None else ""


def _rate_problem(text: str) -> str:
    try:
        rate = float(text)
    except ValueError:
        return _("a number, such as 0.01")
    return "" if 0 < rate < 10 else _("above 0 and below 10")
