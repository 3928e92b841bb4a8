"""Central differential privacy: what is said about a round whose mean of clipped updates carries Gaussian noise.

Adjacent rounds differ in one person's update, present or zero; the number of adapters is public. With every update at
norm C at most and equal weights, one person changes the mean of n by C / n, and noise of standard deviation
`multiplier * C / n` in every entry is a Gaussian mechanism. Everybody takes part in every round: nothing is gained by
sampling, and no such gain is claimed.

The accountant is that of Renyi differential privacy: a round costs `order / (2 multiplier^2)` at each order (Mironov,
arXiv 1702.07476), rounds add up, and the sum becomes (epsilon, delta) by Canonne, Kamath and Steinke (arXiv 2004.00010,
proposition 12). Noise comes from a generator that is seeded by the operating system, in floating point: that is enough
against a curious reader of the published adapters, not against one who attacks the generator (Mironov 2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from engine.core.errors import UsageProblem
from engine.core.i18n import _, n_

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class NoiseOptions:
    """Central differential privacy of a round."""

    multiplier: float
    """Standard deviation of the noise per unit of what one adapter can change in the mean."""
    norm: float
    """Every update is scaled down to this norm; chosen without looking at the updates."""
    delta: float = 1e-5
    rounds_before: tuple[float, ...] = ()
    """The multipliers of earlier rounds with the same people."""
    seed: int | None = None
    """Of tests; None: from the operating system, as privacy requires."""


class PrivacyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What differential privacy promises after this round."""

    epsilon: float
    delta: float
    rounds: int
    noise_multiplier: float
    norm: float
    noise_to_norm: float
    """Expected norm of the noise, divided by `norm`, the largest that the mean can have."""
    sentence: str


def gaussian_epsilon(multipliers: Sequence[float], delta: float) -> float:
    """Epsilon at `delta` after rounds with these noise multipliers; infinite for one without noise.

    The order that says most is searched without a grid: the bound has one minimum above 1. Raises UsageProblem.
    """
    if not 0 < delta < 1:
        raise UsageProblem(_("delta must be between 0 and 1, not {delta:g}").format(delta=delta))
    if not all(multiplier >= 0 for multiplier in multipliers):
        raise UsageProblem(_("a noise multiplier cannot be negative"))
    if not all(multipliers):
        return math.inf
    cost = sum(1 / (2 * multiplier**2) for multiplier in multipliers)
    if cost == 0:
        return 0.0

    def bound(log_excess: float) -> float:
        order = 1 + math.exp(log_excess)
        rest = (math.log(delta) + math.log(order)) / (order - 1)
        return order * cost + math.log1p(-1 / order) - rest

    low, high = math.log(1e-6), math.log(1e9)
    while high - low > 1e-10:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if bound(left) < bound(right):
            high = right
        else:
            low = left
    return max(0.0, bound((low + high) / 2))


def privacy_report(options: NoiseOptions, entries: int, count: int) -> PrivacyReport:
    """What may be said after this round of `count` adapters. `entries`: values that noise was added to.

    Raises UsageProblem for options that promise nothing.
    """
    rounds = (*options.rounds_before, options.multiplier)
    epsilon = gaussian_epsilon(rounds, options.delta)
    ratio = options.multiplier * math.sqrt(entries) / count
    sentence = n_(
        "after {n} round each person's update is protected with epsilon {epsilon} at delta {delta}: whoever sees the "
        "published adapters can hardly tell whether it was in them only if epsilon is small (1 is strong, above 10 is "
        "weak)",
        "after {n} rounds each person's update is protected with epsilon {epsilon} at delta {delta}: whoever sees the "
        "published adapters can hardly tell whether it was in them only if epsilon is small (1 is strong, above 10 is "
        "weak)",
        len(rounds),
    ).format(n=len(rounds), epsilon=f"{epsilon:.2f}", delta=f"{options.delta:g}")
    return PrivacyReport(
        epsilon=epsilon,
        delta=options.delta,
        rounds=len(rounds),
        noise_multiplier=options.multiplier,
        norm=options.norm,
        noise_to_norm=ratio,
        sentence=sentence,
    )


def check_noise(options: NoiseOptions) -> None:
    """Raises UsageProblem for options that promise nothing."""
    if not (options.multiplier > 0 and math.isfinite(options.multiplier)):
        raise UsageProblem(_("the noise multiplier must be above 0"))
    if not (options.norm > 0 and math.isfinite(options.norm)):
        raise UsageProblem(_("the norm that updates are clipped to must be above 0"))
    gaussian_epsilon((*options.rounds_before, options.multiplier), options.delta)
