"""Unusable databases and full disks are reported, and nothing is corrupted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.database import UnusableDatabase, error_text
from engine.corpus.review.store import ReviewStore
from engine.memory.transactions import write_in_chunks
from tests.corpus_store import distinct, memory
from tui.tabs.corpus.decision_writer import DecisionQueue, WriteJob


def broken(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 8000)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.execute("PRAGMA user_version=1")


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>no database</title>" * 50, encoding="utf-8")


def newer(path: Path) -> None:
    with memory(path.parent.parent, [distinct(1)]) as store:
        store.connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    ("spoil", "hint"),
    [(broken, "backup restore"), (foreign, "backup restore"), (html, "backup restore"), (newer, "upgrade")],
)
def test_an_unusable_database_is_an_error_with_a_hint(
    tmp_path: Path, spoil: Callable[[Path], None], hint: str, readonly: bool
) -> None:
    path = tmp_path / "memory" / "memory.db"
    path.parent.mkdir()
    spoil(path)
    before = path.read_bytes()
    with ReviewStore(path, readonly=readonly) as store, pytest.raises(UnusableDatabase) as told:
        store.page()
    assert str(path) in told.value.message and hint in told.value.hint
    assert path.read_bytes() == before


def reviewed(folder: Path, number: int = 6) -> Path:
    with memory(folder, [distinct(n, at=1e9 + n) for n in range(number)]) as store:
        build_corpus(store, Settings())
    return folder / "memory" / "memory.db"


def test_damage_found_while_reading_is_reported_like_damage_on_opening(tmp_path: Path) -> None:
    path = reviewed(tmp_path, 200)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with ReviewStore(path, readonly=True) as store:
        assert store.count() == 200
        data = bytearray(path.read_bytes())
        data[8192:] = b"\x00" * (len(data) - 8192)
        path.write_bytes(data)
        with pytest.raises(UnusableDatabase, match=str(path)):
            for id_ in store.ids("这就是它的意思"):
                store.detail(id_)


def test_a_full_disk_is_reported_as_the_reason(tmp_path: Path) -> None:
    path = reviewed(tmp_path)
    with ReviewStore(path) as store:
        ids = store.ids()
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(sqlite3.OperationalError) as told:
            for number in range(5000):
                store.decide(ids[number % len(ids)], "rejected", "x" * 500)
    assert "the disk is full" in error_text(told.value, path)
    with ReviewStore(path) as store:
        assert store.decide(ids[0], "accepted").verdict == "accepted"


def test_the_reason_of_a_failed_write_is_not_hidden_by_its_rollback(tmp_path: Path) -> None:
    path = reviewed(tmp_path)
    with ReviewStore(path) as store:

        def end_at_once(_item: int) -> None:
            store.connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

        with pytest.raises(sqlite3.OperationalError, match="full"):
            write_in_chunks(store.connection, [1], end_at_once)


def test_a_failing_decision_does_not_block_later_ones(tmp_path: Path) -> None:
    path = reviewed(tmp_path)
    with ReviewStore(path, readonly=True) as store:
        id_ = store.ids()[0]
    refused: list[str] = []
    queue = DecisionQueue(path, lambda: None, lambda _job, text: refused.append(text))

    def fault(_store: ReviewStore) -> list[object]:
        raise ValueError("no such thing")

    queue.put(WriteJob(fault, lambda _made: None))  # type: ignore[arg-type]
    queue.put(WriteJob(lambda store: [store.decide("gone", "accepted")], lambda _made: None))
    queue.put(WriteJob(lambda store: [store.decide(id_, "rejected")], lambda _made: None))
    assert queue.close() == 0
    assert len(refused) == 2 and "gone" in refused[1]
    with ReviewStore(path, readonly=True) as store:
        assert store.item(id_).state == "rejected"


def test_decisions_wait_until_the_database_is_repaired(tmp_path: Path) -> None:
    path = reviewed(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with ReviewStore(path, readonly=True) as store:
        id_ = store.ids()[0]
    good = path.read_bytes()
    broken(path)
    queue = DecisionQueue(path, lambda: None, lambda _job, _text: None)
    queue.put(WriteJob(lambda store: [store.decide(id_, "rejected")], lambda _made: None))
    queue.close(0.5)
    assert queue.unwritten == 1 and "backup restore" in queue.problem
    path.write_bytes(good)
    again = DecisionQueue(path, lambda: None, lambda _job, _text: None)
    again.put(WriteJob(lambda store: [store.decide(id_, "rejected")], lambda _made: None))
    assert again.close() == 0
