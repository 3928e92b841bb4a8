"""The ids of a test window, frozen by a hash when it opens, and how a conversation that is forgotten leaves them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import sha256

_DATED, _DRAWN = "time", "hash"
"""What chose the window: the dates of the conversations, or a hash of their clusters."""


def hash_ids(ids: Iterable[str], *, dated: bool) -> str:
    """How a window's ids are frozen: "time:" or "hash:", and their sha256."""
    digest = sha256("\n".join(sorted(ids)).encode()).hexdigest()
    return f"{_DATED if dated else _DRAWN}:{digest}"


def leave_windows(connection: sqlite3.Connection, conversation_id: str) -> None:
    """Takes a conversation out of its windows and freezes what remains; call it inside a transaction.

    A window whose ids are not those that were frozen keeps its hash, so that it is still noticed.
    """
    windows = connection.execute(
        "SELECT w.id, w.ids_hash FROM test_windows w JOIN window_members m ON m.window_id = w.id "
        "WHERE m.conversation_id = ?",
        (conversation_id,),
    ).fetchall()
    for window, frozen in windows:
        rows = connection.execute("SELECT conversation_id FROM window_members WHERE window_id = ?", (window,))
        ids = {id_ for (id_,) in rows}
        dated = frozen.startswith(f"{_DATED}:")
        if hash_ids(ids, dated=dated) == frozen:
            left = hash_ids(ids - {conversation_id}, dated=dated)
            connection.execute("UPDATE test_windows SET ids_hash = ? WHERE id = ?", (left, window))
    connection.execute("DELETE FROM window_members WHERE conversation_id = ?", (conversation_id,))
