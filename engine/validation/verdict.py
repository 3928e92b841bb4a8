"""The verdict: whether a new model replaces the base, by a rule fixed before anything is measured.

Pure functions on scores. A model is promoted only when all of these hold: at least 20 clusters, no failed case, a
one-sided paired test (`paired_p`) significant at the level of this interim look, the worst tenth of the clusters within
its bound (`worst_tenth`), and the general set at most 3 % worse, text by text and language by language (`judge_general`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from engine.core.i18n import _, n_
from engine.corpus.next_window import WindowOutlook, assumed_outlook
from engine.validation.external_scores import ExternalScore
from engine.validation.general import MARGIN, GeneralScores, judge_general, passes_general
from engine.validation.report import CaseScore, GeneralPart, ModelScore, Verdict
from engine.validation.sequential import (
    MIN_CLUSTERS,
    PRIOR_DEVIATION,
    alpha_for,
    detectable_gain,
    groups_needed,
)
from engine.validation.statistics import (
    Floats,
    cluster_means,
    interval95,
    mcnemar_p,
    paired_p,
)
from engine.validation.verdict_text import in_words, percent, why_of
from engine.validation.worst_tenth import worst_tenth


@dataclass(frozen=True)
class PairedScores:
    """The scores of both models, one entry per case."""

    clusters: Sequence[str]
    base: Sequence[float]
    new: Sequence[float]
    weights: Sequence[float]
    lower_is_better: bool = True


@dataclass(frozen=True)
class PowerEstimate:
    """What a test set can detect, known before training."""

    relative: float | None
    """Smallest relative gain in NLL detected with 80 % power; None when no verdict is possible."""
    missing: int
    """Clusters missing for a verdict."""
    sentence: str

    @property
    def possible(self) -> bool:
        return self.relative is not None


def nll_verdict(
    cases: Sequence[CaseScore],
    *,
    base_name: str,
    new_name: str,
    look: int,
    general: GeneralScores | None,
    failed_base: int = 0,
    failed_new: int = 0,
    failed_answers: tuple[int, int] = (0, 0),
    outlook: WindowOutlook | None = None,
) -> Verdict:
    """The verdict on held-out NLL. Without `general` nothing can be promoted.

    `look` is the number of the interim look at this test window, from 1. Scores must be finite: cases without one
    are excluded, and counted in `failed_base` and `failed_new`; `failed_answers` counts calls of base and new model that
    gave no answer. `outlook` tells what the next window would be chosen
    from; without it that is assumed from this one.
    """
    paired = PairedScores(
        clusters=[case.cluster for case in cases],
        base=[case.base for case in cases],
        new=[case.new for case in cases],
        weights=[case.bytes for case in cases],
    )
    if general is not None and not general.finite:
        failed_new += 1
        general = None
    base, new = _means(paired)
    scores = [
        ModelScore(
            name=name,
            nll_per_byte=mean,
            bits_per_byte=None if mean is None else mean / math.log(2),
            general_nll_per_byte=None if blocks is None else float(blocks.mean()),
            failed=failed,
            failed_answers=unanswered,
        )
        for name, mean, blocks, failed, unanswered in (
            (base_name, base, None if general is None else general.base.nll, failed_base, failed_answers[0]),
            (new_name, new, None if general is None else general.new.nll, failed_new, failed_answers[1]),
        )
    ]
    parts = [] if general is None else judge_general(general)
    if outlook is None:
        outlook = assumed_outlook(len(set(paired.clusters)), len(paired.clusters))
    return _decide(paired, scores[0], scores[1], look, parts, outlook)


def external_verdict(rows: Sequence[ExternalScore], *, look: int = 1) -> Verdict:
    """The verdict on external scores, of which higher is better. A score that is null or not finite has failed.

    They do not cover the general set, which is left to the user; the reasons say so.
    """
    complete = [row for row in rows if row.base_value is not None and row.new_value is not None]
    paired = PairedScores(
        clusters=[row.cluster for row in complete],
        base=[row.base_value or 0.0 for row in complete],
        new=[row.new_value or 0.0 for row in complete],
        weights=[1.0] * len(complete),
        lower_is_better=False,
    )
    base, new = _means(paired)
    failed = (sum(row.base_value is None for row in rows), sum(row.new_value is None for row in rows))
    scores = [
        ModelScore(name=name, nll_per_byte=None, bits_per_byte=None, mean=mean, failed=missing)
        for name, mean, missing in (("base", base, failed[0]), ("new", new, failed[1]))
    ]
    return _decide(paired, scores[0], scores[1], look, None, None)


def estimate_power(groups: int, *, deviation: float | None = None, look: int = 1) -> PowerEstimate:
    """The smallest relative gain that `groups` test clusters detect with 80 % power at this interim look.

    `deviation` is the standard deviation of the relative gain between clusters (`gain_deviation` of the last
    report); None: `PRIOR_DEVIATION`.
    """
    if groups < MIN_CLUSTERS:
        missing = MIN_CLUSTERS - groups
        sentence = n_(
            "test set: {have} group of conversations; a verdict needs {needed}, {n} more",
            "test set: {have} groups of conversations; a verdict needs {needed}, {n} more",
            groups,
        ).format(have=groups, needed=MIN_CLUSTERS, n=missing)
        return PowerEstimate(relative=None, missing=missing, sentence=sentence)
    gain = detectable_gain(PRIOR_DEVIATION if deviation is None else deviation, groups, alpha_for(look))
    if deviation is None:
        text = _(
            "test set: {have} groups of conversations; smallest detectable gain {gain}"
            " (80 % power, assumed standard deviation between groups {spread})"
        )
    else:
        text = _(
            "test set: {have} groups of conversations; smallest detectable gain {gain}"
            " (80 % power, standard deviation between groups in the last validation {spread})"
        )
    spread = PRIOR_DEVIATION if deviation is None else deviation
    return PowerEstimate(
        relative=gain,
        missing=0,
        sentence=text.format(have=groups, gain=percent(gain), spread=percent(spread)),
    )


def cluster_gains(paired: PairedScores) -> Floats:
    """Mean gain per cluster; above 0 is better. Shape (clusters,)."""
    if not paired.clusters:
        return np.zeros(0)
    base = cluster_means(paired.clusters, paired.base, paired.weights)
    new = cluster_means(paired.clusters, paired.new, paired.weights)
    return base - new if paired.lower_is_better else new - base


def _means(paired: PairedScores) -> tuple[float | None, float | None]:
    if not paired.clusters:
        return None, None
    return (
        float(cluster_means(paired.clusters, paired.base, paired.weights).mean()),
        float(cluster_means(paired.clusters, paired.new, paired.weights).mean()),
    )


def _needed(
    gains: Floats, gain: float, look: int, outlook: WindowOutlook | None
) -> tuple[int | None, int | None]:
    """(what is missing to detect `gain` with 80 % power, groups that it takes).

    Conversations until a new window of so many groups, which is judged at its first look; without an `outlook` groups
    at this look.
    """
    spread = float(gains.std(ddof=1))
    target = groups_needed(spread, gain, alpha_for(look if outlook is None else 1))
    if target is None:
        return None, None
    if outlook is None:
        return max(1, target - gains.size), target
    target = max(target, MIN_CLUSTERS)
    return outlook.conversations_until(target), target


def _noninferiority(
    general: Sequence[GeneralPart] | None, passed: bool | None
) -> dict[str, float | bool | None]:
    """The whole general set against the base; {} for external scores, which do not cover it."""
    if general is None:
        return {}
    whole = next((part for part in general if part.kind == "all" and not part.against), None)
    return {
        "increase": whole.increase if whole is not None else None,
        "upper95": whole.upper95 if whole is not None else None,
        "margin": MARGIN,
        "passed": passed,
    }


def _decide(
    paired: PairedScores,
    base: ModelScore,
    new: ModelScore,
    look: int,
    general: Sequence[GeneralPart] | None,
    outlook: WindowOutlook | None,
) -> Verdict:
    """The rule.

    Args:
        general: the parts of the general set; [] where it has no score, None where it is not asked for.
        outlook: what the next window is chosen from; None for rows from elsewhere, which any further row joins.
    """
    gains = cluster_gains(paired)
    groups, alpha = gains.size, alpha_for(look)
    delta = float(gains.mean()) if groups else None
    p = paired_p(gains, alpha=alpha) if groups else None
    scale = abs((base.nll_per_byte if paired.lower_is_better else base.mean) or 0.0)
    worst = worst_tenth(gains, scale)
    passed = passes_general(general) if general is not None else None
    sign = 1 if not paired.lower_is_better else -1
    cases = [sign * (b - a) for a, b in zip(paired.base, paired.new, strict=True)]
    needed: int | None = None
    window: int | None = None

    if groups < MIN_CLUSTERS:
        decision = "inconclusive"
        needed = MIN_CLUSTERS - groups if outlook is None else outlook.conversations_until(MIN_CLUSTERS)
    elif any(score.failed or score.failed_answers for score in (base, new)):
        decision = "keep" if new.failed or new.failed_answers else "inconclusive"
    elif delta is None or p is None or delta <= 0 or (worst is not None and not worst.passed):
        decision = "keep"
    elif p >= alpha:
        decision = "keep"
        # What is lost elsewhere, no further conversation decides.
        if passed is not False:
            needed, target = _needed(gains, delta, look, outlook)
            window = target if outlook is not None else None
    elif general is not None and passed is None:
        decision = "inconclusive"
    elif general is not None and not passed:
        decision = "keep"
    else:
        decision = "promote"
    verdict = Verdict(
        decision=decision,
        n_cases=len(paired.clusters),
        n_groups=groups,
        base=base,
        new=new,
        delta=delta,
        p_value=p,
        alpha=alpha,
        look=look,
        ci95=interval95(gains),
        mcnemar_p=mcnemar_p(sum(c > 0 for c in cases), sum(c < 0 for c in cases)) if cases else None,
        noninferiority=_noninferiority(general, passed),
        general=list(general or ()),
        worst_tenth=worst,
        needed_cases=needed,
    )
    return in_words(msgspec.structs.replace(verdict, why=why_of(verdict, window=window)))
