"""Durability of checkpoints and of the model in use: crashes, power failures and I/O errors."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.crash_states import Recorder, build, crash_states
from bench.kills import prove
from bench.result import Benchmark, BenchResult, compare
from engine.core.paths import Workspace
from engine.models.card import CARD_FILE, ModelCard, encode_card
from engine.models.registry import in_use, promote, rollback
from engine.training import checkpoint
from engine.training.checkpoint import LoopState, RetentionPolicy

SAVES = 30
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE)
RULE = RetentionPolicy(last=2, hourly=1)


def save(folder: Path, number: int) -> None:
    """Saves checkpoint `number` (from 1); some share a batch count, and the best and the last good one vary."""
    state = LoopState(
        phase="scratch",
        step=number,
        batches_drawn=number - (number % 5 == 0),
        max_steps=SAVES,
        peak_lr=0.1,
        last_eval=float((number * 7) % 11),
        good_checkpoint=f"scratch-{max(1, number - 4):07d}",
    )
    weights = {"w": torch.full((16, 24), float(number)), "b": torch.full((7,), float(-number))}
    checkpoint.save(folder, state, weights, {"momentum/w": torch.full((16, 24), number / 2)}, RULE)


def verify(folder: Path, acknowledged: int) -> str:
    """An error text, or "" when the newest valid checkpoint is number `acknowledged` or later."""
    found = checkpoint.find_newest(folder, "scratch").checkpoint
    if found is None:
        return "no checkpoint found" if acknowledged else ""
    number = found.state.step
    if number < acknowledged:
        return f"{number} found after {acknowledged} was acknowledged"
    valid = bool((found.weights["w"] == number).all() and (found.optimizer["momentum/w"] == number / 2).all())
    return "" if valid else f"{number} has wrong contents"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, in memory if possible: thousands of states are built in it."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@dataclass
class LoadCounts:
    """The number of loaded states, and the failures among them."""

    states: int = 0
    wrong: int = 0
    first: str = ""

    def add(self, problem: str) -> None:
        self.states += 1
        if problem:
            self.wrong += 1
            self.first = self.first or problem


def each_crash(
    work: Callable[[Path, Recorder], None], check: Callable[[Path, list[Any]], str], *, samples: int
) -> LoadCounts:
    """Records `work` in an empty folder and checks every state that a power failure could leave with `check`."""
    counts = LoadCounts()
    with scratch_folder() as folder:
        (folder / "live").mkdir()
        recorder = Recorder(folder / "live")
        with recorder.recording():
            work(folder / "live", recorder)
        for number, (acknowledged, state) in enumerate(crash_states(recorder.operations, samples=samples)):
            place = folder / str(number)
            build(place, state)
            try:
                counts.add(check(place, acknowledged))
            except Exception as problem:
                counts.add(f"{type(problem).__name__}: {problem}")
            shutil.rmtree(place)
    return counts


def saves_crash(saves: int, samples: int) -> LoadCounts:
    """Checkpoints after a power failure."""

    def work(root: Path, recorder: Recorder) -> None:
        for number in range(1, saves + 1):
            save(root / "run" / "checkpoints", number)
            recorder.acknowledge(number)

    def check(root: Path, acknowledged: list[Any]) -> str:
        return verify(root / "run" / "checkpoints", max(acknowledged, default=0))

    return each_crash(work, check, samples=samples)


def _models(root: Path, *names: str) -> Workspace:
    ws = Workspace(root)
    for name in names:
        (ws.models / name).mkdir(parents=True, exist_ok=True)
        data = name.encode() * 40
        (ws.models / name / "model.safetensors").write_bytes(data)
        card = ModelCard(
            name=name,
            mode="native",
            run_id="r",
            created_at=1.0,
            parameters=1,
            context=64,
            weights_sha256=_sha(data),
        )
        (ws.models / name / CARD_FILE).write_bytes(encode_card(card))
    return ws


def _sha(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def promotions_crash(samples: int) -> LoadCounts:
    """The model in use after a power failure: two promotions and two rollbacks."""
    steps = ("a", "b", "a", "b")

    def work(root: Path, recorder: Recorder) -> None:
        # The models exist long before: `open()` is not recorded.
        ws = _models(root, "a", "b")
        for number, name in enumerate(steps):
            if number < 2:
                promote(ws, name, now=1e9 + number)
            else:
                rollback(ws, now=1e9 + number)
            recorder.acknowledge(number + 1)

    def check(root: Path, acknowledged: list[Any]) -> str:
        done = max(acknowledged, default=0)
        _models(root, "a", "b")
        found = in_use(Workspace(root))
        allowed = [None, *steps][done : done + 2]
        return "" if found in allowed else f"{found} is in use after step {done}, not one of {allowed}"

    return each_crash(work, check, samples=samples)


def crash(full: bool) -> list[BenchResult]:
    """Both, as the share of states from which the acknowledged value is loaded."""
    begin = time.perf_counter()
    saves = saves_crash(SAVES, 12 if full else 4)
    promotions = promotions_crash(100 if full else 20)
    seconds = time.perf_counter() - begin
    return [
        _share_correct(
            "durability.crash_states.checkpoints",
            saves,
            f"{SAVES} saves; {seconds:.0f} s with the promotions",
        ),
        _share_correct("durability.crash_states.model_in_use", promotions, "2 promotions, 2 rollbacks"),
        compare(
            "durability.crash_states.count",
            ours=saves.states + promotions.states,
            baseline=2000,
            target=1.0,
            unit="different states",
            lower_is_better=False,
            notes="disk states that were built and loaded, against the required minimum",
        ),
    ]


def _share_correct(name: str, counts: LoadCounts, about: str) -> BenchResult:
    return compare(
        name,
        ours=1 - counts.wrong / max(1, counts.states),
        baseline=1.0,
        target=1.0,
        unit="share that is right",
        lower_is_better=False,
        notes=f"{counts.wrong} of {counts.states:,} wrong {counts.first} ({about})".replace("  ", " "),
    )


def io_errors(full: bool) -> list[BenchResult]:
    """Each file operation of a save fails once with each error."""
    del full
    counts = LoadCounts()
    for number in ERRORS:
        count = 1
        while _fails_at(number, count - 1, counts):
            count += 1
    return [
        _share_correct(
            "durability.io_errors", counts, "each file operation of a save fails once with each of 4 errors"
        )
    ]


def _fails_at(error: int, place: int, counts: LoadCounts) -> bool:
    """Makes operation `place` of a save fail; False when the save has fewer operations."""
    with scratch_folder() as root:
        folder = root / "run" / "checkpoints"
        for number in (1, 2, 3):
            save(folder, number)
        recorder = Recorder(root)
        recorder.fail_at, recorder.error = place, error
        raised = False
        with recorder.recording():
            try:
                save(folder, 4)
            except OSError:
                raised = True
        counts.add(verify(folder, 3 if raised else 4))
        save(folder, 6)
        counts.add(verify(folder, 6) or _leftover(folder))
        return recorder.fail_at is None


def _leftover(folder: Path) -> str:
    return next((f"{path.name} is left" for path in folder.iterdir() if path.name.startswith(".")), "")


def kills(full: bool) -> list[BenchResult]:
    """Repeatedly killed trainings end bit-identical to an uninterrupted one."""
    begin = time.perf_counter()
    wanted = 200 if full else 8
    proof = prove(wanted)
    about = (
        f"{proof.trainings} trainings of scratch and native, {proof.inside} of {proof.kills} kills inside the writer, "
        f"{time.perf_counter() - begin:.0f} s: losses, weights, optimizer, random states, samples of each epoch"
    )
    return [
        compare(
            "durability.kills",
            ours=proof.kills,
            baseline=wanted,
            target=1.0,
            unit="kills -9",
            lower_is_better=False,
            notes=about,
        ),
        compare(
            "durability.kills.identical",
            ours=1.0 - min(1.0, len(proof.problems) / max(1, proof.trainings)),
            baseline=1.0,
            target=1.0,
            unit="share bit-identical",
            lower_is_better=False,
            notes="; ".join(proof.problems[:3]) or "identical to the uninterrupted trainings",
        ),
        compare(
            "durability.kills.inside",
            ours=proof.inside / max(1, proof.kills),
            baseline=0.5,
            target=0.8,
            unit="of the kills",
            lower_is_better=False,
            notes="kills that left a partial checkpoint; half of all kills target the writer",
        ),
    ]


BENCHMARKS = (
    Benchmark("durability.kills", "kill -9 at random moments and inside the writer", kills, 40),
    Benchmark("durability.crash_states", "checkpoints and the model in use after a power failure", crash, 20),
    Benchmark("durability.io_errors", "every file operation of a save fails once", io_errors, 10),
)
