"""What the loss and the gradient of each step say about the run: pure decisions on rolling statistics.

A spike is judged by a robust z (median and MAD), one-sided, with outliers kept out of the statistics, like the
step skipping of OLMo-core and PaLM's skipped batches (arXiv 2204.02311, section 5.1).
"""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import median

import msgspec

WINDOW = 128
"""Steps that the statistics look back on."""
WARMUP = 20
"""Steps before anything is called a spike."""
SPIKE_Z = 7.0
SPIKE_RATIO = 1.4
"""A loss must also be this many times the median: rare but honest samples are hard, not broken."""
SUSPECT_Z, SUSPECT_RATIO = 6.0, 1.15
"""From here on the model is asked about the batch it learnt from last: if that got harder, the weights are damaged."""
NORM_RATIO = 8.0
"""A gradient norm must also be this many times the median; norms have heavy tails."""
EMA_WEIGHT = 0.1
"""Weight of a step in the moving average of the loss."""
DIVERGENCE_MARGIN = 0.2
"""How far above its best, as a share of it, the average must stay to be called divergence ..."""
DIVERGENCE_STEPS = 50
"""... for so many steps on end."""
MAX_NONFINITE_STEPS = 3
"""Steps in a row without a finite loss after which the weights are not trusted."""
MAX_ROLLBACKS = 3
"""Returns to a checkpoint in a row at which the run is stopped."""
LR_COOLDOWN_STEPS = 100
"""Steps after a return whose learning rate is halved; as many without trouble end the row of returns."""


class StepDecision(StrEnum):
    TAKE = "taken"
    DISCARD = "discarded"
    """Loss or gradient is not a number."""
    SKIP = "skipped"
    """A spike."""
    ROLLBACK = "returned"
    """Divergence: back to the last good checkpoint."""
    STOP = "stopped"


class SpikeStatistics(msgspec.Struct, kw_only=True):
    """What is remembered of the steps taken; part of the checkpoint, so that a resumed run decides alike."""

    losses: list[float] = msgspec.field(default_factory=list)
    """Of the last `WINDOW` steps taken, in nats per byte."""
    log_norms: list[float] = msgspec.field(default_factory=list, name="norms")
    """Logarithms of their gradient norms."""
    window_length: int = msgspec.field(default=0, name="level")
    """Length of the windows they come from: losses of other lengths are not compared."""
    loss_ema: float | None = msgspec.field(default=None, name="smooth")
    """Moving average of the loss."""
    best_ema: float | None = msgspec.field(default=None, name="best")
    """Its lowest."""
    steps_above: int = msgspec.field(default=0, name="above")
    """Steps on end at which it stood clearly above."""
    consecutive_spikes: int = msgspec.field(default=0, name="skipped")
    """Spikes on end."""
    consecutive_nonfinite: int = msgspec.field(default=0, name="bad")
    """Steps on end that were not finite."""
    rollbacks: int = msgspec.field(default=0, name="returns")
    """Returns in a row."""
    cooldown_steps: int = msgspec.field(default=0, name="eased")
    """Steps left at a lowered rate."""
    last_batch: int | None = msgspec.field(default=None, name="taken")
    """Number of the batch of the last step taken."""


class SpikeDetector:
    """Judges steps and keeps the statistics."""

    def __init__(self, statistics: SpikeStatistics | None = None) -> None:
        self.statistics = statistics or SpikeStatistics()

    def decide(self, loss: float, norm: float, level: int = 0) -> StepDecision:
        """What to do with a step of this loss and gradient norm; only a step taken enters the statistics."""
        stats = self.statistics
        if not (math.isfinite(loss) and math.isfinite(norm)):
            stats.consecutive_nonfinite += 1
            return (
                StepDecision.ROLLBACK
                if stats.consecutive_nonfinite >= MAX_NONFINITE_STEPS
                else StepDecision.DISCARD
            )
        stats.consecutive_nonfinite = 0
        # After so many spikes with sound weights the data is another one for good: a run must come to its end.
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
        """Whether a loss is a spike; one that is no number is."""
        return self._above(loss, SPIKE_Z, SPIKE_RATIO)

    def is_suspicious(self, loss: float) -> bool:
        """Whether a loss is high enough to look into."""
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
        # Without a share of the spread, batches of very unlike samples would look like divergence.
        margin = max(
            0.05, DIVERGENCE_MARGIN * abs(stats.best_ema), _deviation(stats.losses, median(stats.losses))
        )
        stats.steps_above = stats.steps_above + 1 if stats.loss_ema > stats.best_ema + margin else 0

    def rolled_back(self, statistics: SpikeStatistics) -> StepDecision:
        """A return to where `statistics` were kept: goes on from them with a lower rate, or STOP after too many."""
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
        """Nothing hints at trouble: what is saved now is good to come back to."""
        return self.statistics.steps_above == 0 and self.statistics.consecutive_nonfinite == 0

    @property
    def lr_multiplier(self) -> float:
        """By which the learning rate is multiplied."""
        return 0.5 if self.statistics.cooldown_steps > 0 else 1.0


def _deviation(values: list[float], middle: float) -> float:
    """Standard deviation by the median of the distances, as for a normal distribution."""
    return 1.4826 * median(abs(value - middle) for value in values)
