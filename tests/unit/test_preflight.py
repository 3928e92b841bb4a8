"""The preflight: its warnings, and that it changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.health import preflight
from engine.health.preflight import CHECKS, CheckResult, Grade, run_checks

LIGHT = tuple(check for check in CHECKS if check[0] != "torch")


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


def test_a_check_that_raises_gives_a_failed_result(tmp_path: Path) -> None:
    def broken(_ws: Workspace) -> tuple[Grade, str, str]:
        raise sqlite3.DatabaseError("file is not a database")

    def refused(_ws: Workspace) -> tuple[Grade, str, str]:
        raise BadInput("it is broken", hint="h2q-tui paths")

    items = list(run_checks(Workspace(tmp_path), (("a", "a", broken), ("b", "b", refused))))
    assert [item.grade for item in items] == [Grade.FAIL, Grade.FAIL]
    assert items[1].hint == "h2q-tui paths"


@pytest.mark.parametrize(
    ("version", "grade"), [("1.8.1", Grade.WARN), ("1.9.0", Grade.PASS), ("1.10.2", Grade.PASS)]
)
def test_accelerate_before_the_fix_for_empty_loaders_gives_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, grade: Grade
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: version)
    assert preflight.check_accelerate(Workspace(tmp_path))[0] is grade


@pytest.mark.parametrize(("ratio", "grade"), [("0.0", Grade.WARN), ("0", Grade.WARN), ("0.7", Grade.PASS)])
def test_disabling_the_mps_limit_gives_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ratio: str, grade: Grade
) -> None:
    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", ratio)
    assert preflight.check_mps(Workspace(tmp_path))[0] is grade


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(100, 100, 0))
    assert preflight.check_disk(Workspace(tmp_path / "x"))[0] is Grade.FAIL


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("ImportError('libgomp.so.1: cannot open shared object file')", "apt install libgomp1"),
        ("ImportError('undefined symbol: x')", "--force-reinstall xllamacpp"),
    ],
)
def test_a_llama_cpp_that_does_not_load_is_a_warning_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, hint: str
) -> None:
    (tmp_path / "xllamacpp.py").write_text(f"raise {fault}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    grade, detail, cure = preflight.check_llama(Workspace(tmp_path))
    assert grade is Grade.WARN and fault.split("'")[1] in detail and hint in cure
