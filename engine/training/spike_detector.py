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
Z = 7.0
LEAST_RISE = 1.4
"""A loss must also be this many times the median: rare but honest samples are hard, not broken."""
SUSPECT_Z, SUSPECT_RISE = 6.0, 1.15
"""From here on the model is asked about the batch it learnt from last: if that got harder, the weights are damaged."""
LEAST_NORM = 8.0
"""A gradient norm must also be this many times the median; norms have heavy tails."""
SMOOTHING = 0.1
"""Weight of a step in the moving average of the loss."""
MARGIN = 0.2
"""How far above its best, as a share of it, the average must stay to be called divergence ..."""
SUSTAINED = 50
"""... for so many steps on end."""
BAD_STEPS = 3
"""Steps in a row without a finite loss after which the weights are not trusted."""
RETURNS = 3
"""Returns to a checkpoint in a row at which the run is stopped."""
EASED = 100
"""Steps after a return whose learning rate is halved; as many without trouble end the row of returns."""


class Decision(StrEnum):
    TAKE = "taken"
    DISCARD = "discarded"
    """Loss or gradient is not a number."""
    SKIP = "skipped"
    """A spike."""
    BACK = "returned"
    """Divergence: back to the last good checkpoint."""
    STOP = "stopped"


class Statistics(msgspec.Struct, kw_only=True):
    """What is remembered of the steps taken; part of the checkpoint, so that a resumed run decides alike."""

    losses: list[float] = msgspec.field(default_factory=list)
    """Of the last `WINDOW` steps taken, in nats per byte."""
    norms: list[float] = msgspec.field(default_factory=list)
    """Logarithms of their gradient norms."""
    level: int = 0
    """Length of the windows they come from: losses of other lengths are not compared."""
    smooth: float | None = None
    """Moving average of the loss."""
    best: float | None = None
    """Its lowest."""
    above: int = 0
    """Steps on end at which it stood clearly above."""
    skipped: int = 0
    """Spikes on end."""
    bad: int = 0
    """Steps on end that were not finite."""
    returns: int = 0
    """Returns in a row."""
    eased: int = 0
    """Steps left at a lowered rate."""
    taken: int | None = None
    """Number of the batch of the last step taken."""


class Watch:
    """Judges steps and keeps the statistics."""

    def __init__(self, statistics: Statistics | None = None) -> None:
        self.statistics = statistics or Statistics()

    def judge(self, loss: float, norm: float, level: int = 0) -> Decision:
        """What to do with a step of this loss and gradient norm; only a step taken enters the statistics."""
        seen = self.statistics
        if not (math.isfinite(loss) and math.isfinite(norm)):
            seen.bad += 1
            return Decision.BACK if seen.bad >= BAD_STEPS else Decision.DISCARD
        seen.bad = 0
        # After so many spikes with sound weights the data is another one for good: a run must come to its end.
        if level != seen.level or seen.skipped >= WINDOW:
            seen.losses, seen.norms, seen.level = [], [], level
            seen.smooth = seen.best = None
            seen.above = seen.skipped = 0
        if self.high_loss(loss) or self._high_norm(norm):
            seen.skipped += 1
            return Decision.SKIP
        seen.skipped = 0
        self._remember(loss, norm)
        if seen.above >= SUSTAINED:
            seen.above = 0
            return Decision.BACK
        if seen.eased > 0:
            seen.eased -= 1
            if seen.eased == 0:
                seen.returns = 0
        return Decision.TAKE

    def high_loss(self, loss: float) -> bool:
        """Whether a loss is a spike; one that is no number is."""
        return self._above(loss, Z, LEAST_RISE)

    def suspects(self, loss: float) -> bool:
        """Whether a loss is high enough to look into."""
        return self._above(loss, SUSPECT_Z, SUSPECT_RISE)

    def _above(self, loss: float, z: float, rise: float) -> bool:
        losses = self.statistics.losses
        if not math.isfinite(loss):
            return True
        if len(losses) < WARMUP:
            return False
        middle = median(losses)
        return loss > rise * middle and loss - middle > z * _deviation(losses, middle)

    def _high_norm(self, norm: float) -> bool:
        norms = self.statistics.norms
        if len(norms) < WARMUP or norm <= 0:
            return False
        middle = median(norms)
        rise = math.log(norm) - middle
        return rise > math.log(LEAST_NORM) and rise > Z * _deviation(norms, middle)

    def _remember(self, loss: float, norm: float) -> None:
        seen = self.statistics
        seen.losses = [*seen.losses[1 - WINDOW :], loss]
        if norm > 0:
            seen.norms = [*seen.norms[1 - WINDOW :], math.log(norm)]
        seen.smooth = loss if seen.smooth is None else seen.smooth + SMOOTHING * (loss - seen.smooth)
        if seen.best is None or seen.smooth < seen.best:
            seen.best = seen.smooth
        # Without a share of the spread, batches of very unlike samples would look like divergence.
        margin = max(0.05, MARGIN * abs(seen.best), _deviation(seen.losses, median(seen.losses)))
        seen.above = seen.above + 1 if seen.smooth > seen.best + margin else 0

    def returned(self, statistics: Statistics) -> Decision:
        """A return to where `statistics` were kept: goes on from them with a lower rate, or STOP after too many."""
        before = self.statistics
        count = before.returns + 1
        before.returns = count
        if count >= RETURNS:
            return Decision.STOP
        for name in Statistics.__struct_fields__:
            setattr(before, name, getattr(statistics, name))
        before.above = before.bad = before.skipped = 0
        before.returns, before.eased = count, EASED
        return Decision.BACK

    @property
    def calm(self) -> bool:
        """Nothing hints at trouble: what is saved now is good to come back to."""
        return self.statistics.above == 0 and self.statistics.bad == 0

    @property
    def factor(self) -> float:
        """By which the learning rate is multiplied."""
        return 0.5 if self.statistics.eased > 0 else 1.0


def _deviation(values: list[float], middle: float) -> float:
    """Standard deviation by the median of the distances, as for a normal distribution."""
    return 1.4826 * median(abs(value - middle) for value in values)
