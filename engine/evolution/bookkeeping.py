"""The books of an evolution: its state on disk, its statistics, its log, the time it took, and what is cleared away."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec

from engine.core.digest import file_sha256
from engine.evolution import stats
from engine.evolution.canary import Canary
from engine.evolution.evaluation import Measured
from engine.evolution.state import Evolution, OpenCycle, has_checkpoint, load_state, save_state
from engine.evolution.stats import CycleRow
from engine.models.card import CARD_FILE, ModelCard, load_card
from engine.models.registry import in_use
from engine.runs.context import RunContext
from engine.runs.rundir import find_run
from engine.runs.spec import EvolveParams

TRAINING_SHARE = 0.6
"""Share of a cycle's time that its training may take."""


class Record:
    """What one run keeps of its cycles. Raises OSError where the disk is full."""

    def __init__(self, ctx: RunContext, params: EvolveParams) -> None:
        """Goes on from the state of `params.resume`. Raises BadInput for an unknown run or a broken state."""
        self.ctx, self.params, self.ws = ctx, params, ctx.workspace
        self.folder = ctx.run_dir.path
        earlier = find_run(self.ws, params.resume).path if params.resume else self.folder
        self.earlier = earlier.name
        self.state: Evolution = load_state(earlier)
        self._began = time.monotonic()
        self._before = self.state.seconds
        self._cycle_began = self._began

    @property
    def seconds(self) -> float:
        """Spent on all cycles, in earlier processes too."""
        return self._before + time.monotonic() - self._began

    @property
    def time_is_up(self) -> bool:
        budget = self.params.time_budget_s
        return budget is not None and self.seconds >= budget

    def training_seconds(self, cycle: int) -> float | None:
        """What the training of a cycle may take of the time that is left; None without a bound."""
        budget = self.params.time_budget_s
        if budget is None:
            return None
        return max(1.0, TRAINING_SHARE * (budget - self.seconds) / (self.params.cycles - cycle + 1))

    def save(self) -> None:
        self.state.seconds = self.seconds
        save_state(self.folder, self.state)

    def open(self, number: int, champion: str, window: int) -> OpenCycle:
        """The cycle to work on, on disk before anything is done: the one that was begun, where it still holds.

        It does not where the person has put another model to use since, or another window is open.
        """
        self._cycle_began = time.monotonic()
        old = self.state.open
        if old is not None and (old.cycle, old.champion, old.window) == (number, champion, window):
            self.save()
            return old
        if old is not None:
            self.clear(old)
        run_id = self.ctx.spec.run_id
        names = (f"evolve-{run_id[:9]}-c{number}", f"evolve-{run_id}-c{number}")
        free = [name for name in names if not (self.ws.models / name).exists()]
        self.state.open = OpenCycle(
            cycle=number, champion=champion, candidate=(free or names)[-1 if not free else 0], window=window
        )
        self._clear_checkpoints(self.folder)
        self.save()
        return self.state.open

    def cycle_seconds(self, open_: OpenCycle) -> float:
        return open_.seconds + time.monotonic() - self._cycle_began

    def dataset_is_whole(self, open_: OpenCycle) -> bool:
        """Whether an earlier process wrote the dataset of the cycle, and nobody has changed it."""
        path = Path(open_.dataset)
        return bool(open_.dataset) and path.is_file() and file_sha256(path) == open_.dataset_sha256

    def finished_candidate(self, open_: OpenCycle) -> ModelCard | None:
        """The candidate, where an earlier process has trained it to its end. Raises BadInput for a broken card."""
        folder = self.ws.models / open_.candidate
        if not (folder / CARD_FILE).is_file():
            return None
        card = load_card(folder)
        return card if card.lineage.dataset_sha256 == open_.dataset_sha256 else None

    def trains_here(self, open_: OpenCycle) -> Path | None:
        """Notes that this run trains the candidate; returns the earlier run to go on from, None for a fresh start."""
        runs = [self.ws.runs / name for name in open_.checkpoints]
        earlier = next((run for run in reversed(runs) if run != self.folder and has_checkpoint(run)), None)
        if self.folder.name not in open_.checkpoints:
            open_.checkpoints.append(self.folder.name)
            self.save()
        return earlier if not has_checkpoint(self.folder) else None

    def settle(self, open_: OpenCycle, row: CycleRow) -> None:
        """Writes down what the cycle came to, before its candidate is put to use or removed."""
        open_.row = row
        self.save()

    def close(self, open_: OpenCycle, row: CycleRow) -> None:
        """The cycle is over: its row goes into the statistics, its epochs into `training_log.json`."""
        stats.save_stats(self.ws, stats.with_cycle(stats.load_stats(self.ws), row))
        epochs = [epoch for epoch in stats.log_rows(self.ws) if "cycle" not in epoch]
        self.state.log += stats.with_outcome(epochs, row)
        stats.write_log(self.ws, self.state.log)
        for name in open_.checkpoints:
            self._clear_checkpoints(self.ws.runs / name)
        self.state.rows.append(row)
        self.state.open = None
        self.save()

    def clear(self, open_: OpenCycle) -> None:
        """Removes what a candidate that lost, or was never judged, left: its folder, dataset and checkpoints.

        The model in use is never removed.
        """
        if open_.candidate != in_use(self.ws):
            folder = self.ws.models / open_.candidate
            hidden = folder.with_name(f".{folder.name}.removed")
            shutil.rmtree(hidden, ignore_errors=True)
            if folder.is_dir():
                folder.rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            if open_.dataset:
                Path(open_.dataset).unlink(missing_ok=True)
        for name in open_.checkpoints:
            self._clear_checkpoints(self.ws.runs / name)

    def first_canary(self, champion: Measured) -> Canary:
        """The canary of the model that evolution began with; that of `champion` where it begins now."""
        known = stats.load_stats(self.ws)
        found = stats.reference(known, champion.name)
        if found is not None:
            return found
        started = msgspec.structs.replace(known, canary_of=champion.name, canary=champion.canary)
        stats.save_stats(self.ws, started)
        return champion.canary

    def _clear_checkpoints(self, run: Path) -> None:
        """Checkpoints of a cycle that is over: the next one's training must not go on from them."""
        for entry in (run / "checkpoints").glob("native-*"):
            shutil.rmtree(entry, ignore_errors=True)
