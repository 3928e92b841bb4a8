"""The sheet of earlier chats: the newest first, searched while the words are typed."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.chats.store import ChatStore, ChatSummary, find_chats
from engine.core.i18n import _, n_
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from tui.screens.ask import Confirm
from tui.terminal.text import fit, one_line, safe
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList


class HistorySheet(ModalScreen[str | None]):
    """Returns the id of a chat, or None. `x` deletes the chat under the cursor, after asking."""

    DEFAULT_CSS = """
    HistorySheet { align: center middle; }
    HistorySheet > Vertical { width: 96%; max-width: 110; height: 90%; border: round $accent; padding: 0 1;
        background: $surface; }
    HistorySheet Static { height: 1; color: $foreground-muted; }
    HistorySheet Input { background: $surface; }
    HistorySheet VirtualList { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False, priority=True),
        Binding("enter,space", "accept", show=False),
        Binding("x", "delete", show=False),
        Binding("slash", "search", show=False),
        Binding("q", "close", show=False),
    ]

    class ChatsFound(Message):
        """The chats that the words are in."""

        def __init__(self, chats: list[ChatSummary]) -> None:
            super().__init__()
            self.chats = chats

    def __init__(
        self, workspace: Workspace, store: ChatStore, *, search: bool = False, read_only: bool = False
    ) -> None:
        """`search`: the field has the focus first; `read_only`: nothing is deleted."""
        super().__init__()
        self._read_only = read_only
        self._workspace = workspace
        self._store = store
        self._search = search
        self._chats: dict[str, ChatSummary] = {}
        self._words = ""
        self._field = Input(placeholder=_("search"), compact=True, id="history-field")
        self._table = VirtualList((13, 0, 5, 18))
        self._excerpt = Static(id="history-excerpt")
        self._keys = Static(id="history-keys")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(_("Earlier chats"))
            yield self._field
            yield self._table
            yield self._excerpt
            yield self._keys

    def on_mount(self) -> None:
        (self._field if self._search else self._table).focus()
        self._find("")

    @on(Input.Changed)
    def _changed(self) -> None:
        self._find(self._field.value)

    @work(group="chat:history", exclusive=True, exit_on_error=False)
    async def _find(self, words: str) -> None:
        self._words = words
        self.post_message(self.ChatsFound(await asyncio.to_thread(find_chats, self._workspace, words)))

    @on(ChatsFound)
    def _found(self, message: ChatsFound) -> None:
        self._chats = {chat.id: chat for chat in message.chats}
        self._table.set_ids([chat.id for chat in message.chats])
        self._table.set_rows([self._row(chat) for chat in message.chats])
        self._draw()

    @staticmethod
    def _row(chat: ChatSummary) -> ListRow:
        this_year = local_time("%Y", chat.updated_at) == local_time("%Y", time.time())
        when = local_time("%m-%d %H:%M" if this_year else "%Y-%m-%d", chat.updated_at)
        cells = (
            ListCell(when, "dim"),
            ListCell(one_line(chat.title)),
            ListCell(f"{chat.exchanges:>4}", "dim"),
            ListCell(one_line(chat.model), "dim"),
        )
        return ListRow(chat.id, cells)

    @on(VirtualList.Highlighted)
    def _highlighted(self) -> None:
        self._draw()

    def on_descendant_focus(self) -> None:
        self._draw()

    def _draw(self) -> None:
        chat = self._chats.get(self._table.cursor_id)
        if chat is None:
            none = (
                _("no chat has these words")
                if self._field.value.strip()
                else _("no chats yet: enter sends one")
            )
            text = none
        elif chat.excerpt:
            text = chat.excerpt
        else:
            text = n_("{n} question", "{n} questions", chat.exchanges).format(n=chat.exchanges)
        self._excerpt.update(safe(fit(text, max(10, self._excerpt.size.width or 60))))
        keys = (
            _("enter to the list   esc back")
            if self._field.has_focus
            else _("enter open   / search   esc back")
            if self._read_only
            else _("enter open   / search   x delete   esc back")
        )
        self._keys.update(safe(keys))

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._table.focus()

    def action_search(self) -> None:
        self._field.focus()

    def action_accept(self) -> None:
        if self._table.cursor_id:
            self.dismiss(self._table.cursor_id)

    def action_leave(self) -> None:
        """Out of the search, then out of the sheet."""
        if self._field.has_focus and self._field.value:
            self._field.value = ""
            self._table.focus()
        else:
            self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)

    def action_delete(self) -> None:
        chat = self._chats.get(self._table.cursor_id)
        if chat is not None and not self._read_only:
            question = _("Delete the chat “{title}”?").format(title=chat.title)

            def answered(yes: bool | None) -> None:
                if yes:
                    self._store.delete(chat.id)
                    self._find(self._field.value)

            self.app.push_screen(Confirm(question), answered)
