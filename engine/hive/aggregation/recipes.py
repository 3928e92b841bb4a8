"""What each method makes of the updates of one matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.hive.aggregation import entrywise, robust
from engine.hive.aggregation.low_rank import (
    Stack,
    mean_of_factors,
    merge_equal_a,
    squared_norm,
    truncate,
)
from engine.hive.aggregation.tensor_io import Matrix
from engine.hive.aggregation.terms import JoinMethod, JoinOptions
from engine.hive.privacy import NoiseOptions, check_noise


@dataclass(frozen=True)
class RoundRanks:
    """The ranks of a round, which bound that of its result."""

    largest: int
    """Of one adapter."""
    stacked: int
    """Of all adapters side by side, those with the same A as one; the largest over all matrices."""
    full: int
    """Rows or columns, whichever are fewer; the largest over all matrices."""


@dataclass(frozen=True)
class Made:
    """The joined update of one matrix, `b @ a`."""

    b: Matrix
    a: Matrix
    kept: float
    """Squared norm that the rank retains."""
    total: float
    """That of what the method makes without a limit of rank."""
    residual: float = 0.0
    """Squared norm of what the mean of the factors gets wrong (`fedex`)."""
    full: Matrix | None = None
    """What a rule that works entry by entry made."""
    entries: int = 0
    """Values that noise was added to."""


@dataclass(frozen=True)
class JoinRecipe:
    """A method with everything that it needs to know of the round."""

    rank: int
    """Of the result, for all matrices."""
    factors: Matrix
    """What each update is multiplied by in the sum; with rules that work entry by entry 1 / n."""
    make: Callable[[Stack], Made]
    residual_rank: int = 0


def join_recipe(options: JoinOptions, gram: Matrix, weights: Matrix, ranks: RoundRanks) -> JoinRecipe:
    """The recipe of a round.

    Args:
        gram: inner products of the updates.
        weights: of samples, sum 1.

    Raises UsageProblem for options that do not fit the round.
    """
    method, count = options.method, len(gram)
    if options.rank is not None and options.rank < 1:
        raise UsageProblem(_("the rank must be at least 1"))
    if options.noise is not None:
        return _noisy(options, options.noise, gram, ranks)
    wanted = min(options.rank or ranks.largest, ranks.full)
    if method in (JoinMethod.TRIMMED, JoinMethod.MEDIAN):
        return _by_entries(options, count, wanted)
    if method is JoinMethod.FEDAVG:
        return JoinRecipe(ranks.largest, weights, _fedavg(weights))
    if method is JoinMethod.FEDEX:
        return _fedex(options, weights, ranks)
    factors = _factors(options, gram, weights)
    if method is JoinMethod.STACK:
        if options.rank is not None and options.rank < ranks.stacked:
            raise UsageProblem(
                _(
                    "stacking is exact and needs rank {rank}; svd makes the best adapter of a smaller one"
                ).format(rank=ranks.stacked),
                hint="h2q-tui hive aggregate --help",
            )
        return JoinRecipe(ranks.stacked, factors, _stacked(factors))
    rank = min(wanted, ranks.stacked)
    return JoinRecipe(rank, factors, _truncated(factors, rank))


def _factors(options: JoinOptions, gram: Matrix, weights: Matrix) -> Matrix:
    """What each update is multiplied by."""
    if options.method is JoinMethod.CLIP:
        kept = np.where(robust.against_the_others(gram), 0.0, weights)
        return robust.clip_factors(gram) * (kept / kept.sum() if kept.any() else weights)
    if options.method is JoinMethod.KRUM:
        chosen = robust.multi_krum(gram, robust.assumed_hostile(len(gram), options.hostile))
        kept = np.zeros_like(weights)
        kept[chosen] = weights[chosen] / weights[chosen].sum()
        return kept
    return weights


def _blocks(stacked: Stack, factors: Sequence[float]) -> list[tuple[Matrix, Matrix]]:
    """(factor * b, a) of the adapters that take part, those with the same A as one."""
    blocks = [stacked.block(number) for number in range(len(stacked.starts))]
    used = [(b * factor, a) for (b, a), factor in zip(blocks, factors, strict=True) if factor and b.any()]
    return merge_equal_a(used) or [(blocks[0][0] * 0, blocks[0][1])]


def _side_by_side(blocks: Sequence[tuple[Matrix, Matrix]]) -> tuple[Matrix, Matrix]:
    return np.concatenate([b for b, _a in blocks], axis=1), np.concatenate([a for _b, a in blocks])


def _stacked(factors: Matrix) -> Callable[[Stack], Made]:
    def make(stacked: Stack) -> Made:
        b, a = _side_by_side([_even(*block) for block in _blocks(stacked, factors.tolist())])
        square = squared_norm(b, a)
        return Made(b, a, square, square)

    return make


def _truncated(factors: Matrix, rank: int) -> Callable[[Stack], Made]:
    def make(stacked: Stack) -> Made:
        found = truncate(*_side_by_side(_blocks(stacked, factors.tolist())), rank)
        return Made(found.b, found.a, found.kept, found.total)

    return make


def _fedavg(weights: Matrix) -> Callable[[Stack], Made]:
    def make(stacked: Stack) -> Made:
        b, a = _mean(stacked, weights)
        square = squared_norm(b, a)
        return Made(b, a, square, square)

    return make


def _fedex(options: JoinOptions, weights: Matrix, ranks: RoundRanks) -> JoinRecipe:
    """The mean of the factors in the first ranks, and the best approximation of its residual in the others."""
    rank = options.rank or ranks.largest + ranks.stacked
    spare = rank - ranks.largest
    if spare < 0:
        raise UsageProblem(
            _("fedex needs rank {rank} for the mean of the factors alone").format(rank=ranks.largest),
            hint="h2q-tui hive aggregate --help",
        )

    def make(stacked: Stack) -> Made:
        mean_b, mean_a = _mean(stacked, weights)
        blocks = [*_blocks(stacked, weights.tolist()), (-mean_b, mean_a)]
        residual = truncate(*_side_by_side(blocks), max(1, spare))
        mean = _even(mean_b, mean_a)
        b, a = _side_by_side([mean, (residual.b, residual.a)]) if spare else mean
        square = squared_norm(b, a)
        return Made(b, a, square, square, residual=residual.total)

    return JoinRecipe(rank, weights, make, residual_rank=spare)


def _mean(stacked: Stack, weights: Matrix) -> tuple[Matrix, Matrix]:
    blocks = [stacked.block(number) for number in range(len(stacked.starts))]
    return mean_of_factors(blocks, weights.tolist())


def _even(b: Matrix, a: Matrix) -> tuple[Matrix, Matrix]:
    """The same product with factors of about the same norm, for number formats of 16 bits; a power of two moves from one to
    the other, so nothing is rounded."""
    norms = float(np.linalg.norm(b)), float(np.linalg.norm(a))
    if not all(norms):
        return b, a
    shift = 2.0 ** round(math.log2(norms[0] / norms[1]) / 2)
    return b / shift, a * shift


def _by_entries(options: JoinOptions, count: int, rank: int) -> JoinRecipe:
    if count < 3:
        raise UsageProblem(
            _("{method} needs at least 3 adapters, there are {count}").format(
                method=options.method.value, count=count
            ),
            hint="h2q-tui hive aggregate --help",
        )
    rule: entrywise.Rule = entrywise.median
    if options.method is JoinMethod.TRIMMED:
        cut = robust.assumed_hostile(count, options.hostile)
        if count <= 2 * cut:
            raise UsageProblem(
                _("{count} adapters are too few to leave out {cut} at each end").format(count=count, cut=cut),
                hint="h2q-tui hive aggregate --help",
            )
        rule = entrywise.trimmed_mean(cut)

    def make(stacked: Stack) -> Made:
        full = entrywise.combine_entries(stacked, rule)
        found = entrywise.truncate_full(full, rank)
        return Made(found.b, found.a, found.kept, found.total, full=full)

    return JoinRecipe(rank, np.full(count, 1 / count), make)


def _noisy(options: JoinOptions, noise: NoiseOptions, gram: Matrix, ranks: RoundRanks) -> JoinRecipe:
    """Every update clipped to a norm that was fixed beforehand, everybody with the same weight, and Gaussian noise.

    With one frozen A the noise lies in its space, which no data have chosen, and is smaller by the square root of the
    ratio of columns and rank. Cutting to a rank afterwards costs no privacy.
    """
    if options.method is not JoinMethod.CLIP:
        raise UsageProblem(
            _("noise for privacy goes with clip, not with {method}").format(method=options.method.value),
            hint="h2q-tui hive aggregate --help",
        )
    check_noise(noise)
    count = len(gram)
    factors = robust.clip_factors(gram, noise.norm) / count
    deviation = noise.multiplier * noise.norm / count
    generator = np.random.default_rng(noise.seed)
    rank = min(options.rank or ranks.largest, ranks.full)

    def frozen(stacked: Stack) -> Made:
        ((b, a),) = _blocks(stacked, factors.tolist())
        rows, mixing = np.linalg.qr(a.T)
        b = b @ mixing.T
        b = b + deviation * generator.standard_normal(b.shape)
        found = truncate(b, rows.T, rank)
        return Made(found.b, found.a, found.kept, found.total, entries=b.size)

    def everywhere(stacked: Stack) -> Made:
        full = stacked.weighted(factors.tolist()) @ stacked.a
        full += deviation * generator.standard_normal(full.shape)
        found = entrywise.truncate_full(full, rank)
        return Made(found.b, found.a, found.kept, found.total, entries=full.size)

    return JoinRecipe(rank, factors, frozen if options.frozen_a else everywhere)
