"""The champion's own answers to real questions, and the filter that lets only sound ones into a dataset.

What counts as sound is measured on the person's own real answers, never chosen so that something passes: a model
that writes nothing worth learning yet adds nothing, and the cycle has retrieval and recombination.
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
from engine.evolution import text_metrics
from engine.evolution.augmentation import first_question
from engine.evolution.synthetic import PREFIX, Fault, Made, Way
from engine.inference.language_model import Finish, LanguageModel, Sampling, conversation_nll, generate_text
from engine.inference.sampling import single_threaded
from engine.training.chat_batches import DatasetRow

DRAWS = 3
"""Answers drawn to a question until one is sound."""
MOST_SURPRISE = 1.25
"""An answer's NLL per byte under the champion, at most so many times that of the real answer."""
LONGEST = 240
"""Bytes that an answer may take."""
OTHERS = 3
"""Answers to other questions that are held against each source, for what chance alone shares with it."""
LUCK = 0.05
"""Share of questions to which one of `DRAWS` answers may pass by chance, and the p at which more than that do."""


@dataclass(frozen=True)
class Given:
    """One answer of the champion, with all that its form and words are judged by."""

    text: str
    source: str
    wanted: str
    stopped: bool


@dataclass(frozen=True)
class Bounds:
    """What the person's real answers are like: an answer must stand among them."""

    bytes: tuple[float, float]
    """Between these lie 95 % of the real answers."""
    repetition: float
    """99 % of the real answers repeat less of themselves than this, and 5 % of a text is never too much."""
    source: float
    """An answer must have a larger share of its 3-grams in its source (its conversation, real answer included):
    so many of them only `LUCK / DRAWS` of the real answers to other questions have there."""


@dataclass(frozen=True)
class Asked:
    """What came of asking the champion."""

    made: list[Made]
    questions: int
    answers: int
    refused: dict[str, int]
    """Answers left out, by their fault."""


def bounds_of(asked: Sequence[tuple[DatasetRow, tuple[list[ChatMessage], str]]]) -> Bounds:
    """Measured on the real first answers of `asked`, one at least."""
    wanted = [answer for _row, (_prompt, answer) in asked]
    sizes = [_bytes(answer) for answer in wanted]
    chance = random.Random(len(wanted))
    by_chance = [0.0]
    for number, (row, _found) in enumerate(asked):
        for _draw in range(OTHERS if len(asked) > 1 else 0):
            other = (number + chance.randrange(1, len(asked))) % len(asked)
            by_chance.append(text_metrics.contained(wanted[other], _source(row)))
    return Bounds(
        bytes=(_quantile(sizes, 0.025), _quantile(sizes, 0.975)),
        repetition=max(0.05, _quantile([text_metrics.repetition(answer) for answer in wanted], 0.99)),
        source=_quantile(by_chance, 1 - LUCK / DRAWS),
    )


def by_luck(passed: int, questions: int) -> float:
    """The chance that so many questions or more have an answer that passes, when each has it with `LUCK`."""
    return 1.0 - sum(
        math.comb(questions, count) * LUCK**count * (1 - LUCK) ** (questions - count)
        for count in range(passed)
    )


def fault(given: Given, bounds: Bounds) -> Fault | None:
    """Why an answer is left out; None when nothing speaks against it."""
    if not given.stopped:
        return Fault.CUT
    if not bounds.bytes[0] <= _bytes(given.text) <= bounds.bytes[1]:
        return Fault.LENGTH
    if text_metrics.repetition(given.text) > bounds.repetition:
        return Fault.REPETITION
    if "\ufffd" in given.text or text_metrics.contained(given.text, given.source) <= bounds.source:
        return Fault.SOURCE
    return Fault.COPY if text_metrics.grams(given.text) == text_metrics.grams(given.wanted) else None


def answered(
    model: LanguageModel,
    rows: Sequence[DatasetRow],
    most: int,
    chance: random.Random,
    *,
    step: Callable[[int, int], None] | None = None,
) -> Asked:
    """Asks `most` real questions, each until an answer is sound or `DRAWS` were not.

    Where no more of them pass than by luck (`by_luck`), what passed is no better than the rest and none is kept.
    `step(done, total)` may raise to stop. The source of an answer is its whole real conversation.
    """
    asked = [(row, found) for row in rows if (found := first_question(row))]
    if not asked:
        return Asked([], 0, 0, {})
    bounds = bounds_of(asked)
    chance.shuffle(asked)
    made: list[Made] = []
    refused: Counter[str] = Counter()
    answers = 0
    with single_threaded():
        for number, (row, (prompt, wanted)) in enumerate(asked[:most]):
            for _draw in range(DRAWS):
                sampling = Sampling(
                    temperature=0.5, top_p=0.9, max_bytes=LONGEST, seed=chance.getrandbits(31)
                )
                text, why = _ask(model, row, prompt, wanted, sampling, bounds)
                answers += 1
                if why is None:
                    made.append(_row(row, prompt, text))
                    break
                refused[why.value] += 1
            if step is not None:
                step(number + 1, min(most, len(asked)))
    questions = min(most, len(asked))
    if made and by_luck(len(made), questions) >= LUCK:
        refused[Fault.LUCK.value] = len(made)
        made = []
    return Asked(made, questions, answers, dict(refused))


def _row(row: DatasetRow, prompt: Sequence[ChatMessage], text: str) -> Made:
    context = [msgspec.structs.replace(message, train=False) for message in prompt]
    return Made(
        id=f"{PREFIX}{Way.ANSWERED}:{row.id}",
        cluster=row.cluster,
        messages=[*context, ChatMessage(role="assistant", content=text)],
        made_from=[row.id],
        way=Way.ANSWERED,
    )


def _ask(
    model: LanguageModel,
    row: DatasetRow,
    prompt: Sequence[ChatMessage],
    wanted: str,
    sampling: Sampling,
    bounds: Bounds,
) -> tuple[str, Fault | None]:
    """(an answer, what speaks against it). Its likelihood, which takes longest, is asked last."""
    try:
        text, how = generate_text(model, prompt, sampling)
    except RunFailed:
        return "", Fault.UNLIKELY
    given = Given(text.strip(), _source(row), wanted, how.finish is Finish.STOP)
    if (found := fault(given, bounds)) is not None:
        return given.text, found
    own, real = (nll_of(model, prompt, answer) for answer in (text, wanted))
    unlikely = own is None or real is None or own > MOST_SURPRISE * real
    return given.text, Fault.UNLIKELY if unlikely else None


def nll_of(model: LanguageModel, prompt: Sequence[ChatMessage], answer: str) -> float | None:
    """NLL of an answer to `prompt` in nats per byte; None where the model gives no finite value."""
    # The prompt's own answers are scored with and without the answer, and cancel out.
    turns = [msgspec.structs.replace(message, train=True) for message in prompt]
    without = conversation_nll(model, turns)
    all_ = conversation_nll(model, [*turns, ChatMessage(role="assistant", content=answer)])
    value = (
        (all_.nats - without.nats) / (all_.bytes - without.bytes) if all_.bytes > without.bytes else math.nan
    )
    return value if math.isfinite(value) else None


def _source(row: DatasetRow) -> str:
    return "\n".join(message.content for message in row.messages)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))
