"""Builds a corpus of generated conversations in a child process: speed, memory and length of write transactions.

`python -m bench.building speed|incremental COUNT` prints the figures as JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.contamination import check_split_contamination
from engine.corpus.review.store import ReviewStore
from engine.corpus.split import open_window
from engine.corpus.training_set import write_dataset
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.memory.transactions import longest_transaction

DATA = Path(__file__).parent / "data" / "corpus"


def measure(kind: str, count: int) -> dict[str, float]:
    """The figures of `speed` or `incremental` in a fresh process, so that its memory is only its own.

    Raises `subprocess.CalledProcessError` when it fails.
    """
    run = subprocess.run(
        [sys.executable, "-m", "bench.building", kind, str(count)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        check=True,
    )
    return {str(name): float(value) for name, value in json.loads(run.stdout).items()}


def speed(count: int) -> dict[str, float]:
    """Import, filters, split, overlap check and dataset in sequence; then the review of the result."""
    with tempfile.TemporaryDirectory() as folder, MemoryStore(Path(folder) / "memory" / "memory.db") as store:
        conversations = list(_conversations(count)) if count <= 10_000 else _conversations(count)
        with _PeakMemory() as peak, longest_transaction() as longest:
            began = time.perf_counter()
            store.add(conversations, "bench", "bench")
            build_corpus(store, Settings())
            window = open_window(store, time.time())
            check_split_contamination(store, window)
            write_dataset(store, Workspace(Path(folder)), "bench")
            rate = count / (time.perf_counter() - began)
            transaction_s = longest()
        with ReviewStore(store.path) as review:
            page = _p95(lambda: review.page("", chance.randrange(count), 60))
            ids = review.ids()
            decision = _p95(lambda: review.decide(chance.choice(ids), "rejected"))
    return {
        "rate": rate,
        "transaction_ms": transaction_s * 1e3,
        "memory_mb": peak.megabytes,
        "page_ms": page * 1e3,
        "verdict_ms": decision * 1e3,
    }


def incremental(count: int) -> dict[str, float]:
    """Seconds of a full build, and of an incremental one after 1 % more conversations."""
    with tempfile.TemporaryDirectory() as folder, MemoryStore(Path(folder) / "memory" / "memory.db") as store:
        conversations = _conversations(count + count // 100)
        store.add(itertools.islice(conversations, count), "bench", "bench")
        full = _seconds(lambda: build_corpus(store, Settings()))
        store.add(conversations, "bench", "bench")
        return {"full": full, "incremental": _seconds(lambda: build_corpus(store, Settings()))}


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def _conversations(count: int) -> Iterator[Conversation]:
    """Conversations of about 1,000 bytes in two languages with small talk, phone numbers and some copies.

    Each except the copies opens with its own question, so that they do not form one cluster.
    """
    chance = random.Random(11)
    zh = [row["one"] for row in _rows("paws_x_zh.jsonl")]
    en = [row["text"] for row in _rows("presidio.jsonl")]
    for number in range(count):
        source = random.Random(number - 1) if number % 20 == 19 else random.Random(number)
        sentences = zh if number % 3 else en
        turns: list[Turn] = []
        for _ in range(2 + number % 3):
            turns.append(Turn(role=Role.USER, text="".join(source.sample(sentences, 1 + (not turns)))))
            turns.append(Turn(role=Role.ASSISTANT, text="".join(source.sample(sentences, 2))))
        if number % 2:
            turns += [
                Turn(role=Role.USER, text="好的，谢谢你。"),
                Turn(role=Role.ASSISTANT, text="不客气，祝您愉快！"),
            ]
        if chance.random() < 0.1:
            turns.append(Turn(role=Role.USER, text=f"打1380013{chance.randrange(10000):04d}找我"))
        yield Conversation(
            id=f"g{number}",
            source="bench",
            external_id=str(number),
            started_at=1e9 + number * 600,
            updated_at=1e9 + number * 600,
            turns=tuple(turns),
        )


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class _PeakMemory:
    """Peak resident memory of this process and its children together, sampled every 50 ms."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        own, children, listed_at = psutil.Process(), list[psutil.Process](), 0.0
        while not self._ended.wait(0.05):
            # Listing the children scans all processes of the machine: rarely, or it dominates the measurement.
            if time.monotonic() - listed_at > 1.0:
                children, listed_at = own.children(recursive=True), time.monotonic()
            resident = own.memory_info().rss
            for child in children:
                with suppress(psutil.Error):
                    resident += child.memory_info().rss
            self.megabytes = max(self.megabytes, resident / 1024**2)


chance = random.Random(2)


def _p95(call: Callable[[], object], times: int = 200) -> float:
    """95th percentile of the duration of `call`, in seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[int(0.95 * times)]


if __name__ == "__main__":
    kinds: dict[str, Callable[[int], dict[str, float]]] = {"speed": speed, "incremental": incremental}
    print(json.dumps(kinds[sys.argv[1]](int(sys.argv[2]))))
