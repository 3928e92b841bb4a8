"""Ollama's layout of a model store: `manifests/HOST/SPACE/NAME/TAG` names the layers, `blobs/sha256-…` holds them.

Format: Ollama's `manifest` and `types/model` packages. Imports nothing heavy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
TAG = re.compile(
    rf"(?:(?:(?P<host>[A-Za-z0-9][A-Za-z0-9_.:-]*)/)?(?P<space>{_PART})/)?(?P<name>{_PART})(?::(?P<tag>{_PART}))?"
)
"""Ollama's model names: `[[host/]namespace/]name[:tag]`, ASCII only."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MEDIA_TYPE = "application/vnd.ollama.image"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MAX_BYTES = 1 << 24
"""Bytes of a manifest or of a layer with text that are read at most."""
MANIFESTS, BLOBS = "manifests", "blobs"
MANIFEST_DEPTH = 4
"""Parts of a manifest's path below `manifests`."""
REGISTRY, LIBRARY, LATEST = "registry.ollama.ai", "library", "latest"


@dataclass(frozen=True)
class StoredLayer:
    """A row of a manifest."""

    kind: str
    """What it holds: "model", "adapter", "system", "messages", "params", "license", "template" …"""
    digest: str
    """`sha256:` and the hash in hex."""
    size: int
    """Bytes."""

    @property
    def row(self) -> dict[str, Any]:
        """It in the JSON of a manifest."""
        return {"mediaType": f"{MEDIA_TYPE}.{self.kind}", "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class StoreManifest:
    """What a tag is made of."""

    layers: tuple[StoredLayer, ...]
    config: str = ""
    """Digest of the blob that describes the model; "" for none."""
    config_size: int = 0

    def of_kind(self, kind: str) -> list[StoredLayer]:
        """The layers that hold `kind`, in order."""
        return [layer for layer in self.layers if layer.kind == kind]

    @property
    def digests(self) -> list[str]:
        """Of every blob that the tag needs."""
        return [*(layer.digest for layer in self.layers), *([self.config] if self.config else [])]

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return self.config_size + sum(layer.size for layer in self.layers)

    def encode(self) -> bytes:
        """Its JSON, compact as Ollama writes it."""
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": self.config, "size": self.config_size},
            "layers": [layer.row for layer in self.layers],
        }
        return json.dumps(value, separators=(",", ":")).encode()


def decode_manifest(data: bytes) -> StoreManifest:
    """Raises ValueError, KeyError or TypeError for anything but a manifest."""
    content = json.loads(data)
    layers = tuple(
        StoredLayer(
            str(layer["mediaType"]).removeprefix(f"{MEDIA_TYPE}."),
            _digest(layer["digest"]),
            int(layer.get("size") or 0),
        )
        for layer in content["layers"]
    )
    config = content.get("config") or {}
    digest = config.get("digest") or ""
    return StoreManifest(layers, _digest(digest) if digest else "", int(config.get("size") or 0))


def _digest(text: Any) -> str:
    if not isinstance(text, str) or DIGEST.fullmatch(text) is None:
        raise ValueError(text)
    return text


def blob_path(folder: Path, digest: str) -> Path:
    """The file of a blob in the store `folder`. The caller has checked the digest."""
    return folder / BLOBS / digest.replace(":", "-")


def manifest_path(folder: Path, tag: str) -> Path | None:
    """The manifest of `tag` in the store `folder`; None for a tag that is none."""
    parts = TAG.fullmatch(tag)
    if parts is None:
        return None
    return (
        folder
        / MANIFESTS
        / (parts["host"] or REGISTRY)
        / (parts["space"] or LIBRARY)
        / parts["name"]
        / (parts["tag"] or LATEST)
    )


def full_tag(tag: str) -> str:
    """`tag` with its version: `mine` is `mine:latest`."""
    return tag if ":" in tag.rpartition("/")[2] else f"{tag}:{LATEST}"


def tag_of(folder: Path, manifest: Path) -> str:
    """The tag of a manifest of the store `folder`, as `ollama list` prints it; "" for another file."""
    root = folder / MANIFESTS
    if not manifest.is_relative_to(root):
        return ""
    parts = manifest.relative_to(root).parts
    if len(parts) != MANIFEST_DEPTH:
        return ""
    host, space, name, tag = parts
    head = "" if (host, space) == (REGISTRY, LIBRARY) else f"{space}/"
    return (head if host == REGISTRY else f"{host}/{space}/") + f"{name}:{tag}"


def manifests_in(folder: Path) -> list[Path]:
    """The manifests of a store; temporary files are none."""
    found = (folder / MANIFESTS).glob("/".join("*" * MANIFEST_DEPTH))
    return sorted(path for path in found if not path.name.startswith("."))
