"""One interface for all backends: names resolve to models, tokens are counted, texts are scored and embedded."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.inference.backends.hf import HFModel
from engine.inference.backends.native import NativeModel
from engine.inference.backends.ollama import OllamaModel
from engine.inference.language_model import (
    Finish,
    LanguageModel,
    Sampling,
    Unsupported,
    conversation_nll,
    generate_text,
)
from engine.inference.loader import open_language_model, open_pair
from engine.models import losses
from tests.models import copy_model

QUESTION = [ChatMessage(role="user", content="What is your name?")]


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, knowing: Path, knowing_hf: Path) -> Workspace:
    """A workspace with the native model `small`; the Hugging Face model `tiny` is next to it."""
    root = tmp_path_factory.mktemp("models")
    ws = Workspace(root / "ws")
    copy_model(knowing, ws.models / "small")
    shutil.copytree(knowing_hf, root / "tiny")
    return ws


@pytest.fixture(params=["native", "hf"])
def model(request: pytest.FixtureRequest, ws: Workspace) -> LanguageModel:
    name = "small" if request.param == "native" else str(ws.root.parent / "tiny")
    return open_language_model(ws, name)


def test_a_name_a_path_and_an_ollama_tag_open_their_backends(ws: Workspace) -> None:
    tiny = ws.root.parent / "tiny"
    assert isinstance(open_language_model(ws, "small"), NativeModel)
    assert isinstance(open_language_model(ws, ws.models / "small"), NativeModel)
    assert isinstance(open_language_model(ws, str(tiny)), HFModel)
    assert isinstance(open_language_model(ws, "ollama:qwen3:0.6b"), OllamaModel)
    assert open_language_model(ws, tiny).name == "tiny"
    with pytest.raises(BadInput):
        open_language_model(ws, "unknown")


def test_models_of_one_base_share_its_weights(ws: Workspace) -> None:
    tiny = ws.root.parent / "tiny"
    one, other = open_pair(ws, tiny, tiny)
    assert isinstance(one, HFModel) and isinstance(other, HFModel) and one.model is other.model
    native, hf = open_pair(ws, ws.models / "small", tiny)
    assert isinstance(native, NativeModel) and isinstance(hf, HFModel)


def test_tokens_are_counted_by_the_model(model: LanguageModel) -> None:
    text = "今天天气怎么样？"
    assert 0 < model.count_tokens(text) <= len(text.encode())
    assert model.count_tokens(QUESTION) > model.count_tokens(QUESTION[0].content)


def test_the_nll_of_a_conversation_is_that_of_its_trained_answers(model: LanguageModel) -> None:
    answer = ChatMessage(role="assistant", content="Tom.")
    loss = conversation_nll(model, [*QUESTION, answer])
    assert loss.bytes == len("Tom.") + 1 and loss.nats > 0 and loss.per_byte == loss.nats / loss.bytes
    masked = ChatMessage(role="assistant", content="Tom.", train=False)
    assert math.isnan(conversation_nll(model, [*QUESTION, masked]).per_byte)


def test_the_rolling_nll_of_a_text_covers_all_of_its_windows(model: LanguageModel) -> None:
    tokens: list[int] = []
    text = ("The quick brown fox jumps over the lazy dog. " * 40).encode()
    short, long = model.rolling_nll([text[:45], text], window_bytes=200, on_tokens=tokens.append)
    assert 0 < short.bytes < long.bytes < len(text) and short.nats < long.nats
    assert sum(tokens) > 0


def test_the_nll_with_entropy_is_the_rolling_nll_of_the_beginning(model: LanguageModel) -> None:
    text = "What is your name? 你叫什么名字？"
    (rolling,) = model.rolling_nll([text.encode()])
    found = model.nll_and_entropy(text)
    assert found.nats == pytest.approx(rolling.nats, rel=1e-5) and found.bytes == rolling.bytes
    long = model.nll_and_entropy(text * 100)
    assert found.bytes < long.bytes < len((text * 100).encode()), "only the beginning"
    assert 0 < found.entropy < found.bytes * 8
    empty = model.nll_and_entropy("")
    assert (empty.nats, empty.entropy, empty.bytes) == (0.0, 0.0, 0)


def test_the_entropy_follows_from_the_log_probabilities_of_every_position(model: LanguageModel) -> None:
    text = "What is your name?"
    tokens = model.chat.encode(text) if isinstance(model, HFModel) else list(text.encode())
    nats, entropy = 0.0, 0.0
    for place in range(1, len(tokens)):
        logs = model.next_token_log_probs(tokens[:place])
        assert sum(map(math.exp, logs)) == pytest.approx(1.0, abs=1e-4)
        nats -= logs[tokens[place]]
        entropy -= sum(math.exp(log) * log for log in logs)
    found = model.nll_and_entropy(text)
    assert len(tokens) > 1
    assert found.nats == pytest.approx(nats, rel=1e-4) and found.entropy == pytest.approx(entropy, rel=1e-4)


def test_logits_in_chunks_equal_those_at_once(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_language_model(ws, ws.root.parent / "tiny")
    text = "The quick brown fox jumps over the lazy dog."
    whole = model.nll_and_entropy(text)
    monkeypatch.setattr(losses, "CHUNK_BYTES", 3 * 4 * 400)
    parts = model.nll_and_entropy(text)
    assert parts.nats == pytest.approx(whole.nats, rel=1e-6)
    assert parts.entropy == pytest.approx(whole.entropy, rel=1e-6)


def test_embeddings_have_the_width_of_the_model_and_depend_on_the_text(model: LanguageModel) -> None:
    one, same, other, empty = model.embed(["What is this?", "What is this?", "你好", ""])
    assert one == same != other and len(one) == len(other) == len(empty) and all(map(math.isfinite, one))


def test_a_generation_ends_with_its_statistics(model: LanguageModel) -> None:
    text, generated = generate_text(model, QUESTION, Sampling(temperature=0, max_bytes=12))
    assert len(text.encode()) <= generated.bytes <= 12 and generated.seed is not None


def test_tokens_are_counted_by_the_models_own_tokenizer(model: LanguageModel) -> None:
    text, generated = generate_text(model, QUESTION, Sampling(temperature=0))
    assert generated.finish is Finish.STOP
    assert generated.prompt_tokens == model.count_tokens(QUESTION)
    assert generated.tokens == model.count_tokens(text) + 1, "and the stop token"
    assert generated.context == model.context
    assert 0 < generated.first_token_s <= generated.seconds


@pytest.mark.parametrize("most", [1, 3])
def test_an_answer_ends_after_its_largest_number_of_tokens(model: LanguageModel, most: int) -> None:
    whole, _stats = generate_text(model, QUESTION, Sampling(temperature=0))
    text, generated = generate_text(model, QUESTION, Sampling(temperature=0, max_tokens=most))
    assert generated.tokens == most and generated.finish is Finish.LENGTH
    assert whole.startswith(text) and len(text) < len(whole)


def test_a_backend_without_likelihoods_raises_unsupported() -> None:
    with pytest.raises(Unsupported) as problem:
        OllamaModel("x", "127.0.0.1:1").rolling_nll([b"text"])
    assert problem.value.exit_code == 2


def test_a_missing_file_of_weights_raises_bad_input(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput):
        open_language_model(ws, tmp_path)
