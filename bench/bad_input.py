"""Imports of malformed and hostile files: each is rejected with an error that names the file, in bounded memory and
time, and the memory store is unchanged."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from bench.result import Benchmark, BenchResult, compare
from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths

_LINE_BYTES = 2**30
_CHUNK_BYTES = 2**24
_MAX_MB = 300
"""For the whole process: a conversation of 64 million characters is allowed, and is held twice while it is parsed."""
_MAX_S = 10.0

_CHILD = """
import resource, sys, time
from pathlib import Path
from engine.core.errors import BadInput
from engine.pipeline.import_run import import_paths
from engine.memory.store import MemoryStore
began = time.monotonic()
with MemoryStore(Path(sys.argv[1])) as store:
    try:
        import_paths(store, [Path(sys.argv[2])])
    except BadInput as error:
        assert sys.argv[2] in str(error), error
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        # On Linux ru_maxrss includes the parent's memory at the time of the fork.
        status = Path("/proc/self/status")
        if status.exists():
            peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1e3
        print(time.monotonic() - began, peak)
"""


def _long_line(path: Path, start: str) -> None:
    """One line of 1 GB."""
    with path.open("wb") as file:
        file.write(start.encode())
        for _chunk in range(_LINE_BYTES // _CHUNK_BYTES):
            file.write(b"x" * _CHUNK_BYTES)


def _mixed_encodings(path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "在"}]}] * 50
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes(text.encode() + "\n你好".encode("gb18030"))


def _archive(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", data)


def _truncated_zip(path: Path) -> None:
    noise = random.Random(5).randbytes(200_000).hex()
    _archive(path, json.dumps([{"mapping": {}, "title": noise}]).encode())
    path.write_bytes(path.read_bytes()[:-5_000])


def _zip_bomb(path: Path) -> None:
    _archive(path, b"[" + b" " * 300_000_000 + b"]")


def _unknown_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE chat (id, heading); CREATE TABLE user (id); CREATE TABLE auth (id);"
            "INSERT INTO chat VALUES ('1', 'x')"
        )


def _web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body><script>var jsonData = [];</script></body></html>")


_CASES: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("utf8.jsonl", _mixed_encodings),
    ("torn.zip", _truncated_zip),
    ("bomb.zip", _zip_bomb),
    ("webui.db", _unknown_schema),
    ("conversations.json", _web_page),
)


def bad_input(full: bool) -> list[BenchResult]:
    """Small files in this process, lines of 1 GB in a child process whose memory is measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = folder / "memory" / "memory.db"
        with MemoryStore(database) as store:
            turns = (Turn(role=Role.USER, text="你好"), Turn(role=Role.ASSISTANT, text="在"))
            store.add([Conversation.of(turns, source="bench")], "bench", "bench")
        before = _fingerprint(database)
        rejected = 0
        with MemoryStore(database) as store:
            for file, make in _CASES:
                make(folder / file)
                try:
                    import_paths(store, [folder / file])
                except BadInput as error:
                    rejected += str(folder / file) in str(error)
        longest = peak = 0.0
        lines = (("line.jsonl", '{"messages": [{"role": "user", "content": "'), ("line.txt", "User: "))
        for file, start in lines if full else lines[:1]:
            _long_line(folder / file, start)
            figures = subprocess.run(
                [sys.executable, "-c", _CHILD, str(database), str(folder / file)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            (folder / file).unlink()
            rejected += len(figures) == 2
            longest, peak = max(longest, float(figures[0])), max(peak, float(figures[1]))
        cases = len(_CASES) + (len(lines) if full else 1)
        unchanged = _fingerprint(database) == before
    note = f"{cases} files: {', '.join(file for file, _make in _CASES)} and a line of 1 GB; each named by the error"
    return [
        compare(
            "import.bad_input",
            ours=rejected / cases if unchanged else 0.0,
            baseline=1.0,
            target=1.0,
            unit="share rejected, memory unchanged",
            lower_is_better=False,
            notes=note,
        ),
        compare(
            "import.long_line_memory",
            ours=peak,
            baseline=_MAX_MB,
            target=1.0,
            unit="MB",
            lower_is_better=True,
            notes="peak of the process that rejects a line of 1 GB",
        ),
        compare(
            "import.long_line_time",
            ours=longest,
            baseline=_MAX_S,
            target=1.0,
            unit="s",
            lower_is_better=True,
            notes="until the line of 1 GB is rejected",
        ),
    ]


def _fingerprint(database: Path) -> str:
    """Hash of the whole content of the database."""
    with closing(sqlite3.connect(database)) as connection:
        return sha256("\n".join(connection.iterdump()).encode()).hexdigest()


BENCHMARKS = (
    Benchmark("import.bad_input", "a line of 1 GB, a zip bomb and other malformed files", bad_input, 8.0),
)
