"""The Chat tab: talk with the model in use, or with any other of the workspace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.worker import Worker

from engine.core.errors import H2QError, error_text
from engine.core.i18n import N_, _, bracketed
from engine.inference.client import InferenceClient
from engine.memory.records import Conversation
from tui.actions import AppAction
from tui.screens.fetch_model import FetchModel, offered_model
from tui.tabs.base import Tab
from tui.tabs.chat import reader
from tui.tabs.chat.input import ChatInput
from tui.tabs.chat.pick_model import PickModel
from tui.tabs.chat.reader import ChatModels
from tui.tabs.chat.session import ChatExchange, ChatSession
from tui.tabs.chat.session_text import ending, problem_block, session_blocks, welcome_blocks
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

FLUSH_S = 0.1
"""Seconds between two repaints of a growing answer."""


class ChatTab(Tab):
    """One chat at a time. The text of an answer arrives in a worker and is drawn at most ten times a second."""

    TAB_ID: ClassVar[str] = "chat"
    TITLE: ClassVar[str] = N_("Chat")
    FIRST_FOCUS: ClassVar[str] = "#chat-field"

    class ModelsRead(Message):
        """The models of the workspace and of Ollama."""

        def __init__(self, models: ChatModels) -> None:
            super().__init__()
            self.models = models

    class AnswerEnded(Message):
        """The model has ended its answer; `note` says how."""

        def __init__(self, attempt: int, exchange: ChatExchange, note: str) -> None:
            super().__init__()
            self.attempt = attempt
            self.exchange = exchange
            self.note = note

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.session = ChatSession()
        self.client = InferenceClient(self.workspace)
        self.model = ""
        """The model that answers, "" when there is none."""
        self._picked = False
        """The user chose the model; otherwise it is the one in use."""
        self._models = ChatModels()
        self._cleared: ChatSession | None = None
        self._history: list[str] = []
        """What was sent, oldest first; the input field appends to the same list."""
        self._answering: Worker[None] | None = None
        self._attempt = 0
        """Number of answers that were begun."""
        self._unpainted = ""
        self._started_at = 0.0
        self._bytes = 0
        self.view = ConversationView(id="chat-view", classes="panel")
        self.input = ChatInput(id="chat-field", placeholder=_("Ask something"))
        self._status = CellLines(id="chat-status")

    def compose(self) -> ComposeResult:
        yield self.view
        yield self._status
        yield self.input

    def on_mount(self) -> None:
        self.view.border_title = _("Chat")
        self._flusher = self.set_interval(FLUSH_S, self._flush, pause=True)
        self.input.use_history(self._history)
        if self.session.exchanges:
            self._redraw()

    def activate(self) -> None:
        self._load()
        self._draw_status()

    def deactivate(self) -> None:
        self._flush()

    def restore_from(self, previous: Tab) -> None:
        """The chat continues in another language; an answer in progress ends as it is."""
        if isinstance(previous, ChatTab):
            self.session, self._cleared = previous.session, previous._cleared
            self.model, self._picked = previous.model, previous._picked
            self._history = previous._history

    def runs_changed(self) -> None:
        self._load()

    # Models

    @work(group="chat:models", exclusive=True, exit_on_error=False)
    async def _load(self) -> None:
        self.post_message(self.ModelsRead(await asyncio.to_thread(reader.read_models, self.workspace)))

    @on(ModelsRead)
    def _models_read(self, message: ModelsRead) -> None:
        self._models = models = message.models
        if not self._picked or self.model not in models.names:
            self._picked = False
            self.model = models.in_use or next(iter(models.names), "")
        if models.problem:
            self.show_message(models.problem, "error")
        has_model = bool(self.model)
        if self.input.display != has_model:
            self.input.display = has_model
            if self.display:
                (self.input if has_model else self.view).focus()
        if not self.session.exchanges:
            self._show_welcome()
        self._draw_status()
        self.host.refresh_footer()

    def _show_welcome(self) -> None:
        self.view.set_blocks(
            welcome_blocks(
                self.model,
                small=self._models.is_small(self.model),
                fetchable=offered_model(self.workspace),
            )
        )

    def action_model(self) -> None:
        """Picks another model."""
        models = self._models
        self.app.push_screen(
            PickModel(models.cards, models.bases, models.tags, models.in_use, self.model, self.host.glyphs),
            self._model_picked,
        )

    def _model_picked(self, name: str | None) -> None:
        if name:
            self.model, self._picked = name, True
            self._draw_status()

    # Questions and answers

    @on(ChatInput.Sent)
    def _sent(self, message: ChatInput.Sent) -> None:
        if self._answering is not None:
            # Sent while an answer is coming: that answer ends as it is.
            self._stop(_("stopped"))
        if not self.session.exchanges:
            self.view.set_blocks([])
        exchange = self.session.ask(message.text)
        self.view.add_block(TextBlock(_("you"), (StyledSpan(exchange.question),), "head"))
        self._answer(exchange)

    def _answer(self, exchange: ChatExchange) -> None:
        exchange.answer = exchange.problem = exchange.note = ""
        exchange.model = self.model
        self.view.add_block(TextBlock(_("model"), (StyledSpan(""),)))
        self.view.action_scroll_bottom()
        self._started_at, self._bytes, self._unpainted = time.monotonic(), 0, ""
        self._flusher.resume()
        self._attempt += 1
        self._answering = self._stream(exchange, self._attempt)
        self._draw_status()
        self.host.refresh_footer()

    @work(group="chat:answer", exclusive=True, exit_on_error=False)
    async def _stream(self, exchange: ChatExchange, attempt: int) -> None:
        """Reads the answer of the model; every way out of here ends the exchange."""
        stream = self.client.generate(exchange.model, self.session.messages())
        try:
            async for text in stream:
                exchange.answer += text
                self._unpainted += text
                self._bytes += len(text.encode())
            self.post_message(self.AnswerEnded(attempt, exchange, ending(self.client.last)))
        except (H2QError, OSError) as problem:
            exchange.problem = error_text(problem)
            self.post_message(self.AnswerEnded(attempt, exchange, ""))
        finally:
            await stream.aclose()

    @on(AnswerEnded)
    def _answer_ended(self, message: AnswerEnded) -> None:
        # An answer that was stopped meanwhile has ended already.
        if self._answering is not None and message.attempt == self._attempt:
            self._end(message.exchange, message.note)

    def _end(self, exchange: ChatExchange, note: str) -> None:
        self._flush()
        self._flusher.pause()
        self._answering = None
        exchange.note = note
        if exchange.problem:
            self.view.add_block(problem_block(exchange, self.host.glyphs))
        elif not exchange.answer:
            self.view.append(_("(no answer)"), "dim")
        self._draw_status()
        self.host.refresh_footer()

    def _stop(self, note: str) -> None:
        worker, exchange = self._answering, self.session.last
        if worker is not None and exchange is not None:
            worker.cancel()
            self._end(exchange, note)

    def _flush(self) -> None:
        """Paints the text that has arrived since the last time."""
        if self._unpainted:
            text, self._unpainted = self._unpainted, ""
            self.view.append(text)
        self._draw_status()

    def _draw_status(self) -> None:
        parts = [self.model or _("no model")]
        if self.model and self.model == self._models.in_use:
            parts[0] = bracketed(parts[0], _("in use"))
        last = self.session.last
        if self._answering is not None:
            passed = time.monotonic() - self._started_at
            rate = self._bytes / passed if passed > 0 else 0.0
            parts.append(_("{n} bytes, {rate} tokens/s").format(n=f"{self._bytes:>4}", rate=f"{rate:>5.0f}"))
            parts.append(_("esc stops"))
        elif last is not None and last.note:
            parts.append(last.note)
        self._status.set_lines([safe(" " + "   ".join(parts), "$foreground-muted")])

    def _redraw(self, *, without_last_answer: bool = False) -> None:
        """Draws the whole chat again."""
        blocks = session_blocks(self.session, self.host.glyphs, without_last_answer=without_last_answer)
        self.view.set_blocks(blocks, end=True)
        self._draw_status()

    def notice(self) -> Content | None:
        """In the field the letters are text, so the footer says how to reach the keys."""
        if self.input.has_focus and self.session.exchanges and self._answering is None:
            return safe(" " + _("enter send   ctrl+j new line   esc keys of the chat"), "$foreground-muted")
        return None

    # Actions

    def is_enabled(self, action: AppAction) -> bool:
        last, busy = self.session.last, self._answering is not None
        rules = {
            "send": bool(self.model) and not busy,
            "again": last is not None and not busy,
            "keep": last is not None and bool(last.answer) and not last.kept and not busy,
            "clear": last is not None,
            "model": bool(self._models.names),
            "stop": busy,
            "demo": not self.model,
            "fetch": not self.model and offered_model(self.workspace) is not None,
            "train": not self.model,
            "undo": self._cleared is not None,
            "copy": last is not None,
        }
        return rules.get(action.verb, True)

    def action_send(self) -> None:
        """Enter outside the field goes into it."""
        self.input.focus()

    def action_back(self) -> None:
        """Esc: ends the answer in progress, else leaves the field."""
        if self._answering is not None:
            self.action_stop()
        elif self.input.has_focus:
            self.view.focus()
            self.host.refresh_footer()

    def action_stop(self) -> None:
        self._stop(_("stopped"))

    def action_again(self) -> None:
        """Another answer to the last question; the earlier one stays with it as an alternative."""
        exchange = self.session.last
        if exchange is None or self._answering is not None:
            return
        if exchange.answer:
            exchange.earlier.append(exchange.answer)
        exchange.kept = False
        self._redraw(without_last_answer=True)
        self._answer(exchange)

    def action_demo(self) -> None:
        """The whole loop on the shipped sample."""
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

    def action_clear(self) -> None:
        """An empty chat; `u` brings this one back."""
        self._stop(_("stopped"))
        self._cleared, self.session = self.session, ChatSession()
        self._show_welcome()
        self._draw_status()
        self.show_message(_("The chat is cleared; u brings it back."))

    def action_undo(self) -> None:
        if self._cleared is not None:
            self._stop(_("stopped"))
            self.session, self._cleared = self._cleared, None
            self._redraw()

    def action_copy(self) -> None:
        last = self.session.last
        if last is not None:
            self.app.copy_to_clipboard(last.answer or last.question)
            self.show_message(_("copied"))

    def action_keep(self) -> None:
        """Stores the last question with its answer in memory."""
        last = self.session.last
        if last is not None and last.answer and not last.kept:
            last.kept = True
            self._keep(self.session.kept_conversation(), last)

    @work(group="chat:keep", exit_on_error=False)
    async def _keep(self, conversation: Conversation, exchange: ChatExchange) -> None:
        try:
            await asyncio.to_thread(reader.keep_conversation, self.workspace, conversation)
        except (H2QError, OSError) as problem:
            exchange.kept = False
            self.show_message(error_text(problem), "error")
            return
        self.show_message(_("Stored in memory; the next corpus build includes it."), "success")
        self.host.refresh_footer()
