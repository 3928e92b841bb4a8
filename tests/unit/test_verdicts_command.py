"""`h2q-tui verdicts`: what the Validate tab shows, in the shell."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from engine.core.paths import Workspace
from tests.cli import CliResult, run_cli
from tests.tui.validation_reports import make_report, write_report


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    workspace.training.mkdir(parents=True)
    for number in (1, 2):
        report = make_report("promote" if number == 2 else "keep")
        report = msgspec.structs.replace(report, run_id=f"run-{number}", created_at=float(number))
        write_report(workspace, report, str(number))
    (workspace.training / "report_3.json").write_text("{")
    return workspace


def verdicts(ws: Workspace, *arguments: str) -> CliResult:
    return run_cli("--data-dir", str(ws.root), "verdicts", *arguments)


def test_verdicts_are_listed_newest_first(ws: Workspace) -> None:
    listed = verdicts(ws, "list", "--json")
    assert listed.code == 0
    found = json.loads(listed.out)["verdicts"]
    assert [(one["id"], one["decision"], one["look"]) for one in found] == [
        ("run-2", "promote", 1),
        ("run-1", "keep", 1),
    ]
    plain = verdicts(ws, "list").out.splitlines()
    assert "run-2" in plain[0] and "native-1 → native-2" in plain[0] and len(plain) == 2


@pytest.mark.parametrize(
    ("id_", "shown"), [((), "PROMOTE"), (("run-1",), "KEEP BASE"), (("run-2",), "PROMOTE")]
)
def test_one_is_shown_in_plain_sentences(ws: Workspace, id_: tuple[str, ...], shown: str) -> None:
    out = verdicts(ws, "show", *id_).out
    assert out.startswith(shown)
    assert "Of 6 held-out conversations it predicts 2 better and 3 worse." in out
    assert "the new way" in out


def test_one_is_exported_where_one_says(ws: Workspace, tmp_path: Path) -> None:
    made = verdicts(ws, "export", "run-1", "--output", str(tmp_path / "out"), "--json")
    assert made.code == 0
    files = json.loads(made.out)["files"]
    assert all(Path(file).is_file() for file in files) and str(tmp_path / "out" / "verdict.md") in files
    assert verdicts(ws, "export").code == 0
    assert (ws.exports / "verdicts" / "run-2" / "verdict.json").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    assert verdicts(ws, "export", "--output", str(tmp_path / "mine")).code == 2


def test_what_is_not_there_is_said(ws: Workspace, tmp_path: Path) -> None:
    missing = verdicts(ws, "show", "run-9")
    assert missing.code == 2 and "there is no verdict run-9" in missing.err
    empty = run_cli("--data-dir", str(tmp_path / "empty"), "verdicts", "export")
    assert empty.code == 2 and "there is no verdict yet" in empty.err
    listed = run_cli("--data-dir", str(tmp_path / "empty"), "verdicts", "list")
    assert listed.code == 0 and "no verdict yet" in listed.out
