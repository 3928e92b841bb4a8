"""The line below the list (a run, a suggested rule, or the funnel) and the text of an empty list."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from textual import events, on, work
from textual.content import Content
from textual.message import Message

from engine.core.errors import H2QError
from engine.core.i18n import _, n_
from engine.corpus.enums import CorpusStage
from engine.corpus.review.rule_suggestions import RuleSuggestion
from engine.runs.events import Funnel
from engine.runs.kinds import KINDS, RunKind
from tui.host.corpus_text import rule_suggestion_text
from tui.host.run_follower import RunBoard
from tui.screens.ask import Confirm
from tui.tabs.corpus.decisions import DecisionRecorder
from tui.tabs.corpus.reader import CorpusReader
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

PREPARING = tuple(
    kind for kind, info in KINDS.items() if (info.imports or info.builds_corpus) and not info.trains
)
"""Kinds that only import or filter conversations."""
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

        def __init__(self, funnel: Funnel) -> None:
            super().__init__()
            self.funnel = funnel

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
            line = run_line(self.host.board, glyphs) or figures_line(
                self.funnel, self.in_memory, width, glyphs
            )
        self.set_lines([line])

    @work(group="corpus:figures", exclusive=True, exit_on_error=False)
    async def refresh_figures(self) -> None:
        """Reads the funnel again after the last of several decisions."""
        await asyncio.sleep(FIGURES_DELAY_S)
        try:
            funnel = await self.reader.funnel()
        except (H2QError, sqlite3.Error):
            # The writer reports the problem; the figures stay.
            return
        self.post_message(self.FunnelRead(funnel))

    @on(FunnelRead)
    def _funnel_read(self, message: FunnelRead) -> None:
        message.stop()
        self.funnel = message.funnel
        self.draw()

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


def run_line(board: RunBoard, glyphs: Glyphs) -> Content | None:
    """The run that imports or filters conversations now, with its progress."""
    for run in board.live:
        if run.kind not in PREPARING:
            continue
        view = board.view(run.run_id)
        progress = view.progress if view is not None else None
        parts = [f"{glyphs.status(run.status)} {_(KINDS[RunKind(run.kind)].title)} {run.run_id}"]
        if progress is not None:
            total = f" / {progress.total:,.0f}" if progress.total else ""
            parts.append(f"{progress.done:,.0f}{total} {progress.unit}".rstrip())
            if progress.eta_s is not None:
                parts.append(_("about {s} s left").format(s=f"{progress.eta_s:.0f}"))
        return safe(" " + "   ".join(parts), "$text-accent")
    return None


def figures_line(funnel: Funnel | None, in_memory: int, width: int, glyphs: Glyphs) -> Content:
    """The funnel, or that memory has more conversations than the corpus."""
    if funnel is None or not funnel.collected:
        return Content("")
    new = in_memory - funnel.collected
    if new > 0:
        text = _("{n} conversations in memory are not in the corpus yet; b builds it").format(n=f"{new:,}")
        return safe(f" {text}", "$text-warning")
    return safe(f" {funnel_line(funnel, width, glyphs.cursor)}")


def empty_text(*, problem: str, damaged: bool, filter_: str, collected: int, in_memory: int) -> Content:
    """What would be in the list, and the key that fills or repairs it."""
    if problem:
        lines = [safe(problem, "$text-error"), safe(_("R   try again"))]
        if damaged:
            lines.append(safe(_("B   restore the newest backup; the current file is kept next to it")))
    elif filter_ and collected:
        lines = [
            safe(_("Nothing under /{filter}.").format(filter=filter_), "bold"),
            safe(_("esc   clear the filter")),
            safe(_("/     another one, e.g. stage:near  state:pending  lang:zh  len>400  words")),
        ]
    elif in_memory:
        count = f"{in_memory:,}"
        lines = [
            safe(_("{n} conversations are in memory; the corpus is not built yet.").format(n=count), "bold"),
            safe(_("b   build it: filters, duplicates, test set")),
        ]
    else:
        lines = [
            safe(_("No conversations yet. This tab filters them and lets you review them."), "bold"),
            safe(_("i   import a ChatGPT export, ShareGPT, Alpaca, OpenAI messages or text")),
            safe(_("Or write a sample to start from:  h2q-tui sample")),
        ]
    return Content("\n\n").join(lines)


def funnel_line(funnel: Funnel, width: int, cursor: str = "▸") -> str:
    """ "collected 1,880 ▸ low value −214 ▸ sensitive −31 (118 redacted) ▸ duplicates −96 ▸ 1,539", as much of it
    as fits."""
    unpaired, low = funnel.dropped.get(CorpusStage.COLLECT, 0), funnel.dropped.get(CorpusStage.LOW_VALUE, 0)
    private = funnel.dropped.get(CorpusStage.SENSITIVE, 0) + funnel.dropped.get(CorpusStage.INJECTION, 0)
    middle: list[str] = []
    least: list[str] = []
    """What goes first when the line is too long: it takes nothing away."""
    if unpaired:
        middle.append(_("no pair −{n}").format(n=f"{unpaired:,}"))
    if low:
        middle.append(_("low value −{n}").format(n=f"{low:,}"))
    if private and funnel.redacted:
        middle.append(_("PII −{n} ({r} redacted)").format(n=f"{private:,}", r=f"{funnel.redacted:,}"))
    elif private:
        middle.append(_("PII −{n}").format(n=f"{private:,}"))
    elif funnel.redacted:
        least.append(_("{r} redacted").format(r=f"{funnel.redacted:,}"))
        middle += least
    if funnel.duplicates:
        middle.append(_("duplicates −{n}").format(n=f"{funnel.duplicates:,}"))
    if funnel.rejected:
        middle.append(_("rejected −{n}").format(n=f"{funnel.rejected:,}"))
    last = f"{funnel.accepted:,}"
    tails = [
        _(" (train {train}, test {test})").format(train=f"{funnel.train:,}", test=f"{funnel.test:,}"),
        "",
    ]
    if funnel.pending:
        tails = [_(", {n} pending").format(n=f"{funnel.pending:,}") + tail for tail in tails] + [""]
    first = _("collected {n}").format(n=f"{funnel.collected:,}")
    for parts in (middle, [part for part in middle if part not in least], middle[-2:], middle[-1:], []):
        for tail in tails:
            line = f" {cursor} ".join([first, *parts, last]) + tail
            if cells(line) <= width:
                return line
    return last
