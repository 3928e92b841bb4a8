"""What a crash, a power cut, a full disk or a flipped bit costs: checkpoints, the model in use, and datasets."""

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
    """Checkpoint `number` (from 1): two at one draw now and then, the best and the good one elsewhere."""
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
    """ "" when the newest whole checkpoint is number `acknowledged` or a later one; else what is wrong."""
    found = checkpoint.find_newest(folder, "scratch").checkpoint
    if found is None:
        return "nothing is found" if acknowledged else ""
    number = found.state.step
    if number < acknowledged:
        return f"{number} is found after {acknowledged} was acknowledged"
    right = bool((found.weights["w"] == number).all() and (found.optimizer["momentum/w"] == number / 2).all())
    return "" if right else f"{number} has other contents"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, in memory where that is possible: thousands of states are built in it."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@dataclass
class Tried:
    """How many states were loaded, and what went wrong in which."""

    states: int = 0
    wrong: int = 0
    first: str = ""

    def note(self, problem: str) -> None:
        self.states += 1
        if problem:
            self.wrong += 1
            self.first = self.first or problem


def each_crash(
    work: Callable[[Path, Recorder], None], judge: Callable[[Path, list[Any]], str], *, samples: int
) -> Tried:
    """Records `work` in an empty folder and lets `judge` look at every state that a power cut could leave."""
    tried = Tried()
    with scratch_folder() as folder:
        (folder / "live").mkdir()
        recorder = Recorder(folder / "live")
        with recorder.recording():
            work(folder / "live", recorder)
        for number, (acknowledged, state) in enumerate(crash_states(recorder.operations, samples=samples)):
            place = folder / str(number)
            build(place, state)
            try:
                tried.note(judge(place, acknowledged))
            except Exception as problem:
                tried.note(f"{type(problem).__name__}: {problem}")
            shutil.rmtree(place)
    return tried


def saves_crash(saves: int, samples: int) -> Tried:
    """Checkpoints under a power cut."""

    def work(root: Path, recorder: Recorder) -> None:
        for number in range(1, saves + 1):
            save(root / "run" / "checkpoints", number)
            recorder.acknowledge(number)

    def judge(root: Path, acknowledged: list[Any]) -> str:
        return verify(root / "run" / "checkpoints", max(acknowledged, default=0))

    return each_crash(work, judge, samples=samples)


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


def promotions_crash(samples: int) -> Tried:
    """The model in use under a power cut: two promotions and two rollbacks."""
    steps = ("a", "b", "a", "b")

    def work(root: Path, recorder: Recorder) -> None:
        # The models are there long before: `open()` is not recorded.
        ws = _models(root, "a", "b")
        for number, name in enumerate(steps):
            if number < 2:
                promote(ws, name, now=1e9 + number)
            else:
                rollback(ws, now=1e9 + number)
            recorder.acknowledge(number + 1)

    def judge(root: Path, acknowledged: list[Any]) -> str:
        done = max(acknowledged, default=0)
        _models(root, "a", "b")
        found = in_use(Workspace(root))
        allowed = [None, *steps][done : done + 2]
        return "" if found in allowed else f"{found} is in use after step {done}, not one of {allowed}"

    return each_crash(work, judge, samples=samples)


def crash(full: bool) -> list[BenchResult]:
    """Both, as shares of states that load what was acknowledged."""
    begin = time.perf_counter()
    saves = saves_crash(SAVES, 12 if full else 4)
    promotions = promotions_crash(100 if full else 20)
    seconds = time.perf_counter() - begin
    return [
        _all_right(
            "durability.crash_states.checkpoints", saves, f"{SAVES} saves; {seconds:.0f} s with those below"
        ),
        _all_right("durability.crash_states.model_in_use", promotions, "2 promotions, 2 rollbacks"),
        compare(
            "durability.crash_states.count",
            ours=saves.states + promotions.states,
            baseline=2000,
            target=1.0,
            unit="different states",
            lower_is_better=False,
            notes="states of disks that were built and loaded; the least asked for",
        ),
    ]


def _all_right(name: str, tried: Tried, about: str) -> BenchResult:
    return compare(
        name,
        ours=1 - tried.wrong / max(1, tried.states),
        baseline=1.0,
        target=1.0,
        unit="share that is right",
        lower_is_better=False,
        notes=f"{tried.wrong} of {tried.states:,} wrong {tried.first} ({about})".replace("  ", " "),
    )


def io_errors(full: bool) -> list[BenchResult]:
    """Every single file operation of a save fails once, with every error."""
    del full
    tried = Tried()
    for number in ERRORS:
        count = 1
        while _fails_at(number, count - 1, tried):
            count += 1
    return [
        _all_right(
            "durability.io_errors", tried, "each file operation of a save fails once with each of 4 errors"
        )
    ]


def _fails_at(error: int, place: int, tried: Tried) -> bool:
    """Whether the save had an operation number `place` to fail."""
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
        tried.note(verify(folder, 3 if raised else 4))
        save(folder, 6)
        tried.note(verify(folder, 6) or _litter(folder))
        return recorder.fail_at is None


def _litter(folder: Path) -> str:
    return next((f"{path.name} stays" for path in folder.iterdir() if path.name.startswith(".")), "")


def kills(full: bool) -> list[BenchResult]:
    """Trainings killed again and again end bit for bit like one that was left alone."""
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
            notes="; ".join(proof.problems[:3]) or "as the trainings that were left alone",
        ),
        compare(
            "durability.kills.inside",
            ours=proof.inside / max(1, proof.kills),
            baseline=0.5,
            target=0.8,
            unit="of the kills",
            lower_is_better=False,
            notes="kills that left a checkpoint half written; half of all are aimed there",
        ),
    ]


BENCHMARKS = (
    Benchmark("durability.kills", "kill -9 at random moments and inside the writer", kills, 40),
    Benchmark("durability.crash_states", "checkpoints and the model in use after a power cut", crash, 20),
    Benchmark("durability.io_errors", "every file operation of a save fails once", io_errors, 10),
)
