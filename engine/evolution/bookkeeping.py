"""The persistent state of an evolution: `evolution.json` in the run's folder, statistics, time, and clean-up.

A killed run resumes with the cycle that it was in.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from engine.core import files
from engine.core.errors import BadInput
from engine.core.files import file_sha256
from engine.core.i18n import _
from engine.evolution import stats
from engine.evolution.canary import Canary
from engine.evolution.evaluation import ModelMeasurement
from engine.evolution.stats import CycleRow
from engine.evolution.synthetic import SyntheticStats
from engine.models.card import CARD_FILE, ModelCard, load_card
from engine.models.registry import in_use
from engine.runs.context import RunContext
from engine.runs.kinds import EvolveParams
from engine.runs.resume import has_checkpoint
from engine.runs.rundir import find_run

FILE = "evolution.json"
TRAINING_SHARE = 0.6
"""Share of a cycle's time for its training."""


class OpenCycle(msgspec.Struct, kw_only=True, rename={"dataset_stats": "material"}):
    """A cycle in progress."""

    cycle: int
    """From 1."""
    champion: str
    candidate: str
    dataset: str = ""
    """Path of its dataset; "" before that is written."""
    dataset_sha256: str = ""
    dataset_stats: SyntheticStats | None = None
    checkpoints: list[str] = []
    """Folders of the runs that trained the candidate, the newest last."""
    window: int = 0
    """The test window that its dataset is disjoint from."""
    row: CycleRow | None = None
    """Its result, written before the candidate is promoted or removed."""
    seconds: float = 0.0
    """Time spent by earlier processes."""


class EvolutionState(msgspec.Struct, kw_only=True):
    """The file."""

    first: str = ""
    """The model in use before the first cycle."""
    rows: list[CycleRow] = []
    """Finished cycles."""
    log: list[dict[str, Any]] = []
    """Their rows of `training_log.json`."""
    open: OpenCycle | None = None
    seconds: float = 0.0
    """Time spent on all cycles."""


def load_state(folder: Path) -> EvolutionState:
    """The state of a run; empty where it started no cycle. Raises BadInput for a broken file."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=EvolutionState)
    except FileNotFoundError:
        return EvolutionState()
    except (msgspec.DecodeError, OSError) as problem:
        raise BadInput(
            _("the state of the evolution cannot be read"), path=path, hint="h2q-tui evolve"
        ) from problem


def save_state(folder: Path, state: EvolutionState) -> None:
    """Raises OSError."""
    data = msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"
    files.write_bytes(folder / FILE, data, mode=0o600)


class EvolutionRecord:
    """The state of one run and the files of its cycles. Methods raise OSError when the disk is full."""

    def __init__(self, ctx: RunContext, params: EvolveParams) -> None:
        """Resumes from the state of `params.resume`. Raises BadInput for an unknown run or a broken state."""
        self.ctx, self.params, self.ws = ctx, params, ctx.workspace
        self.folder = ctx.run_dir.path
        earlier = find_run(self.ws, params.resume).path if params.resume else self.folder
        self.earlier = earlier.name
        """The run that is resumed, or this one."""
        self.state: EvolutionState = load_state(earlier)
        self._started = time.monotonic()
        self._seconds_before = self.state.seconds
        self._cycle_started = self._started

    @property
    def seconds(self) -> float:
        """Time spent on all cycles, earlier processes included."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def out_of_time(self) -> bool:
        budget = self.params.time_budget_s
        return budget is not None and self.seconds >= budget

    def training_seconds(self, cycle: int) -> float | None:
        """Time budget of a cycle's training; None without a limit."""
        budget = self.params.time_budget_s
        if budget is None:
            return None
        return max(1.0, TRAINING_SHARE * (budget - self.seconds) / (self.params.cycles - cycle + 1))

    def save(self) -> None:
        self.state.seconds = self.seconds
        save_state(self.folder, self.state)

    def open(self, number: int, champion: str, window: int) -> OpenCycle:
        """The cycle to work on, saved before any work: the open one if it is still valid, else a new one.

        It is not when another model was promoted or another test window opened since.
        """
        self._cycle_started = time.monotonic()
        old = self.state.open
        if old is not None and (old.cycle, old.champion, old.window) == (number, champion, window):
            self.save()
            return old
        if old is not None:
            self.remove_candidate(old)
        run_id = self.ctx.spec.run_id
        names = (f"evolve-{run_id[:9]}-c{number}", f"evolve-{run_id}-c{number}")
        free = [name for name in names if not (self.ws.models / name).exists()]
        self.state.open = OpenCycle(
            cycle=number, champion=champion, candidate=(free or names)[-1 if not free else 0], window=window
        )
        self._remove_checkpoints(self.folder)
        self.save()
        return self.state.open

    def cycle_seconds(self, cycle: OpenCycle) -> float:
        return cycle.seconds + time.monotonic() - self._cycle_started

    def has_intact_dataset(self, cycle: OpenCycle) -> bool:
        """Whether an earlier process wrote the dataset of the cycle and it is unchanged."""
        path = Path(cycle.dataset)
        return bool(cycle.dataset) and path.is_file() and file_sha256(path) == cycle.dataset_sha256

    def finished_candidate(self, cycle: OpenCycle) -> ModelCard | None:
        """The candidate, if an earlier process finished its training. Raises BadInput for a broken card."""
        folder = self.ws.models / cycle.candidate
        if not (folder / CARD_FILE).is_file():
            return None
        card = load_card(folder)
        return card if card.lineage.dataset_sha256 == cycle.dataset_sha256 else None

    def start_training(self, cycle: OpenCycle) -> Path | None:
        """Records that this run trains the candidate; returns the run to resume from, None for a fresh start."""
        runs = [self.ws.runs / name for name in cycle.checkpoints]
        earlier = next((run for run in reversed(runs) if run != self.folder and has_checkpoint(run)), None)
        if self.folder.name not in cycle.checkpoints:
            cycle.checkpoints.append(self.folder.name)
            self.save()
        return earlier if not has_checkpoint(self.folder) else None

    def save_result(self, cycle: OpenCycle, row: CycleRow) -> None:
        """Saves the result of a cycle before its candidate is promoted or removed."""
        cycle.row = row
        self.save()

    def close(self, cycle: OpenCycle, row: CycleRow) -> None:
        """Ends a cycle: its row joins the statistics, its epochs join `training_log.json`."""
        stats.save_stats(self.ws, stats.with_cycle(stats.load_stats(self.ws), row))
        epochs = [epoch for epoch in stats.log_rows(self.ws) if "cycle" not in epoch]
        self.state.log += stats.with_cycle_result(epochs, row)
        stats.write_log(self.ws, self.state.log)
        for name in cycle.checkpoints:
            self._remove_checkpoints(self.ws.runs / name)
        self.state.rows.append(row)
        self.state.open = None
        self.save()

    def remove_candidate(self, cycle: OpenCycle) -> None:
        """Removes the folder, dataset and checkpoints of a candidate that lost or was never validated.

        The model in use is never removed.
        """
        if cycle.candidate != in_use(self.ws):
            folder = self.ws.models / cycle.candidate
            hidden = folder.with_name(f".{folder.name}.removed")
            shutil.rmtree(hidden, ignore_errors=True)
            if folder.is_dir():
                folder.rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            if cycle.dataset:
                Path(cycle.dataset).unlink(missing_ok=True)
        for name in cycle.checkpoints:
            self._remove_checkpoints(self.ws.runs / name)

    def initial_canary(self, champion: ModelMeasurement) -> Canary:
        """The canary of the model that evolution started from; that of `champion` where it starts now."""
        known = stats.load_stats(self.ws)
        canary = stats.initial_canary(known, champion.name)
        if canary is not None:
            return canary
        started = msgspec.structs.replace(known, canary_of=champion.name, canary=champion.canary)
        stats.save_stats(self.ws, started)
        return champion.canary

    def _remove_checkpoints(self, run: Path) -> None:
        """Removes the checkpoints of a finished cycle: the next training must not resume from them."""
        for entry in (run / "checkpoints").glob("native-*"):
            shutil.rmtree(entry, ignore_errors=True)
