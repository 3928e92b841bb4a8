"""Run kinds for tests of the runs themselves: real engine processes that do next to nothing.

`python -c "from tests.run_kinds import engine; engine(RUN_DIR, LOCK_FD, SCOPE)"` is `python -m engine run` with
`run` below as the code of every kind; the first path of `ImportParams` chooses what it does.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.core.errors import BadInput, NotEnoughData
from engine.runs import runner
from engine.runs.context import RunContext, RunResult
from engine.runs.events import CheckpointWritten, RunStatus, Step
from engine.runs.kinds import KINDS, ImportParams, KindInfo, RunKind
from engine.runs.rundir import RunDir
from engine.runs.spec import RunSpec, make_spec

HERE = f"{__name__}:run"
ROOT = Path(__file__).resolve().parents[1]


def spec(workspace: Path, behaviour: str) -> RunSpec:
    """A spec whose run does `behaviour`: the name of a function below."""
    return make_spec(workspace, ImportParams(paths=[behaviour]))


def use_here(entry_point: str = HERE) -> dict[RunKind, KindInfo]:
    """The kinds of run with `entry_point` as the code of each."""
    return {kind: replace(info, entry_point=entry_point) for kind, info in KINDS.items()}


def engine(run_dir: str, lock_fd: int, scope: str) -> None:
    KINDS.update(use_here())
    sys.exit(runner.main(Path(run_dir), lock_fd=lock_fd, scope=scope))


def engine_command(run: RunDir, fd: int, scope: str) -> list[str]:
    """Replaces `launch._engine_command`."""
    code = f"from tests.run_kinds import engine; engine({str(run.path)!r}, {fd}, {scope!r})"
    return [sys.executable, "-P", "-c", code]


def run(ctx: RunContext) -> RunResult:
    name = ctx.params(ImportParams).paths[0]
    behaviour: Callable[[RunContext], RunResult] = globals()[name]
    return behaviour(ctx)


def step(number: int) -> Step:
    return Step(
        phase="native",
        step=number,
        max_steps=10_000,
        loss=5.0 / number,
        lr=0.1,
        tokens=number,
        tokens_per_s=9.0,
    )


def quick(ctx: RunContext) -> RunResult:
    with ctx.stage("native", 1, 1) as stage:
        for number in range(1, 11):
            ctx.emit(step(number))
        stage.detail = "ten steps"
    return RunResult(RunStatus.DONE, result={"answer": 42})


def until_stopped(ctx: RunContext) -> RunResult:
    """Steps until a stop is requested; handles checkpoint and learning rate commands."""
    with ctx.train_lock(), ctx.stage("native", 1, 1):
        number = 0
        while not ctx.stop_requested:
            number += 1
            for command in ctx.poll():
                if command.name == "checkpoint":
                    command.accept(f"checkpoint {number}")
                elif command.name == "set" and command.value.startswith("lr="):
                    command.accept(f"{command.value} from step {number}")
            ctx.emit(step(number))
            time.sleep(0.005)
        ctx.emit(
            CheckpointWritten(phase="native", step=number, path="checkpoints/last", seconds=0.0, bytes=1)
        )
        ctx.check_stop()
    return RunResult(RunStatus.DONE)


def deaf(ctx: RunContext) -> RunResult:
    """Never checks for a stop request."""
    with ctx.stage("native"):
        while True:
            time.sleep(0.01)


def impatient(ctx: RunContext) -> RunResult:
    with ctx.train_lock(wait=False):
        return RunResult(RunStatus.DONE)


def crash(ctx: RunContext) -> RunResult:
    with ctx.stage("native"):
        raise ZeroDivisionError("the secret of line one\nand a second line")


def bad_input(ctx: RunContext) -> RunResult:
    raise BadInput("the file is empty", path=Path("a.json"), line=3, hint="h2q-tui sample")


def too_little(ctx: RunContext) -> RunResult:
    raise NotEnoughData("49 of 50 pairs")


def no_memory(ctx: RunContext) -> RunResult:
    raise MemoryError


def disk_full(ctx: RunContext) -> RunResult:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")


def noisy(ctx: RunContext) -> RunResult:
    print("printed by a library")
    warnings.warn("warned by a library", stacklevel=1)
    return RunResult(RunStatus.DONE)


def call_home(ctx: RunContext) -> RunResult:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
    return RunResult(RunStatus.DONE)
