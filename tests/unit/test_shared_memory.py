"""The memory budget that runs and the inference service of a workspace share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.inference.llama.parameters import NoMemory, fit_memory
from engine.inference.loader import open_language_model
from engine.models.base_models import ModelDimensions
from engine.runs import lock
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.rundir import TRAIN_LOCK, RunDir, load_view
from engine.runs.shared_memory import TRAINING_SHARE, runs_mb, service_lock, service_mb, write_service_pid
from engine.runs.spec import make_spec
from engine.training.governor import buffer_mb
from tests.models import copy_model

BUDGET = 4096.0


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(ws: Workspace, held: ExitStack, name: str, *, peak_mb: float, training: bool) -> RunDir:
    """A run that is alive and has used `peak_mb` at most."""
    run = create_run(ws, msgspec.structs.replace(make_spec(ws.root, CorpusParams(), now=1.0), run_id=name))
    state = msgspec.structs.replace(load_view(run).summary(alive=True), peak_memory_mb=peak_mb)
    run.state_path.write_bytes(msgspec.json.encode(state))
    for path in [run.lock_path, *([ws.runs / TRAIN_LOCK] if training else [])]:
        descriptor = lock.acquire(path)
        assert descriptor is not None
        held.callback(os.close, descriptor)
    if training:
        (ws.runs / TRAIN_LOCK).write_text(name)
    return run


@pytest.mark.parametrize(
    ("runs", "taken"),
    [
        ([], 0.0),
        ([(100.0, False)], 100.0),
        ([(0.0, True)], TRAINING_SHARE * BUDGET),
        ([(1000.0, True)], TRAINING_SHARE * BUDGET),
        ([(3500.0, True)], 3500.0),
        ([(3500.0, True), (100.0, False), (50.0, False)], 3650.0),
    ],
    ids=str,
)
def test_runs_take_what_they_used_and_a_training_at_least_its_share(
    ws: Workspace, held: ExitStack, runs: list[tuple[float, bool]], taken: float
) -> None:
    for number, (peak, training) in enumerate(runs):
        start(ws, held, f"run-{number}", peak_mb=peak, training=training)
    assert runs_mb(ws, BUDGET) == pytest.approx(taken)
    held.close()
    assert runs_mb(ws, BUDGET) == 0.0, "runs that have ended take nothing"


def test_the_memory_of_the_service_is_known_while_it_holds_its_lock(ws: Workspace) -> None:
    ws.runtime.mkdir(parents=True)
    assert service_mb(ws) == 0.0
    descriptor = lock.acquire(service_lock(ws))
    assert descriptor is not None
    assert service_mb(ws) == 0.0, "not written yet"
    write_service_pid(descriptor)
    assert service_mb(ws) > 10
    os.close(descriptor)
    assert service_mb(ws) == 0.0, "the id of a process that has ended may be another's"


@pytest.mark.parametrize(
    ("taken_mb", "context"), [(0, 4096), (3700, 4096), (3736, 2048), (3784, 512), (3790, None)]
)
def test_the_context_shrinks_beside_what_is_in_use(taken_mb: float, context: int | None) -> None:
    dimensions = ModelDimensions(
        hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49152, context=8192
    )
    if context is None:
        with pytest.raises(NoMemory, match=f"take {taken_mb:,} MB"):
            fit_memory(dimensions, 100, BUDGET, taken_mb)
        return
    memory = fit_memory(dimensions, 100, BUDGET, taken_mb)
    assert memory.context == context
    assert taken_mb + 300 + memory.context * 0.02197 + memory.cache_mb < BUDGET + 1


def test_a_model_is_not_loaded_beside_a_training_that_leaves_no_room(
    ws: Workspace, held: ExitStack, knowing: Path
) -> None:
    copy_model(knowing, ws.models / "good")
    quarter = (1 - TRAINING_SHARE) * BUDGET
    open_language_model(ws, "good", serving=True, loaded_mb=quarter)
    start(ws, held, "training", peak_mb=0.0, training=True)
    with pytest.raises(
        BadInput, match=r"of the memory budget of 4,096 MB runs and other models take 4,096 MB"
    ):
        open_language_model(ws, "good", serving=True, loaded_mb=quarter)


@pytest.mark.parametrize("service", [0.0, 400.0, 512.0, 700.0, 1024.0, 5000.0])
def test_training_and_service_together_stay_in_the_budget(service: float) -> None:
    """The service loads at most a quarter beside a training, and the training keeps free what it takes."""
    allowed = min(service, BUDGET - TRAINING_SHARE * BUDGET)
    kept = buffer_mb(BUDGET, 512.0, allowed)
    assert BUDGET - kept + allowed <= BUDGET
