"""The Validate tab: the verdict in words, every measure with its interval, and the cases side by side."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.core.errors import BadInput, H2QError, error_text
from engine.core.i18n import N_, _, language
from engine.core.paths import Workspace
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.models.registry import PromotionBackup, backups, in_use, list_models, promote, rollback
from engine.runs.kinds import KINDS, RunKind, ValidateParams
from engine.runs.spec import make_spec
from engine.validation.report import ValidationReport, newest_report
from tui.app.actions import AppAction
from tui.app.run_follower import RunUpdated
from tui.app.shutdown import launch_uninterrupted, uninterruptible
from tui.app.text import safe
from tui.screens.ask import Confirm
from tui.tabs.base import Tab
from tui.tabs.validate.cases import Case, case_blocks, cases_of
from tui.tabs.validate.measures import empty_words, facts_lines, measure_table, verdict_line
from tui.widgets.conversation import ConversationView

JUDGING = tuple(kind for kind, info in KINDS.items() if info.validates)
"""Kinds of runs that end with a report."""


class CaseView(ConversationView):
    """One case; left and right go to its neighbours."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "tab_case(-1)", show=False),
        Binding("right,l", "tab_case(1)", show=False),
    ]

    def action_tab_case(self, by: int) -> None:
        tab = next(node for node in self.ancestors if isinstance(node, ValidateTab))
        tab.move_case(by)


class ValidateTab(Tab):
    """Shows the newest report; runs, promotes and rolls back."""

    TAB_ID: ClassVar[str] = "validate"
    TITLE: ClassVar[str] = N_("Validate")
    FIRST_FOCUS: ClassVar[str] = "#validate-case"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.report: ValidationReport | None = None
        self.cases: list[Case] = []
        self.place = 0
        self._diff = False
        self._in_use = ""
        self._candidates: list[str] = []
        """Names of the models that could be judged, newest first, without the one in use."""
        self._saved: PromotionBackup | None = None
        """What a rollback would restore."""
        self._undo = ""
        """Stamp of the backup that undoes the last promotion or rollback."""
        self._texts: dict[str, Conversation | None] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="validate-verdict")
        with Horizontal(id="validate-panels"):
            with VerticalScroll(id="validate-measures", classes="panel") as measures:
                measures.border_title = _("Measures")
                yield Static(id="validate-table")
            yield CaseView(id="validate-case", classes="panel")
        yield Static(id="validate-empty")

    def activate(self) -> None:
        self._load()

    def runs_changed(self) -> None:
        self._load()

    def run_updated(self, message: RunUpdated) -> None:
        if message.view.spec is not None and message.view.spec.kind in JUDGING:
            self._draw_verdict()
            self.h2q.refresh_footer()

    # Reading, off the loop

    @work(thread=True, group="validate:load", exclusive=True, exit_on_error=False)
    def _load(self) -> None:
        try:
            used = in_use(self.workspace) or ""
        except BadInput as problem:
            used = ""
            self.app.call_from_thread(self.show_message, str(problem), "error")
        report = newest_report(self.workspace)
        names = [card.name for card in list_models(self.workspace) if card.name != used]
        saved = next(iter(backups(self.workspace)), None)
        self.app.call_from_thread(self._loaded, report, used, names, saved)

    def _loaded(
        self, report: ValidationReport | None, used: str, candidates: list[str], saved: PromotionBackup | None
    ) -> None:
        self._in_use, self._candidates, self._saved = used, candidates, saved
        if report != self.report:
            self.report = report
            self.cases = cases_of(report) if report is not None else []
            self.place = 0
        self._draw()

    @work(thread=True, group="validate:case", exclusive=True, exit_on_error=False)
    def _fetch(self, conversation: str) -> None:
        try:
            with MemoryStore(self.workspace.memory_db, readonly=True) as store:
                found = store.get(conversation)
            if found is not None:
                with ReviewStore(self.workspace.memory_db, readonly=True) as review:
                    found = review.as_trained(found)
        except (H2QError, sqlite3.Error):
            found = None
        self.app.call_from_thread(self._fetched, conversation, found)

    def _fetched(self, conversation: str, found: Conversation | None) -> None:
        self._texts[conversation] = found
        self._draw_case()

    # Drawing

    def _draw(self) -> None:
        has = self.report is not None
        self.query_one("#validate-panels").display = has
        self.query_one("#validate-empty").display = not has
        if has:
            self._draw_table()
            self._draw_case()
        else:
            self.query_one("#validate-empty", Static).update(
                empty_words(self._pair(), bool(self._in_use or self._candidates))
            )
        self._draw_verdict()
        self.h2q.refresh_footer()

    def _draw_verdict(self) -> None:
        line = self._going_on()
        if self.report is not None:
            verdict = verdict_line(self.report.verdict, self.h2q.glyphs)
            line = Content("\n").join([verdict, line]) if line is not None else verdict
        widget = self.query_one("#validate-verdict", Static)
        widget.display = line is not None
        widget.update(line or "")

    def _going_on(self) -> Content | None:
        """What a run does that will end with a report."""
        for run in self.h2q.board.live:
            if run.kind not in JUDGING:
                continue
            view = self.h2q.board.view(run.run_id)
            progress = view.progress if view is not None else None
            share = ""
            if progress is not None and progress.total:
                share = f" {progress.done / progress.total * 100:.0f} %"
            stage = view.stage if view is not None else ""
            text = _("{run} is going on: {stage}{share}").format(
                run=run.run_id, stage=stage or run.label, share=share
            )
            return safe(f"{self.h2q.glyphs.status(run.status)} {text}", "$text-accent")
        return None

    def _draw_table(self) -> None:
        if self.report is None:
            return
        panel = self.query_one("#validate-measures")
        width = max(30, panel.scrollable_content_region.width)
        facts = Content("\n").join([safe(line, "$foreground-muted") for line in facts_lines(self.report)])
        names = safe(
            _("base {base}\nnew  {new}").format(
                base=self.report.verdict.base.name, new=self.report.verdict.new.name
            )
        )
        table = measure_table(self.report, width, self.h2q.glyphs)
        self.query_one("#validate-table", Static).update(
            Content("\n").join([names, Content(""), table, Content(""), facts])
        )

    def _draw_case(self) -> None:
        view = self.query_one(CaseView)
        if not self.cases:
            view.border_title = _("Cases")
            view.set_blocks([])
            return
        case = self.cases[self.place]
        view.border_title = case.title()
        if case.conversation and case.conversation not in self._texts:
            self._fetch(case.conversation)
        known = case.conversation in self._texts
        view.set_blocks(case_blocks(case, self._texts.get(case.conversation), known=known, diff=self._diff))

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_table)

    # What a person can do

    def _pair(self) -> tuple[str, str] | None:
        """The model in use and the newest other one."""
        if not self._in_use:
            return (self._candidates[1], self._candidates[0]) if len(self._candidates) > 1 else None
        return (self._in_use, self._candidates[0]) if self._candidates else None

    def is_enabled(self, row: AppAction) -> bool:
        judging = any(run.kind == RunKind.VALIDATE for run in self.h2q.board.live)
        verdict = self.report.verdict if self.report is not None else None
        rules = {
            "run": self._pair() is not None and not judging,
            "diff": bool(self.cases) and self.cases[self.place].answer is not None,
            "wins": any(case.gain > 0 for case in self.cases),
            "losses": any(case.gain < 0 for case in self.cases),
            "promote": verdict is not None and verdict.new.name != self._in_use,
            "roll_back": self._saved is not None,
            "undo": bool(self._undo),
            "copy": bool(self.cases),
        }
        return rules.get(row.verb, True)

    async def action_run(self) -> None:
        """Judges the newest model against the one in use, in a run of its own."""
        pair = self._pair()
        if pair is not None:
            self._launch(*pair)

    @work(thread=True, group="validate:launch", exclusive=True, exit_on_error=False)
    def _launch(self, base: str, new: str) -> None:
        spec = make_spec(self.workspace.root, ValidateParams(base=base, new=new), language=language())
        try:
            launch_uninterrupted(self.workspace, spec)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self.show_message, error_text(problem), "error")
            return
        text = _("{new} is judged against {base}: run {run}").format(new=new, base=base, run=spec.run_id)
        self.app.call_from_thread(self.show_message, text, "success")

    def move_case(self, by: int) -> None:
        """The case before or after."""
        if self.cases:
            self.place = (self.place + by) % len(self.cases)
            self._draw_case()
            self.h2q.refresh_footer()

    def action_wins(self) -> None:
        self._next_case(1)

    def action_losses(self) -> None:
        self._next_case(-1)

    def _next_case(self, sign: int) -> None:
        """The next case that the new model won (1) or lost (-1), from here on and round."""
        for step in range(1, len(self.cases) + 1):
            place = (self.place + step) % len(self.cases)
            if self.cases[place].gain * sign > 0:
                self.move_case(step)
                return

    def action_diff(self) -> None:
        self._diff = not self._diff
        self._draw_case()

    def action_copy(self) -> None:
        view = self.query_one(CaseView)
        self.app.copy_to_clipboard(view.plain_text)
        self.show_message(_("copied"))

    def action_refresh(self) -> None:
        self._load()

    def action_promote(self) -> None:
        """Puts the judged model to use, after asking."""
        if self.report is None:
            return
        verdict = self.report.verdict
        new, base = verdict.new.name, self._in_use or _("no model")
        question = _("Put {new} to use in place of {base}?").format(new=new, base=base)
        if verdict.decision != "promote":
            question = _("The verdict is not to. Put {new} to use in place of {base}?").format(
                new=new, base=base
            )
        self._ask(question, lambda: self._change(new, None))

    def action_roll_back(self) -> None:
        """Goes back to the model that was in use before, after asking."""
        saved = self._saved
        if saved is None:
            return
        question = _("Roll back from {now} to {model} (backup {stamp})?").format(
            now=self._in_use or _("no model"), model=saved.model or _("no model"), stamp=saved.stamp
        )
        self._ask(question, lambda: self._change("", saved.stamp))

    def action_undo(self) -> None:
        """Takes the last promotion or rollback back."""
        if self._undo:
            self._change("", self._undo)

    def _ask(self, question: str, then: Callable[[], object]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                then()

        self.app.push_screen(Confirm(question), answered)

    @work(thread=True, group="validate:change", exclusive=True, exit_on_error=False)
    def _change(self, name: str, stamp: str | None) -> None:
        try:
            with uninterruptible():
                done = promote(self.workspace, name) if name else rollback(self.workspace, stamp)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self.show_message, error_text(problem), "error")
            return
        self.app.call_from_thread(self._changed, done.name, done.backup.rpartition(".")[2])

    def _changed(self, name: str, backup: str) -> None:
        self._undo = backup
        self.show_message(
            _("In use now: {name}. u takes it back.").format(name=name or _("no model")), "success"
        )
        self._load()
