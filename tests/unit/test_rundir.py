"""Run folders and their locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.runs import lock
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.rundir import (
    RunDir,
    find_run,
    link_checkpoints,
    list_runs,
    load_view,
    summarise,
    training_run_id,
)
from engine.runs.spec import RunSpec, make_spec


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def make(ws: Workspace, run_id: str, created: float) -> RunDir:
    import msgspec

    spec: RunSpec = msgspec.structs.replace(make_spec(ws.root, CorpusParams(), now=created), run_id=run_id)
    return create_run(ws, spec)


def test_runs_are_listed_newest_first_across_years(ws: Workspace) -> None:
    make(ws, "1231-235959-aa", 100.0)
    make(ws, "0101-000000-bb", 200.0)
    assert [run.run_id for run in list_runs(ws)] == ["0101-000000-bb", "1231-235959-aa"]


def test_folders_without_a_spec_are_skipped(ws: Workspace) -> None:
    make(ws, "good", 1.0)
    (ws.runs / "empty").mkdir()
    (ws.runs / "broken").mkdir()
    (ws.runs / "broken" / "spec.json").write_text('{"run_id": ')
    (ws.runs / "a file").touch()
    assert [run.run_id for run in list_runs(ws)] == ["good"]


def test_a_workspace_without_runs_has_none(ws: Workspace) -> None:
    assert list_runs(ws) == []
    with pytest.raises(BadInput, match="no run latest"):
        find_run(ws, "latest")


def test_a_run_is_found_by_a_prefix_of_its_id(ws: Workspace) -> None:
    make(ws, "1120-1", 1.0)
    make(ws, "1121-1", 2.0)
    make(ws, "1121-12", 3.0)
    assert find_run(ws, "1120").run_id == "1120-1"
    assert find_run(ws, "1121-1").run_id == "1121-1"
    assert find_run(ws, "latest").run_id == "1121-12"
    with pytest.raises(BadInput, match="several runs"):
        find_run(ws, "112")
    with pytest.raises(BadInput, match="no run 13"):
        find_run(ws, "13")


def test_two_runs_of_one_second_do_not_share_a_folder(ws: Workspace) -> None:
    assert make(ws, "same", 1.0).path != make(ws, "same", 1.0).path


def test_a_run_is_alive_while_its_lock_is_held_by_any_process(ws: Workspace) -> None:
    run = make(ws, "r", 1.0)
    assert not run.alive()
    code = (
        "import sys; from pathlib import Path; from engine.runs import lock;"
        "assert lock.acquire(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.lock_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert run.alive()
        assert lock.acquire(run.lock_path, timeout_s=0.0) is None
        holder.kill()
    assert not run.alive()


def test_readers_do_not_keep_a_launcher_from_the_lock(ws: Workspace) -> None:
    import fcntl
    import threading

    run = make(ws, "r", 1.0)
    run.lock_path.touch()
    reader = os.open(run.lock_path, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    timer = threading.Timer(0.05, os.close, [reader])
    timer.start()
    fd = lock.acquire(run.lock_path)
    timer.join()
    assert fd is not None
    os.close(fd)


def test_a_descriptor_of_another_file_is_not_adopted_as_the_lock(ws: Workspace, tmp_path: Path) -> None:
    run = make(ws, "r", 1.0)
    run.lock_path.touch()
    with (tmp_path / "other").open("w") as other:
        assert not lock.adopt(other.fileno(), run.lock_path)
    assert not lock.adopt(9999, run.lock_path)


def test_a_summary_without_state_file_comes_from_the_journal(ws: Workspace) -> None:
    run = make(ws, "r", 1.0)
    assert summarise(run).status == "dead"
    run.state_path.write_text("{ torn")
    assert summarise(run).id == "r"
    assert load_view(run).records == 0


def test_training_checkpoints_links_to_the_newest_run(ws: Workspace) -> None:
    first, second = make(ws, "a", 1.0), make(ws, "b", 2.0)
    link = ws.root / "training_checkpoints"
    for run in (first, second):
        link_checkpoints(run)
        assert link.resolve() == run.checkpoints.resolve()
    assert not link.readlink().is_absolute()


def test_a_real_folder_of_checkpoints_stays(ws: Workspace) -> None:
    link = ws.root / "training_checkpoints"
    link.mkdir()
    link_checkpoints(make(ws, "a", 1.0))
    assert not link.is_symlink()


def test_without_a_held_lock_no_run_is_training(ws: Workspace) -> None:
    ws.runs.mkdir()
    (ws.runs / ".train.lock").write_text("old-run")
    assert training_run_id(ws) == ""
