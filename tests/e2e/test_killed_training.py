"""A training that was killed and resumed takes the same steps as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.kills import prove
from engine.models.native_format import load_model
from engine.runs.events import Step
from engine.runs.journal import JournalReader
from tests.unit.training_run import text_file

_PROGRAM = """
import sys
from pathlib import Path
import msgspec
import engine.training.metrics, engine.training.setup
from engine.training.devices import Device
engine.training.setup.choose_device = lambda *_width, **_kept: Device("cpu", 1, False)
engine.training.metrics.MIN_EVENT_GAP_S = 0.0
from engine.training.scratch import train_scratch
from tests.unit.training_run import new_run, tiny

root, text, resume = map(Path, sys.argv[1:4])
recipe = msgspec.structs.replace(tiny(), max_steps=60, epochs=50, checkpoint_every_s=0.02)
train_scratch(new_run(root), recipe, [text], name="m", out=root / "m", resume=resume if resume.name else None)
"""


def start(root: Path, text: Path, resume: Path | None = None) -> subprocess.Popen[bytes]:
    # An empty path means None.
    arguments = [str(root), str(text), str(resume or "")]
    return subprocess.Popen([sys.executable, "-c", _PROGRAM, *arguments], cwd=Path(__file__).parents[2])


def journal(root: Path) -> Path | None:
    return next(root.glob("runs/*/events.jsonl"), None)


def losses(root: Path) -> dict[int, float | None]:
    path = journal(root)
    events = [record.event for record in JournalReader(path).poll()] if path else []
    return {event.step: event.loss for event in events if isinstance(event, Step)}


def test_twenty_kills_at_random_times_and_in_the_checkpoint_writer_change_nothing() -> None:
    proof = prove(20, each=10, steps=120)
    assert proof.problems == []
    assert proof.kills == 20
    assert proof.inside > 0


def test_a_resumed_training_has_the_losses_of_one_that_was_not_killed(tmp_path: Path) -> None:
    text = text_file(tmp_path)
    whole, killed, resumed = (tmp_path / name for name in ("whole", "killed", "resumed"))
    assert start(whole, text).wait(60) == 0
    victim = start(killed, text)
    deadline = time.monotonic() + 60
    while not list(killed.glob("runs/*/checkpoints/scratch-*")) or max(losses(killed), default=0) < 20:
        assert time.monotonic() < deadline
        assert victim.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    path = journal(killed)
    assert path is not None
    assert not (killed / "m").exists()
    assert start(resumed, text, path.parent).wait(60) == 0
    after = losses(resumed)
    assert 1 < min(after) <= max(losses(killed)) + 1
    assert losses(killed) | after == losses(whole)
    assert load_model(resumed / "m")[1].weights_sha256 == load_model(whole / "m")[1].weights_sha256
