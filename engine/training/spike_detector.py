"""Rolling statistics of loss and gradient norm, and what stands out of them: pure values, no side effects.

A spike is judged by a robust one-sided z-score (median and MAD), like the step skipping of OLMo-core and PaLM's
skipped batches (arXiv 2204.02311, section 5.1). A spike alone is no fault: `engine.training.recovery` asks
whether the weights, the data or the computation are broken, and learns the batch if none is.
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
"""Above this the last trained batch is evaluated again: if its loss rose, the weights are corrupt."""
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
USUAL_SHARE = 0.9
"""The gradient of a spike is scaled down to the norm that this share of the recent steps stayed below."""
SERIES_FREE = 4
"""Consecutive spikes that are learnt at the full rate; a longer series at a rate that falls with its length."""


class StepDecision(StrEnum):
    TAKE = "taken"
    CLIP = "clipped"
    """A spike without a fault: learnt, its gradient scaled down to the usual norm."""
    DISCARD = "discarded"
    """Loss or gradient is NaN or infinite."""
    SKIP = "skipped"
    """The data or the computation of the batch is broken."""
    ROLLBACK = "returned"
    """Corrupt weights or divergence: roll back to the last good checkpoint."""
    STOP = "stopped"


class SpikeStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the steps so far; saved in the checkpoint, so that a resumed run decides identically."""

    losses: list[float] = msgspec.field(default_factory=list)
    """Losses of the last `WINDOW` applied steps, in nats per byte."""
    log_norms: list[float] = msgspec.field(default_factory=list, name="norms")
    """Logarithms of their gradient norms, before any scaling."""
    window_length: int = msgspec.field(default=0, name="level")
    """Window length of those steps: losses of other lengths are not comparable."""
    loss_ema: float | None = msgspec.field(default=None, name="smooth")
    """Exponential moving average of the loss, spikes excluded."""
    best_ema: float | None = msgspec.field(default=None, name="best")
    """Its minimum."""
    steps_above: int = msgspec.field(default=0, name="above")
    """Consecutive steps clearly above the minimum."""
    consecutive_spikes: int = msgspec.field(default=0, name="skipped")
    """Consecutive spikes, learnt or skipped."""
    consecutive_nonfinite: int = msgspec.field(default=0, name="bad")
    """Consecutive non-finite steps."""
    rollbacks: int = msgspec.field(default=0, name="returns")
    """Consecutive rollbacks."""
    cooldown_steps: int = msgspec.field(default=0, name="eased")
    """Steps left at a reduced learning rate."""
    last_batch: int | None = msgspec.field(default=None, name="taken")
    """Number of the batch of the last applied step."""
    last_loss: float | None = msgspec.field(default=None, name="taken_loss")
    """Its loss when it was learnt."""
    hardest_spike: float | None = msgspec.field(default=None, name="hardest")
    """The highest loss of a spike that was learnt."""

    def is_suspicious(self, loss: float) -> bool:
        """Whether a loss is high enough to check the weights."""
        return self._above(loss, SUSPECT_Z, SUSPECT_RATIO, self.usual_loss)

    def is_spike(self, loss: float, norm: float) -> bool:
        """Whether a loss, or a gradient norm, is far above its recent distribution."""
        return self._above(loss, SPIKE_Z, SPIKE_RATIO, self.usual_loss) or self._is_high(norm)

    def is_news(self, loss: float) -> bool:
        """Whether a spike is harder than every one that was learnt."""
        return self.hardest_spike is None or loss > self.hardest_spike

    def has_risen(self, loss: float) -> bool:
        """Whether the last trained batch has clearly lost what it had: `loss` is its loss with the current
        weights."""
        return self._above(loss, SUSPECT_Z, SUSPECT_RATIO, max(self.usual_loss, self.last_loss or 0.0))

    @property
    def usual_loss(self) -> float:
        """Median of the recent losses; 0 without any."""
        return median(self.losses) if self.losses else 0.0

    @property
    def norm_limit(self) -> float | None:
        """A gradient norm that `USUAL_SHARE` of the recent steps stayed below; None before the end of the
        warm-up."""
        if len(self.log_norms) < WARMUP:
            return None
        return math.exp(sorted(self.log_norms)[round(USUAL_SHARE * (len(self.log_norms) - 1))])

    @property
    def is_calm(self) -> bool:
        """No sign of trouble: a checkpoint saved now is a good rollback target."""
        return self.steps_above == 0 and self.consecutive_nonfinite == 0

    @property
    def lr_multiplier(self) -> float:
        """Factor on the learning rate of the next step."""
        return 0.5 if self.cooldown_steps > 0 else 1.0

    @property
    def series_share(self) -> float:
        """Factor on the learning rate of a spike in a series of them.

        Rare samples come one by one. A series is another text, which is learnt more slowly until it is usual,
        or damaged text that shows no fault, which then does little harm.
        """
        return 1 / max(1, self.consecutive_spikes - SERIES_FREE)

    def for_windows_of(self, length: int) -> SpikeStatistics:
        """These statistics, or new ones when they cannot be compared with windows of `length`.

        After a series of `WINDOW` spikes the data has changed for good: the run must make progress.
        """
        if length == self.window_length and self.consecutive_spikes < WINDOW:
            return self
        return msgspec.structs.replace(
            self,
            losses=[],
            log_norms=[],
            window_length=length,
            loss_ema=None,
            best_ema=None,
            steps_above=0,
            consecutive_spikes=0,
            hardest_spike=None,
        )

    def after_nonfinite(self) -> SpikeStatistics:
        """After a step whose loss or gradient was NaN or infinite."""
        return msgspec.structs.replace(self, consecutive_nonfinite=self.consecutive_nonfinite + 1)

    def after_skip(self) -> SpikeStatistics:
        """After a finite step that is not applied."""
        return msgspec.structs.replace(
            self, consecutive_nonfinite=0, consecutive_spikes=self.consecutive_spikes + 1
        )

    def after_step(self, loss: float, norm: float, batch: int, *, spike: bool) -> SpikeStatistics:
        """After an applied step on the batch of this number."""
        cooldown = max(0, self.cooldown_steps - 1)
        after = msgspec.structs.replace(
            self,
            losses=[*self.losses[1 - WINDOW :], loss],
            log_norms=[*self.log_norms[1 - WINDOW :], math.log(norm)] if norm > 0 else self.log_norms,
            consecutive_nonfinite=0,
            consecutive_spikes=self.consecutive_spikes + 1 if spike else 0,
            hardest_spike=max(loss, self.hardest_spike or 0.0) if spike else self.hardest_spike,
            cooldown_steps=cooldown,
            rollbacks=0 if cooldown == 0 < self.cooldown_steps else self.rollbacks,
            last_batch=batch,
            last_loss=loss,
        )
        return after if spike else after._with_average(loss)

    def _with_average(self, loss: float) -> SpikeStatistics:
        average = loss if self.loss_ema is None else self.loss_ema + EMA_WEIGHT * (loss - self.loss_ema)
        best = average if self.best_ema is None else min(average, self.best_ema)
        # Without a share of the spread, batches of very different samples would look like divergence.
        margin = max(0.05, DIVERGENCE_MARGIN * abs(best), self._deviation())
        return msgspec.structs.replace(
            self,
            loss_ema=average,
            best_ema=best,
            steps_above=self.steps_above + 1 if average > best + margin else 0,
        )

    def after_rollback(self, restored: SpikeStatistics) -> SpikeStatistics:
        """After a rollback to a state with the statistics `restored`: theirs, at a reduced learning rate."""
        return msgspec.structs.replace(
            restored,
            steps_above=0,
            consecutive_nonfinite=0,
            consecutive_spikes=0,
            rollbacks=self.rollbacks + 1,
            cooldown_steps=LR_COOLDOWN_STEPS,
        )

    def _above(self, loss: float, z: float, ratio: float, usual: float) -> bool:
        if not math.isfinite(loss):
            return True
        if len(self.losses) < WARMUP:
            return False
        return loss > ratio * usual and loss - usual > z * self._deviation()

    def _is_high(self, norm: float) -> bool:
        if len(self.log_norms) < WARMUP or norm <= 0:
            return False
        middle = median(self.log_norms)
        rise = math.log(norm) - middle
        return rise > math.log(NORM_RATIO) and rise > SPIKE_Z * _deviation(self.log_norms)

    def _deviation(self) -> float:
        return _deviation(self.losses)


def _deviation(values: list[float]) -> float:
    """Standard deviation estimated from the median absolute deviation of a normal distribution."""
    middle = median(values)
    return 1.4826 * median(abs(value - middle) for value in values)
