"""Members of untrusted zip and tar archives: what they hold, and unpacking one of them within limits."""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from engine.core.errors import BadInput
from engine.core.files import check_free_space
from engine.core.i18n import _
from engine.memory.importers.readers.encodings import legacy_encoding
from engine.memory.importers.readers.files import MAX_FILE

MAX_RATIO = 200
"""Highest compression ratio of a member; text reaches 3 to 20."""
_ALWAYS_ALLOWED = 10**6
"""Bytes that a member may have whatever its ratio."""
_COPY_BYTES = 2**20
_UTF8_NAME = 0x800
_MADE_ON_DOS = 0
_TWO_BYTES = frozenset(("GB18030", "BIG5", "CP949", "SHIFT_JIS", "EUC-JP"))
_ENCRYPTED = 1
_NAME_BYTES = 150
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    NotImplementedError,
    EOFError,
    ValueError,
)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens `path`. Raises BadInput when it is not a zip archive."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, NotImplementedError, ValueError) as error:
        raise BadInput(
            _("The archive is damaged or not a zip file ({reason})").format(reason=error), path=path
        ) from None
    with archive:
        yield archive


@contextmanager
def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[IO[bytes]]:
    """Opens a member. Raises BadInput when it is protected or expands too much, and while it is read when it does
    not match its checksum."""
    if member.flag_bits & _ENCRYPTED:
        raise BadInput(_("The archive is password-protected; unpack it and import the files"), path=path)
    check_size(member.file_size, member.compress_size, path)
    try:
        # A damaged table of contents names places that cannot be sought.
        file = archive.open(member)
    except (*_ZIP_FAULTS, OSError) as error:
        raise _not_unpacked(path, error) from None
    try:
        with file:
            yield file
    except _ZIP_FAULTS as error:
        raise _not_unpacked(path, error) from None


def _not_unpacked(path: Path, error: Exception) -> BadInput:
    return BadInput(_("The archive cannot be unpacked ({reason})").format(reason=error), path=path)


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens an uncompressed tar archive. Raises BadInput, also while its members are read."""
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _not_unpacked(path, error) from None


def is_zip_archive(start: bytes) -> bool:
    """Whether a file with these first bytes is a zip, also an empty one."""
    return start.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_tar(start: bytes) -> bool:
    return start[257:262] == b"ustar"


def check_size(size: int, packed: int, path: Path) -> None:
    """Raises BadInput when `packed` bytes expand to more than text does."""
    if size > MAX_FILE or size > _ALWAYS_ALLOWED + MAX_RATIO * packed:
        raise BadInput(
            _("The archive expands from {packed} MB to {size} MB, which is implausible for an export").format(
                size=size // 10**6, packed=packed // 10**6
            ),
            path=path,
        )


def unpack(
    source: IO[bytes], target: Path, *, packed: int, size: int = 0, path: Path, tick: Callable[[], None]
) -> int:
    """Writes the content to `target`, readable by the owner alone; returns its bytes.

    `size` is what it is said to hold. `tick` is called for each chunk and may raise to stop. Raises BadInput when the
    content grows beyond what `packed` bytes of the file `path` can hold, RunFailed without enough room, OSError.
    """
    if size > _ALWAYS_ALLOWED:
        check_free_space(target.parent, size)
    done = 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        while chunk := source.read(_COPY_BYTES):
            done += len(chunk)
            check_size(done, packed, path)
            tick()
            file.write(chunk)
    return done


def member_name(info: zipfile.ZipInfo) -> str:
    """The name of a zip member with `/` between its parts; one that is not marked as UTF-8 in the encoding that it
    seems to have.

    Beyond ASCII, a backslash separates parts only in a name that DOS or Windows wrote, and not where it may be half of
    a character: Shift-JIS, Big5 and GBK have its byte in the second place.
    """
    name, is_known = _decoded_name(info)
    is_split = name.isascii() or info.create_system == _MADE_ON_DOS
    if not is_split or "\\" not in name or "/" in name:
        return name
    parts = name.split("\\")
    may_be_halves = not is_known and any(not part[-1:].isascii() for part in parts[:-1])
    return name if may_be_halves or not parts[-1].strip(".") else "/".join(parts)


def _decoded_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """The name, and whether its encoding is known."""
    if info.flag_bits & _UTF8_NAME or info.filename.isascii():
        return info.filename, True
    try:
        raw = info.filename.encode("cp437")
    except UnicodeEncodeError:
        return info.filename, False
    legacy = legacy_encoding(raw)
    for encoding in ("utf-8", legacy):
        try:
            return raw.decode(encoding), encoding == "utf-8" or legacy in _TWO_BYTES
        except (UnicodeDecodeError, LookupError):
            continue
    return info.filename, False


def is_hidden(name: str) -> bool:
    """Whether a member or a file below a folder belongs to the system: `.git/`, `.DS_Store`, `__MACOSX/`."""
    parts = PurePosixPath(name).parts
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in parts)


def safe_name(name: str) -> str:
    """The last part of a member's name as a file name."""
    last = name.split("/")[-1].replace("\0", "")
    stem, dot, suffix = last.rpartition(".")
    while len(os.fsencode(last)) > _NAME_BYTES and stem:
        stem = stem[:-1]
        last = f"{stem}{dot}{suffix}"
    return last if last.strip(".") else "member"
