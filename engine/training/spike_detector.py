"""Detects loss spikes and divergence: pure decisions on rolling statistics of loss and gradient norm.

A spike is judged by a robust one-sided z-score (median and MAD) with outliers excluded from the statistics,
like the step skipping of OLMo-core and PaLM's skipped batches (arXiv 2204.02311, section 5.1).
"""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import median

import msgspec

WINDOW = 128
"""Steps in the rolling statistics."""
WARMUP = 20
"""Steps before the first spike can be detected."""
SPIKE_Z = 7.0
SPIKE_RATIO = 1.4
"""A spike must also exceed this multiple of the median: rare but valid samples are hard."""
SUSPECT_Z, SUSPECT_RATIO = 6.0, 1.15
"""Above this the last trained batch is re-evaluated: if its loss rose, the weights are corrupt."""
NORM_RATIO = 8.0
"""A spike of the gradient norm must also exceed this multiple of the median; norms have heavy tails."""
EMA_WEIGHT = 0.1
"""Weight of a step in the moving average of the loss."""
DIVERGENCE_MARGIN = 0.2
"""Divergence: the moving average is above its best by this share of it ..."""
DIVERGENCE_STEPS = 50
"""... for this many consecutive steps."""
MAX_NONFINITE_STEPS = 3
"""Consecutive steps with a non-finite loss after which the weights are not trusted."""
MAX_ROLLBACKS = 3
"""Consecutive rollbacks at which the run is stopped."""
LR_COOLDOWN_STEPS = 100
"""Steps at half the learning rate after a rollback; without trouble they also end the series of rollbacks."""


class StepDecision(StrEnum):
    TAKE = "taken"
    DISCARD = "discarded"
    """Loss or gradient is NaN or infinite."""
    SKIP = "skipped"
    """A spike."""
    ROLLBACK = "returned"
    """Divergence: roll back to the last good checkpoint."""
    STOP = "stopped"


class SpikeStatistics(msgspec.Struct, kw_only=True):
    """Statistics of the steps applied; saved in the checkpoint, so that a resumed run decides identically."""

    losses: list[float] = msgspec.field(default_factory=list)
    """Losses of the last `WINDOW` steps, in nats per byte."""
    log_norms: list[float] = msgspec.field(default_factory=list, name="norms")
    """Logarithms of their gradient norms."""
    window_length: int = msgspec.field(default=0, name="level")
    """Window length of those steps: losses of other lengths are not comparable."""
    loss_ema: float | None = msgspec.field(default=None, name="smooth")
    """Exponential moving average of the loss."""
    best_ema: float | None = msgspec.field(default=None, name="best")
    """Its minimum."""
    steps_above: int = msgspec.field(default=0, name="above")
    """Consecutive steps clearly above the minimum."""
    consecutive_spikes: int = msgspec.field(default=0, name="skipped")
    """Consecutive spikes."""
    consecutive_nonfinite: int = msgspec.field(default=0, name="bad")
    """Consecutive non-finite steps."""
    rollbacks: int = msgspec.field(default=0, name="returns")
    """Consecutive rollbacks."""
    cooldown_steps: int = msgspec.field(default=0, name="eased")
    """Steps left at a reduced learning rate."""
    last_batch: int | None = msgspec.field(default=None, name="taken")
    """Number of the batch of the last applied step."""


class SpikeDetector:
    """Decides about steps and updates the statistics."""

    def __init__(self, statistics: SpikeStatistics | None = None) -> None:
        self.statistics = statistics or SpikeStatistics()

    def decide(self, loss: float, norm: float, level: int = 0) -> StepDecision:
        """The decision on a step with this loss and gradient norm; only applied steps enter the statistics."""
        stats = self.statistics
        if not (math.isfinite(loss) and math.isfinite(norm)):
            stats.consecutive_nonfinite += 1
            return (
                StepDecision.ROLLBACK
                if stats.consecutive_nonfinite >= MAX_NONFINITE_STEPS
                else StepDecision.DISCARD
            )
        stats.consecutive_nonfinite = 0
        # After this many spikes with intact weights the data has changed for good: the run must make
        # progress.
        if level != stats.window_length or stats.consecutive_spikes >= WINDOW:
            stats.losses, stats.log_norms, stats.window_length = [], [], level
            stats.loss_ema = stats.best_ema = None
            stats.steps_above = stats.consecutive_spikes = 0
        if self.is_spike(loss) or self._high_norm(norm):
            stats.consecutive_spikes += 1
            return StepDecision.SKIP
        stats.consecutive_spikes = 0
        self._remember(loss, norm)
        if stats.steps_above >= DIVERGENCE_STEPS:
            stats.steps_above = 0
            return StepDecision.ROLLBACK
        if stats.cooldown_steps > 0:
            stats.cooldown_steps -= 1
            if stats.cooldown_steps == 0:
                stats.rollbacks = 0
        return StepDecision.TAKE

    def is_spike(self, loss: float) -> bool:
        """Whether a loss is a spike; a non-finite loss is."""
        return self._above(loss, SPIKE_Z, SPIKE_RATIO)

    def is_suspicious(self, loss: float) -> bool:
        """Whether a loss is high enough to check the weights."""
        return self._above(loss, SUSPECT_Z, SUSPECT_RATIO)

    def _above(self, loss: float, z: float, rise: float) -> bool:
        losses = self.statistics.losses
        if not math.isfinite(loss):
            return True
        if len(losses) < WARMUP:
            return False
        middle = median(losses)
        return loss > rise * middle and loss - middle > z * _deviation(losses, middle)

    def _high_norm(self, norm: float) -> bool:
        norms = self.statistics.log_norms
        if len(norms) < WARMUP or norm <= 0:
            return False
        middle = median(norms)
        rise = math.log(norm) - middle
        return rise > math.log(NORM_RATIO) and rise > SPIKE_Z * _deviation(norms, middle)

    def _remember(self, loss: float, norm: float) -> None:
        stats = self.statistics
        stats.losses = [*stats.losses[1 - WINDOW :], loss]
        if norm > 0:
            stats.log_norms = [*stats.log_norms[1 - WINDOW :], math.log(norm)]
        stats.loss_ema = (
            loss if stats.loss_ema is None else stats.loss_ema + EMA_WEIGHT * (loss - stats.loss_ema)
        )
        if stats.best_ema is None or stats.loss_ema < stats.best_ema:
            stats.best_ema = stats.loss_ema
        # Without a share of the spread, batches of very different samples would look like divergence.
        margin = max(
            0.05, DIVERGENCE_MARGIN * abs(stats.best_ema), _deviation(stats.losses, median(stats.losses))
        )
        stats.steps_above = stats.steps_above + 1 if stats.loss_ema > stats.best_ema + margin else 0

    def rolled_back(self, statistics: SpikeStatistics) -> StepDecision:
        """Continues from the `statistics` of the restored state at a reduced learning rate; STOP after too
        many rollbacks."""
        before = self.statistics
        count = before.rollbacks + 1
        before.rollbacks = count
        if count >= MAX_ROLLBACKS:
            return StepDecision.STOP
        for name in SpikeStatistics.__struct_fields__:
            setattr(before, name, getattr(statistics, name))
        before.steps_above = before.consecutive_nonfinite = before.consecutive_spikes = 0
        before.rollbacks, before.cooldown_steps = count, LR_COOLDOWN_STEPS
        return StepDecision.ROLLBACK

    @property
    def is_calm(self) -> bool:
        """No sign of trouble: a checkpoint saved now is a good rollback target."""
        return self.statistics.steps_above == 0 and self.statistics.consecutive_nonfinite == 0

    @property
    def lr_multiplier(self) -> float:
        """Factor on the learning rate."""
        return 0.5 if self.statistics.cooldown_steps > 0 else 1.0


def _deviation(values: list[float], middle: float) -> float:
    """Standard deviation estimated from the median absolute deviation of a normal distribution."""
    return 1.4826 * median(abs(value - middle) for value in values)
