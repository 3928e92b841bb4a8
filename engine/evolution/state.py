"""Where an evolution stands: `evolution.json` in the run's folder, so that a killed run goes on with its cycle."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from engine.core import files
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.evolution.stats import CycleRow
from engine.evolution.synthetic import MaterialFigures

FILE = "evolution.json"


class OpenCycle(msgspec.Struct, kw_only=True):
    """A cycle that has begun and has no verdict yet."""

    cycle: int
    """From 1."""
    champion: str
    candidate: str
    dataset: str = ""
    """Path of its dataset, "" before that is written."""
    dataset_sha256: str = ""
    material: MaterialFigures | None = None
    checkpoints: list[str] = []
    """Folders of the runs that trained it, the newest last."""
    window: int = 0
    """The test window that its material was kept apart from."""
    row: CycleRow | None = None
    """Its outcome, written before the candidate is put to use or removed."""
    seconds: float = 0.0
    """Spent on it by earlier processes."""


class Evolution(msgspec.Struct, kw_only=True):
    """The whole file."""

    first: str = ""
    """The model in use before the first cycle."""
    rows: list[CycleRow] = []
    """Cycles that are over."""
    log: list[dict[str, Any]] = []
    """Their rows of `training_log.json`."""
    open: OpenCycle | None = None
    seconds: float = 0.0
    """Spent on all cycles so far."""


def load_state(folder: Path) -> Evolution:
    """The state of a run; an empty one where it never began a cycle. Raises BadInput for a broken file."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evolution)
    except FileNotFoundError:
        return Evolution()
    except (msgspec.DecodeError, OSError) as problem:
        raise BadInput(
            _("the state of the evolution cannot be read"), path=path, hint="h2q-tui evolve"
        ) from problem


def save_state(folder: Path, state: Evolution) -> None:
    """Raises OSError."""
    data = msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"
    files.write_bytes(folder / FILE, data, mode=0o600)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run's folder holds something that looks like a checkpoint."""
    with contextlib.suppress(OSError):
        return any(
            entry.is_dir() and not entry.name.startswith(".") for entry in (folder / "checkpoints").iterdir()
        )
    return False
