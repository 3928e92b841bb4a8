"""Trainings that are killed with SIGKILL again and again, against the same training left alone.

The supervisor needs no hook in the product: it sees by the temporary folder that a checkpoint is being written.
The processes come from a fork server that has torch loaded, so that a kill costs a fraction of a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec

from bench.killed_training import LEDGER, prepare, train
from engine.runs.events import Step
from engine.runs.journal import JournalReader
from engine.training.recipe import Phase

PHASES = (Phase.SCRATCH, Phase.NATIVE)
STEPS = 200
PATIENCE_S = 300.0
"""Longest life of a process before the proof counts as hung."""


class Draw(msgspec.Struct, frozen=True):
    """A batch that was handed to a step."""

    number: int
    samples: list[str]


@dataclass(frozen=True)
class History:
    """What is left of a training, killed or not."""

    losses: dict[int, str]
    """Step to loss, as a hexadecimal float; of a step taken twice the later one."""
    draws: dict[int, int]
    """Step to the number of the batch it took."""
    ledger: list[Draw]
    final: dict[str, str]
    """sha256 of the finished weights and of the last checkpoint's files."""


@dataclass
class Proof:
    """Kills and what they changed."""

    kills: int = 0
    inside: int = 0
    """Kills that left a checkpoint half written."""
    trainings: int = 0
    problems: list[str] = field(default_factory=list)


class Supervisor:
    """Starts trainings in a temporary folder and kills them."""

    def __init__(self, root: Path, *, steps: int = STEPS, seed: int = 11) -> None:
        self.root, self.steps, self.chance = root, steps, random.Random(seed)
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(
            # torch loads its compiler with the first optimizer.
            ["bench.killed_training", "engine.training.scratch", "engine.training.native", "torch._dynamo"]
        )
        prepare(root)

    def start(self, place: Path, phase: Phase) -> BaseProcess:
        place.mkdir(exist_ok=True)
        process = self._server.Process(
            target=train, args=(str(self.root), str(place), phase.value, self.steps)
        )
        process.start()
        return process

    def whole(self, place: Path, phase: Phase) -> History:
        """A training that nothing disturbs. Raises RuntimeError when it fails."""
        process = self.start(place, phase)
        process.join(PATIENCE_S)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"the undisturbed {phase.value} ended with {process.exitcode}")
        return history(place, phase)

    def killed(self, place: Path, phase: Phase, kills: int, proof: Proof) -> History | None:
        """A training killed up to `kills` times, every other time inside the writer; None when it failed."""
        for number in range(kills):
            process = self.start(place, phase)
            inside = number % 2 == 0
            if not self._wait(process, place, inside):
                break
            process.kill()
            process.join()
            proof.kills += 1
            proof.inside += bool(list((place / "runs/run/checkpoints").glob(".writing-*")))
        else:
            process = self.start(place, phase)
        process.join(PATIENCE_S)
        if process.exitcode != 0:
            process.kill()
            proof.problems.append(f"{phase.value} ended with {process.exitcode}")
            return None
        proof.trainings += 1
        return history(place, phase)

    def _wait(self, process: BaseProcess, place: Path, inside: bool) -> bool:
        """Until the moment of the kill; False when the process ended before."""
        checkpoints, journal = place / "runs/run/checkpoints", place / "runs/run/events.jsonl"
        deadline = time.monotonic() + PATIENCE_S
        known = journal.stat().st_size if journal.exists() else 0
        while process.is_alive() and time.monotonic() < deadline:
            # It trains: the first steps are told after what was measured.
            if journal.exists() and journal.stat().st_size > known + 2000:
                break
            time.sleep(0.001)
        if not inside:
            moment = time.monotonic() + self.chance.uniform(0.0, 0.3)
            while process.is_alive() and time.monotonic() < moment:
                time.sleep(0.001)
            return process.is_alive()
        passed = self.chance.randrange(3)
        while process.is_alive() and time.monotonic() < deadline:
            if any(entry.name.startswith(".writing-") for entry in os.scandir(checkpoints)):
                if passed == 0:
                    time.sleep(self.chance.uniform(0.0, 0.002))
                    return process.is_alive()
                passed -= 1
                time.sleep(0.01)
        return False


def history(place: Path, phase: Phase) -> History:
    """Reads what a finished training left."""
    steps = [
        r.event for r in JournalReader(place / "runs/run/events.jsonl").poll() if isinstance(r.event, Step)
    ]
    lines = (place / LEDGER).read_bytes().splitlines()
    last = max((place / "runs/run/checkpoints").glob(f"{phase.value}-*"), key=lambda path: path.name)
    manifest: dict[str, Any] = json.loads((last / "manifest.json").read_bytes())["files"]
    names = ("weights.safetensors", "optimizer.safetensors", "random.safetensors")
    model = (place / "m" / "model.safetensors").read_bytes()
    return History(
        losses={step.step: float(step.loss if step.loss is not None else "nan").hex() for step in steps},
        draws={step.step: step.draws - 1 for step in steps},
        ledger=[draw for draw in map(_draw, lines) if draw is not None],
        final={"model": sha256(model).hexdigest()} | {name: manifest[name] for name in names},
    )


def _draw(line: bytes) -> Draw | None:
    """None for a line that a kill cut short."""
    try:
        return msgspec.json.decode(line, type=Draw)
    except msgspec.DecodeError:
        return None


def differences(whole: History, killed: History, phase: Phase) -> Iterator[str]:
    """What is not as in the undisturbed training."""
    wrong = [step for step, loss in whole.losses.items() if killed.losses.get(step) != loss]
    if wrong or killed.losses.keys() != whole.losses.keys():
        yield f"{len(wrong)} losses differ, first at step {min(wrong, default=0)}"
    if killed.final != whole.final:
        yield "final " + ", ".join(name for name in whole.final if killed.final[name] != whole.final[name])
    if sorted(killed.draws.values()) != list(range(len(killed.draws))):
        yield "a batch was left out or taken twice"
    batches: dict[int, list[str]] = {}
    for draw in killed.ledger:
        if batches.setdefault(draw.number, draw.samples) != draw.samples:
            yield f"batch {draw.number} was drawn with other samples"
    if phase is Phase.NATIVE:
        yield from _uneven([batches[number] for number in sorted(killed.draws.values())])


def _uneven(batches: list[list[str]]) -> Iterator[str]:
    """Epochs in which a sample did not come exactly once."""
    everything = {sample for batch in batches for sample in batch}
    epoch: Counter[str] = Counter()
    for batch in batches:
        epoch.update(batch)
        if any(count > 1 for count in epoch.values()):
            yield f"{epoch.most_common(1)[0][0]} came twice in an epoch"
            return
        if len(epoch) == len(everything):
            epoch.clear()


def prove(kills: int, *, each: int = 10, steps: int = STEPS) -> Proof:
    """Kills trainings of both phases, `each` times one, until there were `kills`."""
    proof = Proof()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        supervisor = Supervisor(root, steps=steps)
        wholes: dict[Phase, History] = {}
        for phase in PHASES:
            wholes[phase] = supervisor.whole(root / f"whole-{phase.value}", phase)
            if phase is Phase.SCRATCH:
                (root / "base").symlink_to(root / "whole-scratch" / "m")
        number = 0
        while proof.kills < kills and len(proof.problems) < 5 and number < kills:
            phase = PHASES[number % len(PHASES)]
            before = proof.kills
            found = supervisor.killed(root / str(number), phase, min(each, kills - before), proof)
            if found is not None:
                proof.problems += [
                    f"{phase.value}: {text}" for text in differences(wholes[phase], found, phase)
                ]
            number += 1
    return proof
