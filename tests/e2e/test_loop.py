"""The whole loop from the command line: the demo with few steps, the use of its model, and trainings that cannot start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.memory.store import MemoryStore
from engine.models.registry import in_use
from engine.runs.events import RunStatus
from engine.runs.rundir import list_runs, load_view
from tests.cli import run_cli

STAGES = ["import", "corpus", "scratch", "native", "validate", "promote"]


def h2q(*words: str, root: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, on the workspace `root`."""
    # One thread: several are slow where tests share the machine.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "tui.cli.main", *words, "--data-dir", str(root)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the demo has run with few steps."""
    root = tmp_path_factory.mktemp("demo") / "ws"
    result = h2q("demo", "--steps", "20", "--plain", root=root)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "open the app on it" in result.stdout and "does not converse" in result.stdout
    return root


def test_the_demo_runs_every_stage(demo: Path) -> None:
    ws = Workspace(demo)
    (run,) = list_runs(ws)
    view = load_view(run)
    assert view.status is RunStatus.DONE
    assert [stage.name for stage in view.stages] == STAGES
    assert all(stage.state in ("done", "skipped") for stage in view.stages)
    assert view.series("scratch", "loss").points() and view.series("native", "loss").points()
    assert view.plan is not None and view.plan.verdict_possible
    assert view.plan.test_clusters >= 20
    assert view.verdict is not None


def test_the_report_has_the_promised_fields(demo: Path) -> None:
    (file,) = (demo / "training").glob("report_*.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["status"] in ("promoted", "kept_base", "inconclusive")
    assert report["pairs"]["train"] > report["pairs"]["test"] > 0
    assert report["verdict"]["n_groups"] >= 20 and report["verdict"]["p_value"] is not None
    assert len(report["validation"]["answers"]) == 3
    assert report["training_id"].startswith("train_") and report["base_score"] > 0
    assert Path(report["dataset"]).is_file()


def test_no_held_out_conversation_was_trained_on(demo: Path) -> None:
    with MemoryStore(Workspace(demo).memory_db, readonly=True) as store:
        held = {row[0] for row in store.connection.execute("SELECT conversation_id FROM window_members")}
    (dataset,) = (demo / "training").glob("train_data_*.jsonl")
    trained = {json.loads(line)["id"] for line in dataset.read_text(encoding="utf-8").splitlines()}
    assert held and trained and not held & trained


def test_the_model_in_use_answers_and_two_rollbacks_cancel_out(demo: Path) -> None:
    used = in_use(Workspace(demo))
    assert used is not None
    answer = h2q("chat", "--prompt", "你好", "--temperature", "0", "--json", root=demo)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)
    before = (demo / "config" / "models.json").read_bytes()
    assert h2q("rollback", root=demo).returncode == 0
    assert h2q("rollback", root=demo).returncode == 0
    assert (demo / "config" / "models.json").read_bytes() == before


def test_the_demo_refuses_a_folder_with_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    refused = run_cli(capsys, "demo", "--steps", "1", "--data-dir", str(tmp_path))
    assert refused.code == 2 and "files in it" in refused.err
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_a_training_on_too_small_a_corpus_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"How do I fold map number {i}?"}, {"role": "assistant", "content": f"Fold it {i} times along the crease, then once across."}]}
        for i in range(5)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = tmp_path / "ws"
    assert run_cli(capsys, "memory", "import", str(file), "--data-dir", str(root)).code == 0
    skipped = run_cli(capsys, "train", "--run-once", "--json", "--data-dir", str(root))
    assert skipped.code == 3
    report = json.loads(skipped.out)
    assert report["status"] == "skipped" and "50 needed" in report["error"]
    assert not list((root / "models").glob("*"))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("train", "--run-once", "--mode", "scratch"), 3, "no text"),
        (("train", "--run-once", "--mode", "scratch", "--data", "missing.txt"), 2, "missing.txt"),
        (("train", "--run-once", "--model", "nobody"), 2, "nobody"),
        (("train", "--mode", "magic"), 2, "--mode takes"),
        (("train", "--run-once", "--resume", "nothing"), 2, "nothing"),
        (("train", "--run-once"), 3, "0 accepted pairs"),
    ],
)
def test_a_training_that_cannot_start_prints_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str
) -> None:
    refused = run_cli(capsys, *words, "--data-dir", str(tmp_path / "ws"))
    assert refused.code == code, refused.out + refused.err
    printed = refused.err + refused.out
    assert sentence in printed and "Traceback" not in printed
