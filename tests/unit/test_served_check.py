"""The served-path check: llama.cpp answers with what the verdict was computed from, or it says what differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow
from engine.inference.loader import open_language_model
from engine.validation.answers import pick_questions
from engine.validation.cases import cut_cases
from engine.validation.report import ServedCheck
from engine.validation.served import check_served
from engine.validation.served_text import served_sentences
from tests.export_models import write_gguf, write_lora
from tests.hf_models import KNOWN
from tests.models import talk

ROWS = [DatasetRow(id=f"c{n}", cluster=f"k{n}", messages=talk(*pair)) for n, pair in enumerate(KNOWN)]


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Workspace:
    """The GGUF model `tiny`, and `mine` and `other` on it: `other` has the GGUF copy of another adapter."""
    ws = Workspace(tmp_path_factory.mktemp("served") / "ws")
    ws.models.mkdir(parents=True)
    write_gguf(ws.models / "tiny.gguf", knowing_hf)
    write_lora(ws, "mine", seed=0)
    write_lora(ws, "other", seed=1)
    shutil.copy(ws.adapters / "mine" / "adapter.gguf", ws.adapters / "other" / "adapter.gguf")
    return ws


def check_of(ws: Workspace, name: str) -> ServedCheck | None:
    model = open_language_model(ws, name)
    cases = cut_cases(ROWS, model.eval_context, model.windows)
    return check_served(model, cases, pick_questions(cases))


@pytest.mark.parametrize("name", ["tiny", "mine"])
def test_what_is_served_is_what_was_judged(ws: Workspace, name: str) -> None:
    check = check_of(ws, name)
    assert check is not None and check.passed
    assert (check.prompts, check.same_prompts, check.stops) == (6, 6, True)
    assert check.positions == 12 and check.clear > 0 and check.mean_difference < 0.01
    (sentence,) = served_sentences(check)
    assert "what was judged" in sentence


def test_an_adapter_that_is_served_otherwise_is_found(ws: Workspace) -> None:
    check = check_of(ws, "other")
    assert check is not None and not check.passed and check.mean_difference > check.limit
    assert "adapter" in served_sentences(check)[0]


def test_a_model_that_torch_answers_is_not_compared(ws: Workspace, knowing_hf: Path) -> None:
    assert check_of(ws, str(knowing_hf)) is None


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (ServedCheck(prompts=6, same_prompts=5), "1 of 6 conversations: chat template or tokenizer"),
        (ServedCheck(prompts=6, same_prompts=6, stops=False), "stop token"),
        (ServedCheck(positions=9, clear=9, same_best=8, limit=0.3), "1 of 9 clear"),
        (ServedCheck(problem="llama.cpp does not answer"), "not compared"),
    ],
)
def test_what_differs_is_named(check: ServedCheck, sentence: str) -> None:
    assert not check.passed
    assert any(sentence in one for one in served_sentences(check))
    assert all("\n" not in one for one in served_sentences(check))
