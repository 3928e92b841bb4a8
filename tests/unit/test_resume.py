"""Which trainings can be continued, from where, and with what settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.core.config import save_settings, with_overrides
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.runs.events import RunStatus
from engine.runs.kinds import (
    CorpusParams,
    EvolveParams,
    ImportParams,
    Params,
    RunKind,
    TrainMode,
    TrainParams,
)
from engine.runs.launch import create_run
from engine.runs.resume import can_resume, resume_spec, run_with_checkpoints
from engine.runs.rundir import RunDir
from engine.runs.spec import make_spec, params_of
from tui.cli import session
from tui.cli.commands import runs


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    (tmp_path / "config").mkdir()
    return Workspace(tmp_path)


def begun(ws: Workspace, params: Params) -> RunDir:
    return create_run(ws, make_spec(ws.root, params))


def test_only_a_crashed_stopped_or_failed_training_can_resume() -> None:
    assert can_resume(RunKind.TRAIN, RunStatus.DEAD)
    assert can_resume(RunKind.EVOLVE, RunStatus.STOPPED)
    assert not can_resume(RunKind.TRAIN, RunStatus.DONE)
    assert not can_resume(RunKind.TRAIN, RunStatus.RUNNING)
    assert not can_resume(RunKind.IMPORT, RunStatus.DEAD)


def test_a_run_without_checkpoints_resumes_from_the_run_that_it_resumed(
    ws: Workspace,
) -> None:
    first = begun(ws, TrainParams(mode=TrainMode.SCRATCH))
    (first.checkpoints / "scratch-0000003").mkdir()
    second = create_run(ws, resume_spec(first, "en"))
    third = create_run(ws, resume_spec(second, "en"))
    (third.checkpoints / ".writing-x").mkdir()
    assert run_with_checkpoints(ws, third.run_id).run_id == first.run_id
    (second.checkpoints / "scratch-0000005").mkdir()
    assert run_with_checkpoints(ws, third.run_id).run_id == second.run_id
    assert run_with_checkpoints(ws, first.run_id).run_id == first.run_id


def test_without_any_checkpoint_the_named_run_is_returned(ws: Workspace) -> None:
    gone = begun(ws, TrainParams(resume="0101-000000-00"))
    assert run_with_checkpoints(ws, gone.run_id).run_id == gone.run_id
    alone = begun(ws, TrainParams())
    assert run_with_checkpoints(ws, alone.run_id).run_id == alone.run_id
    with pytest.raises(BadInput, match="no run"):
        run_with_checkpoints(ws, "nothing")


def test_a_resumed_run_keeps_its_original_settings(ws: Workspace) -> None:
    save_settings(ws, Settings(micro_batch_size=2, num_worker_threads=3))
    for params, type_ in (
        (TrainParams(settings={"streaming_batch_size": 5}), TrainParams),
        (EvolveParams(settings={"streaming_batch_size": 5}), EvolveParams),
    ):
        run = begun(ws, params)
        save_settings(ws, Settings(micro_batch_size=4, gradient_accumulation_steps=8, num_worker_threads=1))
        again = params_of(resume_spec(run, "en"), type_)
        in_force = with_overrides(Settings(num_worker_threads=1), again.settings)  # type: ignore[attr-defined]
        assert in_force == Settings(streaming_batch_size=5, micro_batch_size=2, num_worker_threads=1)
        assert again.resume == run.run_id  # type: ignore[attr-defined]
        save_settings(ws, Settings(micro_batch_size=2, num_worker_threads=3))


def test_a_resumed_run_may_get_another_budget_and_is_not_scheduled(ws: Workspace) -> None:
    run = begun(ws, TrainParams(max_memory_gb=0.5, scheduled=True, lr=0.01))
    again = params_of(resume_spec(run, "zh", max_memory_gb=1.5), TrainParams)
    assert (again.max_memory_gb, again.scheduled, again.lr, again.wait) == (1.5, False, 0.01, True)


def test_other_kinds_and_invalid_settings_are_not_frozen(ws: Workspace) -> None:
    assert json.loads(bytes(begun(ws, CorpusParams()).spec.params)) == {}
    ws.settings_file.write_text("micro_batch_size = -1\n", encoding="utf-8")
    assert params_of(begun(ws, TrainParams()).spec, TrainParams).settings == {}


def test_resume_without_a_name_uses_the_newest_training(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = create_run(ws, make_spec(ws.root, TrainParams(), now=1000.0))
    imported = create_run(ws, make_spec(ws.root, ImportParams(paths=[]), now=2000.0))
    monkeypatch.setattr(session, "workspace", lambda **_options: ws)
    assert runs._find_to_control("latest", trains=True).run_id == trained.run_id
    assert runs._find_to_control("latest").run_id == imported.run_id
    assert runs._find_to_control(imported.run_id, trains=True).run_id == imported.run_id
