"""Badger folders (github.com/dgraph-io/badger, v3 and v4), read with the standard library: the newest value of
each key, from the tables that MANIFEST names and from the logs that a crash left (`*.mem`).

Not read: encrypted stores and tables packed with Zstandard.
"""

from __future__ import annotations

import heapq
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.readers.snappy import unpack as unpack_snappy
from engine.memory.importers.readers.snappy import uvarint

MAGIC = b"Bdgr"
_VERSIONS = (7, 8)
_LOG_HEADER = 20
_DELETED, _POINTER, _IN_TRANSACTION, _END_OF_TRANSACTION = 1, 2, 64, 128
_INTERNAL = b"!badger!"
_CHUNK = 2**20
_MAX_VALUE = 64 * 2**20


class _Entry(msgspec.Struct, frozen=True):
    key: bytes
    """With eight bytes that sort the newest version first."""
    meta: int
    expires: int
    value: bytes


def _order(entry: _Entry) -> tuple[bytes, bytes]:
    """Of two keys of which one begins the other, the shorter stands first, whatever its version."""
    return entry.key[:-8], entry.key[-8:]


def is_badger(manifest: Path) -> bool:
    """Whether `manifest` is the MANIFEST of a Badger folder."""
    try:
        with manifest.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def newest_values(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys in order, each with its newest value; deleted and expired ones are left out.

    Reads a copy, for Badger lets nobody else in. Memory stays at a block of each table. Raises BadInput.
    """
    with _copied(folder) as copy:
        try:
            tables = _tables(copy / "MANIFEST")
            sources = [_table(copy / f"{id_:06d}.sst", packed) for id_, packed in tables.items()]
            sources += [iter(_log(path)) for path in sorted(copy.glob("*.mem"))]
            merged = heapq.merge(*sources, key=_order)
            now = time.time()
            for key, versions in groupby(merged, key=lambda entry: entry.key[:-8]):
                newest = next(versions)
                if key.startswith(_INTERNAL) or newest.meta & _DELETED or 0 < newest.expires < now:
                    continue
                yield key, _pointed(copy, newest.value) if newest.meta & _POINTER else newest.value
        except (ValueError, IndexError, struct.error) as error:
            raise BadInput(
                _("The Badger folder is damaged ({reason})").format(reason=error), path=folder
            ) from None
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror or error), path=folder
            ) from None


def refuse_unknown(folder: Path) -> None:
    """Raises BadInput for an encrypted store, one packed with Zstandard, and another version's."""
    try:
        data = (folder / "MANIFEST").read_bytes()
        version = struct.unpack_from(">HH", data, 4)[1]
        if version not in _VERSIONS:
            raise BadInput(
                _("This Badger folder has format {version}; {known} are read").format(
                    version=version, known=", ".join(map(str, _VERSIONS))
                ),
                path=folder,
            )
        changes = list(_changes(data))
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise BadInput(
            _("The Badger folder is damaged ({reason})").format(reason=error), path=folder
        ) from None
    made = {change.get(1, 0): change for change in changes if not change.get(2, 0)}
    gone = {change.get(1, 0) for change in changes if change.get(2, 0)}
    live = [change for id_, change in made.items() if id_ not in gone]
    if any(change.get(4, 0) for change in live):
        raise BadInput(_("This Badger folder is encrypted; it is not read"), path=folder)
    if any(change.get(6, 0) == 2 for change in live):
        raise BadInput(_("This Badger folder is packed with Zstandard; it is not read"), path=folder)


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="h2q-") as made:
        copy = Path(made)
        try:
            # A table that is merged away between the list and the copy is in the next list.
            for attempt in range(5):
                shutil.copyfile(folder / "MANIFEST", copy / "MANIFEST")
                refuse_unknown(copy)
                try:
                    for id_ in _tables(copy / "MANIFEST"):
                        shutil.copyfile(folder / f"{id_:06d}.sst", copy / f"{id_:06d}.sst")
                    break
                except FileNotFoundError:
                    if attempt == 4:
                        raise
            for path in (*folder.glob("*.mem"), *folder.glob("*.vlog")):
                _copy_written(path, copy / path.name)
        except BadInput as error:
            raise BadInput(error.message.partition(f": {copy}")[0], path=folder) from None
        except (ValueError, IndexError, struct.error) as error:
            raise BadInput(
                _("The Badger folder is damaged ({reason})").format(reason=error), path=folder
            ) from None
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror or error), path=folder
            ) from None
        yield copy


def _copy_written(path: Path, copy: Path) -> None:
    """Logs are files of two gigabytes with nothing in most of them: a hole stays a hole."""
    with path.open("rb") as source, copy.open("wb") as target:
        while chunk := source.read(_CHUNK):
            if chunk.count(0) == len(chunk):
                target.seek(len(chunk), 1)
            else:
                target.write(chunk)
        target.truncate()


def _tables(manifest: Path) -> dict[int, bool]:
    """The tables that are there, each with whether it is packed with Snappy."""
    live: dict[int, bool] = {}
    for change in _changes(manifest.read_bytes()):
        if change.get(2, 0):
            live.pop(change.get(1, 0), None)
        else:
            live[change.get(1, 0)] = change.get(6, 0) == 1
    return live


def _changes(data: bytes) -> Iterator[dict[int, int]]:
    """Each change as its fields by number: 1 table, 2 whether it went, 4 key, 6 how it is packed."""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        at += 8
        if length > len(data) - at:
            # Torn by a crash; Badger cuts it off too.
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
                raise ValueError("a field beyond the end")
            yield tag >> 3, data[at : at + size]
            at += size
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("a field of an unknown kind")


def _table(path: Path, packed: bool) -> Iterator[_Entry]:
    """The entries of a table in their order."""
    with path.open("rb") as file:
        size = path.stat().st_size
        for offset, length in _index(_tail(path)):
            if offset + length > size:
                raise ValueError("a block beyond the end")
            file.seek(offset)
            block = file.read(length)
            yield from _block(unpack_snappy(block) if packed else block)


def _tail(path: Path) -> bytes:
    """The index of a table: before its length, its checksum, and the length of that."""
    with path.open("rb") as file:
        end = file.seek(0, 2)

        def before(place: int, count: int) -> bytes:
            if not 0 <= count <= place:
                raise ValueError("a table cut short")
            file.seek(place - count)
            return file.read(count)

        (checksum,) = struct.unpack(">I", before(end, 4))
        end -= 4 + checksum
        (length,) = struct.unpack(">I", before(end, 4))
        return before(end - 4, length)


def _index(data: bytes) -> list[tuple[int, int]]:
    """Offset and length of each block, from the flatbuffer `TableIndex`: its first field is a vector of tables
    `BlockOffset{key, offset, len}`."""

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", data, at)[0])

    def field(table: int, slot: int) -> int:
        """The place of a field, 0 when the table has none."""
        vtable = table - int(struct.unpack_from("<i", data, table)[0])
        if vtable < 0 or 4 + 2 * slot + 2 > struct.unpack_from("<H", data, vtable)[0]:
            return 0
        moved = int(struct.unpack_from("<H", data, vtable + 4 + 2 * slot)[0])
        return table + moved if moved else 0

    root = u32(0)
    place = field(root, 0)
    if not place:
        return []
    vector = place + u32(place)
    count = u32(vector)
    if count > len(data) // 4:
        raise ValueError("an index of impossible length")
    blocks = []
    for n in range(count):
        at = vector + 4 + 4 * n
        block = at + u32(at)
        offset, length = field(block, 1), field(block, 2)
        blocks.append((u32(offset) if offset else 0, u32(length) if length else 0))
    return blocks


def _block(data: bytes) -> Iterator[_Entry]:
    (checksum,) = struct.unpack_from(">I", data, len(data) - 4)
    end = len(data) - 4 - checksum
    (count,) = struct.unpack_from(">I", data, end - 4)
    start = end - 4 - 4 * count
    if not 0 <= start < end or count == 0:
        raise ValueError("a block without entries")
    offsets = [*struct.unpack_from(f"<{count}I", data, start), start]
    base = b""
    for at, until in pairwise(offsets):
        if at + 4 > until or until > start:
            raise ValueError("an entry beyond its block")
        overlap, differs = struct.unpack_from("<HH", data, at)
        key = base[:overlap] + data[at + 4 : at + 4 + differs]
        base = base or key
        if len(key) < 8:
            raise ValueError("a key without a version")
        value = at + 4 + differs
        expires, text = uvarint(data[:until], value + 2)
        yield _Entry(key, data[value], expires, data[text:until])


def _log(path: Path) -> list[_Entry]:
    """The entries of a log in the order of their keys. One of a transaction counts when the transaction ended."""
    entries: list[_Entry] = []
    pending: list[_Entry] = []
    with path.open("rb") as file:
        data = file.read()
    at = _LOG_HEADER
    while entry_end := _logged(data, at):
        entry, at = entry_end
        if entry.meta & _END_OF_TRANSACTION:
            entries += pending
            pending = []
        elif entry.meta & _IN_TRANSACTION:
            pending.append(entry)
        else:
            entries.append(entry)
    return sorted(entries, key=_order)


def _logged(data: bytes, at: int) -> tuple[_Entry, int] | None:
    """The entry at `at` and where the next begins; None at the end, or where a crash tore the log."""
    try:
        key_size, place = uvarint(data, at + 2)
        value_size, place = uvarint(data, place)
        expires, place = uvarint(data, place)
    except ValueError:
        return None
    value = place + key_size
    if key_size < 8 or value_size > _MAX_VALUE or value + value_size + 4 > len(data):
        return None
    return _Entry(data[place:value], data[at], expires, data[value : value + value_size]), (
        value + value_size + 4
    )


def _pointed(folder: Path, pointer: bytes) -> bytes:
    """The value in a log of values that a pointer (file, length, offset) leads to."""
    file_id, length, offset = struct.unpack("<III", pointer)
    with (folder / f"{file_id:06d}.vlog").open("rb") as file:
        file.seek(offset)
        data = file.read(min(length, _MAX_VALUE))
    found = _logged(data, 0)
    if found is None:
        raise ValueError("a value beyond the end of its log")
    return found[0].value
