"""How conversations get into memory: in short transactions, and seen only when their import is complete."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.core.errors import Busy
from engine.core.i18n import _
from engine.memory.deletion import sweep
from engine.memory.import_batch import Taking
from engine.memory.records import Conversation, Embedding, Item, Recollection
from engine.memory.transactions import Writer, import_lock, synced_later

_BATCH_CHARACTERS = 200_000
"""Text gathered, outside any transaction, before one is opened."""
_WAIT_S = 10.0


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an import took. Conversations are counted, except in `skipped`, which counts what its reasons name."""

    import_id: str
    taken: int
    unchanged: int
    """There already, alone or as the beginning of a longer one."""
    superseded: int
    """Shorter forms that a taken one replaced."""
    skipped: dict[str, int]
    points: int = 0
    """Memory points taken that are no conversations."""
    transactions: int = 0
    longest_transaction_s: float = 0.0


def add(
    connection: sqlite3.Connection,
    path: Path,
    conversations: Iterable[Item],
    *,
    source: str,
    origin: str,
    again: bool,
) -> ImportResult:
    """See `MemoryStore.add`."""
    with import_lock(path, wait_s=_WAIT_S) as held:
        if not held:
            raise Busy(_("Another import into this memory is running"), hint="h2q-tui runs list")
        sweep(connection)
        import_id = time.strftime("%Y%m%d%H%M%S") + "-" + os.urandom(3).hex()
        writer = Writer(connection)
        with writer.open():
            connection.execute(
                "INSERT INTO imports (id, source, path, started_at) VALUES (?, ?, ?, ?)",
                (import_id, source, origin, time.time()),
            )
        taking = Taking(writer, import_id, again)
        try:
            with synced_later(connection):
                for batch in _batches(conversations):
                    taking.take(batch)
            with writer.open():
                connection.execute(
                    "UPDATE imports SET completed_at = ?, taken = ?, unchanged = ?, skipped = ? WHERE id = ?",
                    (time.time(), taking.taken, taking.unchanged, json.dumps(taking.skipped), import_id),
                )
                connection.execute(
                    "DELETE FROM forgotten WHERE key IN (SELECT value FROM json_each(?))",
                    (json.dumps(taking.remembered),),
                )
        except BaseException as error:
            _sweep_if_possible(connection)
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
            raise
    return ImportResult(
        import_id=import_id,
        taken=taking.taken,
        unchanged=taking.unchanged,
        superseded=taking.superseded,
        skipped=taking.skipped,
        points=taking.points,
        transactions=writer.transactions,
        longest_transaction_s=writer.longest,
    )


def _sweep_if_possible(connection: sqlite3.Connection) -> None:
    """On a full disk the rows stay unseen until the next writer sweeps them."""
    with suppress(sqlite3.OperationalError):
        sweep(connection)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += 100 + _size(item)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _size(item: Item) -> int:
    if isinstance(item, Conversation):
        return sum(len(turn.text) for turn in item.turns)
    if isinstance(item, Recollection):
        return len(item.content)
    return len(item.vector) if isinstance(item, Embedding) else 0
