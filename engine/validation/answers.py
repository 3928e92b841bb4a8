"""Answers of both models to held-out questions: which are asked, what is said, and its form."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from engine.core.errors import BadInput, RunFailed, ServiceUnreachable
from engine.inference.language_model import Finish, LanguageModel, Sampling, generate_text
from engine.memory.importers.reasoning import without_reasoning
from engine.validation.cases import EvaluationCase
from engine.validation.report import AnswerPair, CaseScore

QUESTIONS = 6
"""Questions that both models answer, spread over the test set: what the measures are taken from."""
SAMPLES = 3
"""Answers of each model to each of them, which are averaged."""
SHOWN = 3
"""How many of the questions the report shows."""
EXTREMES = 2
"""Largest losses, and largest wins, that are answered once more to be shown; no measure is taken from them."""
ANSWER_BYTES = 400
"""Most of an answer: about a paragraph, so that the manner of its end is seen too."""
SAMPLING = Sampling(max_bytes=ANSWER_BYTES, seed=0)
"""As a chat samples, so that the report shows what a chat would say; small models repeat themselves at lower temperatures."""
GRAM = 4
"""Length in characters of the n-grams for repetition."""
_REFUSAL = re.compile(
    r"\A.{0,60}?(?:\bI(?:['’]m| am) (?:sorry|afraid|unable|not able)\b|\bI (?:can(?:['’]t|not| not)|won['’]t|must decline)\b"
    r"|\bas an? (?:AI|artificial|language model)\b|作为(?:一个|一名|一款)?(?:AI|人工智能|语言模型)"
    r"|(?:抱歉|对不起|很遗憾).{0,12}(?:不能|无法|不便|没办法)|我(?:不能|无法|没有办法)(?:回答|提供|帮|协助|满足|讨论))",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class AnswerForm:
    """Measures of an answer that need no judgement of its content."""

    length: int
    """UTF-8 bytes."""
    repetition: float
    """Share of its 4-grams that occurred in it before."""
    stopped: bool
    """Whether the model ended the answer itself."""
    refused: bool = False
    """Whether it begins as refusals do."""


@dataclass(frozen=True)
class SampledAnswer:
    """One answer, without the reasoning before it, which is not scored."""

    text: str
    form: AnswerForm
    first_token_s: float = 0.0
    """0 where the backend does not say."""
    tokens_per_s: float = 0.0


@dataclass(frozen=True)
class ModelAnswers:
    """What one model said to each question: the answers that it gave, of several attempts."""

    samples: Sequence[Sequence[SampledAnswer]]
    """Shape (questions, up to `SAMPLES`)."""
    failed: int = 0
    """Calls that failed. They are errors of the model and no answers: nothing is measured on them."""

    def first(self, question: int) -> str:
        """The first answer to a question; "" without one."""
        return self.samples[question][0].text if self.samples[question] else ""


def pick_questions(cases: Sequence[EvaluationCase]) -> list[EvaluationCase]:
    """`QUESTIONS` cases that start with a question, spread evenly over the test set: always the same ones."""
    questions = [case for case in cases if case.prompt and case.prompt[-1].role == "user"]
    count = min(len(questions), QUESTIONS)
    return [questions[number * len(questions) // count] for number in range(count)]


def pick_extremes(
    cases: Sequence[EvaluationCase], scores: Sequence[CaseScore], others: Sequence[EvaluationCase]
) -> list[tuple[EvaluationCase, str]]:
    """The largest losses and wins that start with a question, without `others`; with "loss" or "win"."""
    asked = {case.conversation for case in others}
    found = {
        case.conversation: case
        for case in cases
        if case.prompt and case.prompt[-1].role == "user" and case.conversation not in asked
    }
    ordered = sorted(scores, key=lambda score: score.base - score.new)
    losses = [one for one in ordered if one.new > one.base and one.conversation in found]
    wins = [one for one in reversed(ordered) if one.new < one.base and one.conversation in found]
    return [
        *((found[one.conversation], "loss") for one in losses[:EXTREMES]),
        *((found[one.conversation], "win") for one in wins[:EXTREMES]),
    ]


def answer_all(
    model: LanguageModel,
    questions: Sequence[EvaluationCase],
    *,
    samples: int = SAMPLES,
    on_bytes: Callable[[int], None] | None = None,
) -> ModelAnswers:
    """`samples` answers to each question, with fixed seeds. `on_bytes` gets the byte limit after each answer."""
    answers: list[list[SampledAnswer]] = []
    failed = 0
    with model.reproducible():
        for case in questions:
            given = []
            for seed in range(samples):
                answer = _answer(model, case, seed)
                if answer is None:
                    failed += 1
                else:
                    given.append(answer)
                if on_bytes is not None:
                    on_bytes(ANSWER_BYTES)
            answers.append(given)
    return ModelAnswers(answers, failed)


def _answer(model: LanguageModel, case: EvaluationCase, seed: int) -> SampledAnswer | None:
    """None when the call fails."""
    try:
        said, generated = generate_text(model, case.prompt, msgspec.structs.replace(SAMPLING, seed=seed))
    except (RunFailed, ServiceUnreachable, BadInput):
        return None
    text, _reasoning = without_reasoning(said)
    return SampledAnswer(
        text=text,
        form=form_of(text, generated.finish is Finish.STOP),
        first_token_s=generated.first_token_s,
        tokens_per_s=generated.tokens_per_s,
    )


def form_of(text: str, stopped: bool) -> AnswerForm:
    """The form of an answer."""
    grams = [text[i : i + GRAM] for i in range(len(text) - GRAM + 1)]
    repetition = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return AnswerForm(
        length=len(text.encode("utf-8", "replace")),
        repetition=repetition,
        stopped=stopped,
        refused=is_refusal(text),
    )


def is_refusal(text: str) -> bool:
    """Whether an answer begins as refusals do, in English or Chinese."""
    return _REFUSAL.search(text.strip()) is not None


def side_by_side(
    questions: Sequence[EvaluationCase], base: ModelAnswers, new: ModelAnswers
) -> list[AnswerPair]:
    """The first answers of both models next to the original answer, for the first questions."""
    return [_pair(case, base.first(place), new.first(place)) for place, case in enumerate(questions[:SHOWN])]


def extremes_side_by_side(
    extremes: Sequence[tuple[EvaluationCase, str]], base: ModelAnswers, new: ModelAnswers
) -> list[AnswerPair]:
    """The same for losses and wins."""
    return [
        msgspec.structs.replace(_pair(case, base.first(place), new.first(place)), shown_as=kind)
        for place, (case, kind) in enumerate(extremes)
    ]


def _pair(case: EvaluationCase, base: str, new: str) -> AnswerPair:
    return AnswerPair(
        question=case.question, wanted=case.reference, base=base, new=new, conversation=case.conversation
    )
