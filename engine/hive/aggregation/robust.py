"""Rules against hostile adapters that need only the inner products of the updates: clipping, multi-Krum, flags.

`gram[i, j]` is the Frobenius inner product of the updates of adapters i and j over all matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.hive.aggregation.tensor_io import Matrix

FAR_NORM = 3.0
"""A norm so many times the median, or so many times smaller, is flagged."""
SAME = 0.99
"""Cosine from which two adapters count as copies of one another."""
AGAINST = -0.05
"""Cosine to the others below which an update works against them: beyond what chance does in so many dimensions."""
_APART, _SPREADS = 0.15, 4.0


def norms(gram: Matrix) -> Matrix:
    """Frobenius norms of the updates."""
    return np.sqrt(np.maximum(np.diagonal(gram), 0.0))


def clip_factors(gram: Matrix, largest: float | None = None) -> Matrix:
    """What each update is multiplied by so that its norm is at most `largest`; None: the median of the norms."""
    sizes = norms(gram)
    bound = float(np.median(sizes)) if largest is None else largest
    return np.minimum(1.0, bound / np.maximum(sizes, np.finfo(float).tiny))


def assumed_hostile(count: int, asked: int | None) -> int:
    """How many of `count` adapters may be hostile: `asked`, or a quarter, at least one."""
    return max(1, count // 4) if asked is None else asked


def multi_krum(gram: Matrix, hostile: int) -> list[int]:
    """The `n - hostile` adapters with the smallest sum of squared distances to their `n - hostile - 2` nearest
    neighbours (Blanchard et al., arXiv 1703.02757).

    Raises UsageProblem for fewer than `2 * hostile + 3` adapters, below which the rule promises nothing.
    """
    count = len(gram)
    if count < 2 * hostile + 3:
        raise UsageProblem(
            _("krum needs {need} adapters against {hostile} hostile ones, there are {count}").format(
                need=2 * hostile + 3, hostile=hostile, count=count
            ),
            hint="h2q-tui hive aggregate --help",
        )
    squares = np.diagonal(gram)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, : count - hostile - 2].sum(axis=1)
    return sorted(int(index) for index in np.argsort(scores, kind="stable")[: count - hostile])


def cosines_to_others(gram: Matrix) -> Matrix:
    """Between each update and the sum of the others at norm 1, which no single one can dominate."""
    sizes = np.maximum(norms(gram), np.finfo(float).tiny)
    angles = gram / np.outer(sizes, sizes)
    np.fill_diagonal(angles, 0.0)
    to_sum = angles.sum(axis=1)
    # |sum of the others|^2 = sum of all angles among them, each of norm 1.
    others = angles.sum() - 2 * to_sum + len(gram) - 1
    return np.asarray(to_sum / np.sqrt(np.maximum(others, np.finfo(float).tiny)))


def against_the_others(gram: Matrix) -> list[bool]:
    """Which updates point away from the sum of the others; of fewer than three, none: two only disagree."""
    if len(gram) < 3:
        return [False] * len(gram)
    return [bool(one < AGAINST) for one in cosines_to_others(gram)]


def flags(gram: Matrix) -> list[list[str]]:
    """For each adapter why it looks unlike the others: "norm", "against" (it points away from them), "direction" (it shares
    far less with them than they with each other), "copy" (it is the update of another one, apart from its size)."""
    count = len(gram)
    if count < 3:
        return [[] for _one in range(count)]
    sizes, cosines, away = norms(gram), cosines_to_others(gram), against_the_others(gram)
    typical = float(np.median(sizes))
    angles = gram / np.maximum(np.outer(sizes, sizes), np.finfo(float).tiny)
    np.fill_diagonal(angles, 0.0)
    middle = float(np.median(cosines))
    spread = 1.4826 * float(np.median(np.abs(cosines - middle)))
    far = middle - max(_APART, _SPREADS * spread)
    found = []
    for index in range(count):
        ratio = sizes[index] / typical if typical else 1.0
        reasons = {
            "norm": not 1 / FAR_NORM <= ratio <= FAR_NORM,
            "against": away[index],
            "direction": cosines[index] < far and not away[index],
            "copy": angles[index].max() >= SAME,
        }
        found.append([name for name, holds in reasons.items() if holds])
    return found


def distance(square: float, products: Matrix, gram: Matrix, factors: Sequence[float]) -> float:
    """Relative distance of a matrix from `sum factors[k] * update_k`.

    Args:
        square: its squared norm.
        products: its inner products with the updates.
    """
    wanted = np.asarray(factors, float)
    size = float(wanted @ gram @ wanted)
    gap = square - 2 * float(wanted @ products) + size
    if size <= 0:
        return 0.0 if gap <= 0 else float("inf")
    return float(np.sqrt(max(gap, 0.0) / size))
