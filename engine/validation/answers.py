"""Answers of both models to held-out questions: shown side by side, and measured by form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.core.errors import RunFailed
from engine.inference.language_model import Finish, LanguageModel, Sampling, generate_text
from engine.validation.cases import EvaluationCase
from engine.validation.report import AnswerPair, Measure
from engine.validation.statistics import interval95

QUESTIONS = 6
"""Questions that both models answer."""
SHOWN = 3
"""How many of them the report shows."""
ANSWER_BYTES = 400
"""Most of an answer: about a paragraph, so that the manner of its end is seen too."""
SAMPLING = Sampling(max_bytes=ANSWER_BYTES, seed=0)
"""As a chat samples, so that the report shows what a chat would say; small models repeat themselves at lower temperatures."""
GRAM = 4
"""Length in characters of the n-grams for repetition."""


@dataclass(frozen=True)
class AnswerForm:
    """Measures of an answer that need no judgement of its content."""

    length: int
    """UTF-8 bytes."""
    repetition: float
    """Share of its 4-grams that occurred in it before."""
    stopped: bool
    """Whether the model ended the answer itself."""


def pick_questions(cases: Sequence[EvaluationCase]) -> list[EvaluationCase]:
    """`QUESTIONS` cases that start with a question, spread evenly over the test set: always the same ones."""
    questions = [case for case in cases if case.prompt and case.prompt[-1].role == "user"]
    count = min(len(questions), QUESTIONS)
    return [questions[number * len(questions) // count] for number in range(count)]


def answer_all(
    model: LanguageModel,
    questions: Sequence[EvaluationCase],
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> list[tuple[str, AnswerForm]]:
    """One answer to each question, sampled with a fixed seed. `on_bytes` gets the byte limit after each answer."""
    answers = []
    with model.reproducible():
        for case in questions:
            answers.append(_answer(model, case))
            if on_bytes is not None:
                on_bytes(ANSWER_BYTES)
    return answers


def _answer(model: LanguageModel, case: EvaluationCase) -> tuple[str, AnswerForm]:
    try:
        text, generated = generate_text(model, case.prompt, SAMPLING)
    except RunFailed:
        # Its NLL is NaN as well, which the verdict reports.
        return "", AnswerForm(length=0, repetition=0.0, stopped=False)
    return text, form_of(text, generated.finish is Finish.STOP)


def form_of(text: str, stopped: bool) -> AnswerForm:
    """Length and repetition of an answer."""
    grams = [text[i : i + GRAM] for i in range(len(text) - GRAM + 1)]
    repetition = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return AnswerForm(length=len(text.encode("utf-8", "replace")), repetition=repetition, stopped=stopped)


def side_by_side(
    questions: Sequence[EvaluationCase],
    base: Sequence[tuple[str, AnswerForm]],
    new: Sequence[tuple[str, AnswerForm]],
) -> list[AnswerPair]:
    """The first answers of both models next to the original answer."""
    return [
        AnswerPair(question=case.question, wanted=case.reference, base=old[0], new=fresh[0])
        for case, old, fresh in list(zip(questions, base, new, strict=True))[:SHOWN]
    ]


def form_measures(
    base: Sequence[tuple[str, AnswerForm]], new: Sequence[tuple[str, AnswerForm]]
) -> list[Measure]:
    """Length, repetition and stop of both models, paired by question; [] without questions."""
    if not base:
        return []
    rows: list[tuple[str, str, Callable[[AnswerForm], float], bool]] = [
        ("length", "bytes", lambda form: float(form.length), False),
        ("repetition", "share", lambda form: form.repetition, True),
        ("stop", "share", lambda form: float(form.stopped), False),
    ]
    measures = []
    for name, unit, value, lower in rows:
        old = np.array([value(form) for _text, form in base])
        fresh = np.array([value(form) for _text, form in new])
        bounds = interval95(fresh - old)
        measures.append(
            Measure(
                name=name,
                unit=unit,
                base=float(old.mean()),
                new=float(fresh.mean()),
                delta=float((fresh - old).mean()),
                low=None if bounds is None else bounds[0],
                high=None if bounds is None else bounds[1],
                lower_is_better=lower,
            )
        )
    return measures
