"""A full disk: a failed import gives its space back, and the next one works."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.core.errors import RunFailed, error_text
from engine.memory.disk_reserve import keep_reserve, reserve_path
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths


def talk(number: int, words: int = 200) -> Conversation:
    text = " ".join(random.Random(number).choices(["river", "stone", "market", "violin"], k=words))
    return Conversation.of(
        [Turn(role=Role.USER, text=f"{number} {text}"), Turn(role=Role.ASSISTANT, text=text)], source="text"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> None:
    """Takes what is free, as another program may."""
    with (disk / "filler").open("ab") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass


def test_a_failed_import_gives_the_disk_back(small_disk: Path) -> None:
    memory = small_disk / "memory" / "memory.db"
    with MemoryStore(memory) as store:
        store.add([talk(0)])
    before = shutil.disk_usage(small_disk).used
    with pytest.raises(OSError, match="No space") as caught, MemoryStore(memory) as store:
        store.add(talk(number) for number in range(1, 100_000))
    assert caught.value.errno == errno.ENOSPC
    assert error_text(caught.value).startswith("the disk is full")
    assert shutil.disk_usage(small_disk).used < before + (1 << 20)
    with MemoryStore(memory) as store:
        assert store.count() == 1
        assert store.add([talk(1)]).added == 1


def test_what_a_killed_import_left_is_deleted_when_others_fill_the_disk(small_disk: Path) -> None:
    memory = small_disk / "memory" / "memory.db"
    with MemoryStore(memory) as store:
        store.add([talk(0)])
        store.add(talk(number) for number in range(1, 600))
        # As if the process had been killed before the end of the second import.
        store.connection.execute("UPDATE imports SET completed_at = NULL, taken = 0 WHERE rowid = 2")
        fill(small_disk)
    fill(small_disk)
    assert shutil.disk_usage(small_disk).free == 0
    with MemoryStore(memory, readonly=True) as store:
        assert store.count() == 1
    with MemoryStore(memory) as store:
        assert store.count() == 1
        assert store.connection.execute("SELECT COUNT(*) FROM conversations").fetchone()[0] == 1
        assert store.add([talk(1)]).added == 1


def test_a_limit_of_the_database_ends_an_import_without_traces(tmp_path: Path) -> None:
    memory = tmp_path / "memory.db"
    with pytest.raises(OSError, match="No space"), MemoryStore(memory) as store:
        store.connection.execute("PRAGMA max_page_count=500")
        store.add(talk(number) for number in range(5000))
    with MemoryStore(memory) as store:
        assert store.count() == 0
        assert store.connection.execute("SELECT COUNT(*) FROM turns").fetchone()[0] == 0
    assert memory.stat().st_size < 500_000


def test_space_is_looked_at_before_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "chats.jsonl"
    row = {"messages": [{"role": "user", "content": "x" * 1000}, {"role": "assistant", "content": "y"}]}
    file.write_text("".join(json.dumps(row) + "\n" for _number in range(100)), encoding="utf-8")
    free = 200_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(free, 0, free))
    with MemoryStore(tmp_path / "ws" / "memory.db") as store:
        with pytest.raises(RunFailed, match="free disk space") as caught:
            import_paths(store, [file])
        assert caught.value.hint == "df -h"
        assert store.stats().imports == 0


def test_the_reserve_is_made_once_and_leaves_most_of_a_small_disk(small_disk: Path) -> None:
    memory = small_disk / "memory.db"
    keep_reserve(memory)
    size = reserve_path(memory).stat().st_size
    assert 1 << 20 < size <= (24 << 20) // 16
    keep_reserve(memory)
    assert reserve_path(memory).stat().st_size == size
