"""One turn of a chat: the type that datasets, chat templates, backends and the inference protocol share."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """Who wrote a message; "tool" occurs in imported conversations only."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One turn; `role` is "system", "user" or "assistant"."""

    role: str
    content: str
    train: bool = True
    """False masks the loss of an assistant turn; other roles carry no loss."""
