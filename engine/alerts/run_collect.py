"""Readings of the runs of a workspace: which ones are watched, their journals, locks and logs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from engine.alerts.faults import classify
from engine.alerts.readings import RunReading
from engine.alerts.redact import redact, redact_lines
from engine.alerts.run_watch import RunWatch
from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.runs.events import RunStatus
from engine.runs.journal import JournalReader
from engine.runs.kinds import KINDS
from engine.runs.rundir import RunDir
from engine.runs.spec import RunSpec

NEW_S = 180.0
"""A run that is over is watched if it is so new that it may have begun this watch."""
KEPT_S = 120.0
"""After its end a run stays in the readings, so that what was said of it ends as well."""
_TEXTS = ("error", "hint", "reason", "checkpoint_error", "verdict_text")
"""Of a reading, what a program has written."""
_LOG_TAIL, _LOG_LINES = 64 << 10, 12


@dataclass
class _Watched:
    run: RunDir
    spec: RunSpec
    watch: RunWatch
    reader: JournalReader
    alive: bool = True
    over_at: float | None = None
    fault: str = ""
    log: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


class RunCollector:
    """Follows the runs that train or validate."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        before: Collection[str] = (),
        heartbeat_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`before` are the runs that an earlier watcher watched: one that ended since is not overlooked. `heartbeat_s` is
        the `update_interval` of the settings."""
        self._heartbeat_s = heartbeat_s
        self._workspace, self._before, self._clock = workspace, frozenset(before), clock
        self._known: set[str] = set()
        self._watched: dict[str, _Watched] = {}
        self._secrets: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Ids of the watched runs."""
        return sorted(self._watched)

    @property
    def pids(self) -> list[int]:
        """Processes of the runs at work."""
        return [one.watch.pid for one in self._watched.values() if one.alive and one.watch.pid is not None]

    def hide(self, secrets: tuple[str, ...]) -> None:
        """Values that no log line may show."""
        self._secrets = secrets

    def read(self, *, awake_since: float = 0.0, keep: Collection[str] = ()) -> list[RunReading]:
        """A reading of every watched run. Runs of `keep` are watched also long after their end: alerts about them are in force."""
        now = self._clock()
        self._discover(now)
        for run_id, one in list(self._watched.items()):
            if not self._follow(one, now, run_id in keep):
                del self._watched[run_id]
        return [self._reading(one, now, awake_since) for one in self._watched.values()]

    def _discover(self, now: float) -> None:
        try:
            names = {
                entry.name for entry in os.scandir(self._workspace.runs) if not entry.name.startswith(".")
            }
        except OSError:
            return
        for name in names - self._known:
            run = RunDir(self._workspace.runs / name)
            try:
                spec = run.spec
                alive = run.alive()
            except H2QError:
                continue  # its spec is not written yet, or never will be
            self._known.add(name)
            kind = KINDS[spec.kind]
            if not (kind.trains or kind.validates):
                continue
            if alive or name in self._before or now - spec.created_at < NEW_S:
                watch = RunWatch(name, kind=str(spec.kind), label=spec.label, heartbeat_s=self._heartbeat_s)
                self._watched[name] = _Watched(run, spec, watch, JournalReader(run.events_path))
        self._known &= names

    def _follow(self, one: _Watched, now: float, keep: bool) -> bool:
        """Reads what is new; whether the run is still watched."""
        if not one.run.path.exists():
            return False
        # The lock before the journal: the last records of a run that ends in between are read too.
        one.alive = one.run.alive()
        while records := one.reader.poll():
            for record in records:
                one.watch.apply(record)
        if one.alive and not one.watch.status.over:
            one.over_at = None
            return True
        if one.over_at is None:
            one.over_at = now
            self._read_log(one)
        return keep or now - one.over_at < KEPT_S

    def _read_log(self, one: _Watched) -> None:
        """The kind of the error and the last lines of the log. Called at the end of a run alone: it reads a file."""
        try:
            with one.run.log_path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
                log = file.read().decode("utf-8", "replace")
        except OSError:
            log = ""
        error = one.watch.reading(0.0, alive=False).error
        one.fault = classify(log, error) if one.watch.status is RunStatus.FAILED else ""
        one.tail = redact_lines(log.splitlines()[-_LOG_LINES:], self._secrets)

    def _reading(self, one: _Watched, now: float, awake_since: float) -> RunReading:
        log = tuple(one.watch.log)
        if one.over_at is None and log != one.log:
            one.log, one.tail = log, redact_lines(log, self._secrets)
        reading = one.watch.reading(
            now,
            alive=one.alive,
            awake_since=awake_since,
            fault=one.fault,
            log_tail=one.tail,
            resumed=self._has_successor(one),
        )
        # What stands in the states of the alerts stands in their database too.
        hidden = {name: redact(getattr(reading, name), self._secrets) for name in _TEXTS}
        return msgspec.structs.replace(reading, **hidden)

    def _has_successor(self, one: _Watched) -> bool:
        """Whether a later run of its sort is at work or done: what failed before is the past."""
        trains = KINDS[one.spec.kind].trains
        return any(
            other.spec.created_at > one.spec.created_at
            and KINDS[other.spec.kind].trains == trains
            and (
                (other.alive and not other.watch.status.over)
                or other.watch.status in (RunStatus.DONE, RunStatus.SKIPPED)
            )
            for other in self._watched.values()
        )
