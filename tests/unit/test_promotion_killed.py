"""A promotion that is killed leaves the old state or the new one, and no file of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.models.registry import BACKUPS_KEPT, backups, in_use, promote, rollback
from tests.unit.test_registry import MINDX, put_model, write_config


def killed_within(ws: Workspace, seconds: float) -> None:
    """A process that promotes and rolls back without end, killed after a while."""
    child = os.fork()
    if not child:
        try:
            while True:
                promote(ws, "one", "x")
                promote(ws, "two", "x")
                rollback(ws)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it was killed at its work"


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.long)])
def test_kills_leave_the_old_state_or_the_new_one_and_nothing_else(tmp_path: Path, kills: int) -> None:
    ws = Workspace(tmp_path / "ws")
    for name in ("one", "two"):
        put_model(ws.models / name)
    write_config(ws, MINDX)
    promote(ws, "one", "x")
    promote(ws, "two", "x")
    two = ws.models_json.read_bytes()
    promote(ws, "one", "x")
    states = {two, ws.models_json.read_bytes()}
    draw = random.Random(0)
    for _kill in range(kills):
        killed_within(ws, draw.uniform(0.0, 0.04))
        assert ws.models_json.read_bytes() in states
        assert in_use(ws) in ("one", "two")
    before = in_use(ws)
    other = "one" if before == "two" else "two"
    assert promote(ws, other, "x").previous == before, "the lock of a killed process holds nobody up"
    assert rollback(ws).name == before, "B goes back although a kill left a backup of what is in use"
    names = {path.name for path in ws.config.iterdir()}
    saved = {Path(backup.path).name for backup in backups(ws)}
    assert names == {"models.json", ".models.json.lock"} | saved
    assert len(saved) <= BACKUPS_KEPT
    known = json.loads(MINDX)
    after = json.loads(ws.models_json.read_bytes())
    assert after["brain_models"]["rightbrain"] == known["brain_models"]["rightbrain"]
    assert after["models"][:2] == known["models"] and after["x"] == known["x"]


def test_a_backup_of_what_is_in_use_is_passed_over(tmp_path: Path) -> None:
    """What a kill between the backup and the change leaves."""
    ws = Workspace(tmp_path / "ws")
    for name in ("one", "two"):
        put_model(ws.models / name)
    promote(ws, "one", now=1_700_000_000)
    promote(ws, "two", now=1_700_000_010)
    (ws.config / "models.json.backup.20300101_000000").write_bytes(ws.models_json.read_bytes())
    assert rollback(ws).name == "one"


def test_the_newest_backups_stay(tmp_path: Path) -> None:
    ws = Workspace(tmp_path / "ws")
    for name in ("one", "two"):
        put_model(ws.models / name)
    for number in range(BACKUPS_KEPT + 5):
        promote(ws, ("one", "two")[number % 2], now=1_700_000_000 + number)
    saved = backups(ws)
    assert len(saved) == BACKUPS_KEPT
    assert [backup.model for backup in saved[:2]] == ["two", "one"]
    assert rollback(ws).name == "two"


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to itself", "link to a folder"])
def test_what_is_no_file_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    from engine.core.errors import BadInput

    ws = Workspace(tmp_path / "ws")
    put_model(ws.models / "one")
    ws.config.mkdir(parents=True)
    if kind == "folder":
        ws.models_json.mkdir()
    elif kind == "fifo":
        os.mkfifo(ws.models_json)
    else:
        ws.models_json.symlink_to(ws.models_json if kind == "link to itself" else tmp_path)
    for act in (lambda: in_use(ws), lambda: promote(ws, "one")):
        with pytest.raises(BadInput) as problem:
            act()
        assert problem.value.path == ws.models_json and "\n" not in problem.value.message
