"""What a run tells: the records of `events.jsonl`.

A line is an envelope `{v, seq, t, kind, data}`; `kind` selects the Struct of `data` from `EVENTS`. Readers
count and skip what they do not know. msgspec writes NaN and infinities as null, so every figure that may
be one is `float | None`, and `finite` says whether null stands for such a value.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

VERSION = 1


class RunStatus(StrEnum):
    """Where a run stands. DEAD is never written: it is what a reader sees when the lock is free."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def over(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PAUSED)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records; `KIND` is the envelope's kind."""

    KIND: ClassVar[str]


class Started(Event, frozen=True, kw_only=True):
    """First record of each engine process of the run: a resumed run has several."""

    KIND: ClassVar[str] = "started"
    pid: int
    program: str
    """Version of h2q-tui."""
    host: str = ""
    scope: str = ""
    """How the process is kept alive: "systemd scope", "caffeinate", or "" for its own session."""


class StatusChanged(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "status"
    status: RunStatus
    reason: str = ""


class StageChanged(Event, frozen=True, kw_only=True):
    """A stage begins or ends, e.g. import, scratch, corpus, native, validate, promote."""

    KIND: ClassVar[str] = "stage"
    name: str
    state: str
    """"started", "done", "skipped" or "failed"."""
    index: int = 0
    total: int = 0
    """`index` of `total`, from 1; 0 when not known."""
    detail: str = ""
    """One sentence for the person."""


class Progress(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "progress"
    stage: str
    done: float
    total: float | None = None
    unit: str = ""
    eta_s: float | None = None
    """Seconds to the end of the whole run where known, else of the stage."""


class Step(Event, frozen=True, kw_only=True):
    """One optimizer step; several may be left out between two records, never the last."""

    KIND: ClassVar[str] = "step"
    phase: str
    """"scratch" or "native"."""
    step: int
    max_steps: int
    epoch: float = 0.0
    loss: float | None
    """Mean negative log-likelihood, nats per trained byte."""
    finite: bool = True
    lr: float
    grad_norm: float | None = None
    tokens: int
    """Bytes seen since the phase began."""
    tokens_per_s: float
    waiting: float = 0.0
    """Share of the wall time spent waiting for data, 0 to 1, over the last seconds."""
    waited_s: float = 0.0
    """Seconds that this process has waited for data in the phase, of `wall_s`."""
    wall_s: float = 0.0
    draws: int = 0
    """Batches read since the phase began."""
    eta_s: float | None = None


class Evaluated(Event, frozen=True, kw_only=True):
    """Loss on text that is not trained on."""

    KIND: ClassVar[str] = "evaluated"
    phase: str
    step: int
    name: str
    loss: float | None
    finite: bool = True


class EpochDone(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "epoch"
    phase: str
    epoch: int
    epochs: int
    train_loss: float | None
    eval_loss: float | None = None
    seconds: float
    lr: float


class MemoryUsage(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "memory"
    used_mb: float
    """Resident memory of the run's process tree."""
    peak_mb: float
    budget_mb: float
    reason: str = ""
    """What set the budget: "max_memory_gb", "cgroup", "available"."""


class CheckpointWritten(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "checkpoint"
    phase: str
    step: int
    path: str
    seconds: float
    bytes: int
    loss: float | None = None


class CommandHandled(Event, frozen=True, kw_only=True):
    """A command from the control socket, so that the history explains the curve."""

    KIND: ClassVar[str] = "command"
    name: str
    value: str = ""
    accepted: bool
    reply: str = ""


class RecoveryAction(Event, frozen=True, kw_only=True):
    """A step that went wrong, and what was done about it (engine/training/recovery.py)."""

    KIND: ClassVar[str] = "recovery"
    phase: str
    step: int
    cause: str
    """"not finite", "spike", "weights" (they are broken, the data is not), "divergence" or "file"."""
    action: str
    """"discarded", "skipped", "returned", "stopped" or "retried"."""
    loss: float | None = None
    grad_norm: float | None = None
    back_to: int | None = None
    """Step of the checkpoint that was returned to; null without a return."""
    samples: list[str] = []
    """What the skipped batch consisted of: ids of conversations, or `file:byte`."""
    detail: str = ""


class MemoryPlan(Event, frozen=True, kw_only=True):
    """Before the first step: what a pass was estimated and measured to take, and the largest that fits."""

    KIND: ClassVar[str] = "memory plan"
    phase: str
    program_mb: float
    """What is held before any pass."""
    estimate_mb: float | None = None
    """Of a pass of `windows` with the program, counted from the shape of the model; null where it is not known."""
    measured: list[tuple[int, float]]
    """Windows of a pass and the MB it took at the highest, with the program."""
    context: int
    """Bytes of a window; tokens where an adapter is trained."""
    windows: int
    """In a pass from here on."""
    recompute: bool = False
    """Layers are computed twice instead of kept."""
    room_mb: float
    """What a pass may take: the budget without its buffer and without what optimizer and checkpoints need."""
    budget_mb: float
    reason: str = ""


class GovernorAction(Event, frozen=True, kw_only=True):
    """What the memory governor did, with the figures that caused it (engine/training/governor.py)."""

    KIND: ClassVar[str] = "governor"
    phase: str
    step: int
    cause: str
    """"budget" (measured), "allocation" (memory could not be had), "set" (by a command), "cgroup" (the limit of
    the system changed), "pressure" (of other programs, Linux), "level" (the same, macOS), "battery" or
    "temperature"."""
    action: str
    """"caches", "smaller" (passes), "recompute" (activation checkpointing), "stop", "limit" (another budget),
    "pause" or "resume"."""
    value: float | None = None
    """What was read from outside: percent of the time stalled, level, percent of the battery, degrees."""
    bound: float | None = None
    """The bound that `value` passed."""
    used_mb: float
    """The most since the step before: process tree and device."""
    budget_mb: float
    buffer_mb: float
    """What is to stay free of the budget."""
    pass_tokens: int
    """Tokens of a pass from here on."""


class Log(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "log"
    level: str
    """"info", "warning" or "error"."""
    text: str


class TrainingPlan(Event, frozen=True, kw_only=True):
    """Said before training: what will be trained on, and how small a gain the verdict could see."""

    KIND: ClassVar[str] = "plan"
    text: str
    pairs: int
    train_conversations: int
    test_conversations: int
    test_clusters: int
    verdict_possible: bool
    visible_gain: float | None = None
    """Smallest relative gain in NLL seen with 80 % power; None when not known."""


class Funnel(Event, frozen=True, kw_only=True):
    """The corpus as built: how many came in, how many left at each stage."""

    KIND: ClassVar[str] = "funnel"
    collected: int
    dropped: dict[str, int]
    redacted: int
    duplicates: int
    pending: int
    accepted: int
    rejected: int
    train: int
    test: int


class VerdictGiven(Event, frozen=True, kw_only=True):
    """Raw JSON of `engine.validation.report.Verdict`, and the sentence that a person reads."""

    KIND: ClassVar[str] = "verdict"
    base: str
    new: str
    decision: str
    sentence: str
    verdict: msgspec.Raw


class Promoted(Event, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "promoted"
    name: str
    previous: str
    backup: str


class EvolutionCycle(Event, frozen=True, kw_only=True):
    """A cycle of evolution starts or ends."""

    KIND: ClassVar[str] = "cycle"
    cycle: int
    cycles: int
    """`cycle` of `cycles`, from 1."""
    state: str
    """"began", "kept" (the candidate is the champion now), "dropped" (it is removed) or "collapsed"."""
    champion: str
    """The model in use when the cycle began."""
    candidate: str = ""
    before: float | None = None
    """Perplexity per byte of held-out answers under the champion."""
    after: float | None = None
    """The same under the candidate; lower is better."""
    p_value: float | None = None
    alpha: float | None = None
    """The p that this look at the window needed."""
    look: int = 0
    reason: str = ""
    """One sentence, "" while it goes on."""


class Finished(Event, frozen=True, kw_only=True):
    """Last record of a run that ended by itself."""

    KIND: ClassVar[str] = "finished"
    status: RunStatus
    exit_code: int
    error: str = ""
    """The sentence of the error, with the command that mends it."""
    report: str = ""
    """Path of the report file."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    """What the command prints with `--json`."""


EVENTS: dict[str, type[Event]] = {
    type_.KIND: type_
    for type_ in (
        Started,
        StatusChanged,
        StageChanged,
        Progress,
        Step,
        Evaluated,
        EpochDone,
        MemoryUsage,
        CheckpointWritten,
        CommandHandled,
        RecoveryAction,
        MemoryPlan,
        GovernorAction,
        Log,
        TrainingPlan,
        Funnel,
        VerdictGiven,
        Promoted,
        EvolutionCycle,
        Finished,
    )
}


class Envelope(msgspec.Struct, frozen=True):
    """One line of the journal. `seq` counts from 0; `t` is seconds since the epoch."""

    v: int
    seq: int
    t: float
    kind: str
    data: msgspec.Raw


class JournalRecord(msgspec.Struct, frozen=True):
    """A decoded line."""

    seq: int
    t: float
    event: Event
