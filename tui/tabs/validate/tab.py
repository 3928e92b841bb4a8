"""The Validate tab: the verdict, every measure with its interval, and the cases side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
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
from tui.actions import AppAction
from tui.host.launch import launch_uninterrupted
from tui.host.run_follower import RunUpdated
from tui.screens.ask import Confirm
from tui.tabs.base import Tab
from tui.tabs.validate import reader
from tui.tabs.validate.cases import CaseEntry, CaseView, case_blocks, list_cases
from tui.tabs.validate.measures import (
    empty_text,
    facts_lines,
    judge_question,
    measure_table,
    verdict_line,
)
from tui.tabs.validate.reader import ModelState
from tui.terminal.text import safe

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

REPORT_RUNS = tuple(kind for kind, info in KINDS.items() if info.validates)
"""Kinds of runs that end with a report."""


class ValidateTab(Tab):
    """Shows the newest report; validates, promotes and rolls back."""

    TAB_ID: ClassVar[str] = "validate"
    TITLE: ClassVar[str] = N_("Validate")
    FIRST_FOCUS: ClassVar[str] = "#validate-case"

    class StateRead(Message):
        """The newest report and the models of the workspace."""

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

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.report: ValidationReport | None = None
        """The one on the screen."""
        self._newest: ValidationReport | None = None
        self.cases: list[CaseEntry] = []
        self.place = 0
        self._diff = False
        self._models = ModelState()
        self._undo_stamp = ""
        """Stamp of the backup that undoes the last promotion or rollback."""
        self._conversations: dict[str, Conversation | None] = {}
        self._verdict = Static(id="validate-verdict")
        self._table = Static(id="validate-table")
        self._measures = VerticalScroll(self._table, id="validate-measures", classes="panel")
        self.case_view = CaseView(self.move_case)
        self._panels = Horizontal(self._measures, self.case_view, id="validate-panels")
        self._empty = Static(id="validate-empty")

    def compose(self) -> ComposeResult:
        yield self._verdict
        yield self._panels
        yield self._empty

    def on_mount(self) -> None:
        self._measures.border_title = _("Measures")

    def activate(self) -> None:
        self._load()

    def runs_changed(self) -> None:
        self._load()

    def run_updated(self, message: RunUpdated) -> None:
        if message.view.spec is not None and message.view.spec.kind in REPORT_RUNS:
            self._draw_verdict()
            self.host.refresh_footer()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_table)

    # Reading

    @work(group="validate:load", exclusive=True, exit_on_error=False)
    async def _load(self) -> None:
        self.post_message(self.StateRead(await asyncio.to_thread(reader.read_state, self.workspace)))

    @on(StateRead)
    def _state_read(self, message: StateRead) -> None:
        self._models = message.state
        if message.state.problem:
            self.show_message(message.state.problem, "error")
        report = message.state.report
        if report != self._newest:
            self._newest = self.report = report
            self.cases = list_cases(report) if report is not None else []
            self.place = 0
        self._draw()

    @work(group="validate:case", exclusive=True, exit_on_error=False)
    async def _read_case(self, id_: str) -> None:
        conversation = await asyncio.to_thread(reader.read_conversation, self.workspace, id_)
        self.post_message(self.CaseRead(id_, conversation))

    @on(CaseRead)
    def _case_read(self, message: CaseRead) -> None:
        self._conversations[message.id] = message.conversation
        self._draw_case()

    # Drawing

    def _draw(self) -> None:
        has_report = self.report is not None
        self._panels.display = has_report
        self._empty.display = not has_report
        if has_report:
            self._draw_table()
            self._draw_case()
        else:
            self._empty.update(empty_text(self._models.pair, self._models.any_model))
        self._draw_verdict()
        self.host.refresh_footer()

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

    def _draw_table(self) -> None:
        if self.report is None:
            return
        width = max(30, self._measures.scrollable_content_region.width)
        facts = Content("\n").join([safe(line, "$foreground-muted") for line in facts_lines(self.report)])
        names = safe(
            _("base {base}\nnew  {new}").format(
                base=self.report.verdict.base.name, new=self.report.verdict.new.name
            )
        )
        table = measure_table(self.report, width, self.host.glyphs)
        self._table.update(Content("\n").join([names, Content(""), table, Content(""), facts]))

    def _draw_case(self) -> None:
        if not self.cases:
            self.case_view.border_title = _("Cases")
            self.case_view.set_blocks([])
            return
        case = self.cases[self.place]
        self.case_view.border_title = case.title()
        id_ = case.conversation
        if id_ and id_ not in self._conversations:
            self._read_case(id_)
        blocks = case_blocks(
            case, self._conversations.get(id_), loaded=id_ in self._conversations, diff=self._diff
        )
        self.case_view.set_blocks(blocks)

    # Actions

    @property
    def _validating(self) -> bool:
        return any(run.kind == RunKind.VALIDATE for run in self.host.board.live)

    def is_enabled(self, action: AppAction) -> bool:
        validating = self._validating
        verdict = self.report.verdict if self.report is not None else None
        rules = {
            "run": self.report is not None or (self._models.pair is not None and not validating),
            "diff": bool(self.cases) and self.cases[self.place].answer is not None,
            "wins": any(case.gain > 0 for case in self.cases),
            "losses": any(case.gain < 0 for case in self.cases),
            "promote": verdict is not None and verdict.new.name != self._models.in_use,
            "roll_back": self._models.backup is not None,
            "undo": bool(self._undo_stamp),
            "copy": bool(self.cases),
        }
        return rules.get(action.verb, True)

    def action_run(self) -> None:
        """Shows the verdict of the two models; where it is on the screen, or there is none, judges them.

        Asks first where that takes another look at the test set: looks cannot be taken back.
        """
        models = self._models
        shown = self.report is not None and self.place == 0
        known = models.judged or (self.report if models.pair is None else None)
        if known is not None and not (shown and self.report == known):
            self._show_report(known)
        elif models.pair is not None and not self._validating:
            base, new = models.pair
            window = models.window
            if self.report is None and (window is None or window.looks == 0):
                self._launch(base, new)
            else:
                question = judge_question(base, new, window, again=models.judged is not None)
                self._ask(question, lambda: self._launch(base, new))

    def _show_report(self, report: ValidationReport) -> None:
        """Shows a report from its first entry on."""
        if report != self.report:
            self.report, self.cases = report, list_cases(report)
        self.place = 0
        self._measures.scroll_home(animate=False)
        self.case_view.scroll_home(animate=False)
        self._draw()

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

    def move_case(self, by: int) -> None:
        """Shows the case `by` places further, round at the ends."""
        if self.cases:
            self.place = (self.place + by) % len(self.cases)
            self._draw_case()
            self.host.refresh_footer()

    def action_wins(self) -> None:
        self._next_case(1)

    def action_losses(self) -> None:
        self._next_case(-1)

    def _next_case(self, sign: int) -> None:
        """The next case that the new model won (1) or lost (-1), round at the end."""
        for step in range(1, len(self.cases) + 1):
            place = (self.place + step) % len(self.cases)
            if self.cases[place].gain * sign > 0:
                self.move_case(step)
                return

    def action_diff(self) -> None:
        self._diff = not self._diff
        self._draw_case()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.case_view.plain_text)
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
        """Undoes the last promotion or rollback."""
        if self._undo_stamp:
            self._change_model(roll_back_to=self._undo_stamp)

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
        self._undo_stamp = message.promotion.backup.rpartition(".")[2]
        name = message.promotion.name or _("no model")
        self.show_message(_("In use now: {name}. u undoes it.").format(name=name), "success")
        self._load()
