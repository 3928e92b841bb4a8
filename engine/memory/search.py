"""Text search in memory.

A scan, not an index: memory is small enough, two-character Chinese words are found, and forgetting a
conversation leaves nothing in an index.
"""

from __future__ import annotations

import sqlite3
import unicodedata

import msgspec

from engine.core.chat import Role
from engine.memory.integrity import replace_invalid

_ROLES = frozenset(Role)
"""A turn with another role is damaged."""


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that contains the searched text."""

    conversation_id: str
    position: int
    role: Role
    excerpt: str
    """Text around the hit, at most 160 code points."""


def search(connection: sqlite3.Connection, text: str, limit: int) -> list[SearchHit]:
    """Turns that contain `text`, ignoring case and width (NFKC), newest conversation first."""
    wanted = fold(text)
    if not wanted:
        return []
    connection.create_function(
        "h2q_find", 1, lambda value: fold(replace_invalid(value)).find(wanted), deterministic=True
    )
    rows = connection.execute(
        "SELECT t.conversation_id, t.position, t.role, t.text, h2q_find(CAST(t.text AS BLOB)) AS at "
        "FROM current_conversations c JOIN turns t ON t.conversation_id = c.id WHERE at >= 0 "
        "ORDER BY COALESCE(c.updated_at, c.started_at) IS NULL, COALESCE(c.updated_at, c.started_at) DESC, "
        "c.id, t.position LIMIT ?",
        (limit,),
    )
    return [
        SearchHit(
            conversation_id=row[0], position=row[1], role=Role(row[2]), excerpt=_excerpt(row[3], row[4])
        )
        for row in rows
        if row[2] in _ROLES
    ]


def fold(text: str) -> str:
    """Case-folded NFKC form, for comparison only."""
    return unicodedata.normalize("NFKC", text).casefold()


def _excerpt(text: str, at: int) -> str:
    # Folding may shift the offset a little; the excerpt is wide enough.
    start = max(0, at - 40)
    return ("…" if start else "") + text[start : start + 158] + ("…" if start + 158 < len(text) else "")
