"""GGUF models through llama.cpp: the same text as torch, one process for each model, and what becomes of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from gguf import GGUFReader

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, RunFailed, ServiceUnreachable
from engine.core.paths import Workspace
from engine.inference.backends.hf import HFModel
from engine.inference.backends.llama_cpp import LlamaCppModel, is_installed
from engine.inference.language_model import (
    Finish,
    Generated,
    LanguageModel,
    Sampling,
    collect,
    conversation_nll,
    generate_text,
)
from engine.inference.loader import open_language_model, open_pair
from engine.models.base_models import find_base
from tests.export_models import write_gguf, write_lora
from tests.hf_models import KNOWN, write_hf

QUESTION = [ChatMessage(role="user", content=KNOWN[1][0])]
ALL = 1 << 16
"""More tokens than any vocabulary here."""
GREEDY = Sampling(temperature=0.0, seed=0)


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Workspace:
    """A workspace with the GGUF model `tiny` and the adapter `mine` on it."""
    ws = Workspace(tmp_path_factory.mktemp("llama") / "ws")
    ws.models.mkdir(parents=True)
    write_gguf(ws.models / "tiny.gguf", knowing_hf)
    write_lora(ws, "mine", seed=0)
    return ws


@pytest.fixture(scope="module")
def served(ws: Workspace) -> Iterator[LlamaCppModel]:
    model = open_language_model(ws, "tiny", serving=True)
    assert isinstance(model, LlamaCppModel)
    yield model


@pytest.fixture(scope="module")
def torch_model(ws: Workspace) -> HFModel:
    return HFModel.load(find_base(ws, "tiny"))


def log_probs(model: LanguageModel, asked: list[ChatMessage] = QUESTION) -> dict[int, float]:
    assert isinstance(model, LlamaCppModel)
    with model.reproducible():
        return model.served_log_probs(model.chat.prompt(asked), ALL)


@pytest.mark.parametrize("question", [question for question, _answer in KNOWN])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_bytes": 8},
        {"max_bytes": 1},
        {"max_bytes": 400},
        {"stop": ["name", "小"]},
        {"stop": ["", "."]},
    ],
    ids=str,
)
def test_greedy_answers_are_those_of_torch(
    served: LlamaCppModel, torch_model: HFModel, question: str, limits: dict[str, object]
) -> None:
    asked = [ChatMessage(role="user", content=question)]
    sampling = Sampling(temperature=0.0, seed=7, **limits)  # type: ignore[arg-type]
    (text, how), (expected, same) = (
        generate_text(served, asked, sampling),
        generate_text(torch_model, asked, sampling),
    )
    assert (text, how.finish, how.seed) == (expected, same.finish, 7)
    assert how.bytes == len(text.encode())


def test_a_conversation_that_is_too_long_loses_the_same_turns(
    served: LlamaCppModel, torch_model: HFModel
) -> None:
    long = [
        ChatMessage(role=role, content=f"{number} hello")
        for number in range(40)
        for role in ("user", "assistant")
    ]
    found, expected = (generate_text(model, [*long, *QUESTION], GREEDY) for model in (served, torch_model))
    assert found[1].dropped_turns == expected[1].dropped_turns > 0
    assert found[0] == expected[0]


def test_a_seed_gives_the_same_text_and_another_one_another(served: LlamaCppModel) -> None:
    hot = [
        Sampling(temperature=3.0, top_p=1.0, max_bytes=60, seed=seed)
        for seed in (1, 1, 2, (1 << 32) - 1, (1 << 32) - 1)
    ]
    with served.reproducible():
        one, same, other, last, last_again = (
            generate_text(served, QUESTION, sampling)[0] for sampling in hot
        )
    assert one == same != other
    assert last == last_again


def test_no_earlier_conversation_changes_a_reproducible_answer(served: LlamaCppModel) -> None:
    first = log_probs(served)
    served.served_log_probs(served.chat.prompt([*QUESTION, ChatMessage(role="assistant", content="x")]), 1)
    assert log_probs(served) == first


def test_base_adapter_and_base_again_have_log_probabilities_of_their_own(ws: Workspace) -> None:
    base, mine, again = (open_language_model(ws, name) for name in ("tiny", "mine", "tiny"))
    before = log_probs(base)
    adapted = log_probs(mine)
    assert log_probs(base) == log_probs(again) == before
    assert max(abs(before[token] - adapted[token]) for token in before) > 0.5
    for model, found in ((base, before), (mine, adapted)):
        prompt = model.chat.prompt(QUESTION)  # type: ignore[attr-defined]
        expected = dict(enumerate(model.next_token_log_probs(prompt)))
        assert found == pytest.approx(expected, abs=0.02)


def test_both_of_a_pair_answer_in_llama_cpp_with_weights_loaded_once(ws: Workspace) -> None:
    base, mine = open_pair(ws, ws.models / "tiny.gguf", ws.adapters / "mine")
    assert isinstance(base, LlamaCppModel) and isinstance(mine, LlamaCppModel)
    assert (base.name, mine.name) == ("tiny", "mine")
    assert base._scorer.model is mine._scorer.model
    talk = [*QUESTION, ChatMessage(role="assistant", content=KNOWN[1][1])]
    assert conversation_nll(base, talk).per_byte < 0.2 < conversation_nll(mine, talk).per_byte
    assert generate_text(base, QUESTION, GREEDY)[0] == KNOWN[1][1] != generate_text(mine, QUESTION, GREEDY)[0]


@pytest.mark.parametrize("text", ["", "Hello", "今天天气怎么样？", "a b " * 300], ids=lambda text: text[:8])
def test_embeddings_are_those_of_torch(served: LlamaCppModel, torch_model: HFModel, text: str) -> None:
    assert served.embed([text, "x"])[0] == pytest.approx(torch_model.embed([text])[0], abs=0.01)


def test_an_empty_conversation_is_refused(served: LlamaCppModel, torch_model: HFModel) -> None:
    for model in (served, torch_model):
        with pytest.raises(BadInput, match="no message"):
            generate_text(model, [], GREEDY)


def test_a_cancellation_ends_the_answer_and_frees_the_model(served: LlamaCppModel) -> None:
    cancelled = threading.Event()
    stream = served.generate(QUESTION, Sampling(temperature=5.0, top_p=1.0, stop=[]), cancelled)
    next(stream)
    cancelled.set()
    assert not any(isinstance(item, Generated) for item in stream)
    assert generate_text(served, QUESTION, GREEDY)[0] == KNOWN[1][1]


@pytest.mark.parametrize("answering", [False, True], ids=["before the answer", "within the answer"])
def test_a_process_that_dies_is_one_sentence_and_the_next_answer_another_process(
    tmp_path: Path, answering: bool
) -> None:
    # The answer is too long to end before the process does.
    file = write_gguf(tmp_path / "long.gguf", write_hf(tmp_path / "hf", positions=8192))
    model = open_language_model(Workspace(tmp_path / "ws"), str(file), serving=True)
    assert isinstance(model, LlamaCppModel)
    pid = model._server().pid
    stream = model.generate(QUESTION, Sampling(temperature=0.0, max_bytes=1 << 20))
    if answering:
        next(stream)
        os.kill(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, [pid, signal.SIGKILL]).start()
    with pytest.raises(ServiceUnreachable, match=r"signal 9") as problem:
        collect(stream)
    assert "\n" not in str(problem.value) and problem.value.exit_code == 4
    assert generate_text(model, QUESTION, Sampling(max_bytes=4))[0]
    assert model._server().pid != pid


def test_the_process_ends_with_its_model(ws: Workspace) -> None:
    model = open_language_model(ws, "tiny", serving=True)
    assert isinstance(model, LlamaCppModel) and model.memory_mb > 1
    process = psutil.Process(model._server().pid)
    del model
    process.wait(5)


def test_no_process_is_left_when_its_parent_is_killed(ws: Workspace) -> None:
    code = (
        "import sys, time; from pathlib import Path; from engine.inference.llama.server import LlamaServer\n"
        "server = LlamaServer(Path(sys.argv[1]), context=64, threads=1); print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(ws.models / "tiny.gguf")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with suppress(psutil.NoSuchProcess):
        child.wait(10)
    assert not child.is_running()


def test_a_model_without_numbers_says_so(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "nan.gguf"
    file.write_bytes((ws.models / "tiny.gguf").read_bytes())
    reader = GGUFReader(file, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "blk.0.ffn_down.weight").data[:] = np.nan
    reader.data.flush()
    with pytest.raises(RunFailed, match="NaN"):
        generate_text(open_language_model(ws, str(file)), QUESTION, GREEDY)


def test_torch_answers_where_llama_cpp_is_not_installed(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_installed.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr("engine.inference.backends.llama_cpp.find_spec", lambda _name: None)
    assert isinstance(open_language_model(ws, "tiny", serving=True), HFModel)
    is_installed.cache_clear()


def test_torch_answers_where_llama_cpp_lacks_a_library(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text(
        "raise ImportError('libgomp.so.1: cannot open shared object file')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = open_language_model(ws, "tiny", serving=True)
    assert generate_text(model, QUESTION, GREEDY)[0] == KNOWN[1][1]
    assert model.embed(["x"])[0]


def test_an_answer_ends_when_the_model_ends_its_turn(served: LlamaCppModel) -> None:
    text, how = generate_text(served, QUESTION, GREEDY)
    assert (text, how.finish) == (KNOWN[1][1], Finish.STOP)
