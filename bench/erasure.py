"""Two promises about a person's data: erased texts are in no byte of the workspace, and a wrong clock costs no backup."""

from __future__ import annotations

import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.damaged_memory import talk
from bench.result import Benchmark, BenchResult, compare
from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.export import ExportFormat, export_corpus, suffix
from engine.corpus.training_set import write_dataset
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.pipeline.forget import forget
from engine.workspace.backup import (
    WEEK_S,
    create_backup,
    find_backup,
    list_backups,
    restore_backup,
    weekly_backup,
)
from engine.workspace.open import open_workspace

MARKER = "zebraquartz"
WEEKS = 44


@contextmanager
def _workspace() -> Iterator[Workspace]:
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield open_workspace(Workspace(Path(folder) / "ws"))


def _secret(number: int) -> Conversation:
    return Conversation.of(
        [
            Turn(role=Role.USER, text=f"Question {number} about the {MARKER} in the garden?"),
            Turn(role=Role.ASSISTANT, text=f"The {MARKER} number {number} stands beside the old bridge."),
        ],
        source="bench",
        title=f"{MARKER} {number}",
    )


def search(root: Path) -> list[str]:
    """Files with the marker in any byte, members of backups included."""
    wanted, found = MARKER.encode(), []
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                members = [archive.extractfile(member) for member in archive]
                data = b"".join(member.read() for member in members if member is not None)
        else:
            data = path.read_bytes()
        if wanted in data:
            found.append(str(path.relative_to(root)))
    return found


def forget_search(full: bool) -> list[BenchResult]:
    """Forgets 1 % of the conversations of a workspace with datasets, exports and backups, and searches every byte."""
    conversations, backups = (20_000, 8) if full else (2_000, 3)
    with _workspace() as workspace:
        secrets = [_secret(number) for number in range(conversations // 100)]
        with MemoryStore(workspace.memory_db) as store:
            store.add((talk(number) for number in range(conversations)), path="/x/a.json")
            store.add(secrets, path=f"/x/{MARKER}.json")
            build_corpus(store, Settings(embedder=""))
            write_dataset(store, workspace, "bench")
            for format_ in ExportFormat:
                export_corpus(
                    store, workspace.training / "export" / f"{format_.value}{suffix(format_)}", format_
                )
        for _number in range(backups):
            create_backup(workspace)
        before = len(search(workspace.root))
        begin = time.perf_counter()
        report = forget(workspace, [secret.id for secret in secrets])
        seconds = time.perf_counter() - begin
        left = search(workspace.root)
    about = (
        f"{len(report.ids)} of {conversations:,} conversations forgotten in {seconds:.1f} s with {backups} backups; the "
        f"marker was in {before} files, then in {len(left)} {', '.join(left[:3])}"
    )
    return [
        compare(
            "durability.forget_search",
            ours=(before - len(left)) / before,
            baseline=1.0,
            target=1.0,
            unit="share of files cleaned",
            lower_is_better=False,
            notes=about.strip(),
        )
    ]


def wrong_clock(full: bool) -> list[BenchResult]:
    """44 weeks of weekly backups after eight that a clock a year ahead has dated; then a restore without a name."""
    del full
    now = time.time()
    with _workspace() as workspace:
        with MemoryStore(workspace.memory_db) as store:
            store.add([talk(0)])
        for number in range(8):
            create_backup(workspace, "weekly", now=now + 52 * WEEK_S + number * WEEK_S)
        made = 0
        for week in range(1, WEEKS + 1):
            with MemoryStore(workspace.memory_db) as store:
                store.add([talk(week)])
            made += weekly_backup(workspace, now=now + week * (WEEK_S + 60)) is not None
        newest = Path(list_backups(workspace, now=now + WEEKS * (WEEK_S + 60))[0].path)
        with MemoryStore(workspace.memory_db) as store:
            store.add([talk(WEEKS + 1)])
        restored = restore_backup(workspace, find_backup(workspace, None))
        right = find_backup(workspace, restored.stamp) == newest and restored.conversations == WEEKS + 1
        kept = any(backup.conversations == WEEKS + 2 for backup in list_backups(workspace))
        with closing(sqlite3.connect(workspace.memory_db)) as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()
    steps = made + right + kept + (count == WEEKS + 1)
    return [
        compare(
            "durability.wrong_clock",
            ours=steps,
            baseline=WEEKS + 3,
            target=1.0,
            unit="backups made and restored",
            lower_is_better=False,
            notes=f"{made} of {WEEKS} weekly backups made; the newest was {'' if right else 'not '}restored, what it "
            f"replaced was {'' if kept else 'not '}kept",
        )
    ]


BENCHMARKS = (
    Benchmark(
        "durability.forget_search", "search for erased texts in every byte of a workspace", forget_search, 20
    ),
    Benchmark(
        "durability.wrong_clock", "weekly backups and a restore with a clock a year ahead", wrong_clock, 15
    ),
)
