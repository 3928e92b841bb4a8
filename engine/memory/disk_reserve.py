"""A file next to the memory that keeps room for cleaning up: when the disk is full, deleting needs space too.

Deleting rows writes to the WAL before it gives anything back, so a failed import could never be removed again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from engine.core.files import check_free_space
from engine.memory.deletion import (
    delete_incomplete_imports,
    delete_incomplete_imports_at_once,
    has_incomplete_imports,
    release_free_pages,
)

T = TypeVar("T")

RESERVE_BYTES = 16 << 20
"""More than the WAL takes between two checkpoints."""
_SHARE = 16
"""Of a small disk, at most one part in this many of the free space."""
_PER_BYTE = 2.5
"""Bytes on the disk for each byte of an imported file: the memory with its indexes, and the WAL."""


def reserve_path(memory: Path) -> Path:
    return memory.with_name(".reserve")


def keep_reserve(memory: Path) -> None:
    """Reserves space on the disk of `memory`, unless there is little. Never raises."""
    path = reserve_path(memory)
    with suppress(OSError):
        size = min(RESERVE_BYTES, shutil.disk_usage(memory.parent).free // _SHARE)
        if path.exists() and path.stat().st_size >= size // 2:
            return
        try:
            with path.open("wb") as file:
                path.chmod(0o600)
                # Written: without fallocate, and with compression, a hole would reserve nothing.
                for _block in range(size // _BLOCK):
                    file.write(os.urandom(_BLOCK))
        except OSError:
            path.unlink(missing_ok=True)
            raise


_BLOCK = 1 << 16


def is_disk_full(error: BaseException | None) -> bool:
    """Whether SQLite could not write because the disk, or a limit of the file's size, is reached."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL


def with_reserve(memory: Path, action: Callable[[], T]) -> T:
    """The result of `action`; when the disk is full, it is tried again in the space of the reserve.

    Opening a database in WAL mode creates two files, also for reading.
    """
    try:
        return action()
    except sqlite3.OperationalError as error:
        no_file = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        if not (is_disk_full(error) or no_file) or not reserve_path(memory).exists():
            raise
    reserve_path(memory).unlink(missing_ok=True)
    return action()


def clean_failed_imports(connection: sqlite3.Connection, memory: Path) -> None:
    """Deletes the rows of imports that never completed. The caller holds the import lock."""
    try:
        # On a nearly full disk the short transactions of the usual way would take the last room.
        if shutil.disk_usage(memory.parent).free > RESERVE_BYTES:
            delete_incomplete_imports(connection)
            return
    except OSError:
        pass
    except sqlite3.OperationalError as error:
        if not is_disk_full(error):
            raise
    if has_incomplete_imports(connection):
        free_failed_import(connection, memory)


def free_failed_import(connection: sqlite3.Connection, memory: Path) -> None:
    """Deletes the rows of an import that the full disk ended, and gives the space back. The caller holds the import
    lock. Never raises `sqlite3.OperationalError`: the rows stay invisible until a writer deletes them."""
    reserve_path(memory).unlink(missing_ok=True)
    try:
        # Before a checkpoint, which would take the room: pages that are free by then are not written.
        delete_incomplete_imports_at_once(connection)
    except sqlite3.OperationalError:
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            delete_incomplete_imports(connection)
    with suppress(sqlite3.OperationalError):
        release_free_pages(connection)
    keep_reserve(memory)


def check_import_space(memory: Path, size: int) -> None:
    """Raises RunFailed when files of `size` bytes would fill the disk of the memory, BadInput if it is not writable."""
    if size:
        check_free_space(memory.parent, round(size * _PER_BYTE), kept=1 << 16)
