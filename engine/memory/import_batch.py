"""One import on its way in: what is new, what is there already, and which shorter forms a longer one replaces."""

from __future__ import annotations

import json
import time

from engine.memory.deletion import forgotten_key, salt_of
from engine.memory.memory_points import embed, remember
from engine.memory.records import (
    Conversation,
    Embedding,
    Item,
    Recollection,
    Skipped,
    content_hash,
    prefix_hashes,
)
from engine.memory.transactions import TURNS_AT_ONCE, Writer


class Taking:
    """Takes the items of one import in, in batches, and counts."""

    def __init__(self, writer: Writer, import_id: str, again: bool) -> None:
        self.writer = writer
        self.connection = writer.connection
        self.import_id = import_id
        self.again = again
        self.salt = salt_of(writer)
        self.taken = 0
        self.unchanged = 0
        self.superseded = 0
        self.points = 0
        self.remembered: list[str] = []
        self.skipped: dict[str, int] = {}

    def take(self, batch: list[Item]) -> None:
        prepared = []
        beside: list[Recollection | Embedding] = []
        for item in batch:
            if isinstance(item, Skipped):
                self._skip(item.reason, item.count)
            elif not isinstance(item, Conversation):
                beside.append(item)
            elif not any(turn.text for turn in item.turns):
                self._skip("empty conversation")
            else:
                # Of numbered conversations nobody asks for the hash of a beginning.
                numbered = _by_number(item)
                prepared.append((item, [content_hash(item.turns)] if numbered else prefix_hashes(item.turns)))
        if prepared or beside:
            with self.writer.open():
                for conversation, hashes in prepared:
                    self._take_one(conversation, hashes)
                    self.writer.spend()
                for other in beside:
                    self._take_beside(other)
                    self.writer.spend()

    def _take_beside(self, item: Recollection | Embedding) -> None:
        if isinstance(item, Embedding):
            embed(self.connection, item)
            return
        key = forgotten_key(self.salt, item.source, item.id, "")
        if self._forgotten(key):
            return
        new = remember(self.connection, item, self.import_id)
        self.points += new
        self.unchanged += not new

    def _skip(self, reason: str, count: int = 1) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count

    def _forgotten(self, key: str) -> bool:
        """Whether it is left out because the person had it forgotten."""
        if not self.connection.execute("SELECT 1 FROM forgotten WHERE key = ?", (key,)).fetchone():
            return False
        if self.again:
            self.remembered.append(key)
            return False
        self._skip("forgotten earlier")
        return True

    def _take_one(self, conversation: Conversation, hashes: list[str]) -> None:
        execute = self.connection.execute
        key = forgotten_key(self.salt, conversation.source, conversation.external_id, hashes[-1])
        if self._forgotten(key):
            return
        known = execute(
            "SELECT started_at, updated_at FROM conversations WHERE id = ?", (conversation.id,)
        ).fetchone()
        if known:
            self.unchanged += 1
            self._meet_again(conversation, *known)
            return
        older = self._shorter_forms(conversation, hashes)
        if older is None:
            self.unchanged += 1
            return
        self._insert(conversation, hashes)
        self.taken += 1
        for id_ in older:
            execute("UPDATE conversations SET superseded_by = ? WHERE id = ?", (conversation.id, id_))
        self.superseded += len(older)

    def _meet_again(
        self, conversation: Conversation, started_at: float | None, updated_at: float | None
    ) -> None:
        """The same words once more: what this copy knows of their time is kept."""
        newer = conversation.updated_at is not None and conversation.updated_at > (updated_at or 0)
        if _by_number(conversation):
            if newer and updated_at is not None:
                self.connection.execute(
                    "UPDATE conversations SET updated_at = ?, title = ? WHERE id = ?",
                    (conversation.updated_at, conversation.title, conversation.id),
                )
                self._settle(conversation)
            return
        older = conversation.started_at is not None and conversation.started_at < (started_at or float("inf"))
        if newer or older:
            self.connection.execute(
                "UPDATE conversations SET started_at = ?, updated_at = ? WHERE id = ?",
                (
                    conversation.started_at if older else started_at,
                    conversation.updated_at if newer else updated_at,
                    conversation.id,
                ),
            )

    def _shorter_forms(self, conversation: Conversation, hashes: list[str]) -> list[str] | None:
        """Ids that `conversation` replaces; None when memory has a newer or longer form of it already."""
        execute = self.connection.execute
        if _by_number(conversation):
            rows = execute(
                "SELECT id, updated_at, turns FROM conversations WHERE source = ? AND external_id = ? "
                "AND external_id != '' AND updated_at IS NOT NULL AND superseded_by IS NULL",
                (conversation.source, conversation.external_id),
            ).fetchall()
            ours = _age(conversation.updated_at, len(conversation.turns), conversation.id)
            return (
                None if any(_age(row[1], row[2], row[0]) > ours for row in rows) else [row[0] for row in rows]
            )
        if len(hashes) < 2:
            # One message alone, "hello", is the beginning of too many conversations to say anything.
            return []
        longer = execute(
            "SELECT 1 FROM turns t JOIN conversations c ON c.id = t.conversation_id "
            "WHERE t.prefix = ? AND t.prefix != 0 AND t.position = ? AND c.source = ? AND c.external_id = ? LIMIT 1",
            (_prefix(hashes[-1]), len(hashes) - 1, conversation.source, conversation.external_id),
        ).fetchone()
        if longer:
            return None
        return [
            row[0]
            for row in execute(
                "SELECT id FROM conversations WHERE content_hash IN (SELECT value FROM json_each(?)) "
                "AND source = ? AND external_id = ? AND (external_id = '' OR updated_at IS NULL) "
                "AND superseded_by IS NULL",
                (json.dumps(hashes[1:-1]), conversation.source, conversation.external_id),
            )
        ]

    def _settle(self, conversation: Conversation) -> None:
        """The person went back to an earlier branch: the newest form is the current one."""
        where = (conversation.source, conversation.external_id)
        rows = self.connection.execute(
            "SELECT id, updated_at, turns FROM conversations "
            "WHERE source = ? AND external_id = ? AND external_id != '' AND updated_at IS NOT NULL",
            where,
        ).fetchall()
        newest = max(rows, key=lambda row: _age(row[1], row[2], row[0]))[0]
        self.connection.execute(
            "UPDATE conversations SET superseded_by = NULLIF(?, id) "
            "WHERE source = ? AND external_id = ? AND external_id != '' AND updated_at IS NOT NULL",
            (newest, *where),
        )

    def _insert(self, conversation: Conversation, hashes: list[str]) -> None:
        self.connection.execute(
            "INSERT INTO conversations (id, import_id, source, external_id, title, started_at, updated_at, "
            "added_at, turns, characters, content_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                conversation.id,
                self.import_id,
                conversation.source,
                conversation.external_id,
                conversation.title,
                conversation.started_at,
                conversation.updated_at,
                time.time(),
                len(conversation.turns),
                sum(len(turn.text) for turn in conversation.turns),
                hashes[-1],
            ),
        )
        by_content = not _by_number(conversation)
        rows = [
            (
                conversation.id,
                position,
                turn.role,
                turn.text,
                turn.time,
                turn.external_id,
                json.dumps(turn.alternatives, ensure_ascii=False) if turn.alternatives else "[]",
                _prefix(hashes[position]) if by_content and position else 0,
            )
            for position, turn in enumerate(conversation.turns)
        ]
        for start in range(0, len(rows), TURNS_AT_ONCE):
            self.connection.executemany(
                "INSERT INTO turns (conversation_id, position, role, text, time, external_id, alternatives, prefix) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows[start : start + TURNS_AT_ONCE],
            )
            self.writer.spend()


def _by_number(conversation: Conversation) -> bool:
    """Whether its external id and its date say which form of it is the newest.

    An id without a date does not: files in the wild give one id to different conversations. Those, and the
    ones without an id, have grown when the shorter one is the exact beginning of the longer one.
    """
    return bool(conversation.external_id) and conversation.updated_at is not None


def _age(updated_at: float | None, turns: int, id_: str) -> tuple[float, int, str]:
    return (float("-inf") if updated_at is None else updated_at, turns, id_)


def _prefix(hash_: str) -> int:
    """64 bits of a hash as SQLite's signed integer; never 0, which means none."""
    return int.from_bytes(bytes.fromhex(hash_[:16]), "big", signed=True) or 1
