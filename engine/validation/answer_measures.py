"""Measures of answers: form, refusals, speed, and similarity to the original answer; paired by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

import numpy as np

from engine.corpus.embedding.backends import Embedder
from engine.validation.answers import ModelAnswers, SampledAnswer
from engine.validation.report import AnswerSimilarity, Measure
from engine.validation.statistics import Floats, interval95

ACCURATE = 0.7
"""Cosine to the original answer from which an answer counts as accurate; MindX's threshold."""
COMPARED = 2_000
"""Code points of an answer that are embedded, as of a conversation."""

_FORM: list[tuple[str, str, Callable[[SampledAnswer], float], bool]] = [
    ("length", "bytes", lambda answer: float(answer.form.length), False),
    ("repetition", "share", lambda answer: answer.form.repetition, True),
    ("refusals", "share", lambda answer: float(answer.form.refused), True),
    ("stop", "share", lambda answer: float(answer.form.stopped), False),
]


def form_measures(base: ModelAnswers, new: ModelAnswers) -> list[Measure]:
    """Length, repetition, refusals and stop of both models; [] without a question that both answered."""
    return [
        measure
        for name, unit, value, lower in _FORM
        if (measure := _paired(name, unit, _means(base, value), _means(new, value), lower)) is not None
    ]


def speed_measures(base: ModelAnswers, new: ModelAnswers) -> list[Measure]:
    """Median seconds to the first token and tokens per second, where the backends say them.

    They hold for this machine at that moment, so they have no interval.
    """
    found = []
    values: list[tuple[str, str, Callable[[SampledAnswer], float], bool]] = [
        ("first_token", "s", lambda answer: answer.first_token_s, True),
        ("tokens_per_s", "tok/s", lambda answer: answer.tokens_per_s, False),
    ]
    for name, unit, value, lower in values:
        old, fresh = (
            [figure for given in answers.samples for one in given if (figure := value(one)) > 0]
            for answers in (base, new)
        )
        if old and fresh:
            a, b = median(old), median(fresh)
            found.append(Measure(name=name, unit=unit, base=a, new=b, delta=b - a, lower_is_better=lower))
    return found


def similarity_measures(
    embedder: Embedder, wanted: Sequence[str], base: ModelAnswers, new: ModelAnswers
) -> tuple[list[Measure], AnswerSimilarity]:
    """Cosine of the answers to the original ones and the share above `ACCURATE`, with the floors beside them.

    Raises what the embedder raises.
    """
    references = _encode(embedder, wanted)
    cosines: list[list[list[float]]] = []
    unrelated: list[float] = []
    repeated: list[float] = []
    for answers in (base, new):
        of_model = []
        for place, given in enumerate(answers.samples):
            vectors = _encode(embedder, [answer.text for answer in given])
            of_model.append([float(vector @ references[place]) for vector in vectors])
            if len(wanted) > 1:
                other = references[(place + 1) % len(wanted)]
                unrelated += [float(vector @ other) for vector in vectors]
            if answers is base:
                repeated += [
                    float(vectors[a] @ vectors[b])
                    for a in range(len(vectors))
                    for b in range(a + 1, len(vectors))
                ]
        cosines.append(of_model)
    means = [np.array([fmean(row) if row else np.nan for row in rows]) for rows in cosines]
    shares = [
        np.array([fmean(float(cosine >= ACCURATE) for cosine in row) if row else np.nan for row in rows])
        for rows in cosines
    ]
    found = (
        _paired("similarity", "cosine", means[0], means[1], False),
        _paired("accuracy", "share", shares[0], shares[1], False),
    )
    floors = AnswerSimilarity(
        embedder=embedder.name,
        unrelated=fmean(unrelated) if unrelated else None,
        repeated=fmean(repeated) if repeated else None,
    )
    return [measure for measure in found if measure is not None], floors


def _encode(embedder: Embedder, texts: Sequence[str]) -> Floats:
    if not texts:
        return np.zeros((0, 1))
    return np.asarray(embedder.encode([text[:COMPARED] or " " for text in texts]), dtype=np.float64)


def _means(answers: ModelAnswers, value: Callable[[SampledAnswer], float]) -> Floats:
    """Mean over the answers to each question; NaN where there is none. Shape (questions,)."""
    return np.array([fmean(map(value, given)) if given else np.nan for given in answers.samples])


def _paired(name: str, unit: str, base: Floats, new: Floats, lower_is_better: bool) -> Measure | None:
    """Over the questions that both models answered; None without one."""
    both = np.isfinite(base) & np.isfinite(new) if base.size else np.zeros(0, dtype=bool)
    if not both.any():
        return None
    old, fresh = base[both], new[both]
    bounds = interval95(fresh - old)
    return Measure(
        name=name,
        unit=unit,
        base=float(old.mean()),
        new=float(fresh.mean()),
        delta=float((fresh - old).mean()),
        low=None if bounds is None else bounds[0],
        high=None if bounds is None else bounds[1],
        lower_is_better=lower_is_better,
    )
