"""A run as its files tell it: the whole view from the journal, or the short summary for lists."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from engine.runs.events import JournalRecord
from engine.runs.journal import JournalReader
from engine.runs.rundir import RunDir
from engine.runs.summary import RunSummary
from engine.runs.view import RunView

_TICK_S = 0.1


def load_view(run: RunDir) -> RunView:
    """The run's whole history, as far as it is written. Raises BadInput when the spec is broken."""
    view, reader = RunView(run.spec), JournalReader(run.events_path)
    while records := reader.poll():
        for record in records:
            view.apply(record)
    return view


def summarise(run: RunDir) -> RunSummary:
    """What lists show. Reads `state.json` (up to two seconds old) while that tells the truth, else the journal.

    Raises BadInput when the spec is broken.
    """
    alive = run.alive()
    try:
        state = msgspec.json.decode(run.state_path.read_bytes(), type=RunSummary)
    except (OSError, msgspec.DecodeError):
        state = None
    if state is not None and alive != state.status.over:
        return state
    return load_view(run).summary(run.alive())


def newest_alive(runs: list[RunDir]) -> RunDir | None:
    """The newest run that lives."""
    return next((run for run in runs if run.alive()), None)


def follow(run: RunDir, *, tick_s: float = _TICK_S) -> Iterator[list[JournalRecord]]:
    """Batches of records from the beginning until the run is over or dead; an empty batch at each idle tick."""
    reader = JournalReader(run.events_path)
    over = False
    while True:
        # The lock is probed before the journal is read: what a run wrote before it ended is then read too.
        over = not run.alive()
        records = reader.poll()
        if records:
            yield records
        elif over:
            return
        else:
            yield []
            time.sleep(tick_s)
