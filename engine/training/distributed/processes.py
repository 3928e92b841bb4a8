"""Where the other processes of a training come from: this program starts them, or torchrun has."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch._C._distributed_c10d import FileStore, PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from engine.core.i18n import _
from engine.core.openmp import of_several_processes
from engine.runs.own_process import engine_command, engine_environment
from engine.runs.torchrun import restarts, world_size
from engine.training.distributed.exchange import IDLE_TIMEOUT, stay_on_loopback

END_S = 5.0
"""Seconds in which an ordered end must happen; then processes are killed."""
NOTICE_S = 2.0
"""Seconds after a lost connection in which the kernel reports which process has ended."""


@dataclass(frozen=True)
class EndedProcess:
    """A process that has ended although it should not."""

    rank: int
    pid: int
    reason: str


class Processes(Protocol):
    """The other processes of a training, from rank 1."""

    @property
    def count(self) -> int:
        """Processes, the first one included."""

    @property
    def memory_shares(self) -> int:
        """Processes among which the run's memory budget is shared."""

    @property
    def restarts(self) -> int:
        """How often they are started again in a phase."""

    def start(self, threads: int) -> Store:
        """A new group of processes, each with `threads` threads, and the store in which they meet the first one."""

    def ended(self, wait_s: float = 0.0) -> EndedProcess | None:
        """A process that has ended; looks for up to `wait_s` seconds."""

    def stop(self) -> None:
        """Ends the group; processes that have been ordered to end have a moment to do so."""

    def kill(self) -> None:
        """Ends the group immediately."""


class SpawnedProcesses:
    """Processes of this machine that this one starts. A pipe ends them with this process, however that ends."""

    restarts = 3

    def __init__(self, folder: Path, count: int) -> None:
        """`folder` is the run's: the processes meet in a file there."""
        self.folder, self.count = folder, count
        self.memory_shares = count
        self._children: list[subprocess.Popen[bytes]] = []
        self._groups = 0

    def start(self, threads: int) -> Store:
        stay_on_loopback()
        self._groups += 1
        self._path.unlink(missing_ok=True)
        store = FileStore(str(self._path), self.count)
        environment = engine_environment() | of_several_processes(threads)
        for rank in range(1, self.count):
            command = [*engine_command(), "rank", str(self._path), str(rank), str(self.count)]
            # A session of its own: Ctrl+C in the terminal is for the first process.
            child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
            self._children.append(child)
        return store

    def ended(self, wait_s: float = 0.0) -> EndedProcess | None:
        deadline = time.monotonic() + wait_s
        while True:
            for rank, child in enumerate(self._children, start=1):
                if (code := child.poll()) is not None:
                    return EndedProcess(rank, child.pid, _how_it_ended(code))
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.01)

    def stop(self) -> None:
        deadline = time.monotonic() + END_S
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        self._children.clear()
        self._path.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends the group immediately."""
        for child in self._children:
            child.kill()
        self.stop()

    @property
    def _path(self) -> Path:
        return self.folder / f".ranks-{self._groups}"


class TorchrunProcesses:
    """Processes that torchrun has started, here and perhaps on other machines. It starts all of them again when one
    is lost, so this one only ends."""

    restarts = 0
    memory_shares = 1
    """`setup.memory_budget` has given each process its part."""

    def __init__(self) -> None:
        self.count = world_size()

    def start(self, threads: int) -> Store:
        return next_group(torchrun_store())

    def ended(self, wait_s: float = 0.0) -> EndedProcess | None:
        return None

    def stop(self) -> None:
        """The others wait for the next phase; `release` ends them."""

    kill = stop


def torchrun_store() -> Store:
    """The store of torchrun, in which all its processes meet; each restart has keys of its own."""
    store: Store
    store, _rank, _count = next(iter(rendezvous("env://", timeout=IDLE_TIMEOUT)))
    return PrefixStore(f"h2q/{restarts()}", store)


def next_group(store: Store) -> Store:
    """Where the processes meet for another phase; the first process calls it, the others count along from 1."""
    return PrefixStore(str(store.add("groups", 1)), store)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return _("it ended with exit code {code}").format(code=code)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return _("killed by {signal}").format(signal=name)
