"""The processes of the machine: which ones use processor and memory, and what each is.

A name is the program alone, never its arguments, which may hold secrets.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from engine.machine.probe import read_or_none

_INTERPRETERS = ("python", "node", "ruby", "perl", "bash", "sh", "java", "deno", "bun")
_OPTIONS_WITH_VALUE = ("-X", "-W")
_OPTIONS = (*_OPTIONS_WITH_VALUE, "-P", "-u", "-B", "-E", "-I", "-s", "-S", "-O", "-OO", "-q", "-v", "-b")
"""Of Python, before the script or module."""
OWN_VERBS = ("run", "serve", "watch", "deliver", "rank", "llama", "gate")
"""Of `python -m engine`; such a process is called `engine run` and the like."""
_TASK_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


_SERVICES = ("engine serve", "engine watch", "engine deliver", "engine llama")
"""Started by a run, and not part of it."""


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    pid: int
    name: str
    """Its program; of an interpreter the script or module."""
    cpu_percent: float | None
    """Of one core since the last reading; None at the first one."""
    memory: int
    """Resident bytes."""
    run_id: str = ""
    """The run that it or one of its parents is."""
    is_run: bool = False
    """It is the process of the run itself."""


@dataclass(frozen=True)
class RawProcess:
    """What the system says of a process; `started` tells it from another that had its number."""

    pid: int
    parent: int
    name: str
    cpu_s: float
    memory: int
    started: float


def parse_stat(text: str) -> RawProcess:
    """A line of `/proc/PID/stat`; the name in it may hold blanks and brackets. Raises ValueError or IndexError."""
    pid, _space, rest = text.partition(" ")
    name, _bracket, after = rest.removeprefix("(").rpartition(")")
    fields = after.split()
    return RawProcess(
        pid=int(pid),
        parent=int(fields[1]),
        name=name,
        cpu_s=(int(fields[11]) + int(fields[12])) / _TASK_TICKS,
        memory=int(fields[21]) * _PAGE,
        started=float(fields[19]),
    )


def program_name(arguments: list[str], name: str) -> str:
    """What a command line runs: its program, of an interpreter the module or script; `name` where it says nothing.

    Never an argument of that: `python -m http.server --token X` is `http.server`.
    """
    program = os.path.basename(arguments[0]).removesuffix(".exe") if arguments else ""  # noqa: PTH119
    if not program.lower().startswith(_INTERPRETERS):
        # The kernel cuts a name after 15 bytes.
        return program if len(name) >= 15 and program.startswith(name) else name
    rest = arguments[1:]
    while rest and program.lower().startswith("python") and rest[0] in _OPTIONS:
        rest = rest[2:] if rest[0] in _OPTIONS_WITH_VALUE else rest[1:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        own = rest[1] == "engine" and rest[2:3] and rest[2] in OWN_VERBS
        return f"engine {rest[2]}" if own else rest[1]
    if rest and not rest[0].startswith("-"):
        return os.path.basename(rest[0]) or program  # noqa: PTH119
    return program


class ProcessTable:
    """Reads the processes of the machine; keeps their processor time for shares."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        clock: Callable[[], float] = time.monotonic,
        platform: str = sys.platform,
    ) -> None:
        """`root` replaces `/` where files of the kernel are read."""
        self._root, self._clock = root, clock
        self._linux = platform.startswith("linux")
        self._before: dict[int, RawProcess] = {}
        self._at = 0.0
        self._names: dict[tuple[int, float], str] = {}

    def read(self, runs: Mapping[int, str] | None = None, limit: int = 100) -> list[ProcessRow]:
        """The processes that use most, those of `runs` (ids by process id) first, then by processor and memory."""
        now = self._clock()
        found = {one.pid: one for one in self._read()}
        before, span = self._before, now - self._at
        self._before, self._at = found, now
        shares = {pid: _share(one, before.get(pid), span) for pid, one in found.items()}
        owners = {
            pid: run_id
            for pid, run_id in _owners(found, runs or {})
            if pid in (runs or {}) or self._name(found[pid]) not in _SERVICES
        }
        # In steps, so that the rows of two processes that use about the same do not change places all the time.
        order = sorted(
            found.values(),
            key=lambda one: (
                one.pid not in owners,
                -round((shares[one.pid] or 0.0) / 10),
                -one.memory,
                one.pid,
            ),
        )
        rows = [
            ProcessRow(
                pid=one.pid,
                name=self._name(one),
                cpu_percent=shares[one.pid],
                memory=one.memory,
                run_id=owners.get(one.pid, ""),
                is_run=one.pid in (runs or {}),
            )
            for one in order[:limit]
        ]
        known = {(one.pid, one.started) for one in found.values()}
        self._names = {key: name for key, name in self._names.items() if key in known}
        return rows

    def _name(self, one: RawProcess) -> str:
        key = one.pid, one.started
        if key not in self._names:
            self._names[key] = program_name(read_or_none(lambda: self._arguments(one.pid)) or [], one.name)
        return self._names[key]

    def _arguments(self, pid: int) -> list[str]:
        if not self._linux:
            return list(psutil.Process(pid).cmdline())
        raw = (self._root / "proc" / str(pid) / "cmdline").read_bytes()
        return [part.decode("utf-8", "replace") for part in raw.split(b"\0") if part]

    def _read(self) -> Iterator[RawProcess]:
        if self._linux:
            yield from self._read_proc()
            return
        names = ["pid", "ppid", "name", "cpu_times", "memory_info", "create_time"]
        for process in psutil.process_iter(names):
            info = process.info
            times, memory = info["cpu_times"], info["memory_info"]
            if times is not None and memory is not None:
                yield RawProcess(
                    info["pid"],
                    info["ppid"] or 0,
                    info["name"] or "",
                    times.user + times.system,
                    memory.rss,
                    info["create_time"] or 0.0,
                )

    def _read_proc(self) -> Iterator[RawProcess]:
        """One small file for each process: psutil reads several, which costs ten times as much."""
        try:
            names = [name for name in os.listdir(self._root / "proc") if name.isdecimal()]  # noqa: PTH208
        except OSError:
            return
        for name in names:
            one = read_or_none(lambda name=name: self._stat(name))  # type: ignore[misc]
            # Threads of the kernel have no memory.
            if one is not None and one.memory:
                yield one

    def _stat(self, pid: str) -> RawProcess:
        with open(f"{self._root}/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return parse_stat(file.read().decode("utf-8", "replace"))


def _share(now: RawProcess, before: RawProcess | None, span: float) -> float | None:
    if before is None or before.started != now.started or span <= 0:
        return None
    return round(max(0.0, 100 * (now.cpu_s - before.cpu_s) / span), 1)


def _owners(found: Mapping[int, RawProcess], runs: Mapping[int, str]) -> Iterable[tuple[int, str]]:
    """The run of every process that is one or descends from one."""
    for pid in found if runs else ():
        at, seen = pid, set[int]()
        while at in found and at not in seen:
            if at in runs:
                yield pid, runs[at]
                break
            seen.add(at)
            at = found[at].parent
