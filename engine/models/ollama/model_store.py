"""The workspace's own store of served models: blobs and tags are written, copied and deleted here.

A blob is on the disk before a manifest names it, and a manifest takes its name in one rename: whatever ends the process,
a tag is whole or not there. One change at a time, across processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, UsageProblem
from engine.core.files import (
    atomic_file,
    check_free_space,
    file_sha256,
    fsync_dir,
    make_dirs,
    sync_file,
    write_bytes,
)
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.ollama.layout import (
    BLOBS,
    DIGEST,
    MAX_BYTES,
    StoredLayer,
    StoreManifest,
    blob_path,
    decode_manifest,
    full_tag,
    manifest_path,
    manifests_in,
    tag_of,
)
from engine.models.ollama.store import decode_messages

_UNUSED_S = 86400.0
"""Seconds after which a blob that no tag needs is removed: an upload waits that long for its model."""


class UnknownModel(BadInput):
    """The store has no such tag."""


class ModelExists(UsageProblem):
    """The tag is taken, and replacing it was not asked for."""


@dataclass(frozen=True)
class StoredModel:
    """A tag of the store."""

    tag: str
    """With its version: `mine:latest`."""
    path: Path
    """Its manifest."""
    digest: str
    """Hash of the manifest in hex, which changes with the model."""
    modified_at: float
    """Seconds since the epoch."""
    manifest: StoreManifest
    folder: Path
    """The store."""

    @property
    def size(self) -> int:
        """Bytes of its blobs."""
        return self.manifest.size

    @property
    def model(self) -> Path | None:
        """The GGUF file."""
        return self._file("model")

    @property
    def adapter(self) -> Path | None:
        """The LoRA adapter, a GGUF file too."""
        return self._file("adapter")

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the store knows of the model; empty for a broken blob."""
        if not self.manifest.config:
            return {}
        with suppress(OSError, ValueError):
            value = json.loads(blob_path(self.folder, self.manifest.config).read_bytes()[:MAX_BYTES])
            return value if isinstance(value, dict) else {}
        return {}

    @property
    def details(self) -> dict[str, Any]:
        """What lists show of it, in Ollama's words."""
        config = self.config
        family = str(config.get("model_family") or "")
        return {
            "parent_model": str(_own(config).get("parent") or ""),
            "format": str(config.get("model_format") or "gguf"),
            "family": family,
            "families": config.get("model_families") or ([family] if family else []),
            "parameter_size": str(config.get("model_type") or ""),
            "quantization_level": str(config.get("file_type") or ""),
        }

    @property
    def card_name(self) -> str:
        """The model of the workspace that it serves, whose card holds lineage and verdict; "" for another."""
        return str(_own(self.config).get("card") or "")

    @property
    def system(self) -> str:
        return self.text("system").strip()

    @property
    def messages(self) -> list[ChatMessage]:
        """The turns before every conversation."""
        with suppress(ValueError):
            return list(decode_messages(self.text("messages")))
        return []

    @property
    def parameters(self) -> dict[str, Any]:
        with suppress(ValueError):
            value = json.loads(self.text("params") or "{}")
            return value if isinstance(value, dict) else {}
        return {}

    @property
    def licenses(self) -> list[str]:
        return [self._read(layer) for layer in self.manifest.of_kind("license")]

    def text(self, kind: str) -> str:
        """The last layer of this kind as text; "" without one or where its blob is missing."""
        layers = self.manifest.of_kind(kind)
        return self._read(layers[-1]) if layers else ""

    def _read(self, layer: StoredLayer) -> str:
        with suppress(OSError):
            return blob_path(self.folder, layer.digest).read_bytes()[:MAX_BYTES].decode("utf-8", "replace")
        return ""

    def _file(self, kind: str) -> Path | None:
        layers = self.manifest.of_kind(kind)
        return blob_path(self.folder, layers[0].digest) if layers else None


class BlobWriter:
    """A blob that is being uploaded."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Appends to it. Raises OSError when the disk is full."""
        self._file.write(chunk)
        self._hash.update(chunk)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class ModelStore:
    """The store of one workspace. Nothing is created before the first write."""

    def __init__(self, ws: Workspace) -> None:
        self.folder = ws.ollama

    # Blobs

    def blob(self, digest: str) -> Path:
        """The file of a blob, which may not exist. Raises BadInput for a malformed digest."""
        if DIGEST.fullmatch(digest) is None:
            raise BadInput(
                _("{digest} is not a digest: sha256: and 64 hex digits").format(digest=digest[:80])
            )
        return blob_path(self.folder, digest)

    def has_blob(self, digest: str) -> bool:
        """Raises BadInput for a malformed digest."""
        return self.blob(digest).is_file()

    @contextmanager
    def new_blob(self, digest: str) -> Iterator[BlobWriter]:
        """Takes an upload in pieces; at the end it is checked, synced and takes its name.

        Raises BadInput when it is not what `digest` says, OSError when the disk is full; nothing remains then.
        """
        path = self.blob(digest)
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            blob = BlobWriter(file)
            yield blob
            if blob.digest != digest:
                # Ollama's own words, which programs look for.
                text = _('digest mismatch, expected "{expected}", got "{found}"')
                raise BadInput(text.format(expected=digest, found=blob.digest))

    def put_blob(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Stores a blob in pieces. Raises as `new_blob`."""
        with self.new_blob(digest) as blob:
            for chunk in chunks:
                blob.write(chunk)

    def put_bytes(self, kind: str, data: bytes) -> StoredLayer:
        """Stores a small layer. Raises OSError."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has_blob(digest):
            write_bytes(self.blob(digest), data, mode=0o600)
        return StoredLayer(kind, digest, len(data))

    def link_file(self, kind: str, source: Path, digest: str = "") -> StoredLayer:
        """The file as a layer: a hard link where that is possible, else a copy. `digest` saves reading it.

        Raises RunFailed when the disk is too full for a copy, OSError.
        """
        source = source.resolve()
        stat = source.stat()
        digest = digest or self._known(source) or f"sha256:{file_sha256(source)}"
        path = self.blob(digest)
        if not path.is_file():
            make_dirs(path.parent)
            try:
                os.link(source, path)
                sync_file(path)
                fsync_dir(path.parent)
            except OSError:
                check_free_space(path.parent, stat.st_size)
                with atomic_file(path) as temporary:
                    shutil.copyfile(source, temporary)
        return StoredLayer(kind, digest, stat.st_size)

    def _known(self, source: Path) -> str:
        """The digest of a file that is linked into the store already; "" for another."""
        if source.stat().st_nlink > 1:
            for path in (self.folder / BLOBS).glob("sha256-*"):
                with suppress(OSError):
                    if path.samefile(source):
                        return path.name.replace("-", ":", 1)
        return ""

    # Tags

    def tags(self) -> list[StoredModel]:
        """Every tag that can be read, newest first."""
        found = []
        for path in manifests_in(self.folder):
            with suppress(BadInput):
                found.append(self._open(tag_of(self.folder, path), path))
        return sorted(found, key=lambda one: (-one.modified_at, one.tag))

    def find(self, tag: str) -> StoredModel:
        """Raises UnknownModel, or BadInput for a broken manifest."""
        path = manifest_path(self.folder, tag)
        if path is None or not path.is_file():
            raise UnknownModel(
                _("there is no served model named {name}").format(name=tag), hint="h2q-tui models list"
            )
        return self._open(full_tag(tag), path)

    def has(self, tag: str) -> bool:
        path = manifest_path(self.folder, tag)
        return path is not None and path.is_file()

    def _open(self, tag: str, path: Path) -> StoredModel:
        try:
            data = path.read_bytes()[:MAX_BYTES]
            manifest = decode_manifest(data)
            changed = path.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise BadInput(
                _("the manifest of {tag} is broken").format(tag=tag), path=path, hint="h2q-tui models list"
            ) from problem
        return StoredModel(tag, path, hashlib.sha256(data).hexdigest(), changed, manifest, self.folder)

    def check_free(self, tag: str, *, replace: bool) -> Path:
        """The manifest of a new tag. Raises BadInput for an invalid name, ModelExists unless it is free or `replace`."""
        path = manifest_path(self.folder, tag)
        if path is None:
            raise BadInput(
                _("{name} is not a valid Ollama name: use letters, digits, _ . and -").format(name=tag),
                hint="h2q-tui models list",
            )
        if path.exists() and not replace:
            raise ModelExists(
                _("there is a model named {name} already").format(name=tag), hint="h2q-tui models list"
            )
        return path

    def write(
        self, tag: str, layers: Iterable[StoredLayer], config: dict[str, Any], *, replace: bool
    ) -> StoredModel:
        """Gives `tag` these layers. The caller holds `locked`. Raises as `check_free`, and OSError."""
        path = self.check_free(tag, replace=replace)
        old = self._open(full_tag(tag), path).manifest if path.is_file() else None
        stored = self.put_bytes("config", json.dumps(config, ensure_ascii=False, sort_keys=True).encode())
        manifest = StoreManifest(tuple(layers), stored.digest, stored.size)
        write_bytes(path, manifest.encode())
        if old is not None:
            self._remove_unused(old.digests)
        return self._open(full_tag(tag), path)

    def copy(self, source: str, destination: str) -> StoredModel:
        """Gives the model another tag as well, replacing what had it. Raises UnknownModel, BadInput, OSError."""
        with self.locked():
            stored = self.find(source)
            path = self.check_free(destination, replace=True)
            old = self._open(full_tag(destination), path).manifest if path.is_file() else None
            write_bytes(path, stored.path.read_bytes())
            if old is not None:
                self._remove_unused(old.digests)
            return self._open(full_tag(destination), path)

    def delete(self, tag: str) -> None:
        """Removes the tag and the blobs that no other tag needs. Raises UnknownModel, OSError."""
        with self.locked():
            path = manifest_path(self.folder, tag)
            if path is None or not path.is_file():
                raise UnknownModel(
                    _("there is no served model named {name}").format(name=tag), hint="h2q-tui models list"
                )
            try:
                digests = self._open(tag, path).manifest.digests
            except BadInput:
                digests = []
            path.unlink()
            fsync_dir(path.parent)
            for folder in (path.parent, path.parent.parent):
                with suppress(OSError):  # other tags are in it
                    folder.rmdir()
            self._remove_unused(digests)

    def _remove_unused(self, digests: Iterable[str]) -> None:
        wanted = self._needed()
        for digest in set(digests) - wanted:
            blob_path(self.folder, digest).unlink(missing_ok=True)
        if (self.folder / BLOBS).is_dir():
            fsync_dir(self.folder / BLOBS)

    def _needed(self) -> set[str]:
        """The digests that any manifest names; of a broken one, every digest that stands in it."""
        wanted: set[str] = set()
        for path in manifests_in(self.folder):
            with suppress(OSError):
                wanted.update(DIGEST.findall(path.read_bytes()[:MAX_BYTES].decode("utf-8", "replace")))
        return wanted

    def unused_blobs(self) -> list[Path]:
        """Blobs that no tag needs: uploads, and what a creation that was stopped has left. The caller holds `locked`."""
        wanted = self._needed()
        blobs = sorted((self.folder / BLOBS).glob("sha256-*"))
        return [path for path in blobs if path.name.replace("-", ":", 1) not in wanted]

    def sweep(self, *, now: float | None = None) -> int:
        """Deletes uploads of which no model was made within a day; returns how many. The caller holds `locked`."""
        moment, removed = time.time() if now is None else now, 0
        for path in self.unused_blobs():
            with suppress(OSError):
                if moment - path.stat().st_mtime > _UNUSED_S:
                    path.unlink()
                    removed += 1
        return removed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time, across processes. Not reentrant. Raises OSError."""
        make_dirs(self.folder)
        fd = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _own(config: dict[str, Any]) -> dict[str, Any]:
    """What this program adds to the description of a model."""
    value = config.get("h2q")
    return value if isinstance(value, dict) else {}
