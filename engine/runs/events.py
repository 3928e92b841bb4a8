"""The events of a run, written as records to `events.jsonl`. Field names are the wire format.

A line is an envelope `{v, seq, t, kind, data}`; `kind` selects the Struct of `data` from `EVENTS`. Readers
count and skip unknown records. msgspec writes NaN and infinities as null, so every figure that may be one is
`float | None`, and `finite` is False where null stands for such a value.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

VERSION = 1


class RunStatus(StrEnum):
    """Status of a run. DEAD is never written: a reader derives it from a free lock."""

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
    """Base of all events; `KIND` is the kind in the envelope."""

    KIND: ClassVar[str]


class Started(Event, frozen=True, kw_only=True):
    """First event of each engine process of the run; a resumed run has several."""

    KIND: ClassVar[str] = "started"
    pid: int
    program: str
    """Version of h2q-tui."""
    host: str = ""
    scope: str = ""
    """How the process is kept alive: "systemd scope", "caffeinate", or "" for a session of its own."""


class StatusChanged(Event, frozen=True, kw_only=True):
    """The run is queued, paused or running again."""

    KIND: ClassVar[str] = "status"
    status: RunStatus
    reason: str = ""


class StageChanged(Event, frozen=True, kw_only=True):
    """A stage starts or ends, e.g. import, scratch, corpus, native, validate, promote."""

    KIND: ClassVar[str] = "stage"
    name: str
    state: str
    """"started", "done", "skipped" or "failed"."""
    index: int = 0
    total: int = 0
    """`index` of `total`, from 1; 0 when unknown."""
    detail: str = ""
    """One sentence for the user."""


class WorkPlan(Event, frozen=True, kw_only=True):
    """The expected time of every stage of the run; a later one replaces it."""

    KIND: ClassVar[str] = "work"
    seconds: dict[str, float]
    """Of each stage by its name, in their order."""
    measured: bool = False
    """From an earlier run of this workspace; otherwise an estimate from the amount of data."""


class Progress(Event, frozen=True, kw_only=True):
    """Progress of a stage."""

    KIND: ClassVar[str] = "progress"
    stage: str
    done: float
    total: float | None = None
    unit: str = ""
    eta_s: float | None = None
    """Seconds to the end of the run if known, else of the stage."""


class Step(Event, frozen=True, kw_only=True):
    """One optimizer step; steps between two records may be omitted, except the last."""

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
    """Bytes seen since the start of the phase."""
    tokens_per_s: float
    waiting: float = 0.0
    """Share of wall time spent waiting for data over the last seconds, 0 to 1."""
    waited_s: float = 0.0
    """Seconds that this process waited for data in the phase, out of `wall_s`."""
    wall_s: float = 0.0
    draws: int = 0
    """Batches read since the start of the phase."""
    eta_s: float | None = None


class Evaluated(Event, frozen=True, kw_only=True):
    """Loss on held-out text."""

    KIND: ClassVar[str] = "evaluated"
    phase: str
    step: int
    name: str
    loss: float | None
    finite: bool = True


class ModelSample(Event, frozen=True, kw_only=True):
    """What the model in training answers to a prompt. Text of the person: it is not logged, and erased with its source."""

    KIND: ClassVar[str] = "sample"
    phase: str
    step: int
    prompt: str
    text: str
    """The completion, at most a few hundred characters; "" when the model ends its answer immediately."""
    own: bool = False
    """The prompt is from the person's own texts, held out from the training."""
    seconds: float = 0.0


class EpochDone(Event, frozen=True, kw_only=True):
    """An epoch ended."""

    KIND: ClassVar[str] = "epoch"
    phase: str
    epoch: int
    epochs: int
    train_loss: float | None
    eval_loss: float | None = None
    seconds: float
    lr: float


class RankHealth(msgspec.Struct, frozen=True):
    """One process of a training with several."""

    rank: int
    """0 is the run's own process."""
    pid: int
    host: str
    tokens_per_s: float
    """While it computes, padding included."""
    used_mb: float
    """Its resident memory."""
    seen: float
    """When it last reported, in seconds since the epoch."""


class RanksReported(Event, frozen=True, kw_only=True):
    """The processes of a training with several, every few seconds."""

    KIND: ClassVar[str] = "ranks"
    phase: str
    step: int
    ranks: list[RankHealth]


class RankLost(Event, frozen=True, kw_only=True):
    """A process of a training with several has ended or does not answer; the step is computed again with new ones."""

    KIND: ClassVar[str] = "rank lost"
    phase: str
    step: int
    """The step that is computed again."""
    rank: int | None
    """None: unknown."""
    pid: int | None = None
    reason: str
    restarts: int
    """Losses of this phase so far; more than `limit` end the run."""
    limit: int


class MemoryUsage(Event, frozen=True, kw_only=True):
    """Memory in use, and the budget."""

    KIND: ClassVar[str] = "memory"
    used_mb: float
    """Resident memory of the run's process tree."""
    peak_mb: float
    budget_mb: float
    reason: str = ""
    """Bound that set the budget: "max_memory_gb", "cgroup" or "available"."""


class CheckpointWritten(Event, frozen=True, kw_only=True):
    """A checkpoint is on disk and verified."""

    KIND: ClassVar[str] = "checkpoint"
    phase: str
    step: int
    path: str
    seconds: float
    bytes: int
    loss: float | None = None


class CheckpointFailed(Event, frozen=True, kw_only=True):
    """A checkpoint could not be written; training continues and tries again."""

    KIND: ClassVar[str] = "checkpoint failed"
    phase: str
    step: int
    reason: str


class CommandHandled(Event, frozen=True, kw_only=True):
    """A command from the control socket; explains changes of the curve."""

    KIND: ClassVar[str] = "command"
    name: str
    value: str = ""
    accepted: bool
    reply: str = ""


class RecoveryAction(Event, frozen=True, kw_only=True):
    """A training step that stands out, and the action taken (`engine.training.recovery`)."""

    KIND: ClassVar[str] = "recovery"
    phase: str
    step: int
    cause: str
    """"not finite", "spike" (which another computation does not confirm), "data" (it is broken), "unlike" (nothing
    is broken, but the batch is unlike the rest), "weights" (they are broken, the data is not), "divergence" or
    "file"."""
    action: str
    """"discarded", "skipped", "clipped" (learnt, with its gradient scaled down), "returned", "stopped" or
    "retried"."""
    loss: float | None = None
    grad_norm: float | None = None
    back_to: int | None = None
    """Step of the checkpoint that training rolled back to; null without a rollback."""
    samples: list[str] = []
    """Content of the batch: ids of conversations, or `file:byte`."""
    detail: str = ""


class MemoryPlan(Event, frozen=True, kw_only=True):
    """Before the first step: estimated and measured memory of a micro-batch, and the largest that fits."""

    KIND: ClassVar[str] = "memory plan"
    phase: str
    program_mb: float
    """Memory in use before the first step."""
    estimate_mb: float | None = None
    """Estimate for a micro-batch of `windows`, program included, from the model's shape; null when unknown."""
    measured: list[tuple[int, float]]
    """Windows of a micro-batch and its peak memory in MB, program included."""
    context: int
    """Length of a window in bytes. 0 for an adapter: `windows` and the counts in `measured` are tokens."""
    windows: int
    """Windows of a micro-batch from here on."""
    recompute: bool = False
    """Activation checkpointing is on."""
    room_mb: float
    """Memory available to a micro-batch: the budget less its buffer, the optimizer and checkpoints."""
    budget_mb: float
    reason: str = ""


class GovernorAction(Event, frozen=True, kw_only=True):
    """An action of the resource governor and its cause (`engine.training.governor`)."""

    KIND: ClassVar[str] = "governor"
    phase: str
    step: int
    cause: str
    """"budget" (measured), "allocation" (out of memory), "set" (by a command), "cgroup" (its limit changed),
    "pressure" (of other programs, Linux), "level" (the same, macOS), "battery" or "temperature"."""
    action: str
    """"caches", "smaller" (micro-batches), "recompute" (activation checkpointing), "stop", "limit" (another
    budget), "pause" or "resume"."""
    value: float | None = None
    """System reading: percent of time stalled, pressure level, battery percentage or degrees."""
    bound: float | None = None
    """The bound that `value` crossed."""
    used_mb: float
    """Peak since the last step: process tree and device."""
    budget_mb: float
    buffer_mb: float
    """Part of the budget to keep free."""
    pass_tokens: int
    """Tokens of a micro-batch from here on."""


class Log(Event, frozen=True, kw_only=True):
    """A line of the log."""

    KIND: ClassVar[str] = "log"
    level: str
    """"info", "warning", "error", or "detail": what the program measured for itself, of no use to most people."""
    text: str


class TrainingPlan(Event, frozen=True, kw_only=True):
    """Before training: the training and test set, and the smallest detectable gain."""

    KIND: ClassVar[str] = "plan"
    text: str
    pairs: int
    train_conversations: int
    test_conversations: int
    test_clusters: int
    verdict_possible: bool
    visible_gain: float | None = None
    """Smallest relative NLL gain detectable with 80 % power; None when unknown."""


class Funnel(Event, frozen=True, kw_only=True):
    """Counts of a corpus build: conversations collected, and dropped at each stage.

    `accepted` = `train` + `test` + `waiting` + `border` + `unassigned`.
    """

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
    waiting: int = 0
    """For the next test set."""
    border: int = 0
    """Near duplicates across the border of training and test: in neither."""
    unassigned: int = 0
    """Accepted since the last build; the next one assigns them."""


class VerdictGiven(Event, frozen=True, kw_only=True):
    """A verdict: the raw JSON of `engine.validation.report`, and a sentence for the user."""

    KIND: ClassVar[str] = "verdict"
    base: str
    new: str
    decision: str
    sentence: str
    verdict: msgspec.Raw


class Promoted(Event, frozen=True, kw_only=True):
    """A model was promoted to be the model in use."""

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
    """"began", "kept" (the candidate is promoted), "dropped" (it is removed) or "collapsed"."""
    champion: str
    """The model in use when the cycle started."""
    candidate: str = ""
    before: float | None = None
    """Perplexity per byte of held-out answers under the model in use."""
    after: float | None = None
    """The same under the candidate; lower is better."""
    p_value: float | None = None
    alpha: float | None = None
    """Significance level of this interim look at the test window."""
    look: int = 0
    reason: str = ""
    """One sentence; "" while the cycle runs."""


class Finished(Event, frozen=True, kw_only=True):
    """Last event of a run that ended by itself."""

    KIND: ClassVar[str] = "finished"
    status: RunStatus
    exit_code: int
    error: str = ""
    """The error message with its hint."""
    hint: str = ""
    """The hint that stands at the end of `error`."""
    report: str = ""
    """Path of the report file."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    """Output of the command with `--json`."""


EVENTS: dict[str, type[Event]] = {
    type_.KIND: type_
    for type_ in (
        Started,
        StatusChanged,
        StageChanged,
        WorkPlan,
        Progress,
        Step,
        Evaluated,
        ModelSample,
        EpochDone,
        RanksReported,
        RankLost,
        MemoryUsage,
        CheckpointWritten,
        CheckpointFailed,
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
