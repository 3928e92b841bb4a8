"""Reads Badger key-value stores (github.com/dgraph-io/badger, v3 and v4): the newest value of each key, from the
tables in MANIFEST and the memtable logs of a crash (`*.mem`).

Written here because no Python library reads Badger. Encrypted stores and Zstandard tables are not supported.
"""

from __future__ import annotations

import heapq
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.readers.snappy import decompress as decompress_snappy
from engine.memory.importers.readers.snappy import uvarint
from engine.memory.importers.readers.temporary import temporary_folder

MAGIC = b"Bdgr"
_VERSIONS = (7, 8)
_LOG_HEADER = 20
_DELETED, _POINTER, _IN_TRANSACTION, _END_OF_TRANSACTION = 1, 2, 64, 128
"""Bits of `meta`."""
_INTERNAL = b"!badger!"
_CHUNK = 2**20
_MAX_VALUE = 64 * 2**20


class _BadgerEntry(msgspec.Struct, frozen=True):
    key: bytes
    """Followed by eight bytes that sort the newest version first."""
    meta: int
    expires: int
    value: bytes


def _order(entry: _BadgerEntry) -> tuple[bytes, bytes]:
    """Sort key: a key precedes its extensions, whatever the versions."""
    return entry.key[:-8], entry.key[-8:]


def is_badger(manifest: Path) -> bool:
    """Whether the file is the MANIFEST of a Badger folder."""
    try:
        with manifest.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def newest_values(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys in order, each with its newest value; deleted and expired keys are skipped.

    Reads a copy, because Badger locks its folder. Memory use is bounded by one block per table. Raises BadInput.
    """
    with _open_copy(folder) as copy:
        try:
            tables = _tables(copy / "MANIFEST")
            sources = [_table(copy / f"{id_:06d}.sst", compressed) for id_, compressed in tables.items()]
            sources += [iter(_log(path)) for path in sorted(copy.glob("*.mem"))]
            merged = heapq.merge(*sources, key=_order)
            now = time.time()
            for key, versions in groupby(merged, key=lambda entry: entry.key[:-8]):
                newest = next(versions)
                if key.startswith(_INTERNAL) or newest.meta & _DELETED or 0 < newest.expires < now:
                    continue
                yield key, _value_from_log(copy, newest.value) if newest.meta & _POINTER else newest.value
        except (ValueError, IndexError, struct.error) as error:
            raise BadInput(
                _("The Badger folder is damaged ({reason})").format(reason=error), path=folder
            ) from None
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror or error), path=folder
            ) from None


def check_supported(folder: Path) -> None:
    """Raises BadInput for an encrypted store, Zstandard compression, or another format version."""
    try:
        data = (folder / "MANIFEST").read_bytes()
        version = struct.unpack_from(">HH", data, 4)[1]
        if version not in _VERSIONS:
            raise BadInput(
                _("Badger format {version} is not supported (supported: {known})").format(
                    version=version, known=_(", ").join(map(str, _VERSIONS))
                ),
                path=folder,
            )
        changes = list(_changes(data))
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise BadInput(
            _("The Badger folder is damaged ({reason})").format(reason=error), path=folder
        ) from None
    created = {change.get(1, 0): change for change in changes if not change.get(2, 0)}
    deleted = {change.get(1, 0) for change in changes if change.get(2, 0)}
    live = [change for id_, change in created.items() if id_ not in deleted]
    if any(change.get(4, 0) for change in live):
        raise BadInput(_("Encrypted Badger folders are not supported"), path=folder)
    if any(change.get(6, 0) == 2 for change in live):
        raise BadInput(_("Badger folders with Zstandard compression are not supported"), path=folder)


@contextmanager
def _open_copy(folder: Path) -> Iterator[Path]:
    with temporary_folder() as copy:
        try:
            # A table that is compacted away between reading the manifest and copying is replaced in the next manifest.
            for attempt in range(5):
                shutil.copyfile(folder / "MANIFEST", copy / "MANIFEST")
                check_supported(copy)
                try:
                    for id_ in _tables(copy / "MANIFEST"):
                        shutil.copyfile(folder / f"{id_:06d}.sst", copy / f"{id_:06d}.sst")
                    break
                except FileNotFoundError:
                    if attempt == 4:
                        raise
            for path in (*folder.glob("*.mem"), *folder.glob("*.vlog")):
                _copy_sparse(path, copy / path.name)
        except BadInput as error:
            raise BadInput(error.reason, path=folder) from None
        except (ValueError, IndexError, struct.error) as error:
            raise BadInput(
                _("The Badger folder is damaged ({reason})").format(reason=error), path=folder
            ) from None
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror or error), path=folder
            ) from None
        yield copy


def _copy_sparse(path: Path, copy: Path) -> None:
    """Copies a file and keeps its holes: logs are mostly empty files of two gigabytes."""
    with path.open("rb") as source, copy.open("wb") as target:
        while chunk := source.read(_CHUNK):
            if chunk.count(0) == len(chunk):
                target.seek(len(chunk), 1)
            else:
                target.write(chunk)
        target.truncate()


def _tables(manifest: Path) -> dict[int, bool]:
    """The live tables, each with whether it is compressed with Snappy."""
    live: dict[int, bool] = {}
    for change in _changes(manifest.read_bytes()):
        if change.get(2, 0):
            live.pop(change.get(1, 0), None)
        else:
            live[change.get(1, 0)] = change.get(6, 0) == 1
    return live


def _changes(data: bytes) -> Iterator[dict[int, int]]:
    """Each manifest change as its fields by number: 1 table, 2 deleted, 4 encryption key, 6 compression."""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        at += 8
        if length > len(data) - at:
            # Torn by a crash; Badger truncates it too.
            return
        for number, change in _fields(data[at : at + length]):
            if number == 1 and isinstance(change, bytes):
                yield {key: value for key, value in _fields(change) if isinstance(value, int)}
        at += length


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = uvarint(data, at)
        if tag & 7 == 0:
            value, at = uvarint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = uvarint(data, at)
            if size > len(data) - at:
                raise ValueError("field beyond the end")
            yield tag >> 3, data[at : at + size]
            at += size
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("field of an unknown type")


def _table(path: Path, compressed: bool) -> Iterator[_BadgerEntry]:
    """The entries of a table in key order."""
    with path.open("rb") as file:
        size = path.stat().st_size
        for offset, length in _block_offsets(_read_index(path)):
            if offset + length > size:
                raise ValueError("block beyond the end")
            file.seek(offset)
            block = file.read(length)
            yield from _block(decompress_snappy(block) if compressed else block)


def _read_index(path: Path) -> bytes:
    """The index of a table; it precedes its length, its checksum, and the checksum's length."""
    with path.open("rb") as file:
        end = file.seek(0, 2)

        def read_before(place: int, count: int) -> bytes:
            if not 0 <= count <= place:
                raise ValueError("truncated table")
            file.seek(place - count)
            return file.read(count)

        (checksum,) = struct.unpack(">I", read_before(end, 4))
        end -= 4 + checksum
        (length,) = struct.unpack(">I", read_before(end, 4))
        return read_before(end - 4, length)


def _block_offsets(data: bytes) -> list[tuple[int, int]]:
    """Offset and length of each block, from the flatbuffer `TableIndex`, whose first field is a vector of
    `BlockOffset{key, offset, len}`."""

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", data, at)[0])

    def field(table: int, slot: int) -> int:
        """Offset of a field, 0 when it is absent."""
        vtable = table - int(struct.unpack_from("<i", data, table)[0])
        if vtable < 0 or 4 + 2 * slot + 2 > struct.unpack_from("<H", data, vtable)[0]:
            return 0
        relative = int(struct.unpack_from("<H", data, vtable + 4 + 2 * slot)[0])
        return table + relative if relative else 0

    root = u32(0)
    place = field(root, 0)
    if not place:
        return []
    vector = place + u32(place)
    count = u32(vector)
    if count > len(data) // 4:
        raise ValueError("index length out of range")
    blocks = []
    for n in range(count):
        at = vector + 4 + 4 * n
        block = at + u32(at)
        offset, length = field(block, 1), field(block, 2)
        blocks.append((u32(offset) if offset else 0, u32(length) if length else 0))
    return blocks


def _block(data: bytes) -> Iterator[_BadgerEntry]:
    (checksum,) = struct.unpack_from(">I", data, len(data) - 4)
    end = len(data) - 4 - checksum
    (count,) = struct.unpack_from(">I", data, end - 4)
    start = end - 4 - 4 * count
    if not 0 <= start < end or count == 0:
        raise ValueError("block without entries")
    offsets = [*struct.unpack_from(f"<{count}I", data, start), start]
    base = b""
    for at, until in pairwise(offsets):
        if at + 4 > until or until > start:
            raise ValueError("entry beyond its block")
        overlap, differs = struct.unpack_from("<HH", data, at)
        key = base[:overlap] + data[at + 4 : at + 4 + differs]
        base = base or key
        if len(key) < 8:
            raise ValueError("key without a version")
        value = at + 4 + differs
        expires, text = uvarint(data[:until], value + 2)
        yield _BadgerEntry(key, data[value], expires, data[text:until])


def _log(path: Path) -> list[_BadgerEntry]:
    """The entries of a log in key order; those of a transaction only when it is complete."""
    entries: list[_BadgerEntry] = []
    pending: list[_BadgerEntry] = []
    with path.open("rb") as file:
        data = file.read()
    at = _LOG_HEADER
    while entry_end := _log_entry(data, at):
        entry, at = entry_end
        if entry.meta & _END_OF_TRANSACTION:
            entries += pending
            pending = []
        elif entry.meta & _IN_TRANSACTION:
            pending.append(entry)
        else:
            entries.append(entry)
    return sorted(entries, key=_order)


def _log_entry(data: bytes, at: int) -> tuple[_BadgerEntry, int] | None:
    """The entry at `at` and the offset of the next; None at the end, or where a crash tore the log."""
    try:
        key_size, place = uvarint(data, at + 2)
        value_size, place = uvarint(data, place)
        expires, place = uvarint(data, place)
    except ValueError:
        return None
    value = place + key_size
    if key_size < 8 or value_size > _MAX_VALUE or value + value_size + 4 > len(data):
        return None
    return _BadgerEntry(data[place:value], data[at], expires, data[value : value + value_size]), (
        value + value_size + 4
    )


def _value_from_log(folder: Path, pointer: bytes) -> bytes:
    """The value in a value log at a pointer (file, length, offset)."""
    file_id, length, offset = struct.unpack("<III", pointer)
    with (folder / f"{file_id:06d}.vlog").open("rb") as file:
        file.seek(offset)
        data = file.read(min(length, _MAX_VALUE))
    entry_end = _log_entry(data, 0)
    if entry_end is None:
        raise ValueError("value beyond the end of its log")
    return entry_end[0].value
