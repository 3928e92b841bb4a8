"""The Validate tab: the verdicts, every measure with its interval, and the cases side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.core.errors import H2QError, error_text
from engine.core.i18n import N_, _, language, with_percent
from engine.memory.records import Conversation
from engine.models.registry import Promotion
from engine.runs.event_text import stage_name
from engine.runs.kinds import KINDS, RunKind, ValidateParams
from engine.runs.spec import make_spec
from engine.validation.report import ValidationReport
from engine.validation.stored_verdicts import StoredVerdict, VerdictFiles, read_conversation
from engine.validation.votes import EQUAL, LEFT, RIGHT
from tui.actions import AppAction
from tui.host.launch import launch_uninterrupted
from tui.host.run_follower import RunUpdated
from tui.screens.ask import Confirm
from tui.tabs.base import Tab
from tui.tabs.validate import reader
from tui.tabs.validate.case_panel import CasePanel
from tui.tabs.validate.cases import CaseGroup
from tui.tabs.validate.measures import (
    empty_text,
    judge_question,
    measures_text,
    verdict_line,
)
from tui.tabs.validate.reader import ModelState
from tui.tabs.validate.verdict_list import VerdictList, used_line
from tui.terminal.text import safe
from tui.widgets.virtual_list import VirtualList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

REPORT_RUNS = tuple(kind for kind, info in KINDS.items() if info.validates)
"""Kinds of runs that end with a report."""
SHORT, TALL = 28, 36
"""Lines of the tab up to which the list of verdicts has two rows, and from which it has eight."""


class ValidateTab(Tab):
    """Shows the verdict under the cursor; validates, votes, exports, promotes and rolls back."""

    TAB_ID: ClassVar[str] = "validate"
    TITLE: ClassVar[str] = N_("Validate")
    FIRST_FOCUS: ClassVar[str] = "#validate-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", show=False),
        Binding("right", "step(1)", show=False),
    ]

    class StateRead(Message):
        """The verdicts and the models of the workspace."""

        def __init__(self, state: ModelState) -> None:
            super().__init__()
            self.state = state

    class CaseRead(Message):
        """The conversation of a case; None when memory has it no more."""

        def __init__(self, id_: str, conversation: Conversation | None) -> None:
            super().__init__()
            self.id = id_
            self.conversation = conversation

    class ModelChanged(Message):
        """A promotion or rollback is done."""

        def __init__(self, promotion: Promotion) -> None:
            super().__init__()
            self.promotion = promotion

    class VoteSaved(Message):
        """A vote stands in the report, or was taken back (`choice` is "")."""

        def __init__(self, file: Path, case: str, choice: str) -> None:
            super().__init__()
            self.file = file
            self.case = case
            self.choice = choice

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.shown: StoredVerdict | None = None
        """The one on the screen."""
        self._files = VerdictFiles()
        self._models = ModelState()
        self._newest = ""
        """Id of the newest verdict; a newer one takes the cursor."""
        self._undo: Callable[[], object] | None = None
        """Undoes the last promotion, rollback or vote."""
        self._conversations: dict[str, Conversation | None] = {}
        self._used = Static(id="validate-used")
        self.verdicts = VerdictList()
        self._list_panel = Vertical(self.verdicts, id="validate-verdicts", classes="panel")
        self._verdict = Static(id="validate-verdict")
        self._table = Static(id="validate-table")
        self._measures = VerticalScroll(self._table, id="validate-measures", classes="panel")
        self.cases = CasePanel()
        self._panels = Horizontal(self._measures, self.cases.view, id="validate-panels")
        self._empty = Static(id="validate-empty")

    def compose(self) -> ComposeResult:
        yield self._used
        yield self._list_panel
        yield self._verdict
        yield self._panels
        yield self._empty

    def on_mount(self) -> None:
        self._list_panel.border_title = _("Verdicts")
        self._measures.border_title = _("Measures")
        self._panels.display = self._list_panel.display = False

    @property
    def report(self) -> ValidationReport | None:
        """The one on the screen."""
        return self.shown.report if self.shown is not None else None

    def activate(self) -> None:
        self._load()

    def runs_changed(self) -> None:
        self._load()

    def run_updated(self, message: RunUpdated) -> None:
        if message.view.spec is not None and message.view.spec.kind in REPORT_RUNS:
            self._draw_verdict()
            self.host.refresh_footer()

    def on_resize(self) -> None:
        self.set_class(self.size.height <= SHORT, "-short")
        self.set_class(self.size.height >= TALL, "-tall")
        self.call_after_refresh(self._draw_widths)
        self._draw_used()

    # Reading

    @work(group="validate:load", exclusive=True, exit_on_error=False)
    async def _load(self) -> None:
        self.post_message(
            self.StateRead(await asyncio.to_thread(reader.read_state, self.workspace, self._files))
        )

    @on(StateRead)
    def _state_read(self, message: StateRead) -> None:
        self._models = message.state
        if message.state.problem:
            self.show_message(message.state.problem, "error")
        verdicts = message.state.verdicts
        newest = verdicts[0].id if verdicts else ""
        self.verdicts.show(message.state, self.host.glyphs)
        if newest and newest != self._newest:
            self._newest = newest
            self.verdicts.move_to_id(newest)
        self._show_cursor()
        self._draw()

    @on(VirtualList.Highlighted)
    def _highlighted(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self._show_cursor()
        self._draw()

    def _show_cursor(self) -> None:
        """Takes the verdict under the cursor; a report that was read again keeps its place in the cases."""
        id_ = self.verdicts.cursor_id
        verdict = next((one for one in self._models.verdicts if one.id == id_), None)
        if verdict == self.shown:
            return
        if verdict is None or self.shown is None or verdict.file != self.shown.file:
            self._measures.scroll_home(animate=False)
        self.shown = verdict
        self.cases.take(verdict)

    @work(group="validate:case", exclusive=True, exit_on_error=False)
    async def _read_case(self, id_: str) -> None:
        conversation = await asyncio.to_thread(read_conversation, self.workspace, id_)
        self.post_message(self.CaseRead(id_, conversation))

    @on(CaseRead)
    def _case_read(self, message: CaseRead) -> None:
        self._conversations[message.id] = message.conversation
        self._draw_case()

    # Drawing

    def _draw(self) -> None:
        has_rows = bool(self.verdicts.ids)
        self._list_panel.display = bool(self._models.verdicts)
        self._panels.display = self.report is not None
        self._empty.display = self.report is None
        if self.report is not None:
            self._draw_case()
            # A panel that was hidden has its width after the next layout.
            self.call_after_refresh(self._draw_widths)
        else:
            judged = has_rows and bool(self._models.verdicts)
            self._empty.update(empty_text(self._models.pair, self._models.any_model, any_verdict=judged))
        self._draw_used()
        self._draw_verdict()
        self.host.refresh_footer()

    def _draw_used(self) -> None:
        self._used.display = self._models.any_model
        self._used.update(safe(used_line(self._models, max(20, self.size.width - 2))))

    def _draw_verdict(self) -> None:
        line = self._run_line()
        if self.report is not None:
            verdict = verdict_line(self.report.verdict, self.host.glyphs)
            line = Content("\n").join([verdict, line]) if line is not None else verdict
        self._verdict.display = line is not None
        self._verdict.update(line or "")

    def _run_line(self) -> Content | None:
        """The progress of a run that will end with a report."""
        for run in self.host.board.live:
            if run.kind not in REPORT_RUNS:
                continue
            view = self.host.board.view(run.run_id)
            progress = view.progress if view is not None else None
            share = ""
            if progress is not None and progress.total:
                share = " " + with_percent(f"{progress.done / progress.total * 100:.0f}")
            stage = view.stage if view is not None else ""
            text = _("{run} in progress: {stage}{share}").format(
                run=run.run_id, stage=stage_name(stage) if stage else _(run.label), share=share
            )
            return safe(f"{self.host.glyphs.status(run.status)} {text}", "$text-accent")
        return None

    def _draw_widths(self) -> None:
        """What depends on the width of its panel."""
        self._draw_table()
        self.cases.draw_switch()

    def _draw_table(self) -> None:
        if self.report is None:
            return
        width = max(30, self._measures.scrollable_content_region.width)
        self._table.update(measures_text(self.report, width, self.host.glyphs))

    def _draw_case(self) -> None:
        case = self.cases.deck.current
        if case is not None and case.conversation and case.conversation not in self._conversations:
            self._read_case(case.conversation)
        self.cases.draw(self._conversations)

    # Actions

    @property
    def _validating(self) -> bool:
        return any(run.kind == RunKind.VALIDATE for run in self.host.board.live)

    @property
    def _pair(self) -> tuple[str, str] | None:
        """The models under the cursor: those of a verdict, else those that wait for one."""
        if self.shown is not None:
            known = (self.shown.pair[1] in self._models.models) or self.shown.pair == self._models.pair
            return self.shown.pair if known else None
        return self._models.pair

    def is_enabled(self, action: AppAction) -> bool:
        verdict = self.report.verdict if self.report is not None else None
        case = self.cases.deck.current
        rules = {
            "run": self.report is not None or (self._models.pair is not None and not self._validating),
            "diff": case is not None and case.answer is not None,
            "wins": self.cases.deck.size(CaseGroup.WINS) > 0,
            "losses": self.cases.deck.size(CaseGroup.LOSSES) > 0,
            "vote_left": self.cases.blind,
            "vote_right": self.cases.blind,
            "vote_equal": self.cases.blind,
            "export": self.report is not None,
            "promote": verdict is not None and verdict.new.name != self._models.in_use,
            "roll_back": self._models.backup is not None,
            "undo": self._undo is not None,
            "copy": case is not None,
        }
        return rules.get(action.verb, True)

    def action_run(self) -> None:
        """Shows the verdict from its beginning; where that is on the screen, or there is none, judges the models.

        Asks first where that takes another look at the test set: looks cannot be taken back.
        """
        if self.report is not None and not self.cases.deck.at_start:
            self.cases.deck.rewind()
            self._measures.scroll_home(animate=False)
            self._draw()
            return
        pair, window = self._pair, self._models.window
        if pair is None or self._validating:
            return
        if self.report is None and (window is None or window.looks == 0):
            self._launch(*pair)
        else:
            question = judge_question(*pair, window, again=self.report is not None)
            self._ask(question, lambda: self._launch(*pair))

    @work(group="validate:launch", exclusive=True, exit_on_error=False)
    async def _launch(self, base: str, new: str) -> None:
        spec = make_spec(self.workspace.root, ValidateParams(base=base, new=new), language=language())
        try:
            await asyncio.to_thread(launch_uninterrupted, self.workspace, spec)
        except (H2QError, OSError) as problem:
            self.show_message(error_text(problem), "error")
            return
        text = _("validating {new} against {base}: run {run}").format(new=new, base=base, run=spec.run_id)
        self.show_message(text, "success")

    def action_step(self, by: int) -> None:
        """Shows the case `by` places further in its group, round at the ends."""
        self.cases.deck.step(by)
        self._case_changed()

    def action_wins(self) -> None:
        self.cases.deck.show(CaseGroup.WINS)
        self._case_changed()

    def action_losses(self) -> None:
        self.cases.deck.show(CaseGroup.LOSSES)
        self._case_changed()

    def _case_changed(self) -> None:
        self._draw_case()
        self.host.refresh_footer()

    def action_diff(self) -> None:
        """Marks the differences, or not; first names the sides."""
        self.cases.toggle_diff()
        self._case_changed()

    def action_vote_left(self) -> None:
        self._vote_for(LEFT)

    def action_vote_right(self) -> None:
        self._vote_for(RIGHT)

    def action_vote_equal(self) -> None:
        self._vote_for(EQUAL)

    def _vote_for(self, side: str) -> None:
        case = self.cases.deck.current
        if case is not None and self.shown is not None and self.cases.blind:
            self._save_vote(self.shown.file, case.key, self.cases.choice(side))

    @work(group="validate:vote", exit_on_error=False)
    async def _save_vote(self, file: Path, case: str, choice: str) -> None:
        try:
            await asyncio.to_thread(reader.vote, file, case, choice)
        except (H2QError, OSError) as problem:
            self.show_message(error_text(problem), "error")
            return
        self.post_message(self.VoteSaved(file, case, choice))

    @on(VoteSaved)
    def _vote_saved(self, message: VoteSaved) -> None:
        if message.choice:
            self._undo = lambda: self._save_vote(message.file, message.case, "")
            names = {"base": _("the base's answer"), "new": _("the new model's answer"), EQUAL: _("equal")}
            self.show_message(
                _("Voted: {choice}. u undoes it.").format(choice=names[message.choice]), "success"
            )
        else:
            self._undo = None
            self.show_message(_("The vote is taken back."))
        self._load()

    @work(group="validate:export", exclusive=True, exit_on_error=False)
    async def action_export(self) -> None:
        """Writes the verdict for people and programs."""
        if self.shown is None:
            return
        try:
            folder = await asyncio.to_thread(reader.export, self.workspace, self.shown)
        except (H2QError, OSError) as problem:
            self.show_message(error_text(problem), "error")
            return
        place = folder.relative_to(self.workspace.root)
        self.show_message(_("written to {folder}; it holds your texts").format(folder=place), "success")

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.cases.view.plain_text)
        self.show_message(_("copied"))

    def action_refresh(self) -> None:
        self._load()

    def action_promote(self) -> None:
        """Promotes the validated model, after asking."""
        if self.report is None:
            return
        verdict = self.report.verdict
        new, base = verdict.new.name, self._models.in_use or _("no model")
        question = _("Promote {new} to replace {base}?")
        if verdict.decision != "promote":
            question = _("Not recommended. Promote {new} to replace {base}?")
        self._ask(question.format(new=new, base=base), lambda: self._change_model(promote=new))

    def action_roll_back(self) -> None:
        """Goes back to the model that was in use before, after asking."""
        backup = self._models.backup
        if backup is None:
            return
        question = _("Roll back from {now} to {model} (backup {stamp})?").format(
            now=self._models.in_use or _("no model"), model=backup.model or _("no model"), stamp=backup.stamp
        )
        self._ask(question, lambda: self._change_model(roll_back_to=backup.stamp))

    def action_undo(self) -> None:
        """Undoes the last promotion, rollback or vote."""
        if self._undo is not None:
            self._undo()

    def _ask(self, question: str, then: Callable[[], object]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                then()

        self.app.push_screen(Confirm(question), answered)

    @work(group="validate:change", exclusive=True, exit_on_error=False)
    async def _change_model(self, *, promote: str = "", roll_back_to: str | None = None) -> None:
        try:
            done = await asyncio.to_thread(reader.change_model, self.workspace, promote, roll_back_to)
        except (H2QError, OSError) as problem:
            self.show_message(error_text(problem), "error")
            return
        self.post_message(self.ModelChanged(done))

    @on(ModelChanged)
    def _model_changed(self, message: ModelChanged) -> None:
        stamp = message.promotion.backup.rpartition(".")[2]
        self._undo = lambda: self._change_model(roll_back_to=stamp)
        name = message.promotion.name or _("no model")
        self.show_message(_("In use now: {name}. u undoes it.").format(name=name), "success")
        self._load()
