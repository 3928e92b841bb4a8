"""Checkpoints that are whole or not there, with a hash for every file; the newest whole one is found by looking.

A checkpoint is a folder `<phase>-<draw>` with weights, optimizer and random states in safetensors, the rest
in JSON, and a manifest of sha256 sums. It is snapshot in memory in one moment (`snapshot`), then made in a
temporary folder, synced, read back and renamed (`write`), which may be done in a thread. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from engine.core.files import fsync_dir, make_dirs, write_synced
from engine.core.i18n import _
from engine.training.rng_state import RngStates
from engine.training.spike_detector import SpikeStatistics

WEIGHTS, OPTIMIZER, RANDOM, STATE, MANIFEST = (
    "weights.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
    "manifest.json",
)
SCHEMA = 1
_REMOVED, _WRITING = ".removed-", ".writing-"


class LoopState(msgspec.Struct, kw_only=True):
    """Where a phase stands: all that the next step depends on beside tensors.

    A checkpoint never falls into an accumulation window: a batch is drawn, accumulated and stepped as one, and
    checkpoints are snapshot between two steps only. So `draw` is the whole position in the data.
    """

    phase: str
    step: int = 0
    """Optimizer steps snapshot."""
    batches_drawn: int = msgspec.field(default=0, name="draw")
    """Batches drawn, discarded ones too: the cursor of the data. It never goes back, not even when steps do."""
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
    """Steps that were not snapshot: not finite, or a spike."""
    spikes: SpikeStatistics = msgspec.field(default_factory=SpikeStatistics, name="watch")
    """What later steps are judged by."""
    good_checkpoint: str = msgspec.field(default="", name="good")
    """Name of the checkpoint that a divergence returns to; "": none is known to be good yet."""
    loss: float | None = None
    best_eval: float | None = None
    last_eval: float | None = None
    seconds: float = 0.0
    """Time spent training."""
    threads: int = 1
    tokens_per_micro_batch: int = msgspec.field(default=0, name="tokens_per_pass")
    """How batches are cut into micro-batches: sums of floating-point numbers depend on it."""
    activation_checkpointing: bool = msgspec.field(default=False, name="recompute")
    """Activation checkpointing is on."""
    max_steps_fixed: bool = msgspec.field(default=False, name="fixed_steps")
    """A person has set `max_steps`; a time budget no longer changes them."""
    bf16: bool = False
    fused: bool = False
    """Computed with the kernels of `engine.models.kernels.build`."""
    dataset_sha256: str = ""
    settings_sha256: str = ""


class ComputeEnvironment(msgspec.Struct, frozen=True):
    """What computed the steps so far; another library or processor rounds differently."""

    torch: str = ""
    processor: str = ""

    def __str__(self) -> str:
        return f"torch {self.torch}, {self.processor}"

    @classmethod
    def here(cls) -> ComputeEnvironment:
        return cls(
            str(torch.__version__), f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}".strip()
        )


class _Manifest(msgspec.Struct, frozen=True):
    schema: int
    files: dict[str, str]
    """File name to sha256."""


class _StateFile(msgspec.Struct, frozen=True):
    """`state.json`."""

    loop: LoopState
    python_random: list[Any]
    numpy_random: dict[str, Any]
    saved_at: float | None = None
    origin: ComputeEnvironment = ComputeEnvironment()


@dataclass(frozen=True)
class CheckpointSnapshot:
    """A copy of everything, in the processor's memory: training may go on while it is written."""

    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rng: RngStates
    taken_at: float

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        tensors = (*self.weights.values(), *self.optimizer.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole."""

    path: Path
    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rng: RngStates
    origin: ComputeEnvironment


@dataclass(frozen=True)
class CheckpointSearch:
    """What a search gave: the newest whole checkpoint, and a sentence for each damaged one passed over."""

    checkpoint: Checkpoint | None
    damaged: list[str] = field(default_factory=list)


HOUR_S = 3600.0
RESERVE_MB = 256
RESERVE_SHARE = 0.02
"""Room that checkpoints leave on a disk: the smaller of both. A full disk would stop the journal, too."""


@dataclass(frozen=True)
class RetentionPolicy:
    """How many checkpoints of a phase are kept beside the best one and the one to return to."""

    last: int = 2
    """The newest ones, 1 or more."""
    hourly: int = 24
    """The newest one of each of so many hours before; 0: none."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What decides about one checkpoint."""

    path: Path
    saved_at: float | None
    """Seconds since the epoch; None when it cannot be read."""
    evaluation: float | None
    """Its loss on the general set; None without one."""


def retained(found: Sequence[CheckpointInfo], policy: RetentionPolicy, good: str) -> list[Path]:
    """Those of `found` (newest first, whole ones only) that stay, in the order of their worth.

    The newest ones come first, then the one named `good`, the best, and one of each hour.
    """
    paths = [one.path for one in found[: max(1, policy.last)]]
    paths += [one.path for one in found if one.path.name == good]
    judged = [(one.evaluation, place) for place, one in enumerate(found) if one.evaluation is not None]
    paths += [found[place].path for _loss, place in sorted(judged)[:1]]
    hours: dict[int, Path] = {}
    for one in found:
        if one.saved_at is not None:
            hours.setdefault(int(one.saved_at // HOUR_S), one.path)
    paths += [hours[hour] for hour in sorted(hours, reverse=True)[: policy.hourly]]
    return list(dict.fromkeys(paths))


def disk_reserve(total: int) -> int:
    """Bytes that stay free on a disk of `total` bytes."""
    return min(RESERVE_MB << 20, int(RESERVE_SHARE * total))


def check_disk_space(folder: Path, size: int) -> None:
    """Raises OSError (ENOSPC) with a sentence when a checkpoint of `size` bytes would fill the disk."""
    disk = shutil.disk_usage(folder)
    need = size + disk_reserve(disk.total)
    if disk.free < need:
        raise OSError(
            errno.ENOSPC,
            _("the disk is nearly full: {free} MB are free, a checkpoint needs {need} MB").format(
                free=disk.free >> 20, need=-(-need >> 20)
            ),
        )


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a model: all of it, or of one with frozen weights those that are trained."""
    state = model.state_dict()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if all(parameter.requires_grad for parameter in parameters.values()):
        return state
    return {
        name: tensor
        for name, tensor in state.items()
        if name in parameters and parameters[name].requires_grad
    }


def load_trainable_state(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Takes back what `trainable_state` gave. Raises RuntimeError when it belongs to another model."""
    if set(trainable_state(model)) != set(weights):
        raise RuntimeError("the weights have other names than what is trained")
    model.load_state_dict(weights, strict=False)


def take_snapshot(
    state: LoopState, weights: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> CheckpointSnapshot:
    """Copies everything. `optimizer` is snapshot as it is: a copy already."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    return CheckpointSnapshot(copy.deepcopy(state), copies, optimizer, RngStates.capture(), time.time())


def write(
    folder: Path, snapshot: CheckpointSnapshot, policy: RetentionPolicy | None = None
) -> tuple[Path, int]:
    """Writes a checkpoint under `folder` and removes those that `policy` does not keep; returns its path and bytes.

    When this returns the checkpoint is on the disk and was read back. Raises OSError (the disk is full, or
    nearly); nothing is left behind and the older checkpoints stay.
    """
    policy = policy or RetentionPolicy()
    make_dirs(folder)
    _remove_leftovers(folder)
    try:
        check_disk_space(folder, snapshot.size)
    except OSError:
        _prune(folder, snapshot.state, RetentionPolicy(last=1, hourly=0))
        check_disk_space(folder, snapshot.size)
    temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder))
    try:
        temporary.chmod(0o755)
        size = _write_files(temporary, snapshot)
        fsync_dir(temporary)
        _read_back(temporary)
        path = _unused_path(folder, snapshot.state)
        temporary.rename(path)
        fsync_dir(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(folder, snapshot.state, policy)
    return path, size


def save(
    folder: Path,
    state: LoopState,
    weights: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    policy: RetentionPolicy | None = None,
) -> tuple[Path, int]:
    """`snapshot` and `write` in one."""
    return write(folder, take_snapshot(state, weights, optimizer), policy)


def _write_files(folder: Path, snapshot: CheckpointSnapshot) -> int:
    """The files of a checkpoint, the manifest last; their bytes. One file at a time is in memory."""
    digests: dict[str, str] = {}
    size = 0

    def add(name: str, data: bytes) -> None:
        nonlocal size
        write_synced(folder / name, data)
        digests[name] = sha256(data).hexdigest()
        size += len(data)

    add(WEIGHTS, save_tensors(snapshot.weights))
    add(OPTIMIZER, save_tensors(snapshot.optimizer))
    add(RANDOM, save_tensors(snapshot.rng.tensors))
    state_file = _StateFile(
        snapshot.state, snapshot.rng.python, snapshot.rng.numpy, snapshot.taken_at, ComputeEnvironment.here()
    )
    add(STATE, json.dumps(msgspec.to_builtins(state_file), allow_nan=False).encode())
    add(MANIFEST, msgspec.json.encode(_Manifest(SCHEMA, dict(digests))))
    return size


def _read_back(folder: Path) -> None:
    """Raises OSError when what was written is not what the disk gives back."""
    try:
        _read_verified(folder)
    except ValueError as problem:
        raise OSError(errno.EIO, str(problem)) from problem


def _unused_path(folder: Path, state: LoopState) -> Path:
    """A second checkpoint at one draw gets a name of its own: the first is there until the other is."""
    stem = f"{state.phase}-{state.batches_drawn:07d}"
    names = (stem if number == 0 else f"{stem}.{number}" for number in count())
    return next(folder / name for name in names if not (folder / name).exists())


def list_checkpoints(folder: Path, phase: str) -> list[Path]:
    """The folders that are named like checkpoints of `phase`, newest first; they may be damaged."""
    name = re.compile(re.escape(phase) + r"-([0-9]+)(?:\.([0-9]+))?")
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        numbers = name.fullmatch(path.name)
        if numbers is not None and path.is_dir():
            found.append((int(numbers[1]), int(numbers[2] or 0), path))
    return [path for *_numbers, path in sorted(found, reverse=True)]


def find_newest(folder: Path, phase: str) -> CheckpointSearch:
    """The newest whole checkpoint of `phase` under `folder`; damaged ones are named and passed over."""
    damaged: list[str] = []
    for path in list_checkpoints(folder, phase):
        try:
            return CheckpointSearch(load(path), damaged)
        except ValueError as problem:
            damaged.append(f"{path}: {problem}")
    return CheckpointSearch(None, damaged)


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint after checking every hash. Raises ValueError that names the damaged file."""
    contents = _read_verified(path)
    try:
        state_file = msgspec.json.decode(contents[STATE], type=_StateFile)
        return Checkpoint(
            path=path,
            state=state_file.loop,
            weights=load_tensors(contents[WEIGHTS]),
            optimizer=load_tensors(contents[OPTIMIZER]),
            rng=RngStates(load_tensors(contents[RANDOM]), state_file.python_random, state_file.numpy_random),
            origin=state_file.origin,
        )
    except (ValueError, KeyError, TypeError, SafetensorError) as problem:
        raise ValueError(f"{STATE} is not of this program") from problem


def _read_verified(path: Path, only: str | None = None) -> dict[str, bytes]:
    """The files of a checkpoint, or `only` one. Raises ValueError that names what is missing or has changed."""
    try:
        listed = (path / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(listed, type=_Manifest)
    except (OSError, ValueError) as problem:
        raise ValueError(f"{MANIFEST} is missing or broken") from problem
    # The manifest has no hash of its own: it must be, byte for byte, as this program writes it.
    if msgspec.json.encode(manifest) != listed or manifest.schema != SCHEMA:
        raise ValueError(f"{MANIFEST} has changed since it was written, or is of another version")
    if set(manifest.files) != {WEIGHTS, OPTIMIZER, RANDOM, STATE}:
        raise ValueError(f"{MANIFEST} names other files")
    contents: dict[str, bytes] = {}
    for name, digest in manifest.files.items():
        if only is not None and name != only:
            continue
        try:
            contents[name] = (path / name).read_bytes()
        except OSError as problem:
            raise ValueError(f"{name} cannot be read") from problem
        if sha256(contents[name]).hexdigest() != digest:
            raise ValueError(f"{name} has changed since it was written")
    return contents


def _prune(folder: Path, state: LoopState, policy: RetentionPolicy) -> None:
    """Removes what `policy` does not keep. Damaged ones do not count: they never push a whole one out.

    Of those that are kept beside the newest only the small files are read: a run may have many of them.
    """
    found: list[CheckpointInfo] = []
    damaged: list[Path] = []
    for path in list_checkpoints(folder, state.phase):
        one = _info(path, only=None if len(found) < max(2, policy.last) else STATE)
        if one is None:
            damaged.append(path)
        else:
            found.append(one)
    kept = retained(found, policy, state.good_checkpoint)
    for path in (*(one.path for one in found if one.path not in kept), *damaged):
        _remove(path)


def _info(path: Path, only: str | None) -> CheckpointInfo | None:
    """None for a damaged one."""
    try:
        state_file = msgspec.json.decode(_read_verified(path, only)[STATE], type=_StateFile)
    except ValueError:
        return None
    return CheckpointInfo(path, state_file.saved_at, state_file.loop.last_eval)


def _remove(path: Path) -> None:
    """The name goes first: what is left of a removal that was cut short is no damaged checkpoint."""
    removed = path.with_name(_REMOVED + path.name)
    with contextlib.suppress(OSError):
        path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """What a crash left half written or half removed."""
    for path in folder.iterdir():
        if path.name.startswith((_WRITING, _REMOVED)):
            shutil.rmtree(path, ignore_errors=True)
