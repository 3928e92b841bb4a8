"""The file of a backup: a tar.gz that begins with a manifest of hashes. Names outside it are never followed."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _

_NAME = "manifest.json"
_MAX_MEMBER = 64 * 2**30


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = 1
    created_at: float
    reason: str
    conversations: int
    files: dict[str, str]
    """Name in the archive to the sha256 of its content."""


def pack(target: Path, staged: Path, manifest: Manifest) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
            data = msgspec.json.encode(manifest)
            info = tarfile.TarInfo(_NAME)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
            for name in manifest.files:
                info = tarfile.TarInfo(name)
                info.size, info.mode = (staged / name).stat().st_size, 0o600
                with (staged / name).open("rb") as content:
                    archive.addfile(info, content)
        file.flush()
        os.fsync(file.fileno())


def unpack(path: Path, folder: Path, allowed: frozenset[str]) -> Manifest:
    """Takes the members that the manifest names into `folder` and checks every hash. Raises BadInput when
    there is any that is not in `allowed`, or one is missing or changed."""
    with opened(path) as archive:
        manifest = read_manifest(archive, path)
        for member in archive:
            if member.name == _NAME:
                continue
            if member.name not in manifest.files or member.name not in allowed or not member.isfile():
                raise damaged(path)
            content = archive.extractfile(member)
            if content is None or member.size > _MAX_MEMBER:
                raise damaged(path)
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while piece := content.read(2**20):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
    for name, digest in manifest.files.items():
        if name not in allowed or not (folder / name).is_file() or digest_of(folder / name) != digest:
            raise damaged(path)
    return manifest


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            yield archive
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(path) from None


def read_manifest(archive: tarfile.TarFile, path: Path) -> Manifest:
    member = archive.next()
    content = archive.extractfile(member) if member and member.name == _NAME and member.size < 2**20 else None
    if content is None:
        raise damaged(path)
    try:
        return msgspec.json.decode(content.read(), type=Manifest)
    except msgspec.DecodeError:
        raise damaged(path) from None


def digest_of(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def damaged(path: Path) -> BadInput:
    return BadInput(_("The backup is damaged or is none"), path=path, hint="h2q-tui backup list")
