"""What a training will take: time of each stage, steps and memory, from earlier runs of this workspace where there are
any like it, else from the amount of data. Reads no weights and imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.runs.events import RunStatus
from engine.runs.kinds import RunKind, TrainMode, TrainParams
from engine.runs.rundir import RunDir, list_runs, summarise
from engine.runs.spec import params_of
from engine.runs.view import RunSummary

BASE_SHARE = 0.6
"""Share of a time budget for a base from plain text if there is none yet."""
_ALIKE = 4.0
"""Runs on up to this many times more or fewer conversations are alike: their times are scaled."""
_LOOKED_AT = 40
"""Newest runs that are looked at."""

# Without an earlier run: orders of magnitude on two cores of 2020 to 2024, as `bench` measures them.
_CORES = 2
_NATIVE_MB = 700.0
_SCRATCH_BYTES_S, _NATIVE_BYTES_S = 20_000.0, 10_000.0
_FLOP_S = 1.5e11
_ADAPTER_FLOP = 6.0
"""Of a token for each parameter of the base: forward, backward without gradients of the frozen weights, and forward of
the base alone, to which the adapter is held."""
_SCORING_FLOP = 4.0
"""The same for a token that is scored: forward alone, in smaller batches that use half of the processor."""
_GENERAL_TOKENS = 25_000
"""Of the general set, which each model scores."""
_CONVERSATION_BYTES, _CONVERSATION_TOKENS = 1_500.0, 300.0
_CHARACTERS_OF_TOKEN, _TEMPLATE_TOKENS = 4.0, 45.0
_EPOCHS = 3
_EVOLVE_EPOCHS = 1
"""Of one cycle, as in `EvolveParams`."""
_LORA_BATCH = 4
_CORPUS_S = 0.02
_PROGRAM_MB, _ACTIVATIONS_MB = 600.0, 1000.0
"""Of an adapter's training, beside the weights of its base in bfloat16."""


@dataclass(frozen=True)
class Workload:
    """What is to be trained."""

    mode: TrainMode
    conversations: int = 0
    """That will be trained on."""
    test: int = 0
    """Conversations of the test set."""
    text_bytes: int = 0
    """Plain text for a new base; 0 where a base is there."""
    base: str = ""
    """The base of an adapter as the run names it."""
    base_parameters: float = 0.0
    """Of an adapter's base; 0 when unknown."""
    characters: float = 0.0
    """Of a conversation on average; 0 when unknown."""
    epochs: int | None = None
    max_steps: int | None = None
    time_budget_s: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a training will take."""

    seconds: dict[str, float]
    """Of each stage, in their order."""
    steps: int | None = None
    memory_mb: float | None = None
    run: str = ""
    """Id of the earlier run that the figures are from; "" for a rough estimate."""

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class MeasuredRun:
    """A finished training of this workspace."""

    run: str
    params: TrainParams
    mode: TrainMode
    summary: RunSummary

    @property
    def whole(self) -> bool:
        """Whether nothing but the data limited its training."""
        limits = (self.params.max_steps, self.params.time_budget_s, self.params.resume)
        return all(limit is None for limit in limits)


@dataclass
class RunHistory:
    """The finished trainings of a workspace, newest first; an ended run is read once."""

    workspace: Workspace
    _read: dict[str, MeasuredRun | None] = field(default_factory=dict)

    def runs(self) -> list[MeasuredRun]:
        """Reads `state.json` of runs that it does not know yet. Call it in a thread."""
        found = []
        for run in list_runs(self.workspace)[:_LOOKED_AT]:
            if run.run_id not in self._read and not run.alive():
                self._read[run.run_id] = _measured(run)
            measured = self._read.get(run.run_id)
            if measured is not None:
                found.append(measured)
        return found


def _measured(run: RunDir) -> MeasuredRun | None:
    if run.spec.kind is not RunKind.TRAIN:
        return None
    with contextlib.suppress(BadInput, msgspec.DecodeError, OSError):
        params, summary = params_of(run.spec, TrainParams), summarise(run)
        mode = next((mode for mode in TrainMode if str(mode) in summary.stage_seconds), None)
        if "native" in summary.stage_seconds:
            mode = TrainMode.NATIVE
        if summary.status is RunStatus.DONE and mode is not None:
            return MeasuredRun(run.run_id, params, mode, summary)
    return None


def stages_of(load: Workload) -> tuple[str, ...]:
    """The stages of a training by name."""
    if load.mode is TrainMode.SCRATCH:
        return ("scratch",)
    if load.mode is TrainMode.LORA:
        return ("corpus", "lora", "validate", "promote")
    if load.mode is TrainMode.MESSAGE:
        return ("corpus", "message", "validate", "promote")
    scratch = ("scratch",) if load.text_bytes else ()
    return ("corpus", *scratch, "native", "validate", "promote")


def estimate(load: Workload, runs: Sequence[MeasuredRun] = ()) -> Estimate:
    """What `load` will take. The newest run like it counts; of an adapter, with the same base."""
    rough = _rough(load)
    like = next((run for run in runs if _is_like(run, load)), None)
    if like is None:
        return _within_budget(rough, load)
    past, trained = like.summary, str(load.mode)
    ratio = load.conversations / past.conversations if past.conversations and load.conversations else 1.0
    epochs = _epochs(load) / _epochs(like.params)
    whole = like.whole and not load.max_steps
    seconds, steps = dict(rough.seconds), load.max_steps or rough.steps
    for name in seconds:
        taken = past.stage_seconds.get(name)
        if taken is None:
            continue
        if name == "scratch":
            seconds[name] = taken if whole else seconds[name]
        elif name != trained:
            seconds[name] = taken * ratio
        elif whole:
            seconds[name] = taken * ratio * epochs
            steps = max(1, round(past.max_steps * ratio * epochs)) if past.max_steps else steps
        elif past.max_steps and steps:
            seconds[name] = taken / past.max_steps * steps
    measured = whole or bool(past.max_steps and steps)
    found = Estimate(seconds, steps, past.peak_memory_mb, like.run if measured else "")
    return _within_budget(found, load)


def estimate_evolution(load: Workload, cycles: int, runs: Sequence[MeasuredRun] = ()) -> Estimate:
    """What `cycles` cycles of an evolution on native `load` will take, `_EVOLVE_EPOCHS` epochs each.

    Each trains a candidate, validates it, and measures both models once more.
    """
    once = estimate(replace(load, mode=TrainMode.NATIVE, text_bytes=0, epochs=_EVOLVE_EPOCHS), runs)
    cycle = {name: once.seconds[name] for name in ("native", "validate", "promote")}
    cycle["measure"] = once.seconds["validate"]
    seconds = {"corpus": once.seconds["corpus"]} | {name: cycles * each for name, each in cycle.items()}
    steps = cycles * once.steps if once.steps else None
    return Estimate(seconds, steps, once.memory_mb, once.run)


def _epochs(of: Workload | TrainParams) -> int:
    return of.epochs or _EPOCHS


def _is_like(run: MeasuredRun, load: Workload) -> bool:
    if run.mode is not load.mode or (load.mode is TrainMode.LORA and (run.params.model or "") != load.base):
        return False
    then = run.summary.conversations
    if load.mode is TrainMode.SCRATCH or not then or not load.conversations:
        return True
    return 1 / _ALIKE <= load.conversations / then <= _ALIKE


def _rough(load: Workload) -> Estimate:
    """From the amount of data alone."""
    speed = (os.cpu_count() or _CORES) / _CORES
    epochs = _epochs(load)
    count, test = load.conversations, load.test or max(20, round(0.15 * load.conversations))
    steps, memory = None, _NATIVE_MB
    seconds = dict.fromkeys(stages_of(load), 1.0)
    if "corpus" in seconds:
        seconds["corpus"] = 2.0 + _CORPUS_S * count
    if "scratch" in seconds:
        seconds["scratch"] = max(20.0, load.text_bytes * _EPOCHS / _SCRATCH_BYTES_S / speed)
    if "native" in seconds:
        seconds["native"] = max(10.0, count * _CONVERSATION_BYTES * epochs / _NATIVE_BYTES_S / speed)
        seconds["validate"] = 10.0 + 0.5 * test / speed
    if "message" in seconds:
        rate = _FLOP_S * speed / max(1.0, load.base_parameters)
        seconds["message"] = 5.0 + _CORPUS_S * count
        # The turns are read once; behind them the model scores the test set and the general one, as the base does.
        seconds["validate"] = (
            20.0 + 2 * (test * _CONVERSATION_TOKENS + _GENERAL_TOKENS) * _SCORING_FLOP / rate
        )
        return Estimate(seconds, None)
    if "lora" in seconds:
        rate = _FLOP_S * speed / max(1.0, load.base_parameters)
        tokens = _CONVERSATION_TOKENS
        if load.characters:
            tokens = load.characters / _CHARACTERS_OF_TOKEN + _TEMPLATE_TOKENS
        steps = load.max_steps or max(1, -(-count // _LORA_BATCH) * epochs)
        seconds["lora"] = 15.0 + steps * _LORA_BATCH * tokens * _ADAPTER_FLOP / rate
        # Base and adapter score the test set and the general one, and answer some questions token by token.
        seconds["validate"] = 20.0 + 2 * (test * tokens + _GENERAL_TOKENS) * _SCORING_FLOP / rate
        memory = _PROGRAM_MB + 2 * load.base_parameters / 2**20 + _ACTIVATIONS_MB
        if not load.base_parameters:
            return Estimate(seconds, steps)
    return Estimate(seconds, steps, memory)


def _within_budget(found: Estimate, load: Workload) -> Estimate:
    """With a time budget the training takes as long as that, shared between the base and the rest."""
    budget = load.time_budget_s
    if budget is None:
        return found
    seconds = dict(found.seconds)
    if "scratch" in seconds and "native" in seconds:
        seconds["scratch"] = BASE_SHARE * budget
        seconds["native"] = (1 - BASE_SHARE) * budget
    else:
        trained = next((name for name in seconds if name in ("scratch", "native", "lora")), "")
        if trained:
            seconds[trained] = min(seconds[trained], budget) if trained == "lora" else budget
    return Estimate(seconds, None, found.memory_mb, found.run)
