"""Figures as JSON lines: one for each sample of the machine and for each figure of a run, appended to a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from engine.core.outputs import check_output_file
from engine.core.paths import Workspace
from engine.machine.probes import MachineSample
from engine.runs.events import Evaluated, Event, Finished, MemoryUsage, StatusChanged, Step
from engine.sinks.run_feed import RunFeed

_FIELDS: dict[type[Event], tuple[str, ...]] = {
    Step: (
        "phase",
        "step",
        "max_steps",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "tokens",
        "tokens_per_s",
        "eta_s",
    ),
    Evaluated: ("phase", "step", "name", "loss"),
    MemoryUsage: ("used_mb", "peak_mb", "budget_mb"),
    StatusChanged: ("status",),
    Finished: ("status", "exit_code"),
}
"""What is exported of an event: figures and words of the program, never text of a person."""


def figures_of(event: Event) -> dict[str, Any] | None:
    """The exported part of an event; None for one without figures."""
    names = _FIELDS.get(type(event))
    return {name: getattr(event, name) for name in names} if names else None


class LineWriter:
    """Appends the figures that arise from now on; the file can be followed with `tail -F`."""

    def __init__(self, workspace: Workspace, path: Path, *, since: float) -> None:
        """`since`: seconds since the epoch; earlier records are passed over. Raises UsageProblem and OSError."""
        check_output_file(path)
        self._feed = RunFeed(workspace, finished=False)
        self._since = since
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)

    def write(self, sample: MachineSample) -> int:
        """Appends a sample and what the runs have recorded; returns the number of lines. Raises OSError."""
        lines = [{"t": sample.time, "kind": "machine", **_without_time(sample)}]
        for followed, records in self._feed.read():
            for record in records:
                figures = figures_of(record.event)
                if figures is not None and record.t >= self._since:
                    kind, run = record.event.KIND, followed.run.run_id
                    lines.append({"t": record.t, "kind": kind, "run": run, **figures})
        _write_all(self._fd, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return len(lines)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def _without_time(sample: MachineSample) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(sample)
    fields.pop("time")
    return fields


def _write_all(fd: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> None:
    while data:
        data = data[write(fd, data) :]
