"""A run that is killed before its second checkpoint continues as it began; before its first one it starts again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.core.errors import Interrupted
from engine.core.paths import Workspace
from engine.models.native_format import load_model
from engine.runs.context import RunContext
from engine.runs.events import Evaluated, Log, MemoryPlan, Step
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from engine.training import checkpoint
from engine.training.checkpoint import LoopState
from engine.training.recipe import Recipe
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.unit.training_run import events, new_run, text_file, tiny
from tui.cli import session
from tui.cli.commands import runs

KILLED_AT = 3


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it, so nothing is saved."""


def recipe() -> Recipe:
    return msgspec.structs.replace(
        tiny(), max_steps=None, epochs=99, time_budget_s=30.0, checkpoint_every_s=1e9
    )


def killed_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, step_seconds: float, of: Recipe | None = None
) -> tuple[RunContext, Path]:
    """A run of which only the checkpoint before its first step is left, and its text."""

    def kill(job: TrainingJob, saver: object) -> bool:
        if job.state.step == KILLED_AT:
            raise Killed
        return False

    monkeypatch.setattr("engine.training.loop.handle_commands", kill)
    monkeypatch.setattr("engine.training.eta._time_step", lambda *_arguments: (step_seconds, 100))
    ctx, text = new_run(root / "first"), text_file(root)
    with pytest.raises(Killed):
        train_scratch(ctx, of or recipe(), [text], name="m", out=ctx.workspace.root / "m")
    return ctx, text


def resumed_state(
    root: Path, monkeypatch: pytest.MonkeyPatch, first: RunContext, text: Path
) -> tuple[LoopState, RunContext]:
    """The state before the first step of the resumed run, which stops there."""
    ctx, seen = new_run(root / "second"), []

    def stop(job: TrainingJob, saver: object) -> bool:
        seen.append(msgspec.structs.replace(job.state))
        return True

    monkeypatch.setattr("engine.training.loop.handle_commands", stop)
    with pytest.raises(Interrupted):
        train_scratch(
            ctx, recipe(), [text], name="m", out=ctx.workspace.root / "m", resume=first.run_dir.path
        )
    return seen[0], ctx


@pytest.mark.parametrize("step_seconds", [0.05, 1.0, 3.0])
def test_a_run_killed_in_its_first_minute_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_seconds: float
) -> None:
    first, text = killed_run(tmp_path, monkeypatch, 0.5)
    kept = checkpoint.find_newest(first.run_dir.checkpoints, "scratch").checkpoint
    assert kept is not None and kept.state.batches_drawn == 0
    # The machine is slower or faster than before, and another size of micro-batch would be measured.
    monkeypatch.setattr("engine.training.eta._time_step", lambda *_arguments: (step_seconds, 100))
    monkeypatch.setattr("engine.training.microbatch.windows_that_fit", lambda *_figures: 1)
    state, again = resumed_state(tmp_path, monkeypatch, first, text)
    assert msgspec.structs.replace(state, seconds=0.0) == msgspec.structs.replace(kept.state, seconds=0.0)
    assert not events(again, MemoryPlan) and not events(again, Evaluated)


def test_a_run_killed_in_its_first_minute_ends_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = tiny(checkpoint_every_s=1e9)
    first, text = killed_run(tmp_path, monkeypatch, 1.0, of)
    monkeypatch.setattr("engine.training.loop.handle_commands", lambda job, saver: False)
    hashes = []
    for name, resume in (("whole", None), ("again", first.run_dir.path)):
        ctx = new_run(tmp_path / name)
        out = ctx.workspace.root / "m"
        train_scratch(ctx, of, [text], name="m", out=out, resume=resume)
        hashes.append(load_model(out)[1].weights_sha256)
        # Smaller micro-batches add up in another order.
        monkeypatch.setattr("engine.training.microbatch.windows_that_fit", lambda *_figures: 1)
    assert hashes[0] == hashes[1]


def test_a_run_without_any_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    dead = create_run(Workspace(tmp_path), make_spec(tmp_path, TrainParams(mode=TrainMode.SCRATCH)))
    ctx = new_run(tmp_path / "again")
    out = ctx.workspace.root / "m"
    train_scratch(ctx, tiny(), [text_file(tmp_path)], name="m", out=out, resume=dead.path)
    assert [event.step for event in events(ctx, Step)] == [1, 2, 3, 4, 5, 6]
    assert any("no checkpoint" in event.text for event in events(ctx, Log))


@pytest.mark.parametrize(("checkpoints", "says"), [((), True), (("scratch-0000003",), False)])
def test_resuming_says_when_a_run_starts_from_the_beginning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoints: tuple[str, ...],
    says: bool,
) -> None:
    ws = Workspace(tmp_path)
    (tmp_path / "config").mkdir()
    dead = create_run(ws, make_spec(ws.root, TrainParams(mode=TrainMode.SCRATCH)))
    for name in checkpoints:
        (dead.checkpoints / name).mkdir()
    monkeypatch.setattr(session, "workspace", lambda **_options: ws)
    monkeypatch.setattr("tui.cli.run_output.start_detached", lambda _ws, spec: 0)
    runs._resume_training(dead, None)
    # Where progress goes depends on whether stdout is a terminal.
    output = "".join(capsys.readouterr())
    assert ("starts again from the beginning" in output) is says
