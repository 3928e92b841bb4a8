"""What the rules read: the machine and each run at one moment. Plain data, made in `collect.py`, compared in tests."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from engine.runs.events import RunStatus


class AlertLevel(StrEnum):
    """How much an alert matters, from the most to the least."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the most serious."""
        return list(AlertLevel).index(self)


class MachineReading(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at `t`. Sizes in bytes, shares in percent; None for what this machine does not tell."""

    t: float
    """Seconds since the epoch."""
    cpu_percent: float | None = None
    """Busy share of all cores together."""
    cpu_others_percent: float | None = None
    """Of it, what the runs of this workspace do not use."""
    memory_percent: float | None = None
    memory_available: int | None = None
    swap_grown: int | None = None
    """Growth of the swap in use over the last ten minutes."""
    oom_kills: int | None = None
    """Processes that the kernel killed for memory in the last ten minutes."""
    disk_free: int | None = None
    disk_full_in_s: float | None = None
    """Seconds until the disk is full at the present rate; None while its free space does not shrink."""
    temperature_c: float | None = None
    temperature_limit_c: float = 95.0
    battery_percent: float | None = None
    """Only while the machine runs on battery."""
    ollama: bool | None = None
    """Whether Ollama answers; None when it has not been seen to."""
    ollama_models: tuple[str, ...] = ()
    """Loaded in Ollama."""
    busiest: str = ""
    """The process of others that uses the most processor time, as `name (pid)`."""


class RunReading(msgspec.Struct, frozen=True, kw_only=True):
    """One run at the time of the `MachineReading` beside it."""

    run_id: str
    kind: str = ""
    label: str = ""
    alive: bool = True
    """A process holds its lock."""
    status: RunStatus = RunStatus.RUNNING
    reason: str = ""
    """Why it is paused or queued."""
    status_at: float | None = None
    updated_at: float | None = None
    """Time of the last record of the journal."""
    heartbeat_s: float = 2.0
    """Seconds between the records of memory, which the engine writes also while it computes."""
    awake_since: float = 0.0
    """When the machine was last woken, or the watcher began: silence before is nobody's fault."""
    stage: str = ""
    phase: str = ""
    step: int = 0
    max_steps: int = 0
    progressed_at: float | None = None
    """When its work last advanced: a step, an evaluation, a checkpoint, a row of an import."""
    usual_step_s: float | None = None
    tokens_per_s: float | None = None
    """Median of the last half minute."""
    usual_tokens_per_s: float | None = None
    """What it makes in this phase when nothing disturbs it."""
    slow_since: float | None = None
    """When the speed fell below what is usual."""
    loss: float | None = None
    best_loss: float | None = None
    """Both are medians over neighbouring steps."""
    not_finite: int = 0
    """Steps in a row whose loss or gradient was NaN or infinite."""
    divergence: str = ""
    """"returned" to a checkpoint or "stopped" by the last recovery; "" when training has gone well since."""
    rollbacks: int = 0
    """Returns to an earlier checkpoint in the last hour."""
    checkpoint_error: str = ""
    """Why the last checkpoint could not be written; "" once one was written since."""
    used_mb: float | None = None
    budget_mb: float | None = None
    finished_at: float | None = None
    error: str = ""
    hint: str = ""
    fault: str = ""
    """Kind of the error (`faults.Fault`)."""
    decision: str = ""
    """Of the verdict: "promote", "keep" and the like; "" before there is one."""
    verdict_at: float | None = None
    verdict_text: str = ""
    promoted: str = ""
    """The model that was promoted."""
    log_tail: tuple[str, ...] = ()
    """Last lines of its log, secrets removed."""
    resumed: bool = False
    """A later run of the workspace continues its work or has done it again."""

    @property
    def over(self) -> bool:
        return self.status.over


class ObservationState(StrEnum):
    """What a rule makes of a reading."""

    BAD = "bad"
    GOOD = "good"
    MOOT = "moot"
    """It cannot be asked any more, as of the heartbeat of a run that is over."""
    HAPPENED = "happened"
    """An event that nothing ends."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """The finding of one rule. A rule that cannot tell, for want of a reading, makes none."""

    rule: str
    subject: str = ""
    """Id of the run; "" for the machine."""
    state: ObservationState
    level: AlertLevel | None = None
    """None: that of the rule."""
    since: float | None = None
    """When it began, where that is known better than by the first reading."""
    figures: dict[str, float | str] = {}
    """By name, for the text of the message."""

    @property
    def fingerprint(self) -> str:
        """What makes two observations the same alert."""
        return f"{self.rule}:{self.subject}" if self.subject else self.rule
