"""A model on the frozen held-out window and the canary: champion and candidate are measured by the same lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.evolution import canary
from engine.evolution.canary import Canary, CanarySet
from engine.evolution.text_metrics import Quality, quality_of
from engine.inference.backends.native import NativeModel
from engine.inference.language_model import Finish, LanguageModel, generate_text
from engine.inference.sampling import single_threaded
from engine.models.card import load_card
from engine.validation.answers import QUESTIONS, SAMPLING, pick_questions
from engine.validation.cases import EvaluationCase, HeldOutLike, cut_cases, score_cases
from engine.validation.statistics import by_cluster

NO_MODEL = 14.0
"""Nats per byte from which a perplexity (a million, where guessing has 256) is no figure any more."""
DRAWS = 2
"""Answers to each question, with seeds of their own."""


@dataclass(frozen=True)
class Measured:
    """What was found about one model."""

    name: str
    weights_sha256: str
    perplexity: float | None
    """Per byte of held-out answers, each cluster alike; None when a case gave no number."""
    quality: Quality
    canary: Canary


def measure(
    folder: Path,
    held: Sequence[HeldOutLike],
    canaries: CanarySet,
    *,
    perplexity: float | None = None,
    step: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measures the model in `folder`; with `perplexity` (a verdict has found it) that is not done again.

    `step(done, total)` counts what it reads and writes and may raise to stop. Raises BadInput for a broken model.
    """
    model = NativeModel.load(folder)
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
    return Measured(
        name=model.name,
        weights_sha256=load_card(folder).weights_sha256,
        perplexity=perplexity,
        quality=measure_quality(model, cases, advance),
        canary=canary.measure(model, canaries, step=advance),
    )


def perplexity_of(cases: Sequence[EvaluationCase], nll: Sequence[float]) -> float | None:
    """exp of the mean NLL over clusters; None without cases, with one that failed, or beyond `NO_MODEL`."""
    if not cases or not all(map(math.isfinite, nll)):
        return None
    means = by_cluster([case.cluster for case in cases], nll, [float(case.bytes) for case in cases])
    mean = float(means.mean())
    return perplexity_at(mean)


def perplexity_at(nll: float) -> float | None:
    """Of a mean NLL in nats per byte; None beyond `NO_MODEL`."""
    return math.exp(nll) if nll < NO_MODEL else None


def measure_quality(
    model: LanguageModel, cases: Sequence[EvaluationCase], advance: Callable[[], None]
) -> Quality:
    """Two answers to each of the fixed questions of the test set."""
    questions = pick_questions(cases)
    draws: list[tuple[str, str]] = []
    stopped: list[bool] = []
    lengths: list[int] = []
    with single_threaded():
        for case in questions:
            pair: list[str] = []
            for seed in range(DRAWS):
                text, ended = _answer(model, case.prompt, seed)
                pair.append(text)
                stopped.append(ended)
                lengths.append(len(text.encode("utf-8", "replace")))
                advance()
            draws.append((pair[0], pair[1]))
    return quality_of(draws, [case.reference for case in questions], stopped, lengths)


def _answer(model: LanguageModel, prompt: Sequence[ChatMessage], seed: int) -> tuple[str, bool]:
    try:
        text, generated = generate_text(model, prompt, msgspec.structs.replace(SAMPLING, seed=seed))
    except RunFailed:
        return "", False
    return text, generated.finish is Finish.STOP
