"""Measures of answers: averaged over samples, without reasoning, errors apart, similarity only by a real embedder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import numpy as np
import pytest

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, H2QError, RunFailed, ServiceUnreachable
from engine.corpus.embedding.backends import SentenceTransformerEmbedder
from engine.inference.language_model import Finish, Generated, LanguageModel, Sampling
from engine.validation.answer_measures import form_measures, similarity_measures, speed_measures
from engine.validation.answers import (
    ModelAnswers,
    SampledAnswer,
    answer_all,
    form_of,
    is_refusal,
    pick_extremes,
)
from engine.validation.cases import EvaluationCase
from engine.validation.report import CaseScore
from engine.validation.summary_text import similarity_lines
from engine.validation.verdict import nll_verdict
from tests.embedder import save_embedder
from tests.unit.test_verdict import SAME, decide
from tests.unit.test_verdict import cases as scored_cases


class Parrot:
    """A model that says what `say` makes of the question and the seed; an error is raised."""

    def __init__(self, say: Callable[[str, int], str | H2QError]) -> None:
        self._say = say

    def reproducible(self) -> AbstractContextManager[None]:
        return nullcontext()

    def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Iterator[str | Generated]:
        said = self._say(messages[-1].content, sampling.seed or 0)
        if isinstance(said, H2QError):
            raise said
        yield said
        yield Generated(
            finish=Finish.STOP, bytes=len(said.encode()), seconds=2.0, tokens=11, first_token_s=1.0
        )


def question(id_: str, text: str = "why?", answer: str = "because") -> EvaluationCase:
    prompt = [ChatMessage(role="user", content=text)]
    return EvaluationCase(
        conversation=id_, cluster=id_, windows=[], bytes=1, cut=0, prompt=prompt, reference=answer
    )


def answers(say: Callable[[str, int], str | H2QError], questions: Sequence[EvaluationCase]) -> ModelAnswers:
    return answer_all(cast(LanguageModel, Parrot(say)), questions)


ASKED = [question(f"c{n}", f"question {n}") for n in range(4)]


def test_three_answers_with_different_seeds_are_averaged() -> None:
    said = answers(lambda _text, seed: "x" * (10 * seed), ASKED)
    assert [[one.form.length for one in given] for given in said.samples] == [[0, 10, 20]] * 4
    length = form_measures(said, answers(lambda _text, _seed: "x" * 40, ASKED))[0]
    assert (length.name, length.base, length.new) == ("length", 10.0, 40.0)


@pytest.mark.parametrize("mark", ["<think>{0}</think>", "<think>\n{0}\n</think>\n\n"])
def test_reasoning_is_not_scored(mark: str) -> None:
    thought = mark.format("let me see, " * 20)
    said = answers(lambda _text, _seed: thought + "four", ASKED)
    assert {one.text.strip() for given in said.samples for one in given} == {"four"}
    assert {one.form.length for given in said.samples for one in given} == {4}


@pytest.mark.parametrize("problem", [RunFailed("NaN"), ServiceUnreachable("gone"), BadInput("refused")])
def test_a_failed_call_is_an_error_and_no_zero(problem: H2QError) -> None:
    def flaky(text: str, seed: int) -> str | H2QError:
        return problem if seed == 1 or text == "question 3" else "twelve bytes"

    base, new = answers(lambda _text, _seed: "twelve bytes", ASKED), answers(flaky, ASKED)
    assert new.failed == 3 + 3 and base.failed == 0
    length = form_measures(base, new)[0]
    assert (length.base, length.new, length.delta) == (12.0, 12.0, 0.0), "nothing is measured on an error"
    silent = answers(lambda _text, _seed: problem, ASKED)
    assert form_measures(base, silent) == [] == speed_measures(base, silent)
    assert silent.first(0) == ""


def test_a_model_that_fails_to_answer_is_not_promoted() -> None:
    given = scored_cases(0.5, 0.01)
    assert decide(given).decision == "promote"
    for failed, decision in (((0, 1), "keep"), ((1, 0), "inconclusive"), ((0, 0), "promote")):
        verdict = nll_verdict(
            given, base_name="old", new_name="fresh", look=1, general=SAME, failed_answers=failed
        )
        assert verdict.decision == decision
        assert any("failed to answer 1 time" in reason for reason in verdict.reasons) == (failed != (0, 0))


def test_speed_is_the_median_of_what_the_backend_says() -> None:
    said = answers(lambda _text, _seed: "x", ASKED)
    first, speed = speed_measures(said, said)
    assert (first.name, first.new, speed.name, speed.new) == ("first_token", 1.0, "tokens_per_s", 10.0)
    mute = ModelAnswers([[SampledAnswer("x", form_of("x", True))]])
    assert speed_measures(mute, said) == []


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot provide medical advice.", True),
        ("As an AI language model, I do not have feelings.", True),
        ("Sorry, I am unable to do this.", True),
        ("抱歉，我无法回答这个问题。", True),
        ("作为一个人工智能，我没有感情。", True),
        ("我不能提供医疗建议。", True),
        ("You can't park there; the sign says so. I would move it.", False),
        ("Take the bread out when it sounds hollow.", False),
        ("先把面团放一夜，再烤。抱歉，昨天说错了温度。", False),
        ("", False),
    ],
)
def test_a_refusal_is_known_by_how_it_begins(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused


def test_the_extremes_are_the_worst_and_the_best_that_are_not_asked_anyway() -> None:
    found = [question(f"c{n}") for n in range(8)]
    scores = [
        CaseScore(conversation=f"c{n}", cluster=f"c{n}", bytes=1, base=1.0, new=1.0 + gain)
        for n, gain in enumerate([0.9, 0.5, 0.1, 0.0, -0.1, -0.5, -0.9, 0.7])
    ]
    picked = pick_extremes(found, scores, [found[0]])
    assert [(case.conversation, kind) for case, kind in picked] == [
        ("c7", "loss"),
        ("c1", "loss"),
        ("c6", "win"),
        ("c5", "win"),
    ]
    assert pick_extremes(found, scores[3:4], []) == []


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformerEmbedder:
    folder = tmp_path_factory.mktemp("embedder") / "small"
    return SentenceTransformerEmbedder(save_embedder(folder, "问题答案天地玄黄"))


def test_similarity_names_its_embedder_and_its_floors(embedder: SentenceTransformerEmbedder) -> None:
    wanted = ["bread needs time", "天地玄黄", "a viola clef", "42"]
    asked = [question(f"c{n}", str(n), text) for n, text in enumerate(wanted)]
    right = answers(lambda text, _seed: wanted[int(text)], asked)
    other = answers(lambda text, seed: wanted[(int(text) + 1 + seed) % 4], asked)
    (similar, accurate), floors = similarity_measures(embedder, wanted, other, right)
    assert (similar.name, accurate.name) == ("similarity", "accuracy")
    assert similar.new == pytest.approx(1.0) and accurate.new == 1.0
    assert similar.base is not None and similar.base < 0.999 and not similar.lower_is_better
    assert floors.embedder == embedder.name
    vectors = embedder.encode(wanted)
    shifted = [float(vectors[n] @ vectors[(n + 1) % 4]) for n in range(4)]
    assert floors.unrelated is not None and floors.repeated is not None
    assert similarity_measures(embedder, wanted, right, right)[1].unrelated == pytest.approx(np.mean(shifted))
    assert similarity_measures(embedder, wanted, right, right)[1].repeated == pytest.approx(1.0)
    (line,) = similarity_lines(floors)
    assert embedder.name in line and f"{floors.unrelated:.2f}" in line


def test_similarity_ignores_calls_that_failed(embedder: SentenceTransformerEmbedder) -> None:
    wanted = ["a", "b", "c", "d"]
    asked = [question(f"c{n}", str(n), text) for n, text in enumerate(wanted)]
    right = answers(lambda text, _seed: wanted[int(text)], asked)
    half = answers(lambda text, _seed: wanted[int(text)] if text in "01" else RunFailed("x"), asked)
    (similar, accurate), _floors = similarity_measures(embedder, wanted, right, half)
    assert similar.new == pytest.approx(1.0) and accurate.new == 1.0
    nothing = answers(lambda _text, _seed: RunFailed("x"), asked)
    assert similarity_measures(embedder, wanted, right, nothing)[0] == []
