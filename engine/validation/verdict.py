"""The verdict: whether a new model replaces the base, by a rule fixed before anything is measured (DESIGN 8).

Pure functions on scores. A model is promoted only when all of it holds: 20 clusters, no failed score, the
one-sided paired permutation test below the p of this look, and the general set not more than 3 % worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.core.i18n import _, n_
from engine.validation.external_scores import ScoreRow
from engine.validation.report import CaseScore, ModelScore, ValidationReport, Verdict
from engine.validation.sequential import MIN_CLUSTERS as MIN_CLUSTERS
from engine.validation.sequential import PRIOR_DEVIATION as PRIOR_DEVIATION
from engine.validation.statistics import (
    Floats,
    alpha_for,
    by_cluster,
    gain_seen,
    groups_needed,
    interval95,
    mcnemar_p,
    relative_increase,
    sign_flip_p,
)
from engine.validation.verdict_text import p_text, percent, sentence_for, size_words

MARGIN = 0.03
"""Largest relative increase of the general set's NLL that the upper 95 % bound may reach."""


@dataclass(frozen=True)
class General:
    """NLL per byte of both models on the same blocks of general text. Shapes (blocks,)."""

    base: Floats
    new: Floats


@dataclass(frozen=True)
class Paired:
    """The scores of both models, one entry for each case, and what stands for `better`."""

    clusters: Sequence[str]
    base: Sequence[float]
    new: Sequence[float]
    weights: Sequence[float]
    lower_is_better: bool = True


@dataclass(frozen=True)
class VisibleGain:
    """How small a gain a verdict could see, said before training."""

    relative: float | None
    """Smallest relative gain in NLL seen with 80 % power; None when no verdict is possible."""
    missing: int
    """Clusters that are missing for any verdict."""
    sentence: str

    @property
    def possible(self) -> bool:
        return self.relative is not None


def judge(
    cases: Sequence[CaseScore],
    *,
    base_name: str,
    new_name: str,
    look: int,
    general: General | None,
    failed_base: int = 0,
    failed_new: int = 0,
) -> Verdict:
    """The verdict on held-out NLL. Without `general` nothing can be promoted.

    `look` counts the candidates judged on this window, from 1. Scores must be finite: a case without one is
    left out and counted in `failed_base` or `failed_new`.
    """
    paired = Paired(
        clusters=[case.cluster for case in cases],
        base=[case.base for case in cases],
        new=[case.new for case in cases],
        weights=[case.bytes for case in cases],
    )
    if general is not None and not (np.isfinite(general.base).all() and np.isfinite(general.new).all()):
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
        )
        for name, mean, blocks, failed in (
            (base_name, base, None if general is None else general.base, failed_base),
            (new_name, new, None if general is None else general.new, failed_new),
        )
    ]
    return _decide(paired, scores[0], scores[1], look, _noninferiority(general), general_needed=True)


def verdict_from_rows(rows: Sequence[ScoreRow], *, look: int = 1) -> Verdict:
    """The verdict on scores from elsewhere, higher is better. A score that is null or not finite has failed.

    The general set is not known here, so the person answers for it; the reasons say so.
    """
    whole = [row for row in rows if row.base_value is not None and row.new_value is not None]
    paired = Paired(
        clusters=[row.cluster for row in whole],
        base=[row.base_value or 0.0 for row in whole],
        new=[row.new_value or 0.0 for row in whole],
        weights=[1.0] * len(whole),
        lower_is_better=False,
    )
    base, new = _means(paired)
    failed = (sum(row.base_value is None for row in rows), sum(row.new_value is None for row in rows))
    scores = [
        ModelScore(name=name, nll_per_byte=None, bits_per_byte=None, mean=mean, failed=missing)
        for name, mean, missing in (("base", base, failed[0]), ("new", new, failed[1]))
    ]
    return _decide(paired, scores[0], scores[1], look, {}, general_needed=False)


def visible_gain(groups: int, *, deviation: float | None = None, look: int = 1) -> VisibleGain:
    """How small a relative gain `groups` test clusters could show with 80 % power at this look.

    `deviation` is the standard deviation between clusters of the relative gain (`relative_deviation` of the
    last report); None takes the stated prior.
    """
    if groups < MIN_CLUSTERS:
        missing = MIN_CLUSTERS - groups
        sentence = n_(
            "{have} group of conversations is kept back, {needed} are needed: {n} more, or there is no verdict",
            "{have} groups of conversations are kept back, {needed} are needed: {n} more, or there is no verdict",
            groups,
        ).format(have=groups, needed=MIN_CLUSTERS, n=missing)
        return VisibleGain(relative=None, missing=missing, sentence=sentence)
    gain = gain_seen(PRIOR_DEVIATION if deviation is None else deviation, groups, alpha_for(look))
    if deviation is None:
        text = _(
            "{have} groups of conversations are kept back to judge: a gain of {gain} would be seen"
            " (if gains vary by {spread} between them)"
        )
    else:
        text = _(
            "{have} groups of conversations are kept back to judge: a gain of {gain} would be seen"
            " (gains varied by {spread} between them last time)"
        )
    spread = PRIOR_DEVIATION if deviation is None else deviation
    return VisibleGain(
        relative=gain,
        missing=0,
        sentence=text.format(have=groups, gain=percent(gain), spread=percent(spread)),
    )


def relative_deviation(report: ValidationReport) -> float | None:
    """Standard deviation between clusters of the relative gain in a report; None where it says nothing."""
    paired = Paired(
        clusters=[case.cluster for case in report.cases],
        base=[case.base for case in report.cases],
        new=[case.new for case in report.cases],
        weights=[case.bytes for case in report.cases],
    )
    gains = cluster_gains(paired)
    base = _means(paired)[0]
    deviation = float(gains.std(ddof=1)) / base if gains.size > 1 and base else 0.0
    return deviation or None


def cluster_gains(paired: Paired) -> Floats:
    """Mean gain of each cluster, above 0 is better. Shape (clusters,)."""
    if not paired.clusters:
        return np.zeros(0)
    base = by_cluster(paired.clusters, paired.base, paired.weights)
    new = by_cluster(paired.clusters, paired.new, paired.weights)
    return base - new if paired.lower_is_better else new - base


def _means(paired: Paired) -> tuple[float | None, float | None]:
    if not paired.clusters:
        return None, None
    return (
        float(by_cluster(paired.clusters, paired.base, paired.weights).mean()),
        float(by_cluster(paired.clusters, paired.new, paired.weights).mean()),
    )


def _noninferiority(general: General | None) -> dict[str, float | bool | None]:
    if general is None or general.base.size < 2:
        return {"increase": None, "upper95": None, "margin": MARGIN, "passed": None}
    increase, _low, upper = relative_increase(general.base, general.new)
    return {"increase": increase, "upper95": upper, "margin": MARGIN, "passed": upper <= MARGIN}


def _decide(
    paired: Paired,
    base: ModelScore,
    new: ModelScore,
    look: int,
    general: dict[str, float | bool | None],
    *,
    general_needed: bool,
) -> Verdict:
    gains = cluster_gains(paired)
    groups, alpha = gains.size, alpha_for(look)
    delta = float(gains.mean()) if groups else None
    p = sign_flip_p(gains, alpha=alpha) if groups else None
    scale = abs(base.nll_per_byte if paired.lower_is_better else base.mean or 0.0) if groups else 0.0  # type: ignore[arg-type]
    size = size_words(delta, scale)
    sign = 1 if not paired.lower_is_better else -1
    cases = [sign * (b - a) for a, b in zip(paired.base, paired.new, strict=True)]
    reasons: list[str] = []
    needed: int | None = None

    if groups < MIN_CLUSTERS:
        decision = "inconclusive"
        needed = MIN_CLUSTERS - groups
        reasons.append(
            n_(
                "{have} group of conversations, {needed} are needed",
                "{have} groups of conversations, {needed} are needed",
                groups,
            ).format(have=groups, needed=MIN_CLUSTERS)
        )
    elif base.failed or new.failed:
        decision = "keep" if new.failed else "inconclusive"
    elif delta is None or p is None or delta <= 0:
        decision = "keep"
        reasons.append(_("it is not better"))
    elif p >= alpha:
        decision = "keep"
        target = groups_needed(float(gains.std(ddof=1)), delta, alpha)
        needed = None if target is None else max(1, target - groups)
        reasons.append(_("{p}, below {alpha} is needed").format(p=p_text(p), alpha=f"{alpha:.2g}"))
    elif general_needed and general["passed"] is None:
        decision = "inconclusive"
        reasons.append(_("the general set could not be measured"))
    elif general_needed and not general["passed"]:
        decision = "keep"
    else:
        decision = "promote"
        reasons.append(_("{p}, below {alpha}").format(p=p_text(p), alpha=f"{alpha:.2g}"))
    for score in (base, new):
        if score.failed:
            reasons.append(
                n_("{name} gave no score {n} time", "{name} gave no score {n} times", score.failed).format(
                    name=score.name, n=score.failed
                )
            )
    if general.get("passed") is False:
        reasons.append(
            _("on general text it may be {upper} worse, {margin} is the limit").format(
                upper=percent(float(general["upper95"] or 0.0)), margin=percent(MARGIN)
            )
        )
    if not general_needed:
        reasons.append(_("scores from elsewhere say nothing about general text"))
    return Verdict(
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
        noninferiority=general,
        needed_cases=needed,
        reasons=reasons,
        sentence=sentence_for(
            decision,
            size,
            p,
            needed,
            reasons,
            rows=not paired.lower_is_better,
            worse=decision == "keep" and (delta or 0.0) <= 0,
        ),
    )
