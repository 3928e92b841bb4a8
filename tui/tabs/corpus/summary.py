"""The line below the list: a run, a suggested rule, or the funnel."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from textual import events, on, work
from textual.message import Message

from engine.core.errors import H2QError
from engine.core.i18n import _, n_
from engine.corpus.review.rule_suggestions import RuleSuggestion
from engine.runs.events import Funnel
from engine.runs.kinds import KINDS, RunKind
from tui.host.corpus_text import rule_suggestion_text
from tui.screens.ask import Confirm
from tui.tabs.corpus.decisions import DecisionRecorder
from tui.tabs.corpus.reader import CorpusReader
from tui.tabs.corpus.summary_text import figures_line, run_line
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

FIGURES_DELAY_S = 0.3
"""Decisions come in bursts; the figures follow the last one."""
SUGGESTION_DELAY_S = 0.6
"""Without another rejection, before the rejections are compared."""


def changes_corpus(kind: RunKind) -> bool:
    """Whether a run of `kind` changes what the Corpus tab shows."""
    return KINDS[kind].imports or KINDS[kind].builds_corpus


class CorpusSummary(CellLines):
    """One line: the run in progress, else a suggested rule, else the funnel."""

    class FunnelRead(Message):
        """The figures after decisions."""

        def __init__(self, funnel: Funnel, reviewed: set[str]) -> None:
            super().__init__()
            self.funnel = funnel
            self.reviewed = reviewed
            """The conversations that the user accepted or rejected."""

    class PatternsRead(Message):
        """What the rejections have in common."""

        def __init__(self, patterns: list[RuleSuggestion]) -> None:
            super().__init__()
            self.patterns = patterns

    def __init__(self, host: AppHost, reader: CorpusReader) -> None:
        super().__init__(id="corpus-funnel")
        self.host = host
        self.reader = reader
        self.funnel: Funnel | None = None
        self.in_memory = 0
        self.pattern: RuleSuggestion | None = None
        """What the rejections have in common and the user has not answered yet."""
        self._declined: set[str] = set()

    @property
    def collected(self) -> int:
        """Conversations that the last build read; 0 before the first one."""
        return self.funnel.collected if self.funnel is not None else 0

    def on_resize(self, _event: events.Resize) -> None:
        self.draw()

    def draw(self) -> None:
        glyphs = self.host.glyphs
        if self.pattern is not None:
            text = f" {rule_suggestion_text(self.pattern)}   " + _("F makes it a rule")
            line = safe(text, "$text-accent")
        else:
            width = max(20, self.size.width - 2)
            in_memory = 0 if self.host.preparing else self.in_memory
            line = run_line(self.host.board, glyphs) or figures_line(self.funnel, in_memory, width, glyphs)
        self.set_lines([line])

    @work(group="corpus:figures", exclusive=True, exit_on_error=False)
    async def refresh_figures(self) -> None:
        """Reads the funnel again after the last of several decisions."""
        await asyncio.sleep(FIGURES_DELAY_S)
        try:
            funnel, reviewed = await self.reader.funnel(), await self.reader.reviewed()
        except (H2QError, sqlite3.Error):
            # The writer reports the problem; the figures stay.
            return
        self.post_message(self.FunnelRead(funnel, reviewed))

    @on(FunnelRead)
    def _funnel_read(self, message: FunnelRead) -> None:
        self.funnel = message.funnel
        self.draw()
        self.host.refresh_next_step()

    @work(group="corpus:pattern", exclusive=True, exit_on_error=False)
    async def look_for_pattern(self) -> None:
        """Compares the rejections after the last of several."""
        await asyncio.sleep(SUGGESTION_DELAY_S)
        try:
            patterns = await self.reader.suggest_rules()
        except (H2QError, sqlite3.Error) as problem:
            self.host.show_message(str(problem), "error")
            return
        self.post_message(self.PatternsRead(patterns))

    @on(PatternsRead)
    def _patterns_read(self, message: PatternsRead) -> None:
        message.stop()
        self.pattern = next((one for one in message.patterns if one.line not in self._declined), None)
        self.draw()
        self.host.refresh_footer()

    def ask_rule(self, recorder: DecisionRecorder) -> None:
        """Makes a rule of what the rejections have in common, after saying what it would do."""
        pattern = self.pattern
        if pattern is None:
            return
        question = n_(
            "{words}. Reject {n} other and all future matches?",
            "{words}. Reject {n} others and all future matches?",
            pattern.others,
        ).format(words=rule_suggestion_text(pattern), n=f"{pattern.others:,}")

        def answered(yes: bool | None) -> None:
            if yes:
                recorder.submit(lambda store: store.set_rule(pattern.line), max(1, pattern.others))
                text = _("rule active: {line}; u undoes it").format(line=pattern.line)
                self.host.show_message(text, "success")
            self._declined.add(pattern.line)
            self.pattern = None
            self.draw()

        self.host.push_screen(Confirm(question), answered)
