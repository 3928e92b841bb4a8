"""Writes Badger folders for tests, in the layout of `table/builder.go` and `memtable.go` of Badger v4."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

Put = tuple[bytes, int, bytes, int]
"""Key, version, value, meta (1: deleted, 2: pointer, 64: in a transaction, 128: its end)."""


def literal_snappy(data: bytes) -> bytes:
    """Snappy's block format without copies."""
    out = bytearray(uvarint(len(data)))
    for at in range(0, len(data), 60):
        piece = data[at : at + 60]
        out += bytes([(len(piece) - 1) << 2]) + piece
    return bytes(out)


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def versioned(key: bytes, version: int) -> bytes:
    return key + struct.pack(">Q", 2**64 - 1 - version)


def write_folder(
    folder: Path,
    tables: Iterable[Iterable[Put]],
    *,
    pack: Callable[[bytes], bytes] | None = literal_snappy,
    per_block: int = 3,
    compression: int | None = None,
    key_id: int = 0,
    version: int = 8,
) -> None:
    """Writes a folder with one table per group of puts."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = b"Bdgr" + struct.pack(">HH", 0, version)
    kind = compression if compression is not None else (1 if pack else 0)
    for number, puts in enumerate(tables, 1):
        (folder / f"{number:06d}.sst").write_bytes(table(list(puts), pack, per_block))
        manifest += change({1: number, 4: key_id, 6: kind})
    # A table that was created and compacted away: in the manifest, but not on disk.
    manifest += change({1: 99, 6: kind}) + change({1: 99, 2: 1})
    (folder / "MANIFEST").write_bytes(manifest)


def change(fields: dict[int, int]) -> bytes:
    inner = b"".join(uvarint(number << 3) + uvarint(value) for number, value in fields.items() if value)
    record = uvarint(1 << 3 | 2) + uvarint(len(inner)) + inner
    return struct.pack(">II", len(record), 0) + record


def table(puts: list[Put], pack: Callable[[bytes], bytes] | None, per_block: int) -> bytes:
    puts = sorted(puts, key=lambda put: (put[0], -put[1]))
    out = bytearray()
    index: list[tuple[bytes, int, int]] = []
    for at in range(0, len(puts), per_block):
        group = puts[at : at + per_block]
        data = block(group)
        data = pack(data) if pack else data
        index.append((versioned(group[0][0], group[0][1]), len(out), len(data)))
        out += data
    encoded = flat_index(index)
    checksum = b"\x10\x05"
    return bytes(
        out + encoded + struct.pack(">I", len(encoded)) + checksum + struct.pack(">I", len(checksum))
    )


def block(puts: list[Put]) -> bytes:
    out = bytearray()
    offsets: list[int] = []
    base = b""
    for key, version, value, meta in puts:
        full = versioned(key, version)
        base = base or full
        overlap = 0
        if offsets:
            overlap = next((n for n, (a, b) in enumerate(zip(full, base, strict=False)) if a != b), len(base))
        offsets.append(len(out))
        out += struct.pack("<HH", overlap, len(full) - overlap) + full[overlap:]
        out += bytes([meta, 0]) + uvarint(0) + value
    out += struct.pack(f"<{len(offsets)}I", *offsets) + struct.pack(">I", len(offsets))
    checksum = b"\x10\x07"
    return bytes(out + checksum + struct.pack(">I", len(checksum)))


def flat_index(blocks: list[tuple[bytes, int, int]]) -> bytes:
    """The flatbuffer `TableIndex{offsets: [BlockOffset{key, offset, len}]}`, written front to back."""
    out = bytearray(struct.pack("<I", 4 + 8))
    out += struct.pack("<HHHH", 6, 8, 4, 0)  # vtable of the root: its size, the table's, the first field
    root = len(out)
    out += struct.pack("<iI", root - 4, 4)  # the vtable precedes; the vector follows
    out += struct.pack("<I", len(blocks))
    slots = len(out)
    out += bytes(4 * len(blocks))
    for number, (key, offset, length) in enumerate(blocks):
        vtable = len(out)
        out += struct.pack("<HHHHHH", 10, 16, 4, 8, 12, 0)
        place = len(out)
        struct.pack_into("<I", out, slots + 4 * number, place - (slots + 4 * number))
        out += struct.pack("<iIII", place - vtable, 12, offset, length)
        out += struct.pack("<I", len(key)) + key + bytes(-len(key) % 4)
    return bytes(out)


def logged(puts: Iterable[Put]) -> bytes:
    """Entries of a write-ahead log or a value log, without its header."""
    out = b""
    for key, version, value, meta in puts:
        full = versioned(key, version)
        out += (
            bytes([meta, 0]) + uvarint(len(full)) + uvarint(len(value)) + uvarint(0) + full + value + bytes(4)
        )
    return out


def write_log(path: Path, puts: Iterable[Put], *, tail: bytes = bytes(5000)) -> None:
    """Writes a log as a crash leaves it: a header, the entries, and zeros."""
    path.write_bytes(bytes(20) + logged(puts) + tail)
