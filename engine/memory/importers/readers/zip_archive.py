"""Untrusted zip archives: finds the members of an export that hold conversations and rejects zip bombs."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from engine.core.errors import BadInput
from engine.core.i18n import _

MAX_FILE = 8 * 2**30
"""Bytes of a file, or of an archive member after decompression."""
MAX_RATIO = 200
"""Highest compression ratio of a member; text reaches 3 to 20."""
_CONVERSATIONS = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json\Z")
_CHERRY_MEMBER = "data.json"
"""Cherry Studio's backup keeps its conversations in the archive root, next to `Data/`."""


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
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
    """Opens a member. Raises BadInput, also while it is read when it does not match its checksum."""
    try:
        with archive.open(member) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise BadInput(
            _("The archive cannot be unpacked ({reason})").format(reason=error), path=path
        ) from None


def export_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The members of an export that hold conversations, by name. Raises BadInput when there is none or one is unsafe."""
    files = [info for info in archive.infolist() if not info.is_dir()]
    members = [info for info in files if _CONVERSATIONS.match(info.filename)]
    members = members or [info for info in files if info.filename == _CHERRY_MEMBER]
    if not members:
        if any(info.filename.startswith("IndexedDB/") for info in files):
            raise BadInput(
                _(
                    "This Cherry Studio backup contains its database instead of data.json; it is not supported"
                ),
                path=path,
            )
        raise BadInput(_("The archive contains no conversations.json"), path=path)
    for info in members:
        if info.flag_bits & 1:
            raise BadInput(
                _("The archive is password-protected; unpack it and import conversations.json"), path=path
            )
        if info.file_size > MAX_FILE or info.file_size > 10**6 + MAX_RATIO * info.compress_size:
            raise BadInput(
                _(
                    "The archive expands from {packed} MB to {size} MB, which is implausible for an export"
                ).format(size=info.file_size // 10**6, packed=info.compress_size // 10**6),
                path=path,
            )
    return sorted(members, key=lambda info: info.filename)
