"""The preflight as a whole: it changes nothing, ends in time whatever hangs, and `--fix` makes what was agreed to alone."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.errors import BadInput, RunFailed
from engine.core.paths import Workspace
from engine.health import before_run, preflight
from engine.health.clock import ClockReading
from engine.health.disk import DiskReading, LocksReading
from engine.health.grades import Check, CheckResult, Grade, Judgement, NotKnown, passes
from engine.health.preflight import CHECKS, find_check, run_checks
from engine.runs.kinds import KINDS, CorpusParams, ExportParams, RunKind, TrainParams
from engine.runs.launch import run_in_foreground
from engine.runs.rundir import list_runs
from engine.runs.spec import make_spec
from engine.workspace.open import open_workspace
from tests.cli import run_cli

SLOW = ("torch", "openmp", "llama", "files", "packages", "offline")
LIGHT = tuple(check for check in CHECKS if check.id not in SLOW)


def grades(ws: Workspace) -> dict[str, CheckResult]:
    return {item.id: item for item in run_checks(ws, LIGHT)}


def test_checking_an_empty_folder_creates_nothing(tmp_path: Path) -> None:
    results = grades(Workspace(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []
    assert results["workspace"].grade is Grade.PASS
    assert results["store"].hint == "h2q-tui sample"


def test_a_newer_workspace_fails_with_the_upgrade_command(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text('{"schema": 999}')
    item = grades(Workspace(tmp_path))["workspace"]
    assert item.grade is Grade.FAIL and "999" in item.detail and item.hint


def test_a_damaged_database_fails_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    ws.memory_db.parent.mkdir()
    ws.memory_db.write_bytes(b"not a database" * 100)
    results = grades(ws)
    assert results["store"].grade is Grade.FAIL and "sqlite3" not in results["store"].hint
    assert results["runs"].grade is Grade.PASS


def test_a_missing_model_in_use_fails(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    ws.config.mkdir()
    ws.models_json.write_text(json.dumps({"models": [], "brain_models": {"leftbrain": "gone"}}))
    item = grades(ws)["models"]
    assert item.grade is Grade.FAIL and "gone" in item.detail


@pytest.mark.parametrize(
    ("problem", "grade"),
    [
        (sqlite3.DatabaseError("file is not a database"), Grade.FAIL),
        (sqlite3.OperationalError("database is locked"), Grade.UNKNOWN),
        (BadInput("it is broken", hint="h2q-tui paths"), Grade.FAIL),
        (NotKnown("this machine does not say"), Grade.UNKNOWN),
        (PermissionError(13, "Permission denied", "/proc/x"), Grade.UNKNOWN),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Grade.UNKNOWN),
        (KeyError("Version"), Grade.UNKNOWN),
    ],
)
def test_what_is_broken_fails_and_what_cannot_be_read_is_not_known(
    tmp_path: Path, problem: Exception, grade: Grade
) -> None:
    def read(_ws: Workspace) -> None:
        raise problem

    item = Check("a", "a", read, lambda _reading: passes("")).run(Workspace(tmp_path))
    assert item.grade is grade and item.detail
    assert item.hint == getattr(problem, "hint", "")


def test_a_reading_that_never_comes_is_not_known_and_the_others_are_there(tmp_path: Path) -> None:
    never = threading.Event()

    def hang(_ws: Workspace) -> None:
        never.wait()

    checks = (
        Check("hangs", "hangs", hang, lambda _reading: passes(""), 0.1),
        Check("works", "works", lambda _ws: "seen", passes),
    )
    hanging, working = run_checks(Workspace(tmp_path), checks)
    never.set()
    assert (hanging.grade, working.grade, working.detail) == (Grade.UNKNOWN, Grade.PASS, "seen")
    assert "0.1" in hanging.detail


def test_ids_are_unique_and_the_earlier_ones_are_there() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    earlier = "python platform cores memory disk torch llama mps accelerate sqlite terminal logout workspace"
    assert {*earlier.split(), "store", "embedder", "text", "models", "runs"} <= set(ids)


# The command


def opened(tmp_path: Path) -> Workspace:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    (ws.config / "secrets.json").write_text('{"mail": {"password": "x"}}')
    (ws.config / "secrets.json").chmod(0o644)
    return ws


def test_fix_asks_and_changes_nothing_without_an_answer(tmp_path: Path) -> None:
    ws = opened(tmp_path)
    done = run_cli("--data-dir", str(ws.root), "check", "--only", "secrets", "--fix")
    assert done.code == 2 and "--yes secrets" in done.err
    assert (ws.config / "secrets.json").stat().st_mode & 0o777 == 0o644


def test_fix_makes_the_named_change_alone(tmp_path: Path) -> None:
    ws = opened(tmp_path)
    ws.settings_file.write_text("")
    ws.settings_file.chmod(0o644)
    both = ("--only", "secrets", "--only", "backups")
    done = run_cli("--data-dir", str(ws.root), "check", *both, "--fix", "--yes", "backups", "--json")
    assert json.loads(done.out)["fixed"] == []
    done = run_cli(
        "--data-dir", str(ws.root), "check", "--only", "secrets", "--fix", "--yes", "secrets", "--json"
    )
    answer = json.loads(done.out)
    assert (done.code, answer["ok"], answer["items"][0]["grade"]) == (0, True, "warn")
    assert answer["fixed"] == [{"id": "secrets", "grade": "warn"}]
    assert (ws.config / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert ws.settings_file.stat().st_mode & 0o777 == 0o644, "only what the sentence named"


def test_a_hint_in_json_works_as_printed(tmp_path: Path) -> None:
    folder = str(tmp_path / "a b")
    done = run_cli("--data-dir", folder, "check", "--only", "store", "--json")
    assert json.loads(done.out)["items"][0]["hint"] == f"h2q-tui sample --data-dir '{folder}'"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "nonsense"), "nonsense"),
        (("--fix", "--yes", "nonsense"), "nonsense"),
        (("--yes", "secrets"), "--fix"),
    ],
)
def test_an_unknown_check_is_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = run_cli("--data-dir", str(tmp_path), "check", *words)
    assert done.code == 2 and said in done.err


# Before a run


@pytest.mark.parametrize("kind", list(RunKind))
def test_each_kind_has_checks_that_pass_here_and_are_quick(tmp_path: Path, kind: RunKind) -> None:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    ids = {check.id for check in before_run.checks_of(kind)}
    assert {"workspace", "locks"} <= ids and not ids & set(SLOW)
    assert ("disk" in ids) == (KINDS[kind].trains or kind is RunKind.EXPORT)
    assert all(item.grade is not Grade.FAIL for item in before_run.results_before(ws, kind))


@pytest.mark.parametrize(
    ("finding", "grade"),
    [
        (before_run.judge_free_space(DiskReading("/d", 1 << 20)), Grade.FAIL),
        (before_run.judge_free_space(DiskReading("/d", 300 << 20)), Grade.WARN),
        (before_run.judge_free_space(DiskReading("/d", 2 << 30)), Grade.PASS),
        (before_run.judge_run_locks(LocksReading("/d", "tmpfs", works=True)), Grade.PASS),
        (before_run.judge_run_locks(LocksReading("/d", "nfs4", works=True)), Grade.WARN),
        (before_run.judge_run_locks(LocksReading("/d", "nfs4", works=False, error="ENOLCK")), Grade.FAIL),
        (before_run.judge_run_clock(ClockReading(2e9, 1e9, synchronised=False)), Grade.PASS),
        (before_run.judge_run_clock(ClockReading(1.8e9, 2e9, synchronised=True)), Grade.WARN),
        (before_run.judge_run_clock(ClockReading(0.0, 0.0, synchronised=None)), Grade.WARN),
        (before_run.judge_pages(""), Grade.PASS),
        (before_run.judge_pages("row 3 missing from index"), Grade.FAIL),
    ],
)
def test_before_a_run_only_what_it_cannot_do_without_fails(finding: Judgement, grade: Grade) -> None:
    assert finding.grade is grade


def last_event(ws: Workspace) -> tuple[dict[str, object], list[str]]:
    """The final event of the newest run, and its warnings."""
    lines = [json.loads(line) for line in list_runs(ws)[0].events_path.read_text().splitlines()]
    logs = [
        line["data"]["text"]
        for line in lines
        if line["kind"] == "log" and line["data"].get("level") == "warning"
    ]
    return lines[-1]["data"], logs


def test_a_failed_check_stops_the_run_with_its_remedy_unless_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    ws.memory_db.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4096)
    code = run_in_foreground(ws, make_spec(ws.root, CorpusParams()))
    finished, _logs = last_event(ws)
    assert code == RunFailed.exit_code and finished["hint"] == "h2q-tui backup restore"
    assert "memory is damaged" in str(finished["error"])
    monkeypatch.setenv(before_run.NO_PREFLIGHT, "1")
    run_in_foreground(ws, make_spec(ws.root, CorpusParams()))
    _finished, logs = last_event(ws)
    assert any("memory is damaged" in line and "h2q-tui backup restore" in line for line in logs)


@pytest.mark.parametrize("params", [TrainParams(), ExportParams(name="x", to="gguf")])
def test_a_combination_that_is_known_to_be_broken_stops_what_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: TrainParams | ExportParams
) -> None:
    versions = {"peft": "0.17.1", "transformers": "5.12.1"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: versions.get(name, "99"))
    ws = open_workspace(Workspace(tmp_path / "ws"))
    assert run_in_foreground(ws, make_spec(ws.root, params)) == RunFailed.exit_code
    finished, _logs = last_event(ws)
    assert "HybridCache" in str(finished["error"]) and "peft>=0.18" in str(finished["hint"])


def test_every_check_of_a_run_is_also_one_of_the_command() -> None:
    ids = {check.id for kind in RunKind for check in before_run.checks_of(kind)}
    assert ids <= {check.id for check in preflight.CHECKS}
    assert find_check("locks").id == "locks"


def test_a_fifo_in_place_of_the_settings_holds_nothing(tmp_path: Path) -> None:
    ws = open_workspace(Workspace(tmp_path / "ws"))
    os.mkfifo(ws.settings_file)
    check = replace(find_check("embedder"), limit_s=0.2)
    (result,) = run_checks(ws, [check])
    assert result.grade is Grade.UNKNOWN and "0.2 s" in result.detail
    done = subprocess.run(
        [sys.executable, "-m", "tui.cli.main", "--version", "--data-dir", str(ws.root)],
        timeout=60,
        capture_output=True,
    )
    assert done.returncode == 0
