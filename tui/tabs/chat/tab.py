"""The Chat tab: talk with the model in use, or with any other on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message

from engine.chats.record import ChatExchange, ChatRecord
from engine.chats.store import ChatStore, count_chats
from engine.core.errors import H2QError, error_text
from engine.core.i18n import N_, _
from engine.inference.client import InferenceClient
from engine.inference.routing import Route
from tui.actions import AppAction, key_label
from tui.screens.fetch_model import FetchModel, offered_model
from tui.tabs.base import Tab
from tui.tabs.chat import reader
from tui.tabs.chat.answering import Answering
from tui.tabs.chat.history_sheet import HistorySheet
from tui.tabs.chat.input import ChatInput
from tui.tabs.chat.model_choice import ModelChoice, route_name
from tui.tabs.chat.reader import ChatModels
from tui.tabs.chat.sampling_sheet import ChatSettings, SamplingSheet
from tui.tabs.chat.status_text import ChatState, status_parts
from tui.tabs.chat.transcript import Transcript
from tui.tabs.chat.transcript_text import welcome_lines
from tui.tabs.chat.turn_actions import TurnActions
from tui.terminal.text import cells, safe
from tui.widgets.cell_lines import CellLines

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

FLUSH_S = 0.1
"""Seconds between two repaints of a growing answer."""


class ChatTab(Tab):
    """One chat at a time. The text of an answer arrives in a worker and is drawn at most ten times a second."""

    TAB_ID: ClassVar[str] = "chat"
    TITLE: ClassVar[str] = N_("Chat")
    FIRST_FOCUS: ClassVar[str] = "#chat-field"

    class ModelsAndChats(Message):
        """The models of the workspace and of Ollama, and the number of earlier chats."""

        def __init__(self, models: ChatModels, chats: int) -> None:
            super().__init__()
            self.models = models
            self.chats = chats

    class AnswerEnded(Message):
        """The models have ended their answers."""

        def __init__(self, attempt: int) -> None:
            super().__init__()
            self.attempt = attempt

    class Erased(Message):
        """`memory forget` erased exchanges of the chat."""

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.record = ChatRecord()
        self.store = ChatStore(self.workspace)
        self.client = InferenceClient(self.workspace)
        self.selected = -1
        """The exchange that keys act on."""
        self._chats = 0
        self._cleared: ChatRecord | None = None
        self._history: list[str] = []
        """What was sent, oldest first; the input field appends to the same list."""
        self._saving = asyncio.Lock()
        self._draft = ""
        self.view = Transcript(id="chat-view", classes="panel")
        self.input = ChatInput(id="chat-field", placeholder=_("Ask something"))
        self._status = CellLines(id="chat-status")
        self.choice = ModelChoice(self)
        self.answering = Answering(self)
        self.turns = TurnActions(self)

    def compose(self) -> ComposeResult:
        yield self.view
        yield self._status
        yield self.input

    def on_mount(self) -> None:
        self.view.border_title = _("Chat")
        self.view.glyphs = self.host.glyphs
        self._flusher = self.set_interval(FLUSH_S, self._flush, pause=True)
        self.input.use_history(self._history)
        if self._draft:
            self.input.text = self._draft
        if self.record.exchanges:
            self.redraw()

    def activate(self) -> None:
        self._load()
        self.draw_status()

    def deactivate(self) -> None:
        self._flush()

    def restore_from(self, previous: Tab) -> None:
        """The chat continues in another language; an answer in progress ends as it is."""
        if isinstance(previous, ChatTab):
            previous.answering.end()
            self.record, self._cleared, self.store = previous.record, previous._cleared, previous.store
            self.choice.take_over(previous.choice)
            self._history, self._draft = previous._history, previous.input.text
            self.selected = previous.selected

    def runs_changed(self) -> None:
        self._load()

    def on_unmount(self) -> None:
        """The app is left within an answer: what has come of it is written."""
        if self.answering.is_on:
            with contextlib.suppress(OSError):
                self.store.save(self.record, time.time())

    def footer_label(self, action: AppAction) -> str:
        if action.verb == "compare" and self.choice.other:
            return _("one model")
        return super().footer_label(action)

    # Models

    @work(group="chat:models", exclusive=True, exit_on_error=False)
    async def _load(self) -> None:
        models = await asyncio.to_thread(reader.read_models, self.workspace)
        chats = await asyncio.to_thread(count_chats, self.workspace)
        self.post_message(self.ModelsAndChats(models, chats))

    @on(ModelsAndChats)
    def _models_read(self, message: ModelsAndChats) -> None:
        self._chats = message.chats
        self.choice.models_read(message.models)
        if message.models.problem:
            self.show_message(message.models.problem, "error")
        has_model = bool(self.model) and not self.host.read_only
        if self.input.display != has_model:
            self.input.display = has_model
            if self.display:
                (self.input if has_model else self.view).focus()
        self.model_chosen()

    @property
    def model(self) -> str:
        """The model that answers, "" when there is none."""
        return self.choice.model

    def model_chosen(self) -> None:
        """Draws which models answer."""
        if not self.record.exchanges:
            self._show_welcome()
        self.draw_status()
        self.host.refresh_footer()

    def _show_welcome(self) -> None:
        lines = welcome_lines(
            self.model,
            max(40, self.view.size.width - 4),
            small=self.choice.models.is_small(self.model),
            fetchable=offered_model(self.workspace),
            chats=self._chats,
            chats_key=key_label(self.host.action_keys["chat.chats"]),
        )
        self.view.show_welcome(lines)

    def on_resize(self) -> None:
        if not self.record.exchanges and self.choice.models.names:
            self._show_welcome()

    def action_model(self) -> None:
        """Picks another model."""
        self.choice.pick()

    def action_compare(self) -> None:
        """Two models side by side, or one again."""
        self.choice.toggle_compare()

    def action_route(self) -> None:
        """Who answers: the model that was picked, or one by a rule."""
        self.choice.next_route()

    # Questions and answers

    @on(ChatInput.Sent)
    def _sent(self, message: ChatInput.Sent) -> None:
        # Sent while an answer is coming: that answer ends as it is.
        self.answering.end()
        self._cleared = None
        exchange = self.record.ask(message.text)
        self.selected = len(self.record.exchanges) - 1
        self.answer(exchange)

    def answer(self, exchange: ChatExchange) -> None:
        """Begins another answer, or one of each model."""
        models, reason = self.choice.next_models(exchange.question)
        self.record.model = self.model if self.choice.picked else ""
        self.record.route = self.choice.route or ""
        self.answering.begin(self.record, exchange, models, reason)
        self.redraw(end=exchange is self.record.last)
        self._flusher.resume()
        self.save()
        self.host.refresh_footer()

    def models_ended(self, attempt: int) -> None:
        self.post_message(self.AnswerEnded(attempt))

    @on(AnswerEnded)
    def _answer_ended(self, message: AnswerEnded) -> None:
        # An answer that was stopped meanwhile has ended already.
        if message.attempt == self.answering.attempt:
            self.answering.end()

    def paint(self, exchange: ChatExchange, version: int, text: str) -> None:
        self.view.grow(self.record.place_of(exchange), version, text)

    def answer_closed(self, exchange: ChatExchange) -> None:
        """Draws and stores the exchange as it ended."""
        self._flusher.pause()
        if self.is_mounted:
            self.view.redraw(self.record.place_of(exchange))
        self.save()
        self.draw_status()
        self.host.refresh_footer()

    def _flush(self) -> None:
        self.answering.flush()
        self.draw_status()

    def draw_status(self) -> None:
        """The line between the answers and the field."""
        exchange = self.exchange
        state = ChatState(
            model=self.model,
            in_use=self.choice.in_use,
            other=self.choice.other,
            sampling=self.record.sampling,
            has_system=bool(self.record.system),
            # The figures would name a model that waits for the vote.
            answer=exchange.answer if exchange is not None and not exchange.is_blind else None,
            seconds=self.answering.seconds,
            tokens_per_s=self.answering.tokens_per_s,
            draft_lines=self.input.line_count,
            route="" if self.choice.route is None else route_name(self.choice.route),
        )
        line, room = "", max(20, self.size.width - 2)
        for part in status_parts(state):
            longer = f"{line}   {part}" if line else part
            if line and cells(longer) > room:
                break
            line = longer
        self._status.set_lines([safe(f" {line}", "$foreground-muted")])

    @on(ChatInput.Changed)
    def _draft_changed(self) -> None:
        self.draw_status()

    @property
    def exchange(self) -> ChatExchange | None:
        """The exchange that keys act on."""
        found = self.record.exchanges
        return found[self.selected] if 0 <= self.selected < len(found) else self.record.last

    @property
    def is_answering(self) -> bool:
        return self.answering.is_on

    def redraw(self, *, end: bool = True) -> None:
        """Draws the whole chat again."""
        self.view.show_exchanges(self.record.exchanges, self.selected, end=end)
        self.draw_status()

    def redraw_selected(self) -> None:
        """Draws the exchange that keys act on again."""
        exchange = self.exchange
        if exchange is not None:
            self.view.redraw(self.record.place_of(exchange))
        self.draw_status()
        self.host.refresh_footer()

    def notice(self) -> Content | None:
        """In the field the letters are text, so the footer says how to reach the keys."""
        if not self.input.has_focus:
            return None
        if self.is_answering:
            return safe(" " + _("esc stop the answer   enter send   ctrl+j new line"), "$foreground-muted")
        if self.exchange is not None and self.exchange.is_blind:
            return safe(" " + _("enter send   esc, then [ ] or =: your vote"), "$foreground-muted")
        return safe(" " + _("enter send   ctrl+j new line   esc keys of the chat"), "$foreground-muted")

    def on_descendant_focus(self) -> None:
        self.host.refresh_footer()

    def on_descendant_blur(self) -> None:
        self.host.refresh_footer()

    # History

    def save(self) -> None:
        """Writes the chat into the history."""
        self._save(self.record)

    @work(group="chat:save", exit_on_error=False)
    async def _save(self, record: ChatRecord) -> None:
        # One writing at a time, each of the state at that time.
        async with self._saving:
            try:
                erased = await asyncio.to_thread(reader.erased_anything, self.store, record)
            except OSError as problem:
                text = _("the chat is not stored: {reason}").format(reason=error_text(problem))
                self.show_message(text, "error")
                return
        if erased and record is self.record:
            self.post_message(self.Erased())

    @on(Erased)
    def _erased(self) -> None:
        self.selected = len(self.record.exchanges) - 1
        self.redraw()

    def action_chats(self, *, search: bool = False) -> None:
        """The earlier chats."""
        self.app.push_screen(
            HistorySheet(self.workspace, self.store, search=search, read_only=self.host.read_only),
            self._chat_chosen,
        )

    def action_filter(self) -> None:
        """`/` searches the earlier chats."""
        self.action_chats(search=True)

    def _chat_chosen(self, chat: str | None) -> None:
        if not chat or chat == self.record.id:
            return
        try:
            record = self.store.load(chat)
        except H2QError as problem:
            self.show_message(error_text(problem), "error")
            return
        self.answering.end()
        self.record, self._cleared = record, None
        self.selected = len(record.exchanges) - 1
        if record.model in self.choice.models.names or record.model.startswith("/"):
            self.choice.choose(record.model)
        if record.route in tuple(Route):
            self.choice.set_route(Route(record.route))
        self.redraw()
        self.host.refresh_footer()

    # Actions

    def is_enabled(self, action: AppAction) -> bool:
        exchange, busy = self.exchange, self.is_answering
        answered = exchange is not None and bool(exchange.text) and not busy
        rules = {
            "send": bool(self.model) and not busy,
            "again": exchange is not None and bool(self.model) and not busy,
            "keep": answered and exchange is not None and not exchange.is_kept and not exchange.is_blind,
            "edit": answered and exchange is not None and not exchange.is_blind,
            "clear": self.record.last is not None,
            "model": bool(self.model),
            "route": bool(self.model) and not busy,
            "compare": bool(self.model) and not busy,
            "sampling": bool(self.model),
            "stop": busy,
            "demo": not self.model,
            "fetch": not self.model and offered_model(self.workspace) is not None,
            "train": not self.model,
            "chats": self._chats > 0 or self.record.last is not None,
            "undo": (self._cleared is not None or self.turns.can_undo) and not busy,
            "copy": exchange is not None,
        }
        walks = exchange is not None and len(exchange.answers) > 1 and not busy
        votes = exchange is not None and exchange.is_blind and not busy
        rules |= dict.fromkeys(("version_before", "version_after"), walks)
        rules |= dict.fromkeys(("turn_before", "turn_after"), len(self.record.exchanges) > 1)
        rules |= dict.fromkeys(("better_left", "better_right", "equal"), votes)
        return rules.get(action.verb, True)

    def action_send(self) -> None:
        """Enter outside the field goes into it."""
        self.screen.set_focus(self.input)

    def action_back(self) -> None:
        """Esc: ends the answer in progress, else leaves the field."""
        if self.is_answering:
            self.action_stop()
        elif self.input.has_focus:
            # Before the next key is read: it may be here already, and is no text.
            self.screen.set_focus(self.view)
            self.host.refresh_footer()

    def action_stop(self) -> None:
        self.answering.end()

    def action_again(self) -> None:
        """Another answer to the selected question; the earlier ones stay with it as versions."""
        if self.exchange is not None and not self.is_answering:
            self.answer(self.exchange)

    def action_demo(self) -> None:
        self.host.open_demo()

    def action_fetch(self) -> None:
        """Downloads a base model to talk with."""
        model = offered_model(self.workspace)
        if model is not None:
            self.app.push_screen(FetchModel(self.workspace, model), self._fetched)

    def _fetched(self, _name: str | None) -> None:
        self._load()

    async def action_train(self) -> None:
        await self.host.show_tab("train")

    def action_sampling(self) -> None:
        """Temperature, top-p, length, seed and system prompt of this chat."""

        def chosen(settings: ChatSettings | None) -> None:
            if settings is not None:
                self.record.sampling, self.record.system = settings
                self.save()
                self.draw_status()

        settings = ChatSettings(self.record.sampling, self.record.system)
        self.app.push_screen(SamplingSheet(settings), chosen)

    def action_clear(self) -> None:
        """An empty chat with the same settings; this one stays among the chats, and `u` brings it back."""
        self.answering.end()
        self._cleared = self.record
        self.record = ChatRecord(
            model=self.record.model, system=self.record.system, sampling=self.record.sampling
        )
        self.selected = -1
        self._show_welcome()
        self._load()
        self.draw_status()
        self.show_message(_("A new chat; u brings the last one back."))

    def action_undo(self) -> None:
        """Takes back the last turn that was kept or corrected, or the beginning of a new chat."""
        if self.turns.can_undo:
            self.turns.undo()
        elif self._cleared is not None:
            self.answering.end()
            self.record, self._cleared = self._cleared, None
            self.selected = len(self.record.exchanges) - 1
            self.redraw()

    def action_copy(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            self.app.copy_to_clipboard(exchange.text or exchange.question)
            self.show_message(_("copied"))

    def action_keep(self) -> None:
        """Stores the selected question with the answer shown in memory."""
        self.turns.keep()

    def action_edit(self) -> None:
        """Corrects the answer shown; the pair goes to memory."""
        self.turns.edit()

    def action_version_before(self) -> None:
        self.turns.show_version(-1)

    def action_version_after(self) -> None:
        self.turns.show_version(1)

    def action_turn_before(self) -> None:
        self.turns.select(-1)

    def action_turn_after(self) -> None:
        self.turns.select(1)

    @on(Transcript.Picked)
    def _exchange_clicked(self, message: Transcript.Picked) -> None:
        self.turns.select(message.index - self.selected)

    def action_better_left(self) -> None:
        self.turns.vote("left")

    def action_better_right(self) -> None:
        self.turns.vote("right")

    def action_equal(self) -> None:
        self.turns.vote("equal")
