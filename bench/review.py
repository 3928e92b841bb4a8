"""The review: fast keys, decisions that survive a kill, and lists of 50,000 and 100,000 rows."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.result import Benchmark, BenchResult, compare
from bench.terminal import PtyProcess
from bench.typist import ReviewModel, TypedDecision, key_sequences
from engine.core.paths import Workspace
from engine.corpus.ledger import Database
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore
from engine.memory.transactions import longest_transaction
from engine.workspace.open import open_workspace

OURS = [sys.executable, "-m", "tui.cli.main", "--lang", "en"]
PAINT_MS = 50.0
TRANSACTION_MS = 50.0


def fill(store: Database, count: int) -> None:
    """Inserts `count` conversations of about 90 characters directly into memory and corpus, in descending order."""
    connection = store.connection
    connection.execute("BEGIN")
    connection.execute(
        "INSERT INTO imports (id, source, path, started_at, completed_at) VALUES ('big', 'text', '', 0, 1)"
    )
    connection.executemany(
        "INSERT INTO conversations (id, import_id, source, added_at, turns, characters, content_hash) "
        "VALUES (?, 'big', 'text', 0, 2, 90, ?)",
        ((f"big{n}", str(n)) for n in range(count)),
    )
    connection.executemany(
        "INSERT INTO turns (conversation_id, position, role, text) VALUES (?, ?, ?, ?)",
        (
            (f"big{n}", place, ("user", "assistant")[place], f"line {n} 的内容 " * 5)
            for n in range(count)
            for place in (0, 1)
        ),
    )
    connection.executemany(
        "INSERT INTO corpus (conversation_id, build_id, state, automatic, first_line, sort_time, cluster, pairs) "
        "VALUES (?, 'b', 'accepted', 'accepted', ?, ?, ?, 1)",
        ((f"big{n}", f"line {n}", float(n), f"k{n}") for n in range(count)),
    )
    connection.execute("COMMIT")


def _workspace(folder: str, count: int) -> Workspace:
    ws = open_workspace(Workspace(Path(folder)))
    ws.settings_file.write_text('language = "en"\nfirst_start_done = true\n', encoding="utf-8")
    with MemoryStore(ws.memory_db) as store:
        fill(store, count)
    return ws


def _fingerprint(path: Path) -> str:
    """Hash of all state that a decision can change."""
    digest = hashlib.sha256()
    with ReviewStore(path, readonly=True) as store:
        for row in store.connection.execute(
            "SELECT conversation_id, state, automatic FROM corpus ORDER BY conversation_id"
        ):
            digest.update(repr(row).encode())
        for query in ("flag:", "edited:"):
            digest.update(repr(sorted(store.ids(query))).encode())
        digest.update(repr(store.rules()).encode())
        for id_ in store.ids("edited:"):
            digest.update(msgspec.json.encode([turn.text for turn in store.detail(id_).turns]))
    return digest.hexdigest()


_WRITE = """
import sys, threading
from pathlib import Path
from engine.corpus.review.store import ReviewStore
from tui.tabs.corpus.decision_writer import WriteJob, DecisionQueue
path = Path(sys.argv[1])
with ReviewStore(path, readonly=True) as store:
    ids = store.ids()
queue = DecisionQueue(path, lambda: None, lambda job, text: print("failed", text, flush=True))
def work(n):
    id_ = ids[n * 7 % len(ids)]
    if n % 50 == 49:
        return lambda store: store.edit(id_, 1, f"edited {n}")
    if n % 20 == 19:
        return lambda store: store.flag([id_], not store.item(id_).flagged)
    return lambda store: [store.decide(id_, ("accepted", "rejected")[n % 2], ("", "wrong")[n % 2])]
for n in range(100_000):
    while queue.unwritten > 64:
        threading.Event().wait(0.0005)
    queue.put(WriteJob(work(n), lambda made: [print(d.seq, flush=True) for d in made]))
"""


def kill(full: bool) -> list[BenchResult]:
    """Decisions through the real writer thread with `kill -9` at a random moment; then undo all, and redo all."""
    wanted = 1000 if full else 200
    chance = random.Random(time.time_ns())
    with tempfile.TemporaryDirectory() as folder:
        ws = _workspace(folder, 400)
        start = _fingerprint(ws.memory_db)
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITE, str(ws.memory_db)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(wanted)]
        time.sleep(chance.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        lines += [line for line in process.stdout.readlines() if line.endswith("\n")]
        process.wait()
        acknowledged = [int(line) for line in lines]
        with ReviewStore(ws.memory_db) as store:
            on_disk = {
                seq for (seq,) in store.connection.execute("SELECT seq FROM decisions WHERE undone = 0")
            }
            kept = len(on_disk.intersection(acknowledged))
            end = _fingerprint(ws.memory_db)
            undone = sum(1 for _ in iter(store.undo, []))
            undo_restores = _fingerprint(ws.memory_db) == start
            redone = sum(1 for _ in iter(store.redo, []))
            redo_restores = _fingerprint(ws.memory_db) == end
    note = f"{len(acknowledged):,} decisions acknowledged before kill -9, {len(on_disk):,} on disk"
    return [
        _share("review.kill", kept, len(acknowledged), f"acknowledged decisions on disk; {note}"),
        _share("review.undo", int(undo_restores), 1, f"{undone:,} undos restore the initial decision state"),
        _share("review.redo", int(redo_restores), 1, f"{redone:,} redos restore the final state"),
    ]


def _share(name: str, ours: float, all_: float, notes: str) -> BenchResult:
    return compare(
        name, ours=ours, baseline=all_, target=1.0, unit="kept", lower_is_better=False, notes=notes
    )


def keys(full: bool) -> list[BenchResult]:
    """Random keys into the app on a pty, at 20 to 50 per second and in bursts, compared with a model."""
    rows, count = 260, 200 if full else 60
    paces: list[tuple[str, int, float]] = [("50 keys per second", 1, 0.02), ("bursts of 20", 20, 0.3)]
    if full:
        paces += [("20 keys per second", 1, 0.05), ("all in one burst", count, 0.5)]
    right = all_ = 0
    with tempfile.TemporaryDirectory() as folder:
        ws = _workspace(folder, rows)
        for seed, (_name, burst, pause) in enumerate(paces):
            fresh = f"{folder}-{seed}"
            shutil.copytree(folder, fresh)
            try:
                actual, expected = _type(Workspace(Path(fresh)), count, seed, burst, pause)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            all_ += max(len(expected), len(actual))
            right += sum(one == other for one, other in zip(actual, expected, strict=False))
        del ws
    speeds = ", ".join(name for name, _burst, _pause in paces)
    return [
        _share(
            "review.keys", right, all_, f"decisions as typed, with ranges, undo and redo, on a pty: {speeds}"
        )
    ]


def _type(
    ws: Workspace, count: int, seed: int, burst: int, pause: float
) -> tuple[list[TypedDecision], list[TypedDecision]]:
    with ReviewStore(ws.memory_db, readonly=True) as store:
        model = ReviewModel(store.ids())
    sequences = key_sequences(count, random.Random(seed), cancel=False)
    for keys_ in sequences:
        model.apply(keys_)
    with PtyProcess(OURS, {"H2Q_DATA_DIR": str(ws.root)}) as terminal:
        terminal.read(30, until=b"keys")
        os.write(terminal.master, b"2")
        for place in range(0, count, burst):
            for keys_ in sequences[place : place + burst]:
                os.write(terminal.master, keys_.encode())
            terminal.read(pause, until=None)
        os.write(terminal.master, b"q")
        terminal.read(120, until=None)
    with ReviewStore(ws.memory_db, readonly=True) as store:
        rows = store.connection.execute(
            "SELECT conversation_id, verdict, reason FROM decisions WHERE undone = 0 ORDER BY seq"
        ).fetchall()
    return [TypedDecision(*row) for row in rows], model.decisions


def scroll(full: bool) -> list[BenchResult]:
    """Key to paint at 50,000 and 100,000 rows: decisions, single steps, pages, and the ends of the list."""
    results = []
    for count in (50_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            ws = _workspace(folder, count)
            paint, moves, blocked = asyncio.run(_scrolled(ws, 400 if full else 120))
        for name, times, text in (
            ("paint", paint, "decision to the next conversation painted"),
            ("scroll", moves, "a list key (j, page, g, G) to the lines painted"),
            ("loop", blocked, "longest block of the event loop in each of these steps"),
        ):
            p95 = sorted(times)[int(0.95 * len(times))] * 1e3
            results.append(
                compare(
                    f"review.{name}.{count // 1000}k",
                    ours=p95,
                    baseline=PAINT_MS,
                    target=1.0,
                    unit="ms",
                    lower_is_better=True,
                    notes=f"p95 of {len(times)}: {text}; {count:,} rows, limit {PAINT_MS:.0f} ms",
                )
            )
    return results


async def _scrolled(ws: Workspace, times: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of the decisions, of the moves, and of the longest block of the event loop during each."""
    from textual.events import Key
    from textual.keys import _character_to_key

    from tui.app.app import H2QApp
    from tui.tabs.corpus.tab import CorpusTab

    app = H2QApp(ws)
    monitor = _LoopMonitor()
    paint, moves, blocked = [], [], []
    key = ""
    async with app.run_test(size=(80, 24)) as pilot:
        await app.show_tab("corpus")
        tab = app.tab
        assert isinstance(tab, CorpusTab)
        await _until(lambda: tab.pane.shown_id != "")
        await pilot.pause()
        for number in range(times):
            await asyncio.sleep(0.02)  # a user at fifty keys per second
            with monitor as longest:
                before, started = tab.conversations.cursor_id, time.perf_counter()
                app.post_message(Key("a", "a"))
                at_end = tab.conversations.index == len(tab.conversations.ids) - 1
                await _until(
                    lambda before=before, at_end=at_end: (  # type: ignore[misc]
                        at_end or tab.pane.shown_id not in ("", before)
                    )
                )
                app.screen._compositor.render_strips()
                paint.append(time.perf_counter() - started)
                # There is no row after the last one: each `G` is followed by `g`.
                key = "g" if key == "G" else "jjjjGj"[number % 6] if number % 4 else "pagedown"
                started = time.perf_counter()
                app.post_message(Key(key if len(key) > 1 else _character_to_key(key), key[:1]))
                wanted = tab.conversations.index
                await _until(
                    lambda wanted=wanted: (  # type: ignore[misc]
                        tab.conversations.index != wanted and tab.pane.shown_id == tab.conversations.cursor_id
                    ),
                )
                app.screen._compositor.render_strips()
                moves.append(time.perf_counter() - started)
            blocked.append(longest())
    return paint, moves, blocked


async def _until(condition: Callable[[], bool]) -> None:
    """Raises TimeoutError after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        await asyncio.sleep(0.0005)
        if time.monotonic() > deadline:
            raise TimeoutError("the screen did not change")


class _LoopMonitor:
    """The longest block of the event loop, sampled every millisecond."""

    def __enter__(self) -> Callable[[], float]:
        self._longest = 0.0
        self._task = asyncio.get_running_loop().create_task(self._tick())
        return lambda: self._longest

    async def _tick(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self._longest, before = max(self._longest, now - before - 0.001), now

    def __exit__(self, *_: object) -> None:
        self._task.cancel()


def mass(full: bool) -> list[BenchResult]:
    """`X` over 50,000 rows in the app: time to disk, blocks of the event loop, the longest transaction, and one undo."""
    count = 50_000
    with tempfile.TemporaryDirectory() as folder:
        ws = _workspace(folder, count)
        start = _fingerprint(ws.memory_db)
        blocked, written, undone = asyncio.run(_rejected(ws, count))
        restored = _fingerprint(ws.memory_db) == start
        transaction_s = _longest_transaction(ws.memory_db)
    limit = f"{count:,} rows with X and the following u"
    return [
        compare("review.mass.loop", ours=blocked * 1e3, baseline=100, target=1.0, unit="ms", lower_is_better=True, notes=f"longest block of the event loop; {limit}; written in {written:.1f} s, undone in {undone:.1f} s"),
        compare("review.mass.transaction", ours=transaction_s * 1e3, baseline=TRANSACTION_MS, target=1.0, unit="ms", lower_is_better=True, notes=f"longest write transaction; {limit}"),
        _share("review.mass.undo", int(restored), 1, "one u restores the initial decision state"),
    ]  # fmt: skip


def _longest_transaction(path: Path) -> float:
    """Longest write transaction of a decision over all rows and of its undo, in seconds."""
    with ReviewStore(path) as store, longest_transaction() as longest:
        store.decide_all("", "rejected")
        store.undo()
        return longest()


async def _rejected(ws: Workspace, count: int) -> tuple[float, float, float]:
    """Longest block of the event loop, and seconds until written and undone."""
    from textual.events import Key

    from tui.app.app import H2QApp
    from tui.tabs.corpus.tab import CorpusTab

    def decided() -> int:
        with sqlite3.connect(f"{ws.memory_db.as_uri()}?mode=ro", uri=True) as connection:
            return int(
                connection.execute("SELECT COUNT(*) FROM corpus WHERE state = 'rejected'").fetchone()[0]
            )

    async def until(wanted: int) -> float:
        began = time.perf_counter()
        while await asyncio.to_thread(decided) != wanted:  # noqa: ASYNC110 (another process's file)
            await asyncio.sleep(0.02)
        return time.perf_counter() - began

    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.show_tab("corpus")
        tab = app.tab
        assert isinstance(tab, CorpusTab)
        await _until(lambda: tab.pane.shown_id != "")
        await pilot.pause()
        with _LoopMonitor() as longest:
            app.post_message(Key("X", "X"))
            app.post_message(Key("1", "1"))
            written = await until(count)
            app.post_message(Key("u", "u"))
            undone = await until(0)
        await _until(lambda: not tab.recorder.queue.unwritten)
    return longest(), written, undone


BENCHMARKS = (
    Benchmark("review.kill", "decisions after kill -9, undo all, redo all", kill, 5.0),
    Benchmark("review.keys", "fast keys on a pty against the expected decisions", keys, 15.0),
    Benchmark("review.scroll", "key to paint at 50,000 and 100,000 rows", scroll, 15.0),
    Benchmark("review.mass", "a decision over 50,000 rows, and its undo", mass, 15.0),
)
