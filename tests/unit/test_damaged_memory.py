"""A damaged memory: one damaged turn costs one conversation, and every error is BadInput that quotes no text."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.damaged_memory import WORDS
from engine.core.chat import Role
from engine.core.errors import BadInput, H2QError
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.store import ReviewStore
from engine.corpus.training_set import corpus_rows
from engine.health.grades import Grade
from engine.health.preflight import find_check
from engine.memory import checksums
from engine.memory.integrity import damaged_memory, is_damage, reason_of
from engine.memory.records import Conversation, Turn, content_hash
from engine.memory.schema import describe_sqlite_error, recovery_command
from engine.memory.store import MemoryStore
from engine.workspace.backup import create_backup, restore_backup
from engine.workspace.open import open_workspace


def talk(n: int) -> Conversation:
    chance = random.Random(n)
    return Conversation.of(
        [
            Turn(role=Role.USER, text=f"question {n}: {' '.join(chance.choices(WORDS, k=9))}?"),
            Turn(role=Role.ASSISTANT, text=f"answer {n}: {' '.join(chance.choices(WORDS, k=30))}."),
        ],
        source="text",
        title=f"title {n}",
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    with MemoryStore(workspace.memory_db) as store:
        store.add(talk(n) for n in range(12))
    _single_file(workspace)
    return workspace


def _single_file(workspace: Workspace) -> None:
    """The memory without a WAL, so that its bytes can be changed."""
    connection = sqlite3.connect(workspace.memory_db)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    connection.close()


def _flip(text: bytes) -> Callable[[Workspace], None]:
    def damage(workspace: Workspace) -> None:
        data = bytearray(workspace.memory_db.read_bytes())
        data[data.index(text) + 1] ^= 0x80
        workspace.memory_db.write_bytes(data)

    return damage


def _change(old: bytes, new: bytes) -> Callable[[Workspace], None]:
    """Replaces bytes by as many others, so that the file stays a valid database."""

    def damage(workspace: Workspace) -> None:
        data = workspace.memory_db.read_bytes()
        assert old in data and len(old) == len(new)
        workspace.memory_db.write_bytes(data.replace(old, new))

    return damage


def _sql(statement: str) -> Callable[[Workspace], None]:
    def damage(workspace: Workspace) -> None:
        with sqlite3.connect(workspace.memory_db) as connection:
            connection.execute(statement, (talk(7).id,))
        connection.close()
        _single_file(workspace)

    return damage


VALID = {
    "question": _change(b"question 7:", b"question 8:"),
    "answer": _change(b"answer 7:", b"answes 7:"),
    "title": _change(b"title 7", b"title 6"),
    "time": _sql("UPDATE conversations SET started_at = 5 WHERE id = ?"),
    "source": _sql("UPDATE conversations SET source = 'texu' WHERE id = ?"),
    "turn's time": _sql("UPDATE turns SET time = 5 WHERE conversation_id = ?"),
    "alternatives": _sql("UPDATE turns SET alternatives = '[\"b\"]' WHERE conversation_id = ?"),
    "mask": _sql("UPDATE turns SET masked = 1 WHERE conversation_id = ?"),
    "order": _sql("UPDATE turns SET position = 1 - position + 10 WHERE conversation_id = ?"),
    "hidden": _sql("UPDATE conversations SET superseded_by = 'x' WHERE id = ?"),
}
"""Damage that leaves valid texts and a valid database: only checksums show it."""


DAMAGE = {
    "text": _flip(b"question 7"),
    "title": _flip(b"title 7"),
    "role": _sql("UPDATE turns SET role = 'urer' WHERE role = 'user' AND conversation_id = ?"),
    "alternatives": _sql("UPDATE turns SET alternatives = '[\"a' WHERE conversation_id = ?"),
    "type": _sql("UPDATE turns SET text = x'ff00' WHERE conversation_id = ?"),
    "missing turn": _sql("DELETE FROM turns WHERE position = 1 AND conversation_id = ?"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_one_damaged_turn_costs_one_conversation(workspace: Workspace, name: str) -> None:
    DAMAGE[name](workspace)
    lost = talk(7).id
    with MemoryStore(workspace.memory_db) as store:
        assert {c.id for c in store.conversations()} == {talk(n).id for n in range(12)} - {lost}
        assert store.damaged == [lost]
        assert len(list(store.newest(20))) == 11
        with pytest.raises(BadInput, match=lost) as caught:
            store.get(lost)
        assert caught.value.hint == "h2q-tui backup restore"
        assert store.get(talk(8).id) == talk(8)
        assert [hit.conversation_id for hit in store.search("question 8")] == [talk(8).id]
        store.search("question 7")
        assert store.stats().conversations == 12
        assert build_corpus(store, Settings(embedder="")).collected
        assert store.add([talk(20)]).added == 1


@pytest.mark.parametrize("name", VALID)
def test_a_changed_conversation_is_named_and_never_read(workspace: Workspace, name: str) -> None:
    VALID[name](workspace)
    lost = talk(7).id
    for _opened in range(2):
        with MemoryStore(workspace.memory_db) as store:
            assert {c.id for c in store.conversations()} == {talk(n).id for n in range(12)} - {lost}
            assert store.damaged == [lost]
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        store.check_all()
        assert store.damaged == [lost]
    result = find_check("store").run(workspace)
    assert result.grade is Grade.FAIL and lost in result.detail
    assert create_backup(workspace).damage


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM conversations WHERE id = ?",
        "UPDATE imports SET completed_at = NULL WHERE id = (SELECT import_id FROM conversations WHERE id = ?)",
        "UPDATE conversations SET import_id = 'x' WHERE id = ?",
    ],
)
def test_a_conversation_that_vanished_is_noticed(workspace: Workspace, statement: str) -> None:
    connection = sqlite3.connect(workspace.memory_db)
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("DROP TRIGGER census_delete")
    connection.execute(statement, (talk(7).id,))
    connection.commit()
    connection.close()
    for readonly in (False, True):
        with (
            pytest.raises(BadInput, match="missing") as caught,
            MemoryStore(workspace.memory_db, readonly=readonly) as store,
        ):
            list(store.conversations())
        assert caught.value.hint == "h2q-tui backup restore"
    with sqlite3.connect(workspace.memory_db) as connection:
        wanted = 11 if statement.startswith("DELETE") else 12
        assert connection.execute("SELECT COUNT(*) FROM conversations").fetchone()[0] == wanted
    connection.close()
    result = find_check("store").run(workspace)
    assert result.grade is Grade.FAIL


def test_a_damaged_index_is_found_by_the_preflight(workspace: Workspace) -> None:
    with sqlite3.connect(workspace.memory_db) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'conversations_hash'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(workspace.memory_db.read_bytes())
    start = (page - 1) * size
    at = data.index(content_hash(talk(7).turns).encode(), start)
    assert at < start + size
    data[at] ^= 1
    workspace.memory_db.write_bytes(data)
    result = find_check("store").run(workspace)
    assert result.grade is Grade.FAIL and result.hint == "h2q-tui backup restore"


def test_a_damaged_view_is_damage(workspace: Workspace) -> None:
    _change(b"c.superseded_by IS NULL", b"c.suterseded_by IS NULL")(workspace)
    with (
        pytest.raises(BadInput, match="damaged") as caught,
        MemoryStore(workspace.memory_db, readonly=True) as store,
    ):
        list(store.conversations())
    assert caught.value.hint == "h2q-tui backup restore"
    result = find_check("store").run(workspace)
    assert result.grade is Grade.FAIL and result.hint == "h2q-tui backup restore"


def test_a_memory_of_an_older_version_gets_its_checksums(workspace: Workspace) -> None:
    with sqlite3.connect(workspace.memory_db) as connection:
        for statement in (
            "DROP TRIGGER census_insert",
            "DROP TRIGGER census_update",
            "DROP TRIGGER census_delete",
            "DROP TABLE census",
            "DROP INDEX conversations_unsealed",
            "ALTER TABLE conversations DROP COLUMN checksum",
            "ALTER TABLE conversations DROP COLUMN state_checksum",
            "ALTER TABLE imports DROP COLUMN importers",
            "PRAGMA user_version=5",
        ):
            connection.execute(statement)
    connection.close()
    result = find_check("store").run(workspace)
    assert result.grade is Grade.PASS
    with MemoryStore(workspace.memory_db) as store:
        assert len(list(store.conversations())) == 12
        assert not store.connection.execute("SELECT 1 FROM conversations WHERE checksum = 0").fetchone()
    _single_file(workspace)
    _change(b"title 7", b"title 6")(workspace)
    with MemoryStore(workspace.memory_db) as store:
        list(store.conversations())
        assert store.damaged == [talk(7).id]


@pytest.mark.parametrize("name", ["text", "title", "role"])
def test_the_preflight_names_the_command_and_no_text(workspace: Workspace, name: str) -> None:
    DAMAGE[name](workspace)
    result = find_check("store").run(workspace)
    assert result.grade is Grade.FAIL and result.hint == "h2q-tui backup restore"
    assert not any(word in result.detail for word in (*WORDS, "question"))


@pytest.mark.parametrize("seed", range(24))
def test_random_damage_is_bad_input_without_text_and_can_be_restored(workspace: Workspace, seed: int) -> None:
    chance = random.Random(seed)
    backup = create_backup(workspace)
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        wanted = list(store.conversations())
    _single_file(workspace)
    data = bytearray(workspace.memory_db.read_bytes())
    used = [at for at, byte in enumerate(data) if byte]
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.choice(used) if chance.random() < 0.7 else chance.randrange(4096)] ^= chance.randrange(
            1, 256
        )
    workspace.memory_db.write_bytes(data)

    def read() -> None:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            list(store.conversations())
            store.stats()
            store.search("question")

    def write() -> None:
        with MemoryStore(workspace.memory_db) as store:
            store.add([talk(30)])

    def check() -> None:
        result = find_check("store").run(workspace)
        assert result.grade is Grade.PASS or result.hint
        assert not any(word in result.detail for word in WORDS)

    for action in (read, check, write, lambda: create_backup(workspace, "weekly")):
        try:
            action()
        except H2QError as error:
            assert error.hint
            assert not any(word in str(error) for word in WORDS)
        except sqlite3.OperationalError as error:
            # SQLite reads a damaged schema as another one; `tui.cli.main` reports it.
            assert not any(word in str(error) for word in WORDS)
    restore_backup(workspace, Path(backup.path))
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        assert list(store.conversations()) == wanted


def test_the_review_reads_a_damaged_text(workspace: Workspace) -> None:
    with MemoryStore(workspace.memory_db) as store:
        build_corpus(store, Settings(embedder=""))
    _single_file(workspace)
    _sql("UPDATE turns SET text = CAST(x'71ff' AS TEXT) WHERE conversation_id = ?")(workspace)
    with ReviewStore(workspace.memory_db) as review:
        assert review.detail(talk(7).id).turns[0].text == "q\ufffd"


@pytest.mark.parametrize("name", ["text", "role", "type", "question", "answer"])
def test_a_conversation_damaged_after_the_build_is_not_trained_on(workspace: Workspace, name: str) -> None:
    with MemoryStore(workspace.memory_db) as store:
        build_corpus(store, Settings(embedder=""))
        before = {row.id for row in corpus_rows(store, None)}
    assert talk(7).id in before
    _single_file(workspace)
    statement = "UPDATE turns SET text = CAST(x'71ff' AS TEXT) WHERE conversation_id = ?"
    (_sql(statement) if name == "text" else {**DAMAGE, **VALID}[name])(workspace)
    with MemoryStore(workspace.memory_db) as store:
        assert {row.id for row in corpus_rows(store, None)} == before - {talk(7).id}


def test_the_text_that_sqlite_quotes_is_in_no_message() -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError, match="aunt Greta") as caught:
        connection.execute("SELECT CAST(x'61756e74204772657461ff' AS TEXT)").fetchall()
    assert is_damage(caught.value)
    assert "Greta" not in describe_sqlite_error(caught.value) + str(damaged_memory(reason_of(caught.value)))
    assert recovery_command(caught.value) == "h2q-tui backup restore"


def test_only_the_module_of_the_checksums_changes_conversations() -> None:
    statement = re.compile(
        r"UPDATE (conversations|turns)|(REPLACE|INSERT) (OR \w+ )?INTO (conversations|turns)"
    )
    engine = Path(checksums.__file__).parents[1]
    found = {
        path.name: statement.findall(path.read_text(encoding="utf-8"))
        for path in engine.rglob("*.py")
        if statement.search(path.read_text(encoding="utf-8"))
    }
    # An import inserts with the checksum.
    assert {name: len(hits) for name, hits in found.items()} == {"checksums.py": 2, "import_batch.py": 2}
