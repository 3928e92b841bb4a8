"""`h2q-tui runs …` on a real run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.runs.events import RunStatus
from engine.runs.rundir import RunDir, load_view
from tests import run_kinds
from tests.e2e.test_runs import ended, here, start, stepping, wait_for, ws

__all__ = ["here", "start", "ws"]


def h2q(ws: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from tui.cli.main import main; main()",
            *words,
            "--data-dir",
            str(ws.root),
            "--lang",
            "en",
        ],
        capture_output=True,
        text=True,
        cwd=run_kinds.ROOT,
        timeout=60,
    )


def test_a_run_is_listed_shown_controlled_and_stopped(ws: Workspace, start: Callable[[str], RunDir]) -> None:
    run = start("until_stopped")
    stepping(run)
    listed = json.loads(h2q(ws, "runs", "list", "--json").stdout)
    assert [one["id"] for one in listed["runs"]] == [run.run_id]
    shown = h2q(ws, "runs", "show", "latest", "--json")
    document = json.loads(shown.stdout)
    expected = {
        "id",
        "kind",
        "status",
        "step",
        "max_steps",
        "loss",
        "best_loss",
        "tokens_per_s",
        "peak_memory_mb",
    }
    assert expected | {"started_at", "finished_at", "checkpoint"} <= set(document)
    assert document["status"] == "running"
    assert "⡇" in h2q(ws, "runs", "show", "latest", "--plot").stdout
    assert h2q(ws, "runs", "pause", run.run_id).returncode == 0
    wait_for(lambda: load_view(run).status is RunStatus.PAUSED, "the pause")
    assert "lr=0.01 from step" in h2q(ws, "runs", "set", run.run_id, "lr=0.01").stdout
    assert json.loads(h2q(ws, "runs", "checkpoint", "--json").stdout)["reply"]["accepted"] is True
    assert h2q(ws, "runs", "resume").returncode == 0
    assert h2q(ws, "runs", "stop", run.run_id[:6]).returncode == 0
    assert ended(run).status is RunStatus.STOPPED


def test_attach_follows_to_the_end_and_exits_with_the_code_of_the_run(
    ws: Workspace, start: Callable[[str], RunDir]
) -> None:
    run = start("quick")
    done = h2q(ws, "runs", "attach", run.run_id)
    assert done.returncode == 0
    assert "training on the corpus: done — ten steps" in done.stdout
    assert "training on the corpus: 10 steps, loss 0.500" in done.stdout
    assert json.loads(h2q(ws, "runs", "attach", "--json").stdout) == {"answer": 42}


def test_ctrl_c_stops_following_and_the_run_continues(ws: Workspace, start: Callable[[str], RunDir]) -> None:
    run = start("until_stopped")
    stepping(run)
    watcher = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-c",
            "from tui.cli.main import main; main()",
            "runs",
            "attach",
            "--data-dir",
            str(ws.root),
            "--lang",
            "en",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=run_kinds.ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Tests started in the background ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with watcher:
        assert watcher.stdout is not None
        assert "started" in watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        rest = watcher.stdout.read()
    assert watcher.returncode == 0
    assert f"run {run.run_id} continues in the background" in rest
    assert run.alive()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("show", "nope"), 2, "there is no run nope → h2q-tui runs list"),
        (("set", "latest", "lr=fast"), 2, "lr=fast"),
        (("set", "latest", "depth=3"), 2, "depth=3"),
        (("pause", "latest"), 2, "has ended (done)"),
        (("resume", "latest"), 2, "only a training"),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_invalid_command_is_one_sentence(
    ws: Workspace, words: tuple[str, ...], code: int, sentence: str
) -> None:
    from engine.runs import launch

    launch.run_in_foreground(ws, run_kinds.spec(ws.root, "quick"))
    done = h2q(ws, "runs", *words)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_list_has_a_hint(ws: Workspace) -> None:
    done = h2q(ws, "runs", "list")
    assert done.returncode == 0
    assert "no run yet → h2q-tui train" in done.stdout


def test_a_dead_run_is_listed_as_dead_and_attach_fails(ws: Workspace, start: Callable[[str], RunDir]) -> None:
    run = start("until_stopped")
    os.kill(stepping(run), signal.SIGKILL)
    ended(run)
    assert "dead" in h2q(ws, "runs", "list").stdout
    done = h2q(ws, "runs", "attach", run.run_id)
    assert done.returncode == 5
    assert "killed" in done.stderr


def test_a_dead_training_has_the_resume_command_as_hint(ws: Workspace) -> None:
    from engine.runs.kinds import TrainParams
    from engine.runs.launch import create_run
    from engine.runs.spec import make_spec

    run = create_run(ws, make_spec(ws.root, TrainParams()))
    done = h2q(ws, "runs", "pause", run.run_id)
    assert done.returncode == 2
    assert f"h2q-tui runs resume {run.run_id}" in done.stderr


def test_the_engine_ignores_packages_in_the_current_folder(
    ws: Workspace, start: Callable[[str], RunDir], tmp_path: Path
) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit('code of the folder was run')")
    os.chdir(tmp_path)
    try:
        assert ended(start("quick")).status is RunStatus.DONE
    finally:
        os.chdir(run_kinds.ROOT)
