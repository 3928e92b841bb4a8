"""The Corpus tab: the list of conversations, the one under the cursor with its reasons, and the person's verdicts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ClassVar, TypeVar

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from engine.config import save_settings
from engine.corpus.review import Decision, Order, ReviewDetail, ReviewItem, ReviewStore
from engine.corpus.states import State
from engine.errors import BadInput, H2QError
from engine.i18n import N_, _, n_
from engine.memory.store import MemoryStore
from engine.paths import Workspace
from engine.runs.events import Funnel
from engine.runs.spec import RunKind
from tui import personal
from tui.actions import Action
from tui.follow import RunUpdated
from tui.screens.ask import AskLine, Confirm
from tui.screens.import_files import start_build
from tui.tabs.base import Tab
from tui.text import safe
from tui.verdicts import Job, VerdictQueue
from tui.widgets.conversation import ConversationView
from tui.widgets.lines import Lines
from tui.widgets.review_words import REJECT_REASONS, blocks_of, funnel_line, row_of, title_of
from tui.widgets.table import VirtualList

T = TypeVar("T")
AHEAD = 4
"""Conversations below the cursor that are read ahead, so that the next one is painted at once."""
KEPT_DETAILS = 64
MAKING = (RunKind.IMPORT, RunKind.CORPUS, RunKind.TRAIN, RunKind.DEMO)
"""Kinds of runs that change the corpus."""
ORDER_WORDS = {
    Order.NEWEST: N_("newest first"),
    Order.OLDEST: N_("oldest first"),
    Order.LONGEST: N_("longest first"),
    Order.SHORTEST: N_("shortest first"),
    Order.BEST: N_("best first"),
    Order.WORST: N_("worst first"),
}


class CorpusTab(Tab):
    """All reading happens in one thread of its own, all writing in another (`VerdictQueue`)."""

    TAB_ID: ClassVar[str] = "corpus"
    TITLE: ClassVar[str] = N_("Corpus")
    FIRST_FOCUS: ClassVar[str] = "#corpus-list"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.filter = ""
        self.order = Order.NEWEST
        self.funnel: Funnel | None = None
        self.in_memory = 0
        """Conversations in memory, whether the corpus has them or not."""
        self.items: dict[str, ReviewItem] = {}
        """Lines that were read, with the verdicts of this session laid over them."""
        self.details: OrderedDict[str, ReviewDetail] = OrderedDict()
        self._raw = self._why = self._twin = False
        self._shown_id = ""
        self._store = ReviewStore(workspace.memory_db, readonly=True)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="corpus-read")
        self._writer = VerdictQueue(
            workspace.memory_db,
            lambda: self._from_thread(self._writing_changed),
            lambda text: self._from_thread(self._refused, text),
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="corpus-panels"):
            yield VirtualList((2, 0, 10), id="corpus-list", classes="panel")
            yield ConversationView(id="corpus-view", classes="panel")
        yield Static(id="corpus-empty")
        yield Lines(id="corpus-funnel")

    def on_mount(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = self.set_interval(0.1, self._writing_changed, pause=True)
        self._name_list()

    async def on_unmount(self) -> None:
        left = await asyncio.to_thread(self._writer.close)
        if left and self.is_running:
            self.say(
                _("{n} verdicts could not be written: {why}").format(n=left, why=self._writer.problem), "act"
            )
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    def shown(self) -> None:
        self._load()

    def runs_changed(self) -> None:
        self._load()

    def run_updated(self, message: RunUpdated) -> None:
        if message.view.spec is not None and message.view.spec.kind in MAKING:
            self._draw_funnel()

    def take_over(self, before: Tab) -> None:
        if isinstance(before, CorpusTab):
            self.filter, self.order = before.filter, before.order

    @property
    def table(self) -> VirtualList:
        return self.query_one(VirtualList)

    @property
    def view(self) -> ConversationView:
        return self.query_one(ConversationView)

    # Reading

    async def _read(self, work: Callable[[], T]) -> T:
        """`work` in the reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    @work(group="corpus:load", exclusive=True, exit_on_error=False)
    async def _load(self) -> None:
        """The whole list anew: ids, figures, and the rows that are seen."""
        try:
            ids = await self._read(partial(self._store.ids, self.filter, self.order))
            self.funnel = await self._read(self._store.funnel)
            self.in_memory = await self._read(self._count_memory)
        except (H2QError, sqlite3.Error) as problem:
            self._draw_empty(str(problem))
            return
        self.items.clear()
        self.details.clear()
        self.table.forget_rows()
        self._shown_id = ""
        self.table.show(ids)
        self._name_list()
        self._draw_empty()
        self._draw_funnel()
        self._look()
        self.h2q.refresh_footer()

    def _count_memory(self) -> int:
        with MemoryStore(self.workspace.memory_db, readonly=True) as store:
            return store.count()

    @on(VirtualList.Wanted)
    def _wanted(self, message: VirtualList.Wanted) -> None:
        message.stop()
        self._fill(list(message.ids))

    @work(group="corpus:rows", exit_on_error=False)
    async def _fill(self, ids: list[str]) -> None:
        try:
            items = await self._read(partial(self._items, ids))
        except sqlite3.Error as problem:
            self.say(str(problem), "act")
            return
        for item in items:
            # A verdict that is still on its way holds over what was read.
            self.items.setdefault(item.id, item)
        self.table.fill(row_of(self.items[item.id], self.h2q.signs) for item in items)

    def _items(self, ids: Sequence[str]) -> list[ReviewItem]:
        found = []
        for id_ in ids:
            try:
                found.append(self._store.item(id_))
            except BadInput:
                continue
        return found

    @on(VirtualList.Highlighted)
    def _highlighted(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self._twin = False
        self._look()

    def _look(self) -> None:
        """Paints the conversation under the cursor if it has been read, and reads it and the next ones."""
        id_ = self.table.cursor_id
        if id_ in self.details:
            self._draw_detail()
        index = self.table.index
        wanted = [one for one in self.table.ids[index : index + 1 + AHEAD] if one not in self.details]
        if wanted:
            self._read_details(wanted)
        if not id_:
            self.view.border_title = ""
            self.view.set_blocks([])

    @work(group="corpus:detail", exclusive=True, exit_on_error=False)
    async def _read_details(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            try:
                detail = await self._read(partial(self._store.detail, id_))
            except BadInput:
                continue
            except sqlite3.Error as problem:
                self.say(str(problem), "act")
                return
            self._keep(detail)
            if id_ == self.table.cursor_id:
                self._draw_detail()

    def _keep(self, detail: ReviewDetail) -> None:
        self.details[detail.item.id] = detail
        self.details.move_to_end(detail.item.id)
        while len(self.details) > KEPT_DETAILS:
            self.details.popitem(last=False)

    # Drawing

    def _draw_detail(self, *, again: bool = False) -> None:
        """The right pane; `again` when the same conversation is drawn another way."""
        detail = self.details.get(self.table.cursor_id)
        if detail is None or (detail.item.id == self._shown_id and not again):
            return
        item = self.items.get(detail.item.id, detail.item)
        detail = msgspec.structs.replace(detail, item=item)
        twin_id = self._twin_of(detail) if self._twin else ""
        twin = self.details.get(twin_id)
        if twin_id and twin is None:
            self._read_twin(twin_id)
        self.view.border_title = safe(title_of(item)).plain
        blocks = blocks_of(detail, self.h2q.signs, raw=self._raw, why=self._why, twin=twin)
        if item.id == self._shown_id:
            at = self.view.scroll_offset.y
            self.view.set_blocks(blocks)
            self.view.scroll_to(y=at, animate=False, force=True)
        else:
            self.view.set_blocks(blocks)
        self._shown_id = item.id
        self.h2q.refresh_footer()

    @work(group="corpus:twin", exclusive=True, exit_on_error=False)
    async def _read_twin(self, twin: str) -> None:
        try:
            self._keep(await self._read(partial(self._store.detail, twin)))
        except BadInput:
            self.say(_("The twin is no longer in the corpus."), "watch")
            self._twin = False
            return
        self._draw_detail(again=True)

    def _twin_of(self, detail: ReviewDetail) -> str:
        """The conversation that this one duplicates, else the first of its group, else ""."""
        twins = [detail.item.twin or "", *(row.twin or "" for row in detail.why), *detail.kin]
        return next((twin for twin in twins if twin), "")

    def _name_list(self) -> None:
        """The title of the list with the chip of the filter."""
        chip = f"  /{self.filter}" if self.filter else ""
        order = f"  {_(ORDER_WORDS[self.order])}" if self.order is not Order.NEWEST else ""
        count = f"  {len(self.table.ids):,}" if self.table.ids else ""
        self.table.border_title = safe(_("Conversations") + count + chip + order).plain

    def _draw_funnel(self) -> None:
        line = self.query_one("#corpus-funnel", Lines)
        making = self._making()
        if making is not None:
            line.show([making])
            return
        funnel, width = self.funnel, max(20, self.size.width - 2)
        if funnel is None or not funnel.collected:
            line.show([Content("")])
            return
        text = funnel_line(funnel, width, self.h2q.signs.cursor)
        new = self.in_memory - funnel.collected
        if new > 0:
            text = _("{n} conversations in memory are not in the corpus yet: b builds it").format(
                n=f"{new:,}"
            )
        line.show([safe(f" {text}", "$text-warning" if new > 0 else "")])

    def _making(self) -> Content | None:
        """The run that brings or filters conversations now, with how far it is."""
        for run in self.h2q.board.live:
            if run.kind not in MAKING[:2]:
                continue
            view = self.h2q.board.view(run.run_id)
            progress = view.progress if view is not None else None
            parts = [f"{self.h2q.signs.status(run.status)} {run.kind} {run.run_id}"]
            if progress is not None:
                done = f"{progress.done:,.0f}"
                parts.append(
                    f"{done} / {progress.total:,.0f} {progress.unit}"
                    if progress.total
                    else f"{done} {progress.unit}"
                )
                if progress.eta_s is not None:
                    parts.append(_("about {s} s left").format(s=f"{progress.eta_s:.0f}"))
            return safe(" " + "   ".join(parts), "$accent")
        return None

    def _draw_empty(self, problem: str = "") -> None:
        """What an empty list says instead."""
        empty = bool(problem) or not self.table.ids
        self.query_one("#corpus-panels").display = not empty
        widget = self.query_one("#corpus-empty", Static)
        widget.display = empty
        if not empty:
            return
        collected = self.funnel.collected if self.funnel is not None else 0
        if problem:
            lines = [safe(problem, "$text-error"), safe(_("R tries again."))]
        elif self.filter and collected:
            lines = [
                safe(_("Nothing under /{filter}.").format(filter=self.filter), "bold"),
                safe(_("esc   clear the filter")),
                safe(_("/     another one, e.g. stage:near  state:pending  lang:zh  len>400  words")),
            ]
        elif self.in_memory:
            lines = [
                safe(
                    _("{n} conversations are in memory; the corpus is not built yet.").format(
                        n=f"{self.in_memory:,}"
                    ),
                    "bold",
                ),
                safe(_("b   build it: filters, duplicates, what is kept back to judge")),
            ]
        else:
            lines = [
                safe(_("No conversations yet. Here they would be filtered and reviewed by you."), "bold"),
                safe(_("i   import a ChatGPT export, ShareGPT, Alpaca, OpenAI messages or text")),
                safe(_("Or write a sample to start from:  h2q-tui sample")),
            ]
        widget.update(Content("\n\n").join(lines))

    def on_resize(self) -> None:
        self._draw_funnel()

    # Verdicts

    def can(self, row: Action) -> bool:
        item = bool(self.table.ids)
        detail = self.details.get(self.table.cursor_id)
        rules = {
            "accept": item,
            "reject": item,
            "skip": item,
            "diff": item,
            "why": item,
            "range": item,
            "accept_all": item,
            "reject_all": item,
            "order": item,
            "copy": item,
            "twin": detail is not None and bool(self._twin_of(detail)),
            "build": self.in_memory > 0 and not self._building(),
            "filter": self.funnel is not None and self.funnel.collected > 0,
        }
        return rules.get(row.verb, True)

    def _building(self) -> bool:
        return any(run.kind == RunKind.CORPUS for run in self.h2q.board.live)

    def action_accept(self) -> None:
        self._decide(State.ACCEPTED, "")

    def action_reject(self) -> None:
        """Asks for the reason in one line; a digit or enter answers."""
        count = len(self.table.marked)
        question = _("Reject {n}, because").format(n=count) if count > 1 else _("Reject, because")
        self._ask_reason(question, partial(self._decide, State.REJECTED))

    def _ask_reason(self, question: str, then: Callable[[str], None]) -> None:
        def answered(reason: str | None) -> None:
            if reason is not None:
                then(reason)

        choices = [(code, _(words)) for code, words in REJECT_REASONS]
        self.app.push_screen(AskLine(question, choices=choices), answered)

    def _decide(self, verdict: State, reason: str) -> None:
        """Lays the verdict over the screen at once, and puts it in the queue to be written."""
        ids = list(self.table.marked) or [self.table.cursor_id]
        if ids == [""]:
            return
        after = max(self.table.ids.index(ids[-1]), self.table.index) + 1
        self.table.mark(False)
        self._lay_over(ids, verdict)
        if len(ids) == 1:
            id_ = ids[0]
            self._put(lambda store: [store.decide(id_, verdict, reason)], 1)
        else:
            self._put(lambda store: store.decide_many(ids, verdict, reason), len(ids))
        if after < len(self.table.ids):
            self.table.move_to(after)
        else:
            self._draw_detail(again=True)

    def _lay_over(self, ids: Sequence[str], state: str) -> None:
        rows = []
        for id_ in ids:
            item = self.items.get(id_)
            if item is not None:
                self.items[id_] = item = msgspec.structs.replace(item, state=str(state))
                rows.append(row_of(item, self.h2q.signs))
        self.table.fill(rows)

    def _put(
        self, work: Callable[[ReviewStore], Sequence[Decision]], count: int, *, follow: bool = False
    ) -> None:
        def done(decisions: Sequence[Decision]) -> None:
            self._from_thread(self._written, decisions, follow)

        self._writer.put(Job(work, done, count))
        self._late.resume()

    def _from_thread(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    def _written(self, decisions: Sequence[Decision], follow: bool) -> None:
        """Verdicts are on disk; `follow` (undo, redo) puts the cursor on what changed."""
        for decision in decisions:
            self.details.pop(decision.id, None)
        self._refresh_figures()
        if follow:
            if not decisions:
                self.say(_("There is nothing more to undo or redo."))
                return
            self._reread([decision.id for decision in decisions])

    @work(group="corpus:reread", exit_on_error=False)
    async def _reread(self, ids: Sequence[str]) -> None:
        """Lines as the database has them now."""
        items = await self._read(partial(self._items, ids))
        self.items.update((item.id, item) for item in items)
        self.table.fill(row_of(item, self.h2q.signs) for item in items)
        if ids and not self.table.move_to_id(ids[0]):
            self.say(_("It is not under this filter; esc clears it."), "watch")
        self._shown_id = ""
        self._look()

    @work(group="corpus:figures", exclusive=True, exit_on_error=False)
    async def _refresh_figures(self) -> None:
        # Verdicts come in bursts; the figures follow the last one.
        await asyncio.sleep(0.3)
        self.funnel = await self._read(self._store.funnel)
        self._draw_funnel()

    def _refused(self, sentence: str) -> None:
        self.say(sentence, "act")
        self._load()

    def _writing_changed(self) -> None:
        if not self._writer.unwritten:
            self._late.pause()
        self.h2q.refresh_footer()

    def notice(self) -> Content | None:
        """Verdicts that are not on disk yet, when that takes longer than it should."""
        if not self._writer.late:
            return None
        count = self._writer.unwritten
        if self._writer.problem:
            text = n_(
                "{n} verdict is not written yet ({why}); it is kept and tried again",
                "{n} verdicts are not written yet ({why}); they are kept and tried again",
                count,
            )
            return safe(" " + text.format(n=count, why=self._writer.problem), "$text-error")
        text = n_("{n} verdict is being written", "{n} verdicts are being written", count)
        return safe(" " + text.format(n=count), "$text-warning")

    def action_undo(self) -> None:
        self._put(lambda store: store.undo(), 1, follow=True)

    def action_redo(self) -> None:
        self._put(lambda store: store.redo(), 1, follow=True)

    def action_skip(self) -> None:
        self.table.action_move(1)

    def action_range(self) -> None:
        """Marks from here on; again ends it."""
        self.table.mark(not self.table.marked)
        if self.table.marked:
            self.say(_("Marked from here: move, then a or x takes all; v ends it."))

    def action_accept_all(self) -> None:
        count, where = len(self.table.ids), self._under()
        question = _("Accept all {n} {where}?").format(n=f"{count:,}", where=where)

        def answered(yes: bool | None) -> None:
            if yes:
                self._decide_all(State.ACCEPTED, "")

        self.app.push_screen(Confirm(question), answered)

    def action_reject_all(self) -> None:
        question = _("Reject all {n} {where}, because").format(
            n=f"{len(self.table.ids):,}", where=self._under()
        )
        self._ask_reason(question, partial(self._decide_all, State.REJECTED))

    def _under(self) -> str:
        return _("under /{filter}").format(filter=self.filter) if self.filter else _("in the corpus")

    def _decide_all(self, verdict: State, reason: str) -> None:
        ids = list(self.table.ids)
        self._lay_over(ids, verdict)
        self._put(lambda store: store.decide_many(ids, verdict, reason), len(ids))
        self._draw_detail(again=True)

    # Looking

    def action_diff(self) -> None:
        """As it is trained on, or as it came."""
        self._raw = not self._raw
        self._draw_detail(again=True)

    def action_why(self) -> None:
        self._why = not self._why
        self._draw_detail(again=True)
        self.view.action_scroll_top()

    def action_twin(self) -> None:
        self._twin = not self._twin
        self._draw_detail(again=True)
        if self._twin:
            self.call_after_refresh(self.view.action_scroll_bottom)

    def action_order(self) -> None:
        orders = list(Order)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self._load()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.view.shown_text)
        self.say(_("copied"))

    def action_filter(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._set_filter(text)

        self.app.push_screen(
            AskLine(_("Filter: stage: state: lang: reason: len> or words"), self.filter), answered
        )

    def action_back(self) -> None:
        if self.table.marked:
            self.table.mark(False)
        elif self.filter:
            self._set_filter("")
        else:
            self.table.focus()

    def _set_filter(self, text: str) -> None:
        self.filter = text
        self._load()

    # Making

    def action_refresh(self) -> None:
        self._load()

    def action_import(self) -> None:
        self.h2q.run_worker(personal.ask_import(self.h2q), group="import", exit_on_error=False)

    @work(thread=True, group="corpus:build", exclusive=True, exit_on_error=False)
    def action_build(self) -> None:
        """Runs the filters again over everything in memory; verdicts stay."""
        try:
            run = start_build(self.workspace)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self.say, str(problem), "act")
            return
        self.app.call_from_thread(self.say, _("building the corpus: run {run}").format(run=run.run_id))

    def action_threshold(self) -> None:
        """How alike near duplicates are; the corpus is built again with it."""
        value = f"{self.h2q.settings.near_threshold:g}"
        question = _("Near duplicates share at least (0.3 to 1)")
        self.app.push_screen(AskLine(question, value, check=_check_threshold), self._threshold_given)

    def _threshold_given(self, text: str | None) -> None:
        if text is None:
            return
        settings = msgspec.structs.replace(self.h2q.settings, near_threshold=float(text))
        try:
            save_settings(self.workspace, settings)
        except (H2QError, OSError) as problem:
            self.say(str(problem), "act")
            return
        personal.apply_settings(self.h2q, settings)
        self.action_build()


def _check_threshold(text: str) -> str:
    try:
        good = 0.3 <= float(text) <= 1
    except ValueError:
        good = False
    return "" if good else _("a number from 0.3 to 1, e.g. 0.8")
