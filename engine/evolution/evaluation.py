"""Measures a model on the test set and the canary: champion and candidate alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.corpus.dataset import DatasetRow
from engine.evolution import canary
from engine.evolution.canary import Canary, CanarySet
from engine.evolution.text_metrics import GenerationQuality, generation_quality
from engine.inference.language_model import Finish, LanguageModel, generate_text
from engine.validation.answers import QUESTIONS, SAMPLING, pick_questions
from engine.validation.cases import EvaluationCase, cut_cases, score_cases
from engine.validation.statistics import cluster_means

MAX_NLL = 14.0
"""Nats per byte above which a perplexity (a million; uniform bytes have 256) is meaningless."""
DRAWS = 2
"""Answers to each question, one per seed."""


@dataclass(frozen=True)
class ModelMeasurement:
    """Measurements of one model."""

    name: str
    weights_sha256: str
    perplexity: float | None
    """Per byte of held-out answers, mean over clusters; None when a case has no finite NLL."""
    quality: GenerationQuality
    canary: Canary


def measure_model(
    model: LanguageModel,
    held: Sequence[DatasetRow],
    canaries: CanarySet,
    *,
    weights_sha256: str,
    perplexity: float | None = None,
    step: Callable[[int, int], None] | None = None,
) -> ModelMeasurement:
    """Measures a model of these weights; a known `perplexity` (from a verdict) is not measured again.

    `step(done, total)` counts answers and may raise to stop.
    """
    cases = cut_cases(held, model.eval_context, model.windows)
    total = DRAWS * min(QUESTIONS, len(cases)) + len(canaries.prompts)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if step is not None:
            step(done, total)

    if perplexity is None:
        perplexity = perplexity_of(cases, score_cases(model, cases))
    return ModelMeasurement(
        name=model.name,
        weights_sha256=weights_sha256,
        perplexity=perplexity,
        quality=measure_quality(model, cases, advance),
        canary=canary.measure_canary(model, canaries, step=advance),
    )


def perplexity_of(cases: Sequence[EvaluationCase], nll: Sequence[float]) -> float | None:
    """exp of the mean NLL over clusters; None without cases, with one that failed, or above `MAX_NLL`."""
    if not cases or not all(map(math.isfinite, nll)):
        return None
    means = cluster_means([case.cluster for case in cases], nll, [float(case.bytes) for case in cases])
    mean = float(means.mean())
    return perplexity_at(mean)


def perplexity_at(nll: float) -> float | None:
    """Perplexity of a mean NLL in nats per byte; None above `MAX_NLL`."""
    return math.exp(nll) if nll < MAX_NLL else None


def measure_quality(
    model: LanguageModel, cases: Sequence[EvaluationCase], advance: Callable[[], None]
) -> GenerationQuality:
    """Two answers to each of the fixed questions of the test set."""
    questions = pick_questions(cases)
    samples: list[tuple[str, str]] = []
    stopped: list[bool] = []
    lengths: list[int] = []
    with model.reproducible():
        for case in questions:
            pair: list[str] = []
            for seed in range(DRAWS):
                text, ended = _answer(model, case.prompt, seed)
                pair.append(text)
                stopped.append(ended)
                lengths.append(len(text.encode("utf-8", "replace")))
                advance()
            samples.append((pair[0], pair[1]))
    return generation_quality(samples, [case.reference for case in questions], stopped, lengths)


def _answer(model: LanguageModel, prompt: Sequence[ChatMessage], seed: int) -> tuple[str, bool]:
    try:
        text, generated = generate_text(model, prompt, msgspec.structs.replace(SAMPLING, seed=seed))
    except RunFailed:
        return "", False
    return text, generated.finish is Finish.STOP
