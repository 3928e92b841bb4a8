"""What memory holds, as plain values: conversations with their turns, and the protocol that training reads.

A conversation is the unit of everything that follows: filters, review, split and verdict.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `text` is kept as it came (NFC or not, any control characters)."""

    role: Role
    text: str
    time: float | None = None
    """Seconds since the epoch; None when the source has none."""
    external_id: str = ""
    alternatives: tuple[str, ...] = ()
    """Regenerated answers that are not on the current path."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation.

    `id` is derived from its source and external id, else from its content (`conversation_id`), so that
    importing twice adds nothing. `started_at` and `updated_at` are None for undated sources.
    """

    id: str
    source: str
    """Importer that brought it: "chatgpt", "alpaca", "sharegpt", "openai", "text", "sample", "chat" …"""
    external_id: str = ""
    title: str = ""
    started_at: float | None = None
    updated_at: float | None = None
    turns: tuple[Turn, ...]


class MemoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One remembered thing, as MindX's training reads it: here, a conversation rendered by role."""

    id: str
    content: str
    summary: str = ""
    keywords: tuple[str, ...] = ()
    created_at: datetime | None = None
    conversation: Conversation | None = None


class TrainingDataSource(Protocol):
    """What the collector depends on; the store is one, a test may pass another."""

    def get_all_memory_points(self) -> list[MemoryPoint]: ...

    def get_last_train_time(self) -> datetime | None: ...

    def update_last_train_time(self, time: datetime) -> None: ...
