"""Takes over the folder of a HiveMind server that was copied to `hive/`: its adapters go through admission like any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from engine.hive.intake import Announced, Intake
from engine.hive.lora_file import HEADER_LIMIT, BadAdapter
from engine.hive.names import user_name
from engine.hive.protocol import ARCHIVE_CONFIG, ARCHIVE_WEIGHTS

REGISTRY = "registry.json"
_LARGEST = 64 << 20
_STAMP = re.compile(r"\d{8}_\d{6}")


class TakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    adapters: int = 0
    refused: list[str] = []
    """Ids of HiveMind, each with the reason."""


def take_over(intake: Intake) -> TakenOver:
    """Admits the newest adapter of each user to the first round, as HiveMind counts them. The old files stay.

    Only where the hive has no adapter yet. Raises OSError, sqlite3.Error.
    """
    store = intake.store
    if store.registry.number("SELECT count(*) FROM adapters"):
        return TakenOver()
    taken, refused = 0, []
    for name, folder, announced in _newest(store.folder):
        try:
            config = folder / ARCHIVE_CONFIG
            if not config.is_file() or config.stat().st_size > HEADER_LIMIT:
                raise FileNotFoundError(2, ARCHIVE_CONFIG)
            data = config.read_bytes()
            intake.take(replace(announced, config=data), folder / ARCHIVE_WEIGHTS)
            taken += 1
        except BadAdapter as problem:
            refused.append(f"{name}: {problem.reason}")
        except OSError as problem:
            refused.append(f"{name}: {problem.strerror} {ARCHIVE_CONFIG}")
    return TakenOver(adapters=taken, refused=refused)


def _newest(folder: Path) -> Iterator[tuple[str, Path, Announced]]:
    """(id, folder, what HiveMind knows of it) of the newest adapter of each user."""
    newest: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for name, entry in _entries(folder / REGISTRY).items():
        user, stamp = str(entry.get("user_id", "")), Path(str(entry.get("path", ""))).name
        if _STAMP.fullmatch(stamp) and stamp > newest.get(user, ("", "", {}))[0]:
            metadata = entry.get("metadata")
            newest[user] = (stamp, name, metadata if isinstance(metadata, dict) else {})
    for user, (stamp, name, metadata) in sorted(newest.items()):
        try:
            checked = user_name(user)
        except BadAdapter:
            continue
        place = folder / user / stamp
        # A link could lead anywhere.
        if place.is_dir() and not place.is_symlink() and not place.parent.is_symlink():
            yield (
                name,
                place,
                Announced(
                    user=checked,
                    config=b"",
                    base_model=str(metadata.get("base_model", "")),
                    training_samples=_number(metadata.get("training_samples")),
                    epochs=_number(metadata.get("epochs")),
                ),
            )


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    """The adapters in a registry file; {} for one that is missing or is none."""
    try:
        if file.stat().st_size > _LARGEST:
            return {}
        found = msgspec.json.decode(file.read_bytes())
        return {str(name): entry for name, entry in found["adapters"].items() if isinstance(entry, dict)}
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return {}


def _number(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
