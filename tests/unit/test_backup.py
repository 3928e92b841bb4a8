from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.core.config import save_settings
from engine.core.errors import BadInput, Busy
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.workspace.backup import (
    KEEP,
    WEEK_S,
    create_backup,
    find_backup,
    list_backups,
    remove_from_backups,
    restore_backup,
    weekly_backup,
)
from engine.workspace.open import open_workspace


def conversation(text: str) -> Conversation:
    return Conversation.of(
        [Turn(role=Role.USER, text=text), Turn(role=Role.ASSISTANT, text="answer")], source="text"
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    with MemoryStore(workspace.memory_db) as store:
        store.add([conversation("first"), conversation("第二")])
        store.connection.execute(
            "INSERT INTO decisions (conversation_id, verdict, previous, time) VALUES (?, 'rejected', '', 1)",
            (conversation("first").id,),
        )
    save_settings(workspace, Settings(theme="nord"))
    return workspace


def texts(workspace: Workspace) -> set[str]:
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        return {conversation.turns[0].text for conversation in store.conversations()}


def test_a_restore_recovers_memory_decisions_and_settings(workspace: Workspace) -> None:
    settings = workspace.settings_file.read_bytes()
    backup = create_backup(workspace)
    assert (backup.conversations, backup.reason) == (2, "manual")
    with MemoryStore(workspace.memory_db) as store:
        store.add([conversation("third")])
        store.forget([conversation("first").id])
    save_settings(workspace, Settings(theme="gruvbox"))
    assert restore_backup(workspace, Path(backup.path)).stamp == backup.stamp
    assert texts(workspace) == {"first", "第二"}
    assert workspace.settings_file.read_bytes() == settings
    with MemoryStore(workspace.memory_db) as store:
        assert store.connection.execute("SELECT verdict FROM decisions").fetchall() == [("rejected",)]
        assert store.add([conversation("more")]).added == 1
    assert list_backups(workspace)[0].reason == "restore"


def test_an_open_store_sees_restored_conversations(workspace: Workspace) -> None:
    backup = create_backup(workspace)
    with MemoryStore(workspace.memory_db) as store:
        store.add([conversation("third")])
        assert store.count() == 3
        restore_backup(workspace, Path(backup.path))
        assert store.count() == 2


def test_a_backup_can_be_created_during_a_write(workspace: Workspace) -> None:
    with MemoryStore(workspace.memory_db) as store:
        store.connection.execute("BEGIN IMMEDIATE")
        store.connection.execute("DELETE FROM decisions")
        backup = create_backup(workspace)
        store.connection.execute("ROLLBACK")
    assert backup.conversations == 2


def test_a_damaged_backup_changes_nothing(workspace: Workspace) -> None:
    backup = create_backup(workspace)
    good = Path(backup.path).read_bytes()
    path = workspace.backups / "backup_damaged.tar.gz"
    chance = random.Random(1)
    refused = 0
    for _ in range(40):
        data = bytearray(good)
        data[chance.randrange(20, len(data) - 8)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            restore_backup(workspace, path)
        except BadInput:
            refused += 1
        else:
            assert texts(workspace) == {"first", "第二"}
    for broken in (b"", good[: len(good) // 2], b"not a backup"):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match="damaged"):
            restore_backup(workspace, path)
    assert refused >= 30
    assert texts(workspace) == {"first", "第二"}


def test_a_restore_replaces_a_damaged_memory(workspace: Workspace) -> None:
    backup = create_backup(workspace)
    for name in ("-wal", "-shm"):
        workspace.memory_db.with_name(workspace.memory_db.name + name).unlink(missing_ok=True)
    workspace.memory_db.write_bytes(b"x" * 5000)
    with pytest.raises(BadInput):
        MemoryStore(workspace.memory_db)
    restore_backup(workspace, Path(backup.path))
    assert texts(workspace) == {"first", "第二"}
    (aside,) = workspace.memory_db.parent.glob("damaged-*")
    assert aside.read_bytes() == b"x" * 5000


def test_only_the_newest_eight_backups_are_kept(workspace: Workspace) -> None:
    for n in range(KEEP + 2):
        create_backup(workspace, now=1_700_000_000.0 + n * 60)
    stamps = [backup.created_at for backup in list_backups(workspace)]
    assert len(stamps) == KEEP
    assert stamps == sorted(stamps, reverse=True)
    assert stamps[-1] == 1_700_000_000.0 + 2 * 60


def test_two_backups_in_one_second_have_different_names(workspace: Workspace) -> None:
    assert create_backup(workspace, now=1e9).stamp != create_backup(workspace, now=1e9).stamp


def test_weekly_backups_are_created_once_a_week_if_enabled(workspace: Workspace) -> None:
    assert weekly_backup(workspace, now=1e9) is not None
    assert weekly_backup(workspace, now=1e9 + WEEK_S - 1) is None
    assert weekly_backup(workspace, now=1e9 + WEEK_S + 1) is not None
    save_settings(workspace, Settings(backup_weekly=False))
    assert weekly_backup(workspace, now=2e9) is None


def test_a_restore_during_an_import_is_busy(workspace: Workspace) -> None:
    backup = create_backup(workspace)
    with MemoryStore(workspace.memory_db) as store:

        def slow() -> list[Conversation]:
            with pytest.raises(Busy):
                restore_backup(workspace, Path(backup.path))
            return [conversation("third")]

        store.add(item for _ in range(1) for item in slow())


def test_forgotten_conversations_are_removed_from_backups(workspace: Workspace) -> None:
    backup = create_backup(workspace)
    damaged = workspace.backups / "backup_damaged.tar.gz"
    damaged.write_bytes(b"x")
    assert remove_from_backups(workspace, [conversation("first").id]) == (1, 1)
    assert remove_from_backups(workspace, [conversation("first").id]) == (0, 0)
    restore_backup(workspace, Path(backup.path))
    assert texts(workspace) == {"第二"}


def test_an_unknown_backup_is_bad_input(workspace: Workspace) -> None:
    for name in (None, "20010101_000000"):
        with pytest.raises(BadInput):
            find_backup(workspace, name)
