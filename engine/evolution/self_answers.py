"""Rejection sampling: the champion's own answers to real questions, filtered by the statistics of real answers.

The bounds are measured on the user's real answers, never tuned to accept something: a model without acceptable
answers adds none, and the cycle uses retrieval and recombination.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.corpus.dataset import DatasetRow
from engine.evolution import text_metrics
from engine.evolution.augmentation import first_prompt
from engine.evolution.synthetic import ID_PREFIX, RejectReason, SyntheticExample, SyntheticMethod
from engine.inference.language_model import (
    Finish,
    LanguageModel,
    Sampling,
    conversation_nll,
    generate_text,
)

DRAWS = 3
"""Answers sampled per question until one is accepted."""
MAX_NLL_RATIO = 1.25
"""Upper limit of an answer's NLL per byte under the champion, relative to that of the real answer."""
MAX_ANSWER_BYTES = 240
OTHERS = 3
"""Answers to other questions compared with each source, for the overlap expected by chance."""
CHANCE = 0.05
"""Share of questions of which one of `DRAWS` answers may pass by chance, and the significance level of more than that."""


@dataclass(frozen=True)
class CandidateAnswer:
    """One answer of the champion with what its form and words are compared with."""

    text: str
    source: str
    """The whole real conversation."""
    reference: str
    """The original answer."""
    stopped: bool
    """Whether the model ended it."""


@dataclass(frozen=True)
class AnswerBounds:
    """Statistics of the user's real answers; an accepted answer lies within them."""

    bytes: tuple[float, float]
    """Central 95 % of the lengths."""
    repetition: float
    """99th percentile of the repetition, and at least 5 %."""
    source: float
    """Share of 3-grams that an answer has in its source must be above this, the `1 - CHANCE / DRAWS` quantile for
    real answers to other questions."""


@dataclass(frozen=True)
class SelfAnswers:
    """Result of a rejection sampling."""

    examples: list[SyntheticExample]
    questions: int
    answers: int
    rejected: dict[str, int]
    """Rejected answers, by `RejectReason`."""


def answer_bounds(prompts: Sequence[tuple[DatasetRow, tuple[list[ChatMessage], str]]]) -> AnswerBounds:
    """Measured on the real first answers of `prompts`, of which there is at least one."""
    references = [answer for _row, (_prompt, answer) in prompts]
    sizes = [_bytes(answer) for answer in references]
    rng = random.Random(len(references))
    by_chance = [0.0]
    for number, (row, _prompt) in enumerate(prompts):
        for _draw in range(OTHERS if len(prompts) > 1 else 0):
            other = (number + rng.randrange(1, len(prompts))) % len(prompts)
            by_chance.append(text_metrics.containment(references[other], _source(row)))
    return AnswerBounds(
        bytes=(_quantile(sizes, 0.025), _quantile(sizes, 0.975)),
        repetition=max(0.05, _quantile([text_metrics.repetition(answer) for answer in references], 0.99)),
        source=_quantile(by_chance, 1 - CHANCE / DRAWS),
    )


def chance_p_value(passed: int, questions: int) -> float:
    """P(at least `passed` of `questions` pass), when each passes by chance with probability `CHANCE` (binomial)."""
    return 1.0 - sum(
        math.comb(questions, count) * CHANCE**count * (1 - CHANCE) ** (questions - count)
        for count in range(passed)
    )


def reject_reason(answer: CandidateAnswer, bounds: AnswerBounds) -> RejectReason | None:
    """Why an answer is rejected for its form or words; None when it is not."""
    if not answer.stopped:
        return RejectReason.CUT
    if not bounds.bytes[0] <= _bytes(answer.text) <= bounds.bytes[1]:
        return RejectReason.LENGTH
    if text_metrics.repetition(answer.text) > bounds.repetition:
        return RejectReason.REPETITION
    if "\ufffd" in answer.text or text_metrics.containment(answer.text, answer.source) <= bounds.source:
        return RejectReason.SOURCE
    same = text_metrics.grams(answer.text) == text_metrics.grams(answer.reference)
    return RejectReason.COPY if same else None


def sample_self_answers(
    model: LanguageModel,
    rows: Sequence[DatasetRow],
    limit: int,
    rng: random.Random,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SelfAnswers:
    """Samples answers to `limit` real questions, each until one is accepted or `DRAWS` were rejected.

    Where the pass rate is no better than chance (`chance_p_value`), none is kept.
    `progress(done, total)` counts questions and may raise to stop.
    """
    prompts = [(row, found) for row in rows if (found := first_prompt(row))]
    if not prompts:
        return SelfAnswers([], 0, 0, {})
    bounds = answer_bounds(prompts)
    rng.shuffle(prompts)
    examples: list[SyntheticExample] = []
    rejected: Counter[str] = Counter()
    answers = 0
    with model.reproducible():
        for number, (row, (prompt, reference)) in enumerate(prompts[:limit]):
            for _draw in range(DRAWS):
                sampling = Sampling(
                    temperature=0.5, top_p=0.9, max_bytes=MAX_ANSWER_BYTES, seed=rng.getrandbits(31)
                )
                text, reason = _sample(model, row, prompt, reference, sampling, bounds)
                answers += 1
                if reason is None:
                    examples.append(_example(row, prompt, text))
                    break
                rejected[reason.value] += 1
            if progress is not None:
                progress(number + 1, min(limit, len(prompts)))
    questions = min(limit, len(prompts))
    if examples and chance_p_value(len(examples), questions) >= CHANCE:
        rejected[RejectReason.LUCK.value] = len(examples)
        examples = []
    return SelfAnswers(examples, questions, answers, dict(rejected))


def _sample(
    model: LanguageModel,
    row: DatasetRow,
    prompt: Sequence[ChatMessage],
    reference: str,
    sampling: Sampling,
    bounds: AnswerBounds,
) -> tuple[str, RejectReason | None]:
    """(an answer, why it is rejected). Its likelihood, the slowest check, comes last."""
    try:
        text, generated = generate_text(model, prompt, sampling)
    except RunFailed:
        return "", RejectReason.UNLIKELY
    answer = CandidateAnswer(text.strip(), _source(row), reference, generated.finish is Finish.STOP)
    if (reason := reject_reason(answer, bounds)) is not None:
        return answer.text, reason
    own, real = (answer_nll(model, prompt, content) for content in (text, reference))
    unlikely = own is None or real is None or own > MAX_NLL_RATIO * real
    return answer.text, RejectReason.UNLIKELY if unlikely else None


def answer_nll(model: LanguageModel, prompt: Sequence[ChatMessage], answer: str) -> float | None:
    """NLL of an answer to `prompt` in nats per byte; None where the model gives no finite value."""
    # The prompt's own answers are scored with and without the answer, and cancel out.
    turns = [msgspec.structs.replace(message, train=True) for message in prompt]
    without = conversation_nll(model, turns)
    with_answer = conversation_nll(model, [*turns, ChatMessage(role="assistant", content=answer)])
    if with_answer.bytes <= without.bytes:
        return None
    value = (with_answer.nats - without.nats) / (with_answer.bytes - without.bytes)
    return value if math.isfinite(value) else None


def _example(row: DatasetRow, prompt: Sequence[ChatMessage], text: str) -> SyntheticExample:
    context = [msgspec.structs.replace(message, train=False) for message in prompt]
    return SyntheticExample(
        id=f"{ID_PREFIX}{SyntheticMethod.ANSWERED}:{row.id}",
        cluster=row.cluster,
        messages=[*context, ChatMessage(role="assistant", content=text)],
        sources=[row.id],
        method=SyntheticMethod.ANSWERED,
    )


def _source(row: DatasetRow) -> str:
    return "\n".join(message.content for message in row.messages)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))
