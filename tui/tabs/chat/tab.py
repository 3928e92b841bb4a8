"""The Chat tab: talk with the model in use, or with any other of the workspace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.worker import Worker

from engine.core.errors import BadInput, H2QError, error_text
from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.inference.client import InferenceClient
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard
from engine.models.ollama.running import installed_models
from engine.models.registry import in_use, list_models
from tui.app import onboarding
from tui.app.actions import AppAction
from tui.app.shutdown import uninterruptible
from tui.app.text import safe
from tui.screens.pick_model import OLLAMA, PickModel
from tui.tabs.base import Tab
from tui.tabs.chat.chat_text import ending, problem_block, session_blocks, welcome_blocks
from tui.tabs.chat.field import ChatInput
from tui.tabs.chat.session import ChatExchange, ChatSession
from tui.widgets.cell_lines import CellLines
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock

FLUSH_S = 0.1
"""Seconds between two repaints of a growing answer."""


class ChatTab(Tab):
    """One chat at a time. Text of an answer arrives in a worker and is drawn at most ten times a second."""

    TAB_ID: ClassVar[str] = "chat"
    TITLE: ClassVar[str] = N_("Chat")
    FIRST_FOCUS: ClassVar[str] = "#chat-field"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.session = ChatSession()
        self.client = InferenceClient(workspace)
        self.model = ""
        """The model that answers, "" when there is none."""
        self._picked = False
        """The person chose the model; otherwise it is the one in use."""
        self._cards: Sequence[ModelCard] = ()
        self._tags: Sequence[str] = ()
        """Models of an Ollama on this machine."""
        self._in_use = ""
        self._cleared: ChatSession | None = None
        self._history: list[str] = []
        """What was sent, oldest first; the field and this are one list."""
        self._answering: Worker[None] | None = None
        self._unpainted = ""
        self._began = 0.0
        self._bytes = 0

    def compose(self) -> ComposeResult:
        yield ConversationView(id="chat-view", classes="panel")
        yield CellLines(id="chat-status")
        yield ChatInput(id="chat-field", placeholder=_("Ask something"))

    def on_mount(self) -> None:
        self._view.border_title = _("Chat")
        self._flusher = self.set_interval(FLUSH_S, self._flush, pause=True)
        self._field.remember(self._history)
        if self.session.exchanges:
            self._redraw()

    @property
    def _view(self) -> ConversationView:
        return self.query_one(ConversationView)

    @property
    def _field(self) -> ChatInput:
        return self.query_one(ChatInput)

    def activate(self) -> None:
        self._load()
        self._draw_status()

    def deactivate(self) -> None:
        self._flush()

    def restore_from(self, before: Tab) -> None:
        """The chat goes on in another language; an answer that was coming ends as it stands."""
        if isinstance(before, ChatTab):
            self.session, self._cleared = before.session, before._cleared
            self.model, self._picked = before.model, before._picked
            self._history = before._history

    def runs_changed(self) -> None:
        self._load()

    # Models

    @work(thread=True, group="chat:models", exclusive=True, exit_on_error=False)
    def _load(self) -> None:
        problem = ""
        try:
            used = in_use(self.workspace) or ""
        except BadInput as error:
            used, problem = "", str(error)
        cards, tags = list_models(self.workspace), installed_models()
        self.app.call_from_thread(self._loaded, cards, tags, used, problem)

    def _loaded(self, cards: Sequence[ModelCard], tags: Sequence[str], used: str, problem: str) -> None:
        self._cards, self._tags, self._in_use = cards, tags, used
        names = [card.name for card in cards] + [OLLAMA + tag for tag in tags]
        if not self._picked or self.model not in names:
            self._picked = False
            self.model = used or (names[0] if names else "")
        if problem:
            self.show_message(problem, "error")
        has_model = bool(self.model)
        if self._field.display != has_model:
            self._field.display = has_model
            if self.h2q.tab is self:
                (self._field if has_model else self._view).focus()
        if not self.session.exchanges:
            self._view.set_blocks(welcome_blocks(self.model, small=self._is_small()))
        self._draw_status()
        self.h2q.refresh_footer()

    def _is_small(self) -> bool:
        """Whether the model is one of our own: adapters stand on models that converse, and so do Ollama's."""
        card = next((card for card in self._cards if card.name == self.model), None)
        return card is not None and not card.base_path

    def action_model(self) -> None:
        """Picks another model."""
        self.app.push_screen(
            PickModel(self._cards, self._tags, self._in_use, self.model, self.h2q.glyphs), self._model_picked
        )

    def _model_picked(self, name: str | None) -> None:
        if name:
            self.model, self._picked = name, True
            self._draw_status()

    # Asking and answering

    @on(ChatInput.Sent)
    def _sent(self, message: ChatInput.Sent) -> None:
        if self._answering is not None:
            # Sent while an answer is coming: that answer ends here, as it stands.
            self._stop(_("stopped"))
        if not self.session.exchanges:
            self._view.set_blocks([])
        exchange = self.session.ask(message.text)
        self._view.add_block(TextBlock(_("you"), (StyledSpan(exchange.question),), "head"))
        self._answer(exchange)

    def _answer(self, exchange: ChatExchange) -> None:
        exchange.answer = exchange.problem = exchange.note = ""
        exchange.model = self.model
        self._view.add_block(TextBlock(_("model"), (StyledSpan(""),)))
        self._view.action_scroll_bottom()
        self._began, self._bytes, self._unpainted = time.monotonic(), 0, ""
        self._flusher.resume()
        self._answering = self._stream(exchange)
        self._draw_status()
        self.h2q.refresh_footer()

    @work(group="chat:answer", exclusive=True, exit_on_error=False)
    async def _stream(self, exchange: ChatExchange) -> None:
        """Lets the model answer; every way out of here ends the exchange."""
        stream = self.client.generate(exchange.model, self.session.messages())
        try:
            async for text in stream:
                exchange.answer += text
                self._unpainted += text
                self._bytes += len(text.encode())
            self._ended(exchange, ending(self.client.last))
        except (H2QError, OSError) as problem:
            exchange.problem = error_text(problem)
            self._ended(exchange, "")
        finally:
            await stream.aclose()

    def _ended(self, exchange: ChatExchange, note: str) -> None:
        self._flush()
        self._flusher.pause()
        self._answering = None
        exchange.note = note
        if exchange.problem:
            self._view.add_block(problem_block(exchange, self.h2q.glyphs))
        elif not exchange.answer:
            self._view.append(_("(no answer)"), "dim")
        self._draw_status()
        self.h2q.refresh_footer()

    def _stop(self, note: str) -> None:
        worker, exchange = self._answering, self.session.last
        if worker is not None and exchange is not None:
            worker.cancel()
            self._ended(exchange, note)

    def _flush(self) -> None:
        """Paints what came since the last time."""
        if self._unpainted:
            text, self._unpainted = self._unpainted, ""
            self._view.append(text)
        self._draw_status()

    def _draw_status(self) -> None:
        parts = [self.model or _("no model")]
        if self.model and self.model == self._in_use:
            parts[0] += f" ({_('in use')})"
        last = self.session.last
        if self._answering is not None:
            passed = time.monotonic() - self._began
            rate = self._bytes / passed if passed > 0 else 0.0
            parts.append(_("{n} bytes, {rate} tokens/s").format(n=f"{self._bytes:>4}", rate=f"{rate:>5.0f}"))
            parts.append(_("esc stops"))
        elif last is not None and last.note:
            parts.append(last.note)
        self.query_one("#chat-status", CellLines).set_lines(
            [safe(" " + "   ".join(parts), "$foreground-muted")]
        )

    # Keys

    def is_enabled(self, row: AppAction) -> bool:
        last, busy = self.session.last, self._answering is not None
        rules = {
            "send": bool(self.model) and not busy,
            "new_line": bool(self.model),
            "again": last is not None and not busy,
            "keep": last is not None and bool(last.answer) and not last.kept and not busy,
            "clear": last is not None,
            "model": bool(self._cards or self._tags),
            "stop": busy,
            "demo": not self.model,
            "train": not self.model,
            "undo": self._cleared is not None,
            "copy": last is not None,
        }
        return rules.get(row.verb, True)

    def action_send(self) -> None:
        """Enter outside the field goes into it."""
        self._field.focus()

    def action_back(self) -> None:
        """Esc: ends the answer that is coming, else leaves the field."""
        if self._answering is not None:
            self.action_stop()
        elif self._field.has_focus:
            self._view.focus()
            self.h2q.refresh_footer()

    def action_stop(self) -> None:
        self._stop(_("stopped"))

    def action_again(self) -> None:
        """Another answer to the last question; the one before stays with it as an alternative."""
        exchange = self.session.last
        if exchange is None or self._answering is not None:
            return
        if exchange.answer:
            exchange.earlier.append(exchange.answer)
        exchange.kept = False
        self._redraw(without_last_answer=True)
        self._answer(exchange)

    async def action_demo(self) -> None:
        """The whole loop on the shipped sample."""
        await onboarding.try_sample(self.h2q)

    async def action_train(self) -> None:
        await self.h2q.show_tab("train")

    def action_clear(self) -> None:
        """An empty chat; `u` brings this one back."""
        self._stop(_("stopped"))
        self._cleared, self.session = self.session, ChatSession()
        self._view.set_blocks(welcome_blocks(self.model, small=self._is_small()))
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
        """The last question with its answer goes into memory, where the next corpus finds it."""
        last = self.session.last
        if last is not None and last.answer and not last.kept:
            last.kept = True
            self._keep(self.session, last)

    @work(thread=True, group="chat:keep", exit_on_error=False)
    def _keep(self, session: ChatSession, exchange: ChatExchange) -> None:
        try:
            with uninterruptible(), MemoryStore(self.workspace.memory_db) as store:
                store.add([session.kept_conversation()], "chat", "chat")
        except (H2QError, OSError) as problem:
            exchange.kept = False
            self.app.call_from_thread(self.show_message, error_text(problem), "error")
            return
        self.app.call_from_thread(
            self.show_message, _("Kept in memory; the next corpus build takes it in."), "success"
        )
        self.app.call_from_thread(self.h2q.refresh_footer)

    def _redraw(self, *, without_last_answer: bool = False) -> None:
        """The whole chat anew."""
        blocks = session_blocks(self.session, self.h2q.glyphs, without_last_answer=without_last_answer)
        self._view.set_blocks(blocks, end=True)
        self._draw_status()

    def notice(self) -> Content | None:
        """In the field the letters are text, so the footer says how to get at them."""
        if self._field.has_focus and self.session.exchanges and self._answering is None:
            return safe(" " + _("enter send   ctrl+j new line   esc keys of the chat"), "$foreground-muted")
        return None
