"""What a person does with one exchange of the chat: keep it, correct it, walk its versions, vote."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from textual.app import SuspendNotSupported

from engine.chats.record import ChatAnswer, ChatExchange, ChatRecord, tally
from engine.chats.store import read_chats
from engine.core.errors import H2QError, error_text
from engine.core.i18n import _
from tui.host.external_editor import edit_externally, editor_command
from tui.screens.edit_text import EditText
from tui.tabs.chat import reader

if TYPE_CHECKING:
    from textual.app import App

    from engine.core.paths import Workspace
    from tui.host.app_host import AppHost
    from tui.tabs.chat.transcript import Transcript


class TurnHost(Protocol):
    """The Chat tab, as these actions see it."""

    host: AppHost
    workspace: Workspace
    record: ChatRecord
    view: Transcript
    selected: int

    @property
    def app(self) -> App[Any]: ...

    @property
    def exchange(self) -> ChatExchange | None:
        """The exchange that keys act on."""

    def redraw_selected(self) -> None:
        """Draws it again."""

    def draw_status(self) -> None:
        """Draws the line of figures again."""

    def save(self) -> object:
        """Writes the chat into the history."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer."""

    def run_worker(self, work: Coroutine[Any, Any, None], *, group: str, exit_on_error: bool) -> object:
        """Runs a coroutine beside the app."""


class _KeptTurn(NamedTuple):
    """What `undo` takes back."""

    record: ChatRecord
    exchange: ChatExchange
    kept: int | None
    """The version that was in memory before."""
    shown: int
    """The version that was shown before."""
    corrected: ChatAnswer | None
    """The version that the person wrote, or None."""


class TurnActions:
    """The actions on the selected exchange."""

    def __init__(self, tab: TurnHost) -> None:
        self.tab = tab
        self._last_kept: _KeptTurn | None = None
        self._writing = asyncio.Lock()
        """One change of memory after the other: each needs the id that the one before gave."""

    @property
    def can_undo(self) -> bool:
        """Whether the last turn that was kept in this chat can be taken back."""
        return self._last_kept is not None and self._last_kept.record is self.tab.record

    def undo(self) -> None:
        """Takes the turn that was kept last out of memory, and a correction out of the chat."""
        last, self._last_kept = self._last_kept, None
        if last is None or last.record is not self.tab.record:
            return
        exchange = last.exchange
        exchange.kept = last.kept
        if last.corrected is not None and exchange.answers[-1] is last.corrected:
            exchange.show(last.shown)
            exchange.answers.pop()
        self._run(self._take_back(last.record), "chat:keep")

    async def _take_back(self, record: ChatRecord) -> None:
        tab = self.tab
        try:
            async with self._writing:
                record.memory_id = await asyncio.to_thread(reader.take_from_memory, tab.workspace, record)
        except (H2QError, OSError) as problem:
            tab.show_message(error_text(problem), "error")
        else:
            tab.show_message(_("Taken out of memory."), "success")
            tab.save()
        tab.redraw_selected()

    def select(self, step: int) -> None:
        """Selects the exchange `step` further."""
        tab = self.tab
        last = len(tab.record.exchanges) - 1
        if last >= 0:
            tab.selected = max(0, min(last, tab.selected + step))
            tab.view.select(tab.selected)
            tab.draw_status()
            tab.host.refresh_footer()

    def show_version(self, step: int) -> None:
        """Shows the version `step` further."""
        exchange = self.tab.exchange
        if exchange is not None and exchange.show(exchange.shown + step):
            self.tab.redraw_selected()
            self.tab.save()

    def vote(self, choice: str) -> None:
        """The better answer, left, right or "equal"; then both models are named, with the votes so far."""
        exchange = self.tab.exchange
        if exchange is None or exchange.vote(choice) is None or exchange.pair is None:
            return
        self.tab.redraw_selected()
        self.tab.save()
        one, other = (exchange.answers[version].model for version in exchange.pair)
        self._run(self._say_tally(one, other), "chat:tally")

    async def _say_tally(self, one: str, other: str) -> None:
        chats = await asyncio.to_thread(lambda: list(read_chats(self.tab.workspace)))
        # The chat on the screen may not be written yet.
        chats = [chat for chat in chats if chat.id != self.tab.record.id]
        first, second, equal = tally([*chats, self.tab.record], one, other)
        self.tab.show_message(
            _("{one} {a} : {b} {other}, {n} equal").format(one=one, a=first, b=second, other=other, n=equal),
            "success",
        )

    def keep(self) -> None:
        """The question with the answer shown becomes part of a conversation in memory."""
        exchange = self.tab.exchange
        if exchange is not None and exchange.text and not exchange.is_kept:
            self._keep(exchange, _("Stored in memory; the next corpus build includes it."))

    def _keep(
        self,
        exchange: ChatExchange,
        message: str,
        shown: int | None = None,
        corrected: ChatAnswer | None = None,
    ) -> None:
        """`shown` and `corrected` are what a correction has changed before."""
        before, exchange.kept = exchange.kept, exchange.shown
        was_shown = exchange.shown if shown is None else shown
        self._last_kept = _KeptTurn(self.tab.record, exchange, before, was_shown, corrected)
        self._run(self._store(exchange, before, message), "chat:keep")

    async def _store(self, exchange: ChatExchange, before: int | None, message: str) -> None:
        tab, record = self.tab, self.tab.record
        try:
            async with self._writing:
                record.memory_id = await asyncio.to_thread(reader.keep_in_memory, tab.workspace, record)
        except (H2QError, OSError) as problem:
            exchange.kept, self._last_kept = before, None
            tab.show_message(error_text(problem), "error")
        else:
            tab.show_message(message, "success")
            tab.save()
        if record is tab.record:
            tab.view.redraw(record.place_of(exchange))
        tab.host.refresh_footer()

    def edit(self) -> None:
        """Corrects the answer in the user's editor, or in place."""
        tab, exchange = self.tab, self.tab.exchange
        if exchange is None or not exchange.text:
            return
        command = editor_command()
        if command:
            try:
                folder = tab.workspace.memory_db.parent
                folder.mkdir(parents=True, exist_ok=True)
                text = edit_externally(tab.host.suspend, command, exchange.text, folder)
            except SuspendNotSupported:
                command = []
            except (H2QError, OSError) as problem:
                tab.show_message(error_text(problem), "error")
                return
            else:
                self._correct(exchange, text)
        if not command:
            title = _("The answer as it should be")
            tab.app.push_screen(
                EditText(title, exchange.text), lambda written: self._correct(exchange, written)
            )

    def _correct(self, exchange: ChatExchange, text: str | None) -> None:
        if text is None or not text.strip() or text == exchange.text:
            return
        shown = exchange.shown
        corrected = exchange.correct(text)
        self.tab.redraw_selected()
        message = _("Your version is in memory, the model's stays beside it.")
        self._keep(exchange, message, shown, corrected)

    def _run(self, work: Coroutine[Any, Any, None], group: str) -> None:
        self.tab.run_worker(work, group=group, exit_on_error=False)
