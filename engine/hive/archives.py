"""Adapters as zip files: taken apart safely, and written as a stream.

A stranger's archive may unpack to terabytes, name files outside the folder, hold a name twice, or a pickle. Only the two
members of an adapter are read, under names that are fixed here; nothing else is unpacked.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from engine.core.i18n import _
from engine.hive.lora_file import HEADER_LIMIT, BadAdapter
from engine.hive.protocol import ARCHIVE_CONFIG, ARCHIVE_WEIGHTS, Rule

MOST_MEMBERS = 4096
MAX_RATIO = 200
"""Unpacked bytes of a packed one. Weights do not pack to less than half; zeros alone pack to a thousandth."""
_MAX_DIRECTORY = 4 << 20
_END = struct.Struct("<4s4H2LH")
_LONGEST_COMMENT = 1 << 16
_PART = 1 << 18
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError, OverflowError)  # fmt: skip


def is_zip(file: Path) -> bool:
    """Whether a file begins as a zip file does; a safetensors file cannot, by its size."""
    with file.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack_adapter(archive: Path, folder: Path, max_bytes: int) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` of a zip file into `folder`.

    They may lie in one folder of the archive, as HiveMind's client packs the whole output of a training; then the
    outermost ones are meant. Raises BadAdapter (`ARCHIVE`, `SIZE`); nothing of use is in `folder` then.
    """
    _check_directory(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened)
            _write_member(opened, members[ARCHIVE_CONFIG], folder / ARCHIVE_CONFIG, HEADER_LIMIT)
            _write_member(opened, members[ARCHIVE_WEIGHTS], folder / ARCHIVE_WEIGHTS, max_bytes)
    except _BROKEN as problem:
        raise _refused(_("it is damaged")) from problem


def stream_zip(files: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip file of `(name, file)`, uncompressed: weights do not pack. Raises OSError."""
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w", zipfile.ZIP_STORED) as archive:
        for name, file in files:
            about = zipfile.ZipInfo(name)
            about.external_attr = 0o644 << 16
            about.file_size = file.stat().st_size
            with (
                archive.open(about, "w", force_zip64=about.file_size > 1 << 31) as member,
                file.open("rb") as source,
            ):
                while part := source.read(_PART):
                    member.write(part)
                    yield sink.take()
    yield sink.take()


def _check_directory(archive: Path) -> None:
    """Bounds what `zipfile` would read into memory before it looks at it."""
    with archive.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        tail_size = min(size, _END.size + _LONGEST_COMMENT)
        stream.seek(size - tail_size)
        tail = stream.read(tail_size)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise _refused(_("it is damaged"))
    _mark, _disk, _start_disk, _here, members, directory, offset, _comment = _END.unpack_from(tail, place)
    if 0xFFFF in (members, _here) or 0xFFFFFFFF in (directory, offset):
        raise _refused(_("it is larger than 4 GB"))
    if members > MOST_MEMBERS or directory > _MAX_DIRECTORY:
        raise _refused(_("it has more than {count} members").format(count=MOST_MEMBERS))


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The two members of an adapter."""
    found: dict[str, list[zipfile.ZipInfo]] = {ARCHIVE_CONFIG: [], ARCHIVE_WEIGHTS: []}
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        if path.name in found and not member.is_dir() and not path.is_absolute() and ".." not in path.parts:
            found[path.name].append(member)
    chosen = {}
    parents = set()
    for name, members in found.items():
        depth = min((len(PurePosixPath(one.filename).parts) for one in members), default=0)
        outermost = [one for one in members if len(PurePosixPath(one.filename).parts) == depth]
        if not outermost:
            raise _refused(_("it has no {name}; pickle files are not taken").format(name=name))
        if len(outermost) > 1:
            raise _refused(_("it has {name} twice").format(name=name))
        chosen[name] = outermost[0]
        parents.add(PurePosixPath(outermost[0].filename).parent)
    if len(parents) != 1:
        raise _refused(_("the files of the adapter are not in one folder"))
    return chosen


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: Path, limit: int) -> None:
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(_("it is encrypted, or packed in an unusual way"))
    if member.file_size > limit:
        raise BadAdapter(
            Rule.SIZE,
            _("{name} has {size:,} bytes; {limit:,} are taken").format(
                name=file.name, size=member.file_size, limit=limit
            ),
        )
    if member.file_size > _PART and member.file_size > MAX_RATIO * max(1, member.compress_size):
        raise _refused(_("it unpacks to more than {ratio} times its size").format(ratio=MAX_RATIO))
    written = 0
    with archive.open(member) as source, file.open("xb") as target:
        while part := source.read(_PART):
            written += len(part)
            if written > member.file_size:
                raise _refused(_("it is damaged"))
            target.write(part)
    if written != member.file_size:
        raise _refused(_("it is damaged"))


def _refused(reason: str) -> BadAdapter:
    return BadAdapter(Rule.ARCHIVE, _("the zip file cannot be used: {reason}").format(reason=reason))


class _Sink:
    """Where `zipfile` writes without seeking; `take` hands on what has come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def flush(self) -> None:
        pass
