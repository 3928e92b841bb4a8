"""What leaves this machine when an adapter is shared: two files, and the figures that are sent with them.

Nothing else of the adapter's folder is read. The configuration names the base without the folders that it lies in,
and the header of the weights holds no metadata but the format, so that neither says anything about the person.

The app reads it, so it imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.hive.lora_file import read_lora
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Lineage, ModelCard, read_card, weights_changed
from engine.models.registry import list_models
from engine.models.resolve import find_adapter

_CHUNK = 1 << 20
_FORMAT = {"format": "pt"}


@dataclass(frozen=True)
class OutgoingFile:
    """A file as it is sent."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class OutgoingAdapter:
    """An adapter as it is sent."""

    name: str
    folder: Path
    config: dict[str, Any]
    """`adapter_config.json` as it is sent."""
    header: bytes
    """The safetensors header as it is sent, with its length."""
    body_at: int
    """Where the tensors begin in the file on the disk."""
    size: int
    """Bytes of `adapter_model.safetensors` as it is sent."""
    sha256: str
    """Of the same."""
    base_model: str
    """Name of the base, without folders."""
    base_fingerprint: str
    """`base_sha256` of the card; "" for an adapter without one."""
    samples: int
    """Conversations that it was trained on."""
    lineage: Lineage
    """Stays here."""

    @property
    def config_bytes(self) -> bytes:
        return json.dumps(self.config, indent=2, sort_keys=True).encode() + b"\n"

    @property
    def files(self) -> tuple[OutgoingFile, ...]:
        """Everything that is sent of the folder."""
        config = self.config_bytes
        return (
            OutgoingFile(ADAPTER_WEIGHTS, self.size, self.sha256),
            OutgoingFile(ADAPTER_CONFIG, len(config), sha256(config).hexdigest()),
        )

    def chunks(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of the weights as they are sent, from `start` on, at most `length` of them. Raises OSError."""
        end = self.size if length is None else min(self.size, start + length)
        if start < len(self.header):
            yield self.header[start : min(end, len(self.header))]
        with (self.folder / ADAPTER_WEIGHTS).open("rb") as file:
            at = max(start, len(self.header))
            file.seek(self.body_at + at - len(self.header))
            while at < end and (chunk := file.read(min(_CHUNK, end - at))):
                at += len(chunk)
                yield chunk


def outgoing_adapter(ws: Workspace, name: str, *, samples: int | None = None) -> OutgoingAdapter:
    """The adapter `name`, by its name in the workspace or its path; `samples` replaces the number in its card.

    Raises BadInput for an unknown or damaged adapter, and for weights that are not those of its card.
    """
    folder = find_adapter(ws, name)
    read_lora(folder)
    file, card = folder / ADAPTER_WEIGHTS, _card(folder)
    config = _config(folder / ADAPTER_CONFIG)
    header, body_at, size = _header(file)
    stored, sent = _hashes(file, header, body_at)
    if card is not None and card.weights_sha256 and card.weights_sha256 != stored:
        raise weights_changed(file)
    lineage = card.lineage if card is not None else Lineage()
    base = base_name((card.base_path if card is not None else "") or config["base_model_name_or_path"])
    return OutgoingAdapter(
        name=folder.name,
        folder=folder,
        config={**config, "base_model_name_or_path": base},
        header=header,
        body_at=body_at,
        size=size,
        sha256=sent,
        base_model=base,
        base_fingerprint=card.base_sha256 if card is not None else "",
        samples=samples if samples is not None else len(lineage.conversations),
        lineage=lineage,
    )


def shareable_adapters(ws: Workspace) -> list[ModelCard]:
    """The adapters of the workspace that have a folder of their own, newest first."""
    return [card for card in list_models(ws) if (ws.adapters / card.name / ADAPTER_CONFIG).is_file()]


def base_name(source: str) -> str:
    """The name of a base without the folders that it lies in; a name of the hub or a tag stays as it is."""
    if not source.startswith(("/", "~", ".")) and "\\" not in source:
        return source
    path = PurePath(source.replace("\\", "/"))
    if path.parent.name == "snapshots":
        # A snapshot of the hub cache: models--OWNER--NAME/snapshots/COMMIT.
        return path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return path.stem if path.suffix == ".gguf" else path.name


def _card(folder: Path) -> ModelCard | None:
    try:
        return read_card(folder)
    except (OSError, msgspec.DecodeError):
        return None


def _hashes(file: Path, header: bytes, body_at: int) -> tuple[str, str]:
    """SHA-256 of the file on the disk, and of the same tensors behind `header`."""
    stored, sent = sha256(), sha256(header)
    with file.open("rb") as stream:
        stored.update(stream.read(body_at))
        while chunk := stream.read(_CHUNK):
            stored.update(chunk)
            sent.update(chunk)
    return stored.hexdigest(), sent.hexdigest()


def _config(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(config.get("base_model_name_or_path"), str):
        raise BadInput(_("this is not a LoRA adapter with a base model in its configuration"), path=file)
    return config


def _header(file: Path) -> tuple[bytes, int, int]:
    """(header as it is sent, where the tensors begin on the disk, bytes that are sent) of a file that `read_lora` has
    checked."""
    with file.open("rb") as stream:
        start = stream.read(8)
        raw = stream.read(int.from_bytes(start, "little"))
    header, stored, body = json.loads(raw), file.stat().st_size, 8 + len(raw)
    if header.get("__metadata__", _FORMAT) == _FORMAT:
        return start + raw, body, stored
    text = json.dumps({**header, "__metadata__": _FORMAT}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    own = len(text).to_bytes(8, "little") + text
    return own, body, stored - body + len(own)
