"""The runs of a workspace for programs that draw figures: their state, and their new records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.core.paths import Workspace
from engine.runs.events import JournalRecord
from engine.runs.journal import JournalReader
from engine.runs.kinds import KINDS
from engine.runs.rundir import RunDir, list_runs
from engine.runs.view import RunView

BATCH = 2000


@dataclass
class FedRun:
    """One run, read as far as its journal goes."""

    run: RunDir
    reader: JournalReader
    view: RunView
    alive: bool = True


class RunFeed:
    """Follows runs. Not safe to use from several threads."""

    def __init__(self, workspace: Workspace, *, finished: bool) -> None:
        """`finished`: every training run that there is; else those that are alive, and the newest training run."""
        self._workspace = workspace
        self._finished = finished
        self._followed: dict[str, FedRun] = {}

    def read(self) -> Iterator[tuple[FedRun, list[JournalRecord]]]:
        """New records of each run, which its view has applied; batches of at most BATCH."""
        for followed in self._choose():
            # Before the journal, so that the last records of a run are read too.
            alive = followed.run.alive()
            while records := followed.reader.poll(BATCH):
                for record in records:
                    followed.view.apply(record)
                yield followed, records
            followed.alive = alive

    @property
    def runs(self) -> Iterable[FedRun]:
        """What `read` follows, newest first."""
        return self._followed.values()

    def _choose(self) -> list[FedRun]:
        chosen: dict[str, FedRun] = {}
        newest = True
        for run in list_runs(self._workspace):
            trains = KINDS[run.spec.kind].trains
            if (trains and (newest or self._finished)) or run.alive():
                chosen[run.run_id] = self._followed.get(run.run_id) or FedRun(
                    run, JournalReader(run.events_path), RunView(run.spec)
                )
            newest = newest and not trains
        self._followed = chosen
        return list(chosen.values())
