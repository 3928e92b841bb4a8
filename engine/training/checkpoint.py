"""Atomic checkpoints with a hash for every file.

A checkpoint is a folder `<phase>-<batches drawn>` with weights, optimizer and random states in safetensors,
the rest in JSON, and a manifest of sha256 sums. `take_snapshot` copies the state in memory between two steps;
`write` fills a temporary folder, syncs it, reads it back and renames it, possibly in a thread. Nothing is
pickled.
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
    """State of a phase: everything except tensors that the next step depends on.

    Checkpoints are taken between two steps, never within an accumulation, so `batches_drawn` is the whole
    position in the data.
    """

    phase: str
    step: int = 0
    """Optimizer steps done."""
    batches_drawn: int = msgspec.field(default=0, name="draw")
    """BatchSource drawn, discarded ones included: the cursor of the data. It never decreases, not even on a
    rollback."""
    max_steps: int
    tokens: int = 0
    """Bytes seen."""
    peak_lr: float
    epoch: int = 0
    """Epochs finished."""
    epoch_loss: float = 0.0
    """Sum of the losses of this epoch, over `epoch_steps` steps."""
    epoch_steps: int = 0
    discarded: int = 0
    """Steps not applied: not finite, or a spike."""
    spikes: SpikeStatistics = msgspec.field(default_factory=SpikeStatistics, name="watch")
    """Statistics of the spike detector."""
    good_checkpoint: str = msgspec.field(default="", name="good")
    """Name of the checkpoint that a divergence rolls back to; "": none is known to be good yet."""
    loss: float | None = None
    best_eval: float | None = None
    last_eval: float | None = None
    seconds: float = 0.0
    """Time spent training."""
    threads: int = 1
    """Of each process."""
    processes: int = msgspec.field(default=1, name="nproc")
    """Processes that compute a step together."""
    tokens_per_micro_batch: int = msgspec.field(default=0, name="tokens_per_pass")
    """Upper bound on the tokens of a micro-batch: the order of floating-point sums depends on it."""
    activation_checkpointing: bool = msgspec.field(default=False, name="recompute")
    """Whether activations are recomputed in the backward pass."""
    max_steps_fixed: bool = msgspec.field(default=False, name="fixed_steps")
    """The user has set `max_steps`; a time budget no longer changes it."""
    bf16: bool = False
    fused: bool = False
    """Computed with the kernels of `engine.models.kernels.build`."""
    dataset_sha256: str = ""
    settings_sha256: str = ""

    def roll_back(self, good: LoopState, read: int) -> None:
        """Takes from `good` what belongs to its weights. The cursor of the data stays: the batches since are
        skipped. `read` whole epochs have been read up to that cursor."""
        self.step, self.tokens = good.step, good.tokens
        self.epoch = max(good.epoch, min(self.epoch, read))
        kept = self.epoch == good.epoch
        self.epoch_loss, self.epoch_steps = (good.epoch_loss, good.epoch_steps) if kept else (0.0, 0)
        self.loss, self.last_eval = good.loss, good.last_eval


class ComputeEnvironment(msgspec.Struct, frozen=True):
    """Library and CPU that computed the steps so far; others round differently."""

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
    """Contents of `state.json`."""

    loop: LoopState
    python_random: list[Any]
    numpy_random: dict[str, Any]
    saved_at: float | None = None
    origin: ComputeEnvironment = ComputeEnvironment()


@dataclass(frozen=True)
class CheckpointSnapshot:
    """A copy of the whole state in CPU memory; training may continue while it is written."""

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
    """A checkpoint whose hashes were verified."""

    path: Path
    state: LoopState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rng: RngStates
    origin: ComputeEnvironment


@dataclass(frozen=True)
class CheckpointSearch:
    """The newest valid checkpoint, and a sentence for each damaged one that was skipped."""

    checkpoint: Checkpoint | None
    damaged: list[str] = field(default_factory=list)


HOUR_S = 3600.0
RESERVE_MB = 256
RESERVE_SHARE = 0.02
"""Disk space that checkpoints leave free: the smaller of both. A full disk would stop the journal too."""


@dataclass(frozen=True)
class RetentionPolicy:
    """Number of checkpoints of a phase to keep, in addition to the best one and the rollback target."""

    last: int = 2
    """The newest ones, 1 or more."""
    hourly: int = 24
    """The newest one of each of this many hours; 0: none."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What the retention policy needs to know of one checkpoint."""

    path: Path
    saved_at: float | None
    """Seconds since the epoch; None when it cannot be read."""
    evaluation: float | None
    """Its loss on the general set; None without one."""


def retained(found: Sequence[CheckpointInfo], policy: RetentionPolicy, good: str) -> list[Path]:
    """Those of `found` (valid ones, newest first) to keep, in order of importance.

    The newest ones come first, then the one named `good`, the best, and one per hour.
    """
    paths = [one.path for one in found[: max(1, policy.last)]]
    paths += [one.path for one in found if one.path.name == good]
    evaluated = [(one.evaluation, place) for place, one in enumerate(found) if one.evaluation is not None]
    paths += [found[place].path for _loss, place in sorted(evaluated)[:1]]
    hours: dict[int, Path] = {}
    for one in found:
        if one.saved_at is not None:
            hours.setdefault(int(one.saved_at // HOUR_S), one.path)
    paths += [hours[hour] for hour in sorted(hours, reverse=True)[: policy.hourly]]
    return list(dict.fromkeys(paths))


def disk_reserve(total: int) -> int:
    """Bytes that must stay free on a disk of `total` bytes."""
    return min(RESERVE_MB << 20, int(RESERVE_SHARE * total))


def check_disk_space(folder: Path, size: int) -> None:
    """Raises OSError (ENOSPC) with a message when a checkpoint of `size` bytes would fill the disk."""
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
    """The tensors of a model that a checkpoint stores: all, or only the trained ones where others are frozen."""
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
    """Loads the tensors of `trainable_state`. Raises RuntimeError when they belong to another model."""
    if set(trainable_state(model)) != set(weights):
        raise RuntimeError("the weights have other names than the trained tensors")
    model.load_state_dict(weights, strict=False)


def take_snapshot(
    state: LoopState, weights: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> CheckpointSnapshot:
    """Copies the state. `optimizer` is not copied: the caller passes a copy."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    return CheckpointSnapshot(copy.deepcopy(state), copies, optimizer, RngStates.capture(), time.time())


def write(
    folder: Path, snapshot: CheckpointSnapshot, policy: RetentionPolicy | None = None
) -> tuple[Path, int]:
    """Writes a checkpoint under `folder` and removes those that `policy` does not keep; returns its path and
    bytes.

    On return the checkpoint is on disk and was read back. Raises OSError (the disk is full, or nearly); then
    nothing is left behind and the older checkpoints stay.
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
    """`take_snapshot` and `write` in one."""
    return write(folder, take_snapshot(state, weights, optimizer), policy)


def _write_files(folder: Path, snapshot: CheckpointSnapshot) -> int:
    """Writes the files of a checkpoint, the manifest last; returns their bytes. Only one file at a time is in
    memory."""
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
    """Raises OSError when the files read back differ from what was written."""
    try:
        _read_verified(folder)
    except ValueError as problem:
        raise OSError(errno.EIO, str(problem)) from problem


def _unused_path(folder: Path, state: LoopState) -> Path:
    """A path of its own for another checkpoint at the same batch: the first stays until the second is
    complete."""
    stem = f"{state.phase}-{state.batches_drawn:07d}"
    names = (stem if number == 0 else f"{stem}.{number}" for number in count())
    return next(folder / name for name in names if not (folder / name).exists())


def list_checkpoints(folder: Path, phase: str) -> list[Path]:
    """Folders named like checkpoints of `phase`, newest first; they may be damaged."""
    name = re.compile(re.escape(phase) + r"-([0-9]+)(?:\.([0-9]+))?")
    numbered = []
    for path in folder.iterdir() if folder.is_dir() else ():
        numbers = name.fullmatch(path.name)
        if numbers is not None and path.is_dir():
            numbered.append((int(numbers[1]), int(numbers[2] or 0), path))
    return [path for *_numbers, path in sorted(numbered, reverse=True)]


def find_newest(folder: Path, phase: str) -> CheckpointSearch:
    """The newest valid checkpoint of `phase` under `folder`; damaged ones are reported and skipped."""
    damaged: list[str] = []
    for path in list_checkpoints(folder, phase):
        try:
            return CheckpointSearch(load(path), damaged)
        except ValueError as problem:
            damaged.append(f"{path}: {problem}")
    return CheckpointSearch(None, damaged)


def load(path: Path) -> Checkpoint:
    """Reads one checkpoint and verifies every hash. Raises ValueError that names the damaged file."""
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
    """The files of a checkpoint, or `only` one. Raises ValueError that names a missing or changed file."""
    try:
        listed = (path / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(listed, type=_Manifest)
    except (OSError, ValueError) as problem:
        raise ValueError(f"{MANIFEST} is missing or broken") from problem
    # The manifest has no hash: it must equal, byte for byte, what this program writes.
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
    """Removes what `policy` does not keep. Damaged checkpoints do not count and never displace a valid one.

    Of all but the newest only the small files are read: a run may have many checkpoints.
    """
    valid: list[CheckpointInfo] = []
    damaged: list[Path] = []
    for path in list_checkpoints(folder, state.phase):
        info = _info(path, only=None if len(valid) < max(2, policy.last) else STATE)
        if info is None:
            damaged.append(path)
        else:
            valid.append(info)
    kept = retained(valid, policy, state.good_checkpoint)
    for path in (*(info.path for info in valid if info.path not in kept), *damaged):
        _remove(path)


def _info(path: Path, only: str | None) -> CheckpointInfo | None:
    """None for a damaged checkpoint."""
    try:
        state_file = msgspec.json.decode(_read_verified(path, only)[STATE], type=_StateFile)
    except ValueError:
        return None
    return CheckpointInfo(path, state_file.saved_at, state_file.loop.last_eval)


def _remove(path: Path) -> None:
    """Renames first: an interrupted removal leaves no damaged checkpoint behind."""
    removed = path.with_name(_REMOVED + path.name)
    with contextlib.suppress(OSError):
        path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Removes what a crash left half written or half removed."""
    for path in folder.iterdir():
        if path.name.startswith((_WRITING, _REMOVED)):
            shutil.rmtree(path, ignore_errors=True)
