"""A memory store with given conversations, for the corpus tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.core.chat import Role
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore

Said = Sequence[tuple[str, str]]


def conversation(id_: str, *turns: str, at: float | None = None, roles: str = "ua") -> Conversation:
    """A conversation with alternating user and assistant turns, dated `at`."""
    names = {"u": Role.USER, "a": Role.ASSISTANT, "s": Role.SYSTEM, "t": Role.TOOL}
    return Conversation(
        id=id_,
        source="test",
        external_id=id_,
        started_at=at,
        updated_at=at,
        turns=tuple(Turn(role=names[roles[i % len(roles)]], text=text) for i, text in enumerate(turns)),
    )


def memory(folder: Path, conversations: Sequence[Conversation]) -> MemoryStore:
    """An open store with these conversations."""
    store = MemoryStore(folder / "memory" / "memory.db")
    store.add(conversations, "test", "test")
    return store


def distinct(number: int, *, at: float | None = None) -> Conversation:
    """A conversation unlike any other: its words are derived from `number`."""
    word = "".join(chr(0x4E00 + (number * 7919 + step * 104729) % 18000) for step in range(60))
    return conversation(f"c{number:05d}", f"{word[:25]}是什么？", f"{word[25:]}，这就是它的意思。", at=at)
