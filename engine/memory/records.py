"""What memory holds, as plain values: conversations with their turns, and the protocol that training reads.

A conversation is the unit of everything that follows: filters, review, split and verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Protocol, TypeAlias

import msgspec

from engine.core.chat import Role


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

    `id` is derived from its content and, where there is one, its external id (`conversation_id`), so that
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

    @classmethod
    def of(
        cls,
        turns: Iterable[Turn],
        *,
        source: str,
        external_id: str = "",
        title: str = "",
        started_at: float | None = None,
        updated_at: float | None = None,
    ) -> Conversation:
        """A conversation with its id, and with texts that UTF-8 can carry. Times default to its turns'."""
        clean = tuple(
            msgspec.structs.replace(
                turn,
                text=well_formed(turn.text),
                external_id=well_formed(turn.external_id),
                alternatives=tuple(map(well_formed, turn.alternatives)),
            )
            for turn in turns
        )
        times = [turn.time for turn in clean if turn.time is not None]
        external_id = well_formed(external_id)
        return cls(
            id=conversation_id(clean, source, external_id),
            source=source,
            external_id=external_id,
            title=well_formed(title),
            started_at=started_at if started_at is not None else min(times, default=None),
            updated_at=updated_at if updated_at is not None else max(times, default=None),
            turns=clean,
        )


class MemoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One remembered thing, as MindX's training reads it: here, a conversation rendered by role."""

    id: str
    content: str
    summary: str = ""
    keywords: tuple[str, ...] = ()
    created_at: datetime | None = None
    conversation: Conversation | None = None


class Recollection(msgspec.Struct, frozen=True, kw_only=True):
    """A memory point as another program wrote it: a summary, not a conversation."""

    id: str
    source: str
    content: str
    summary: str = ""
    keywords: tuple[str, ...] = ()
    created_at: float | None = None
    """Seconds since the epoch."""


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """A vector that came with a conversation or a memory point."""

    content_hash: str
    """`content_hash` of the conversation's turns, SHA-256 of a memory point's content in UTF-8."""
    point: str = ""
    """Id of the memory point; empty for a conversation."""
    embedder: str
    """Who made it; unknown models are named by their program and dimensions ("mindx-512")."""
    vector: bytes
    """32-bit floats, little-endian."""


Item: TypeAlias = "Conversation | Skipped | Recollection | Embedding"
"""What an importer gives."""


class TrainingDataSource(Protocol):
    """What the collector depends on; the store is one, a test may pass another."""

    def get_all_memory_points(self) -> list[MemoryPoint]: ...

    def get_last_train_time(self) -> datetime | None: ...

    def update_last_train_time(self, time: datetime) -> None: ...


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a file that memory does not take."""

    reason: str
    """A few words in English, the same for the same cause, so that they can be counted and translated."""
    count: int = 1
    whole: bool = False
    """A whole conversation was left out; False: parts of one."""


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """`text` with each lone surrogate, which JSON can carry and UTF-8 cannot, as U+FFFD."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def prefix_hashes(turns: Iterable[Turn]) -> list[str]:
    """Hash of the conversation up to and including each turn: SHA-256 over roles and exact texts, 64 hex."""
    digest = sha256()
    hashes = []
    for turn in turns:
        data = turn.text.encode("utf-8")
        digest.update(f"{turn.role}\0{len(data)}\0".encode() + data)
        hashes.append(digest.hexdigest())
    return hashes


def content_hash(turns: Iterable[Turn]) -> str:
    """Hash of roles and exact texts. Times, titles and alternatives do not count."""
    parts: list[bytes] = []
    for turn in turns:
        data = turn.text.encode("utf-8")
        parts += (f"{turn.role}\0{len(data)}\0".encode(), data)
    return sha256(b"".join(parts)).hexdigest()


def conversation_id(turns: Iterable[Turn], source: str = "", external_id: str = "") -> str:
    """16 hex digits from the content, and from where it comes when the source numbers its conversations.

    A conversation that grew has a new id: a model that was trained on the shorter one has not seen it.
    """
    return _id_of(content_hash(turns), source, external_id)


def _id_of(content: str, source: str, external_id: str) -> str:
    name = f"{source}\0{external_id}\0{content}" if external_id else content
    return sha256(name.encode("utf-8")).hexdigest()[:16]
