"""A real training run in a process of its own, for benchmarks: started, followed and measured from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.core.paths import Workspace, shipped
from engine.machine.cgroup import limitable_cgroup
from engine.runs import events
from engine.runs.events import JournalRecord, RunStatus
from engine.runs.journal import JournalReader
from engine.runs.kinds import Params
from engine.runs.launch import create_run
from engine.runs.own_process import engine_command, engine_environment
from engine.runs.rundir import RunDir
from engine.runs.spec import make_spec

POLL_S = 0.5


@dataclass
class Cgroup:
    """A memory cgroup (v1) for the processes of a benchmark."""

    folder: Path

    @property
    def limit_mb(self) -> float:
        return int((self.folder / "memory.limit_in_bytes").read_text()) / 2**20

    def set_limit(self, mb: float) -> bool:
        """False when more is held than can be given back."""
        try:
            (self.folder / "memory.limit_in_bytes").write_text(str(int(mb * 2**20)))
        except OSError:
            return False
        return True

    @property
    def used_mb(self) -> float:
        """Anonymous memory: page cache of files can be given back at any time."""
        for line in (self.folder / "memory.stat").read_text().splitlines():
            if line.startswith("total_rss "):
                return int(line.split()[1]) / 2**20
        return 0.0

    @property
    def peak_mb(self) -> float:
        """Of everything that was charged, page cache too."""
        return int((self.folder / "memory.max_usage_in_bytes").read_text()) / 2**20

    def restart_peak(self) -> None:
        """`peak_mb` begins again."""
        (self.folder / "memory.max_usage_in_bytes").write_text("0")

    @property
    def kills(self) -> int:
        """Processes that the kernel has ended for want of memory; 0 where the kernel does not count them."""
        for line in (self.folder / "memory.oom_control").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0


@contextmanager
def cgroup(mb: float) -> Iterator[Cgroup | None]:
    """A group with a limit of `mb`; None where none may be made (not root, cgroup v2 without the controller)."""
    own = limitable_cgroup()
    if own is None or own.is_v2:
        yield None
        return
    group = Cgroup(own.folder / f"h2q-bench-{os.getpid()}")
    try:
        group.folder.mkdir()
        group.set_limit(mb)
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        for _try in range(50):
            with contextlib.suppress(OSError):
                group.folder.rmdir()
                break
            time.sleep(0.1)


@dataclass
class EngineRun:
    """One run and what its journal said so far."""

    run: RunDir
    process: subprocess.Popen[bytes]
    group: Cgroup | None = None
    records: list[JournalRecord] = field(default_factory=list)
    _reader: JournalReader | None = None

    def poll(self) -> bool:
        """Reads what is new; whether the process lives."""
        alive = self.process.poll() is None
        if self._reader is None:
            self._reader = JournalReader(self.run.events_path)
        self.records += self._reader.poll()
        return alive

    def wait(self, seconds: float) -> None:
        """Until it ends by itself; raises TimeoutError, after ending it, when that takes too long."""
        deadline = time.monotonic() + seconds
        while self.poll():
            if time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise TimeoutError(self.run.run_id)
            time.sleep(POLL_S)
        self.poll()

    @property
    def done(self) -> bool:
        """Whether it came to its end by itself."""
        return any(
            isinstance(record.event, events.Finished) and record.event.status is RunStatus.DONE
            for record in self.records
        )

    @property
    def error(self) -> str:
        """Why it did not."""
        told = [record.event.error for record in self.records if isinstance(record.event, events.Finished)]
        return told[-1] if told else f"exit code {self.process.returncode}"

    def steps(self) -> list[tuple[float, events.Step]]:
        return [(record.t, record.event) for record in self.records if isinstance(record.event, events.Step)]

    def memory(self) -> list[tuple[float, float]]:
        """Seconds and MB of the process tree."""
        return [
            (record.t, record.event.used_mb)
            for record in self.records
            if isinstance(record.event, events.MemoryUsage)
        ]

    def governed(self) -> list[events.GovernorAction]:
        return [record.event for record in self.records if isinstance(record.event, events.GovernorAction)]


def start(ws: Workspace, params: Params, *, group: Cgroup | None = None, threads: int = 0) -> EngineRun:
    """Starts the engine on `params`; in `group`, and with `threads` compute threads, where they are given."""
    run = create_run(ws, make_spec(ws.root, params))
    command = [*engine_command(), "run", str(run.path)]
    if group is not None:
        # The shell enters the group and becomes the engine: nothing of it is charged elsewhere.
        command = ["sh", "-c", f'echo $$ > "{group.folder}/cgroup.procs" && exec "$@"', "sh", *command]
    environment = engine_environment()
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    with run.log_path.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    return EngineRun(run, process, group)


def large_text(path: Path, size: int) -> None:
    """Lines of the shipped text in random order, `size` bytes, then forgotten by the page cache."""
    lines = (
        (shipped("data") / "sample" / "text" / "tinyshakespeare.txt").read_bytes().splitlines(keepends=True)
    )
    random, written = np.random.default_rng(0), 0
    with path.open("wb") as file:
        while written < size:
            block = b"".join(lines[int(n)] for n in random.integers(0, len(lines), 200_000))
            written += file.write(block[: size - written])
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
