"""Turns before every conversation: in prompts, in windows, in likelihoods, and in llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.export.create_model import CreateRequest, create_model
from engine.inference.backends.hf import HFModel
from engine.inference.backends.llama_cpp import LlamaCppModel
from engine.inference.loader import open_pair
from engine.models.base_models import find_base, model_path
from engine.models.chat_template import ChatTemplate
from engine.models.hf import load_base, load_chat_template
from engine.models.message_turns import MessageTemplate, with_turns
from tests.chat_templates import PUBLIC, public_tokenizer
from tests.export_models import write_arch, write_gguf
from tests.hf_models import tiny_tokenizer


def talk(*turns: str) -> list[ChatMessage]:
    """Turns that begin with their role: "U hello"."""
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return [ChatMessage(role=roles[turn[0]], content=turn[2:]) for turn in turns]


TURNS = talk("U What is tea?", "A A drink.", "U 再见", "A 再见！<|im_end|>")
CONVERSATIONS = [
    talk("U hello", "A hi there"),
    talk("S Be brief.", "U q1", "A a1", "U q2", "A a2"),
    talk("U q1", "A a1", "U q2", "A a2", "U Thank you", "A You are welcome."),
    talk("U \n\n two lines\n", "A ```\n x\n```"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_answer_stands_behind_the_turns_and_the_prompt_that_chat_sends(name: str) -> None:
    tokenizer = public_tokenizer(name)
    try:
        chat = MessageTemplate(tokenizer, TURNS)
        plain = ChatTemplate(tokenizer)
        chat.prompt(CONVERSATIONS[0][:1])
    except BadInput:
        pytest.skip("the template rejects the turns")
    for messages in CONVERSATIONS:
        try:
            windows, without = chat.windows(messages, 400), plain.windows(messages, 400)
        except BadInput:
            continue
        assert [window.trained_bytes for window in windows] == [window.trained_bytes for window in without]
        for window in windows:
            first = window.loss_mask.index(True)
            before = next(
                k
                for k, message in enumerate(messages)
                if message.role == "assistant" and chat.prompt(messages[:k]) == window.ids[:first]
            )
            assert chat.prompt(messages[:before]) == plain.prompt(with_turns(TURNS, messages[:before]))


def test_a_long_chat_drops_the_turns_first_and_keeps_its_own() -> None:
    chat = MessageTemplate(tiny_tokenizer(), TURNS)
    messages = talk("U my first question", "A its answer", "U my second question")
    whole = chat.fit(messages, 10_000)
    assert whole.ids == chat.prompt(messages) and whole.dropped == 0
    short = chat.fit(messages, len(whole.ids) - 1)
    assert short.messages == [*chat.turns[2:], *messages] and short.dropped == 2


def _store(tmp_path: Path, turns: Sequence[ChatMessage] = TURNS) -> Workspace:
    ws = Workspace(tmp_path / "ws")
    base = write_gguf(tmp_path / "base.gguf", write_arch(tmp_path / "hf", "llama"))
    for name, before in (("plain", ()), ("mine", turns)):
        list(
            create_model(
                ws, CreateRequest(name, from_=str(base), messages=before, parameters={"num_ctx": 1024})
            )
        )
    return ws


def test_likelihoods_behind_turns_that_are_read_once_are_those_of_the_whole_text(tmp_path: Path) -> None:
    ws = _store(tmp_path)
    base = find_base(ws, "mine")
    model = HFModel(load_base(base, torch.float32), load_chat_template(base), 1024)
    texts = [b"Boil the water.", "你好，世界。".encode()]
    windows = [window for messages in CONVERSATIONS for window in model.windows(messages, 64)]
    kept = [model.nll(windows), model.rolling_nll(texts)]
    ids = windows[0].ids[:-3]
    log_probs = model.next_token_log_probs(ids)
    assert model._kept._cache is not None
    model._kept.ids = []
    whole = [model.nll(windows), model.rolling_nll(texts)]
    for one, other in zip(kept, whole, strict=True):
        assert [loss.bytes for loss in one] == [loss.bytes for loss in other]
        assert [loss.nats for loss in one] == pytest.approx([loss.nats for loss in other], rel=1e-4)
    assert log_probs == pytest.approx(model.next_token_log_probs(ids), abs=1e-4)


def test_base_and_message_model_share_weights_and_read_the_same_windows(tmp_path: Path) -> None:
    ws = _store(tmp_path)
    base, new = open_pair(ws, model_path(ws, "plain"), model_path(ws, "mine"))
    assert isinstance(base, LlamaCppModel) and isinstance(new, LlamaCppModel)
    assert base._scorer.model is new._scorer.model
    assert new.context == 1024
    for messages in CONVERSATIONS:
        one, other = (model.windows(messages, 64) for model in (base, new))
        assert [window.trained_bytes for window in one] == [window.trained_bytes for window in other]
        assert all(len(window.ids) > len(new.chat.turn_ids) for window in other)


def test_llama_cpp_makes_the_same_prompts_with_the_turns(tmp_path: Path) -> None:
    # What merely spells a control token is text here, and a control token there.
    ws = _store(tmp_path, [*TURNS[:-1], ChatMessage(role="assistant", content="再见！")])
    _base, new = open_pair(ws, model_path(ws, "plain"), model_path(ws, "mine"))
    assert isinstance(new, LlamaCppModel)
    for messages in CONVERSATIONS:
        assert new.served_prompt(messages[:-1]) == new.prompt(messages[:-1])
