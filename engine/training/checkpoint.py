"""Checkpoints that are whole or not there, with a hash for every file; the newest whole one is found by looking.

A checkpoint is a folder `<phase>-<step>` with weights, optimizer and random states in safetensors, the rest
in JSON, and a manifest of sha256 sums. It is made in a temporary folder, synced, and renamed. Nothing is
pickled.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from engine.atomic import fsync_dir
from engine.training.watch import Statistics

WEIGHTS, OPTIMIZER, RANDOM, STATE, MANIFEST = (
    "weights.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
    "manifest.json",
)
KEEP = 2


class LoopState(msgspec.Struct, kw_only=True):
    """Where a phase stands: all that the next step depends on beside tensors."""

    phase: str
    step: int = 0
    """Optimizer steps taken."""
    draw: int = 0
    """Batches drawn, discarded ones too: the cursor of the data."""
    max_steps: int
    tokens: int = 0
    """Bytes seen."""
    peak_lr: float
    epoch: int = 0
    """Epochs finished."""
    epoch_loss: float = 0.0
    """Sum of the losses since the epoch began, over `epoch_steps` steps."""
    epoch_steps: int = 0
    discarded: int = 0
    """Steps that were not taken: not finite, or a spike."""
    watch: Statistics = msgspec.field(default_factory=Statistics)
    """What later steps are judged by."""
    loss: float | None = None
    best_eval: float | None = None
    last_eval: float | None = None
    seconds: float = 0.0
    """Time spent training."""
    threads: int = 1
    tokens_per_pass: int = 0
    """How batches are cut into passes: sums of floating-point numbers depend on it."""
    recompute: bool = False
    """Activation checkpointing is on."""
    fixed_steps: bool = False
    """A person has set `max_steps`; a time budget no longer changes them."""
    bf16: bool = False
    dataset_sha256: str = ""
    settings_sha256: str = ""


class _Manifest(msgspec.Struct, frozen=True):
    schema: int
    files: dict[str, str]
    """File name to sha256."""


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole."""

    path: Path
    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    python_random: list[Any]
    numpy_random: dict[str, Any]

    def restore_random(self) -> None:
        """Sets the random states of torch, Python and NumPy. Call it last before the first step."""
        torch.set_rng_state(self.random["torch"])
        version, numbers, gauss = self.python_random
        random.setstate((version, tuple(numbers), gauss))
        np.random.set_state(
            (
                self.numpy_random["name"],
                self.random["numpy"].numpy().astype(np.uint32),
                *self.numpy_random["rest"],
            )
        )


@dataclass(frozen=True)
class Found:
    """What a search gave: the newest whole checkpoint, and a sentence for each damaged one passed over."""

    checkpoint: Checkpoint | None
    damaged: list[str] = field(default_factory=list)


def save(
    folder: Path, state: LoopState, weights: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> tuple[Path, int]:
    """Writes a checkpoint under `folder`, removes older ones but two and the best; returns its path and bytes.

    Raises OSError (disk full); nothing is left behind and the older checkpoints stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, keys, *rest = np.random.get_state(legacy=True)
    states = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    description = {
        "loop": msgspec.to_builtins(state),
        "python_random": random.getstate(),
        "numpy_random": {"name": name, "rest": rest},
    }
    files = {
        WEIGHTS: save_tensors(
            {key: tensor.detach().to("cpu").contiguous() for key, tensor in weights.items()}
        ),
        OPTIMIZER: save_tensors(optimizer),
        RANDOM: save_tensors(states),
        STATE: json.dumps(description, allow_nan=False).encode(),
    }
    manifest = _Manifest(1, {name: sha256(data).hexdigest() for name, data in files.items()})
    files[MANIFEST] = msgspec.json.encode(manifest)
    target = folder / f"{state.phase}-{state.step:07d}"
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        temporary.chmod(0o755)
        for name, data in files.items():
            _write_synced(temporary / name, data)
        fsync_dir(temporary)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        fsync_dir(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(folder, state.phase, target)
    return target, sum(map(len, files.values()))


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def listing(folder: Path, phase: str) -> list[Path]:
    """The folders that are named like checkpoints of `phase`, newest first; they may be damaged."""
    found = []
    for path in folder.glob(f"{phase}-*") if folder.is_dir() else ():
        number = path.name.removeprefix(f"{phase}-")
        if number.isdigit() and path.is_dir():
            found.append((int(number), path))
    return [path for _step, path in sorted(found, reverse=True)]


def newest(folder: Path, phase: str) -> Found:
    """The newest whole checkpoint of `phase` under `folder`; damaged ones are named and passed over."""
    damaged: list[str] = []
    for path in listing(folder, phase):
        try:
            return Found(load(path), damaged)
        except ValueError as problem:
            damaged.append(f"{path}: {problem}")
    return Found(None, damaged)


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint after checking every hash. Raises ValueError that names the damaged file."""
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError) as problem:
        raise ValueError(f"{MANIFEST} is missing or broken") from problem
    if set(manifest.files) != {WEIGHTS, OPTIMIZER, RANDOM, STATE}:
        raise ValueError(f"{MANIFEST} names other files")
    contents: dict[str, bytes] = {}
    for name, digest in manifest.files.items():
        try:
            contents[name] = (path / name).read_bytes()
        except OSError as problem:
            raise ValueError(f"{name} cannot be read") from problem
        if sha256(contents[name]).hexdigest() != digest:
            raise ValueError(f"{name} has changed since it was written")
    try:
        description = json.loads(contents[STATE])
        return Checkpoint(
            path=path,
            state=msgspec.convert(description["loop"], LoopState),
            weights=load_tensors(contents[WEIGHTS]),
            optimizer=load_tensors(contents[OPTIMIZER]),
            random=load_tensors(contents[RANDOM]),
            python_random=description["python_random"],
            numpy_random=description["numpy_random"],
        )
    except (ValueError, KeyError, TypeError, SafetensorError) as problem:
        raise ValueError(f"{STATE} is not of this program") from problem


def _prune(folder: Path, phase: str, newest_path: Path) -> None:
    """Keeps `newest_path`, the whole one before it, and the one with the lowest evaluation.

    Damaged ones do not count, so that they never push a whole one out. Sweeps what a crash left half written.
    """
    others = [path for path in listing(folder, phase) if path != newest_path]
    keep = {newest_path, *islice((path for path in others if _whole(path)), KEEP - 1)}
    scores = {path: score for path in (newest_path, *others) if (score := _evaluation(path)) is not None}
    keep.update(path for path in sorted(scores, key=lambda path: scores[path])[:1] if _whole(path))
    for path in others:
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _whole(path: Path) -> bool:
    try:
        load(path)
    except ValueError:
        return False
    return True


def _evaluation(path: Path) -> float | None:
    try:
        value = json.loads((path / STATE).read_bytes())["loop"]["last_eval"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, float) else None
