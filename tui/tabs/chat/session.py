"""A chat as data: its exchanges, the messages to the model, and the conversation to keep."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from engine.core.chat import ChatMessage, Role
from engine.memory.records import Conversation, Turn


@dataclass
class ChatExchange:
    """A question and its answer, which grows while it is generated."""

    question: str
    asked_at: float
    answer: str = ""
    model: str = ""
    problem: str = ""
    """Why there is no answer, or only a part."""
    note: str = ""
    """How the answer ended, for the user."""
    earlier: list[str] = field(default_factory=list)
    """Answers that `again` replaced."""
    kept: bool = False


@dataclass
class ChatSession:
    """One chat. Because of `external_id` the kept exchanges are one growing conversation in memory."""

    exchanges: list[ChatExchange] = field(default_factory=list)
    external_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def last(self) -> ChatExchange | None:
        return self.exchanges[-1] if self.exchanges else None

    def ask(self, question: str, now: float | None = None) -> ChatExchange:
        """A new exchange, without its answer."""
        exchange = ChatExchange(question, time.time() if now is None else now)
        self.exchanges.append(exchange)
        return exchange

    def messages(self) -> list[ChatMessage]:
        """The messages to the model: every exchange with an answer, and the last question."""
        found: list[ChatMessage] = []
        for exchange in self.exchanges:
            last = exchange is self.exchanges[-1]
            if not exchange.answer and not last:
                continue
            found.append(ChatMessage(role="user", content=exchange.question))
            if not last:
                found.append(ChatMessage(role="assistant", content=exchange.answer))
        return found

    def kept_conversation(self) -> Conversation:
        """The exchanges marked as kept, as a conversation of the source "chat"."""
        turns: list[Turn] = []
        for exchange in self.exchanges:
            if exchange.kept:
                turns.append(Turn(role=Role.USER, text=exchange.question, time=exchange.asked_at))
                turns.append(
                    Turn(
                        role=Role.ASSISTANT,
                        text=exchange.answer,
                        time=exchange.asked_at,
                        alternatives=tuple(exchange.earlier),
                    )
                )
        title = " ".join(turns[0].text.split())[:60] if turns else ""
        return Conversation.of(turns, source="chat", external_id=self.external_id, title=title)
