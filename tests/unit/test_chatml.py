"""ChatML of the native model: loss mask, windows, and no content becomes a control token."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.models.chatml import render, windows
from engine.models.native_format import save_model
from engine.models.tokenizer import IM_END, IM_START, SPECIAL_TOKENS, Utf8Stream, decode, encode
from tests.unit.test_transformer import card, random_model

texts = st.text(max_size=60)
conversations = st.lists(
    st.builds(
        ChatMessage, role=st.sampled_from(["user", "assistant", "tool"]), content=texts, train=st.booleans()
    ),
    max_size=12,
)


@given(
    st.one_of(
        texts,
        st.sampled_from(list(SPECIAL_TOKENS.values())),
        st.text(alphabet=st.characters(categories=["Cs"])),
    )
)
def test_content_is_encoded_as_bytes_without_control_tokens(text: str) -> None:
    ids = encode(text)
    assert all(0 <= token < 256 for token in ids)
    if not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert bytes(ids) == text.encode()
        assert decode(ids) == text


def test_transformers_renders_the_same_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(tmp_path / "tiny", random_model(), card())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tiny", local_files_only=True)
    for text in (
        "plain",
        "  two  spaces\n\ttab",
        "你好，世界。",
        "e\u0301 vs é",
        "😀👨‍👩‍👧",
        "\u3000全角 \x00 \x1b[31m",
        "a" * 300,
    ):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == encode(text)
        assert tokenizer.decode(encode(text), clean_up_tokenization_spaces=False) == text
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "hi"}]
    ours = render(
        [ChatMessage(role=m["role"], content=m["content"]) for m in messages], add_generation_prompt=True
    )
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == ours.ids


def test_only_assistant_content_and_its_stop_token_are_trained() -> None:
    rendered = render([ChatMessage(role="user", content="Q"), ChatMessage(role="assistant", content="Ab")])
    trained = [token for token, flag in zip(rendered.ids, rendered.loss_mask, strict=True) if flag]
    assert trained == [ord("A"), ord("b"), IM_END]


@given(conversations, st.integers(40, 120))
def test_windows_fit_and_train_each_turn_once(messages: list[ChatMessage], context: int) -> None:
    found = windows(messages, context)
    assert all(len(window.ids) <= context and len(window.ids) == len(window.loss_mask) for window in found)
    assert all(
        window.ids[0] == IM_START and window.trained_tokens + window.truncated_bytes > 0 for window in found
    )
    wanted = sum(len(encode(m.content)) + 1 for m in messages if m.role == "assistant" and m.train)
    assert sum(window.trained_tokens + window.truncated_bytes for window in found) == wanted


def test_a_window_keeps_the_question_with_its_answer() -> None:
    messages = [
        ChatMessage(role=role, content=f"{role} {i} " * 3)
        for i in range(20)
        for role in ("user", "assistant")
    ]
    for window in windows(messages, 128):
        text = "".join(chr(token) if token < 256 else "|" for token in window.ids)
        first_answer = window.loss_mask.index(True)
        assert "user" in text[:first_answer]


def test_a_system_turn_is_in_every_window() -> None:
    messages = [ChatMessage(role="system", content="be kind")]
    messages += [
        ChatMessage(role=role, content="word " * 8) for _ in range(10) for role in ("user", "assistant")
    ]
    found = windows(messages, 128)
    assert len(found) > 1
    assert all("be kind" in decode(window.ids) for window in found)


def test_an_answer_longer_than_the_window_is_truncated_and_counted() -> None:
    (window,) = windows(
        [ChatMessage(role="user", content="q"), ChatMessage(role="assistant", content="x" * 300)], 100
    )
    assert window.truncated_bytes + window.trained_tokens == 301 and len(window.ids) == 100


@given(st.lists(st.integers(0, 263), max_size=40))
def test_a_stream_yields_only_valid_text(tokens: list[int]) -> None:
    stream = Utf8Stream()
    text = "".join(stream.push(token) for token in tokens)
    assert text.encode().decode() == text


@given(texts)
def test_a_stream_of_valid_bytes_yields_the_text(text: str) -> None:
    stream = Utf8Stream()
    assert "".join(stream.push(token) for token in text.encode()) == text.replace("\ufffd", "")
