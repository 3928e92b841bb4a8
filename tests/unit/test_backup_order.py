"""Backups under wrong clocks and of damaged memories: no new copy is deleted, and no sound one for a damaged one."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.workspace import backup as backup_module
from engine.workspace.backup import (
    KEEP,
    KEEP_DAMAGED,
    WEEK_S,
    Backup,
    create_backup,
    find_backup,
    list_backups,
    restore_backup,
    weekly_backup,
)
from engine.workspace.open import open_workspace

YEAR = 365 * 86400.0


def talk(text: str) -> Conversation:
    return Conversation.of(
        [Turn(role=Role.USER, text=text), Turn(role=Role.ASSISTANT, text="answer")], source="text"
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    with MemoryStore(workspace.memory_db) as store:
        store.add([talk("first")])
    return workspace


def add(workspace: Workspace, text: str) -> None:
    with MemoryStore(workspace.memory_db) as store:
        store.add([talk(text)])


def texts(workspace: Workspace) -> set[str]:
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        return {conversation.turns[0].text for conversation in store.conversations()}


def drop_numbers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, backups are written as older versions wrote them."""
    pack = backup_module._pack

    def old_pack(target: Path, staged: Path, manifest: backup_module.BackupManifest) -> None:
        pack(target, staged, msgspec.structs.replace(manifest, number=0))

    monkeypatch.setattr(backup_module, "_pack", old_pack)


def flip(workspace: Workspace, text: bytes) -> None:
    """One byte of a stored text becomes invalid UTF-8."""
    with sqlite3.connect(workspace.memory_db) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    data = bytearray(workspace.memory_db.read_bytes())
    data[data.index(text)] ^= 0x80
    workspace.memory_db.write_bytes(data)


@pytest.mark.parametrize("seed", range(2))
def test_random_clocks_never_cost_the_newest_backups(
    workspace: Workspace, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    clock = [time.time()]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    made: list[str] = []
    for step in range(14):
        clock[0] += chance.choice((60.0, WEEK_S, YEAR, -YEAR, -40 * YEAR, 40 * YEAR))
        clock[0] = min(max(clock[0], 0.0), 3e9)
        if chance.random() < 0.3 and made:
            chosen = chance.choice(list_backups(workspace))
            now = texts(workspace)
            restore_backup(workspace, Path(chosen.path))
            assert Path(chosen.path).exists()
            saved = list_backups(workspace)[0]
            assert saved.reason == "restore"
            restore_backup(workspace, Path(saved.path))
            assert texts(workspace) == now
            made += [saved.path, list_backups(workspace)[0].path]
        else:
            add(workspace, f"step {step}")
            created = create_backup(workspace)
            made.append(created.path)
            assert find_backup(workspace, None) == Path(created.path)
        assert [backup.path for backup in list_backups(workspace)][:KEEP] == made[: -KEEP - 1 : -1]


def test_old_backups_dated_ahead_are_the_oldest(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    with monkeypatch.context() as patch:
        drop_numbers(workspace, patch)
        past = [create_backup(workspace, now=now - days * 86400) for days in (3, 2)]
        future = [create_backup(workspace, now=now + YEAR + n) for n in range(KEEP - 2)]
        assert find_backup(workspace, None) == Path(past[1].path)
    add(workspace, "new")
    created = create_backup(workspace, now=now)
    kept = [backup.stamp for backup in list_backups(workspace)]
    assert kept == [b.stamp for b in (created, past[1], past[0], *reversed(future[1:]))]
    restore_backup(workspace, Path(past[1].path))
    saved = list_backups(workspace)[0]
    assert texts(workspace) == {"first"}
    restore_backup(workspace, Path(saved.path))
    assert texts(workspace) == {"first", "new"}


@pytest.mark.parametrize("numbered", [True, False])
def test_weekly_backups_are_made_despite_one_dated_ahead(
    workspace: Workspace, numbered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if not numbered:
            drop_numbers(workspace, patch)
        create_backup(workspace, now=2e9)
    weeks = [weekly_backup(workspace, now=1e9 + n * (WEEK_S + 1)) for n in range(4)]
    assert all(weeks)
    assert weekly_backup(workspace, now=1e9 + 3 * (WEEK_S + 1) + 60) is None
    assert find_backup(workspace, None) == Path(weeks[-1].path if weeks[-1] else "")


def _break_index(workspace: Workspace) -> None:
    with sqlite3.connect(workspace.memory_db) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'content_hash)', 'title)') "
            "WHERE name = 'conversations_hash'"
        )
    connection.close()


def _unknown_role(workspace: Workspace) -> None:
    with sqlite3.connect(workspace.memory_db) as connection:
        connection.execute("UPDATE turns SET role = 'asristant' WHERE role = 'assistant'")
    connection.close()


@pytest.mark.parametrize(
    "damage", [lambda ws: flip(ws, b"first"), _break_index, _unknown_role], ids=["text", "index", "role"]
)
def test_a_damaged_memory_never_evicts_a_sound_backup(
    workspace: Workspace, damage: Callable[[Workspace], None]
) -> None:
    sound = [create_backup(workspace, now=1e9 + n) for n in range(KEEP)]
    damage(workspace)
    damaged: list[Backup] = []
    for n in range(KEEP_DAMAGED + 2):
        damaged.append(create_backup(workspace, "weekly", now=1e9 + (n + 1) * WEEK_S))
        assert damaged[-1].damage and "first" not in damaged[-1].damage
        assert Path(damaged[-1].path).exists()
    assert {b.path for b in list_backups(workspace) if not b.damage} == {b.path for b in sound}
    assert len(list_backups(workspace)) == KEEP + KEEP_DAMAGED
    assert find_backup(workspace, None) == Path(sound[-1].path)
    restore_backup(workspace, find_backup(workspace, None))
    assert texts(workspace) == {"first"}
    assert create_backup(workspace).damage == ""


def test_a_backup_of_an_older_version_is_listed_and_restored(workspace: Workspace, tmp_path: Path) -> None:
    created = create_backup(workspace)
    old = workspace.backups / "backup_20200101_000000.tar.gz"
    with tarfile.open(created.path) as source, tarfile.open(old, "w:gz") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name == "manifest.json":
                manifest = json.loads(data)
                del manifest["number"], manifest["damage"]
                data = json.dumps(manifest).encode()
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    add(workspace, "new")
    assert [(b.number, b.damage) for b in list_backups(workspace)] == [(1, ""), (0, "")]
    restore_backup(workspace, find_backup(workspace, "20200101_000000"))
    assert texts(workspace) == {"first"}
