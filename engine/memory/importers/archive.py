"""Zip archives that people bring: which members of an export hold conversations, and which archives are unsafe."""

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
"""Bytes of a file, or of an archive's member when unpacked."""
MAX_RATIO = 200
"""Times a member may grow when unpacked; text packs 3 to 20 times."""
_MEMBER = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json\Z")
_CHERRY = "data.json"
"""Cherry Studio's backup has its conversations at the top, beside `Data/`."""


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Raises BadInput when `path` is no zip."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, NotImplementedError, ValueError) as error:
        raise BadInput(
            _("The archive is broken or not a zip ({reason})").format(reason=error), path=path
        ) from None
    with archive:
        yield archive


@contextmanager
def opened_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[IO[bytes]]:
    """Raises BadInput, also later when what is read does not fit its checksum."""
    try:
        with archive.open(member) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise BadInput(
            _("The archive cannot be unpacked ({reason})").format(reason=error), path=path
        ) from None


def export_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The members of an export that hold conversations. Raises BadInput (none, or an unsafe one)."""
    files = [info for info in archive.infolist() if not info.is_dir()]
    members = [info for info in files if _MEMBER.match(info.filename)]
    members = members or [info for info in files if info.filename == _CHERRY]
    if not members:
        if any(info.filename.startswith("IndexedDB/") for info in files):
            raise BadInput(
                _("This backup of Cherry Studio holds its database, not data.json; it is not read"), path=path
            )
        raise BadInput(_("The archive holds no conversations.json"), path=path)
    for info in members:
        if info.flag_bits & 1:
            raise BadInput(
                _("The archive is locked with a password; unpack it and import conversations.json"), path=path
            )
        if info.file_size > MAX_FILE or info.file_size > 10**6 + MAX_RATIO * info.compress_size:
            raise BadInput(
                _("The archive unpacks to {size} MB from {packed} MB, which no export does").format(
                    size=info.file_size // 10**6, packed=info.compress_size // 10**6
                ),
                path=path,
            )
    return sorted(members, key=lambda info: info.filename)
