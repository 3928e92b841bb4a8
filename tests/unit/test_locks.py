"""Locks: a file system without them is named, and a process without descriptors takes no run for dead."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import RunFailed
from engine.core.paths import Workspace
from engine.health.grades import Grade
from engine.health.preflight import find_check
from engine.memory.store import MemoryStore
from engine.runs import lock
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from engine.workspace.backup import create_backup
from engine.workspace.open import open_workspace


def take_a_run(workspace: Workspace) -> object:
    return lock.acquire(workspace.root / "lock")


def open_memory(workspace: Workspace) -> object:
    return MemoryStore(workspace.memory_db)


@pytest.mark.parametrize("action", [take_a_run, open_memory, create_backup])
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Callable[[Workspace], object], code: int
) -> None:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))

    def no_lock(_fd: int, _flags: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    with pytest.raises(RunFailed, match="local disk") as caught:
        action(workspace)
    assert caught.value.hint.startswith("h2q-tui --data-dir")


def test_the_preflight_names_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    run = create_run(workspace, make_spec(workspace.root, CorpusParams()))
    run.lock_path.touch()

    def no_lock(_fd: int, _flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    result = find_check("runs").run(workspace)
    assert result.grade is Grade.FAIL and "local disk" in result.detail and result.hint
    locks = find_check("locks").run(workspace)
    assert (
        locks.grade is Grade.FAIL and "ENOLCK" in locks.detail and locks.hint.startswith("h2q-tui --data-dir")
    )


def test_without_descriptors_a_live_run_is_not_dead(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = lock.acquire(path)
    assert held is not None
    spare = os.dup(held)
    os.close(spare)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        alive = lock.is_locked(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(held)
    assert alive
    assert not lock.is_locked(path)
