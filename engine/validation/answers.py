"""Answers of both models to the person's own held-out questions: shown side by side, and checked for form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.inference.backends.native import Answering, NativeModel
from engine.inference.protocol import Finish, Sampling
from engine.models.transformer import Transformer
from engine.validation.cases import Case
from engine.validation.report import Answer, Measure
from engine.validation.statistics import interval95

QUESTIONS = 6
"""Questions that both answer; the first `SHOWN` are shown."""
SHOWN = 3
SAMPLING = Sampling(temperature=0.3, top_p=0.9, max_bytes=200, seed=0)
GRAM = 4
"""Characters of the pieces that repetition is counted in."""


@dataclass(frozen=True)
class Form:
    """What can be said of an answer without judging what it says."""

    length: int
    repetition: float
    stopped: bool


def pick_questions(cases: Sequence[Case]) -> list[Case]:
    """`QUESTIONS` cases that begin with a question, spread evenly over the window: always the same ones."""
    asked = [case for case in cases if case.prompt and case.prompt[-1].role == "user"]
    count = min(len(asked), QUESTIONS)
    return [asked[number * len(asked) // count] for number in range(count)]


def answer_all(
    model: Transformer | Answering,
    questions: Sequence[Case],
    *,
    step: Callable[[int], None] | None = None,
) -> list[tuple[str, Form]]:
    """One answer for each question, drawn with a fixed seed."""
    native = NativeModel(model) if isinstance(model, Transformer) else model
    found = []
    threads = torch.get_num_threads()
    # One byte at a time gives a second thread nothing to do but wait, and the same thread count the same text.
    torch.set_num_threads(1)
    try:
        for case in questions:
            found.append(_answer(native, case))
            if step is not None:
                step(SAMPLING.max_bytes)
    finally:
        torch.set_num_threads(threads)
    return found


def _answer(native: Answering, case: Case) -> tuple[str, Form]:
    prompt = [ChatMessage(role=message.role, content=message.content) for message in case.prompt]
    try:
        text, how = native.answer(prompt, SAMPLING)
    except RunFailed:
        # A model that gives no numbers has failed its scores too; the verdict says so.
        return "", Form(length=0, repetition=0.0, stopped=False)
    return text, form_of(text, how.finish is Finish.STOP)


def form_of(text: str, stopped: bool) -> Form:
    """Length in bytes, and the share of its 4-character pieces that stood in it before."""
    grams = [text[i : i + GRAM] for i in range(len(text) - GRAM + 1)]
    repetition = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return Form(length=len(text.encode("utf-8", "replace")), repetition=repetition, stopped=stopped)


def side_by_side(
    questions: Sequence[Case], base: Sequence[tuple[str, Form]], new: Sequence[tuple[str, Form]]
) -> list[Answer]:
    """The first answers of both, with the one that was really given."""
    return [
        Answer(question=case.question, wanted=case.wanted, base=old[0], new=fresh[0])
        for case, old, fresh in list(zip(questions, base, new, strict=True))[:SHOWN]
    ]


def form_measures(base: Sequence[tuple[str, Form]], new: Sequence[tuple[str, Form]]) -> list[Measure]:
    """Length, repetition and stop of both, paired by question; none where nothing was asked."""
    if not base:
        return []
    rows: list[tuple[str, str, Callable[[Form], float], bool]] = [
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
