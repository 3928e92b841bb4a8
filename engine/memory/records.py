"""The records of memory: conversations with their turns, memory points, and what an importer yields.

A conversation is the unit of the filters, the review, the split and the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import TypeAlias

import msgspec

from engine.core.chat import Role


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `text` is stored as imported: not normalised, control characters included."""

    role: Role
    text: str
    time: float | None = None
    """Seconds since the epoch; None when the source has none."""
    external_id: str = ""
    alternatives: tuple[str, ...] = ()
    """Regenerated answers outside the current branch."""
    masked: bool = False
    """An answer that its source excludes from training, such as OpenAI's `weight: 0`."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no text. An empty user turn marks the place of a question that was not imported; the answer
        after it is not trained on."""
        return not self.text.strip()


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation.

    `id` is derived from its content and, where there is one, its external id (`conversation_id`), so that
    importing twice adds nothing. `started_at` and `updated_at` are None for undated sources.
    """

    id: str
    source: str
    """The importer: "chatgpt", "alpaca", "sharegpt", "openai", "text", "sample", "chat" …"""
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
        """A conversation with its id and valid UTF-8 texts. Times default to the first and last of its turns."""
        clean = tuple(
            msgspec.structs.replace(
                turn,
                text=replace_surrogates(turn.text),
                external_id=replace_surrogates(turn.external_id),
                alternatives=tuple(map(replace_surrogates, turn.alternatives)),
            )
            for turn in turns
        )
        times = [turn.time for turn in clean if turn.time is not None]
        external_id = replace_surrogates(external_id)
        return cls(
            id=conversation_id(clean, source, external_id),
            source=source,
            external_id=external_id,
            title=replace_surrogates(title),
            started_at=started_at if started_at is not None else min(times, default=None),
            updated_at=updated_at if updated_at is not None else max(times, default=None),
            turns=clean,
        )

    def non_empty_turns(self) -> list[tuple[int, Turn]]:
        """The turns with text, each with its position in the conversation."""
        return [(position, turn) for position, turn in enumerate(self.turns) if not turn.is_empty]

    def end_time(self) -> float | None:
        """The latest time in the conversation, in seconds since the epoch; None when it is undated."""
        times = [self.started_at, self.updated_at, *(turn.time for turn in self.turns)]
        return max((time for time in times if time is not None), default=None)


class MemoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of memory in the form that MindX's training reads: a conversation as a transcript, or a summary."""

    id: str
    content: str
    summary: str = ""
    keywords: tuple[str, ...] = ()
    created_at: datetime | None = None
    conversation: Conversation | None = None


class SummaryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A memory point that another program wrote: a summary, not a conversation."""

    id: str
    source: str
    content: str
    summary: str = ""
    keywords: tuple[str, ...] = ()
    created_at: float | None = None
    """Seconds since the epoch."""


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """An imported embedding of a conversation or a summary point."""

    content_hash: str
    """`content_hash` of the conversation's turns, SHA-256 of a summary point's content in UTF-8."""
    point: str = ""
    """Id of the summary point; empty for a conversation."""
    embedder: str
    """The embedding model; an unknown one is named by its program and dimensions ("mindx-512")."""
    vector: bytes
    """float32, little-endian."""


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a file that is not imported."""

    reason: str
    """A few words in English, the same for the same cause, so that they can be counted and translated."""
    count: int = 1
    is_conversation: bool = False
    """True: a whole conversation was dropped; False: parts of one."""


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation of an earlier import that a later item is a more complete form of."""

    id: str
    by: str


class Recut(msgspec.Struct, frozen=True, kw_only=True):
    """All dialogues of a span of time with one contact; it stands before them.

    Earlier dialogues of that span in memory, which another silence, another end or another assistant gave, are replaced.
    """

    source: str
    contact: str
    """The external id of a dialogue is the contact, "#" and when it began."""
    start: float
    end: float
    """Seconds since the epoch, of the first and the last message."""
    forms: tuple[tuple[str, float, float], ...]
    """The id, the start and the end of each dialogue."""
    moments: frozenset[float]
    """The times of all messages: a contact of the same name has others."""


class LateAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that came after the silence that ends a dialogue, and within a day."""

    count: int


class AssumedDates(msgspec.Struct, frozen=True, kw_only=True):
    """How the dates of a file are read where nothing in it tells day and month apart."""

    order: str
    """`dmy` or `mdy`."""


ImportItem: TypeAlias = (
    Conversation | Skipped | SummaryPoint | Embedding | Replaced | Recut | LateAnswers | AssumedDates
)
"""What an importer yields."""


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which JSON can hold and UTF-8 cannot."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def prefix_hashes(turns: Iterable[Turn]) -> list[str]:
    """Hash of the conversation up to and including each turn: SHA-256 over roles and exact texts, 64 hex digits."""
    digest = sha256()
    hashes = []
    for turn in turns:
        data = turn.text.encode("utf-8")
        digest.update(f"{turn.role}\0{len(data)}\0".encode() + data)
        hashes.append(digest.hexdigest())
    return hashes


def content_hash(turns: Iterable[Turn]) -> str:
    """Hash of roles and exact texts; times, titles and alternatives are not part of it."""
    return hash_texts((turn.role, turn.text) for turn in turns)


def hash_texts(texts: Iterable[tuple[str, str]]) -> str:
    """`content_hash` of (role, text) of each turn."""
    parts: list[bytes] = []
    for role, text in texts:
        data = text.encode("utf-8")
        parts += (f"{role}\0{len(data)}\0".encode(), data)
    return sha256(b"".join(parts)).hexdigest()


def conversation_id(turns: Iterable[Turn], source: str = "", external_id: str = "") -> str:
    """16 hex digits from the content, and from the source and external id where there is one.

    A conversation that grew gets a new id: a model trained on the shorter form has not seen the new turns.
    """
    content = content_hash(turns)
    name = f"{source}\0{external_id}\0{content}" if external_id else content
    return sha256(name.encode("utf-8")).hexdigest()[:16]
