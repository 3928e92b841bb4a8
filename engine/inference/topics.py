"""Reads what a person talks about from memory, for `engine.inference.routing`. Imports nothing heavy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.inference.routing import TopicProfile, make_profile
from engine.memory.store import MemoryStore

MOST_CONVERSATIONS = 5_000
"""The newest ones that are read: a second or two."""
MOST_CHARACTERS = 4_000
"""Of each conversation."""


def read_topics(ws: Workspace) -> TopicProfile:
    """The topics of the newest conversations in memory; an empty profile where there is none or it cannot be read.

    Blocking: call it in a thread, once per session.
    """
    if not ws.memory_db.is_file():
        return TopicProfile()
    try:
        with MemoryStore(ws.memory_db, readonly=True) as store:
            return make_profile(_texts(store.connection))
    except (H2QError, sqlite3.Error):
        return TopicProfile()


def _texts(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT id FROM current_conversations ORDER BY COALESCE(updated_at, started_at, added_at) DESC, id LIMIT ?",
        (MOST_CONVERSATIONS,),
    ).fetchall()
    for (id_,) in rows:
        turns = connection.execute(
            "SELECT text FROM turns WHERE conversation_id = ? AND role IN ('user', 'assistant') ORDER BY position",
            (id_,),
        )
        yield "\n".join(text for (text,) in turns)[:MOST_CHARACTERS]
