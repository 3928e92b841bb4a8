"""Public chat templates: an answer is trained behind the ids that transformers makes for the messages before it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.corpus.dataset import DatasetRow
from engine.export.llama_cpp import LlamaCpp
from engine.inference.backends.hf import HFModel, TokenStream
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import MaskedTokens
from engine.models.gguf.model import open_gguf
from engine.models.template_text import FIXED, PLAIN_TEMPLATE
from engine.training.lora.job import tokenized_general_windows
from engine.validation.cases import cut_cases
from tests.chat_templates import PUBLIC, UNSUPPORTED, public_tokenizer
from tests.export_models import write_arch, write_gguf

ROLES = {"S": "system", "U": "user", "A": "assistant", "T": "tool"}
SHARED = {
    "qwen25", "smollm2", "chatml", "llama32", "llama2", "gemma2", "gemma3", "mistral_v01", "mistral_v03",
    "mistral_small_31", "phi3", "phi4", "phi4_mini", "granite31", "zephyr", "vicuna", "plain", "plain_bos",
}  # fmt: skip
"""Templates whose history repeats a prompt and its answer as they were: one window holds all answers."""


@cache
def template(name: str) -> ChatTemplate:
    return ChatTemplate(public_tokenizer(name))


def talk(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage(role=ROLES[role], content=text) for role, text in turns]


def long_talk(exchanges: int = 12, *, system: str = "") -> list[ChatMessage]:
    head = [("S", system)] if system else []
    return talk(
        *head,
        *(
            turn
            for i in range(exchanges)
            for turn in (("U", f"question {i} " + "u" * 20), ("A", f"answer {i}"))
        ),
    )


def theirs(name: str, messages: list[ChatMessage]) -> list[int] | None:
    """The prompt in transformers, with the BOS that llama.cpp and Ollama add; None where the template raises."""
    tokenizer: Any = public_tokenizer(name)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            turns,
            chat_template=tokenizer.chat_template or PLAIN_TEMPLATE,
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,
            date_string="26 Jul 2024",
        )
    except Exception:
        return None
    # The date of every day is the fixed one.
    text = re.sub(r"20\d\d-\d\d-\d\d", "2024-07-26", text)
    text = re.sub(r"(Today's Date: )\w+ \d\d, \d{4}", r"\1July 26, 2024", text)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    return [bos, *ids] if PUBLIC[name].adds_bos and ids[:1] != [bos] else ids


def answers(window: MaskedTokens) -> list[tuple[list[int], list[int]]]:
    """(ids before, ids with loss) of each run of trained tokens."""
    found: list[tuple[list[int], list[int]]] = []
    for at, on in enumerate(window.loss_mask):
        if on and not (at and window.loss_mask[at - 1]):
            found.append((window.ids[:at], []))
        if on:
            found[-1][1].append(window.ids[at])
    return found


def check_contexts(name: str, messages: list[ChatMessage], windows: list[MaskedTokens]) -> int:
    """Each answer whose prompt is possible stands behind it; returns their number."""
    chat = template(name)
    trained = [pair for window in windows for pair in answers(window)]
    expected: list[tuple[list[int], list[int]]] = []
    for k, message in enumerate(messages):
        if message.role == "assistant" and message.train:
            try:
                prompt = chat.prompt(messages[:k])
            except BadInput:
                continue
            answer = chat.answer(message).ids
            # An answer right behind another one is one run of trained tokens with it.
            joined = next((one for one in expected if [*one[0], *one[1]] == prompt), None)
            if joined is not None and any(
                before == joined[0] and len(ids) > len(joined[1]) for before, ids in trained
            ):
                joined[1].extend(answer)
            else:
                expected.append((prompt, list(answer)))
    assert sorted(trained) == sorted(expected)
    return len(expected)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_answer_stands_behind_the_prompt_of_the_messages_before_it(name: str) -> None:
    chat = template(name)
    for messages in (
        talk(("U", "hello"), ("A", "hi there")),
        talk(
            ("U", "q1"), ("A", "a1"), ("U", "q2"), ("A", "a2"), ("U", "Thank you"), ("A", "You are welcome.")
        ),
        talk(("S", "Be brief."), ("U", "q1"), ("A", "a1"), ("U", "q2"), ("A", "a2")),
        talk(("U", ""), ("A", "一"), ("U", "  q2\n"), ("A", "```\n x\n```")),
    ):
        try:
            windows = chat.windows(messages, 400)
        except BadInput as problem:
            assert name == "alpaca" and "drops" in problem.message
            continue
        assert check_contexts(name, messages, windows) == sum(one.role == "assistant" for one in messages)
        if name in SHARED and messages[0].role != "system":
            assert len(windows) == 1
        texts = [chat.decode(ids).strip() for window in windows for _before, ids in answers(window)]
        assert texts == [one.content for one in messages if one.role == "assistant"]
        assert all(ids[-1] in chat.stop_tokens for window in windows for _before, ids in answers(window))


@pytest.mark.parametrize("name", PUBLIC)
def test_the_cases_of_a_verdict_have_the_contexts_of_chat(name: str) -> None:
    messages = talk(("U", "q1"), ("A", "a1"), ("U", "q2"), ("A", "a2"))
    (case,) = cut_cases([DatasetRow(id="x", messages=messages)], 400, template(name).windows)
    assert check_contexts(name, messages, case.windows) == 2
    assert case.bytes == len("a1a2") + 2 and case.cut == 0


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_template_that_leaves_its_own_text_to_the_model_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="between its prompt and an answer"):
        ChatTemplate(public_tokenizer(name))


TEXTS = (
    st.text(max_size=12)
    | st.sampled_from(["", " ", "\n\n", " x ", "\n\ncode:\n  y\n", "你好", "<|im_end", "<", "[INST]", "a</s", "\n<table>", "\ufdd0\ue000\uffff"])
    | st.text(alphabet=" \n\t<|>", max_size=6)
)  # fmt: skip
DIALOGUES = st.lists(st.tuples(st.sampled_from("UAUAUAST"), TEXTS), min_size=1, max_size=7).map(
    lambda turns: talk(*turns)
) | st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4).map(
    lambda pairs: talk(*(turn for q, a in pairs for turn in (("U", q), ("A", a))))
)


def spells_control(name: str, messages: list[ChatMessage]) -> bool:
    """Whether a message spells a token that structures texts; Gemma's `<table>` is ordinary text."""
    written = public_tokenizer(name).chat_template or ""
    spellings = [
        *PUBLIC[name].special,
        *(text for text in PUBLIC[name].added if text.strip() and text in written),
    ]
    return any(text in message.content for message in messages for text in spellings)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(PUBLIC)), DIALOGUES)
def test_prompts_are_those_of_transformers(name: str, messages: list[ChatMessage]) -> None:
    if spells_control(name, messages):
        return
    expected = theirs(name, messages)
    try:
        found = template(name).prompt(messages)
    except BadInput as problem:
        assert expected is None or "drops or repeats" in problem.message
    else:
        system_in_question = expected is None and messages[0].role == "system"
        assert system_in_question or found == expected


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PUBLIC)), DIALOGUES, st.lists(st.booleans(), min_size=7, max_size=7))
def test_random_dialogues_are_trained_in_the_contexts_of_chat(
    name: str, messages: list[ChatMessage], masks: list[bool]
) -> None:
    messages = [
        ChatMessage(role=one.role, content=one.content, train=on)
        for one, on in zip(messages, [*masks, True], strict=False)
    ]
    chat = template(name)
    wanted = [one for one in messages if one.role == "assistant" and one.train]
    try:
        windows = chat.windows(messages, 4000)
    except BadInput:
        return
    check_contexts(name, messages, windows)
    size = sum(chat.answer(one).bytes for one in wanted)
    assert sum(one.trained_bytes + one.truncated_bytes for one in windows) == size


@pytest.mark.parametrize("system", ["", "Be kind.", "s" * 300])
@pytest.mark.parametrize("name", PUBLIC)
def test_windows_of_a_long_conversation_are_whole(name: str, system: str) -> None:
    chat = template(name)
    messages = long_talk(system=system)
    if name == "alpaca" and system:
        return
    context = 360
    windows = chat.windows(messages, context)
    assert len(windows) > 1 and all(len(window.ids) <= context for window in windows)
    wanted = [one.content for one in messages if one.role == "assistant"]
    assert [chat.decode(ids).strip() for window in windows for _b, ids in answers(window)] == wanted
    assert sum(window.trained_bytes for window in windows) == sum(len(text) + 1 for text in wanted)
    assert not any(window.truncated_bytes for window in windows)
    bos = chat.tokenizer.bos_token_id
    begins = windows[0].ids[: 2 if bos == chat.prompt(messages[:2])[0] else 1]
    for window in windows:
        assert window.ids[: len(begins)] == begins
        if chat.opening:
            assert window.ids[0] == bos and (
                bos in chat.stop_tokens or bos not in window.ids[1:] or name == "llama2"
            )
        text = chat.tokenizer.decode(window.ids)
        for begin, end in (
            ("<start_of_turn>", "<end_of_turn>"),
            ("<|im_start|>", "<|im_end|>"),
            ("[INST]", "[/INST]"),
        ):
            assert text.count(begin) == text.count(end)
        if system:
            assert "Be kind." in text or "ssssssss" in text


@pytest.mark.parametrize("name", ["gemma3", "llama32", "deepseek_r1", "qwen25", "mistral_v03"])
def test_a_long_system_turn_is_shortened_to_a_quarter(name: str) -> None:
    chat = template(name)
    messages = long_talk(60, system="".join(f"{i} " for i in range(300)))
    windows = chat.windows(messages, 512)
    for window in windows[1:]:
        text = chat.decode(window.ids)
        assert "0 1 2 3 " in text and "299" not in text


@pytest.mark.parametrize("length", [1, 40, 400])
@pytest.mark.parametrize("name", PUBLIC)
def test_bytes_beyond_a_window_are_counted(name: str, length: int) -> None:
    chat = template(name)
    messages = talk(("U", "é" * length), ("A", "ab " * length + "c"), ("U", "q"), ("A", "好" * length))
    for context in (150, 260):
        windows = chat.windows(messages, context)
        assert all(len(window.ids) <= context for window in windows)
        assert all(sum(window.loss_mask) > context // 8 for window in windows if window.truncated_bytes)
        size = sum(len(one.content.encode()) + 1 for one in messages if one.role == "assistant")
        assert sum(one.trained_bytes + one.truncated_bytes for one in windows) == size


class _Chat(HFModel):
    """The part of a model that makes prompts."""

    def __init__(self, chat: ChatTemplate, context: int) -> None:
        self.chat, self.context = chat, context


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("name", PUBLIC)
def test_a_chat_that_outgrows_the_context_goes_on_without_its_oldest_exchanges(
    name: str, system: str
) -> None:
    if name == "alpaca" and system:
        return
    model = _Chat(template(name), 360)
    messages = long_talk(15, system=system)
    dropped = 0
    for k in (i for i, one in enumerate(messages) if one.role == "assistant"):
        ids, dropped = model.fit_prompt(messages[:k], 100)
        kept = messages[:k][1 if system else 0 :][dropped:]
        assert len(ids) <= 260
        assert ids == model.chat.prompt([*messages[: 1 if system else 0], *kept])
    assert dropped > 0 and dropped % 2 == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_a_question_longer_than_the_context_loses_its_beginning(name: str) -> None:
    ids, _dropped = _Chat(template(name), 300).fit_prompt(talk(("U", "x" * 3000 + " the end?")), 100)
    assert len(ids) <= 200 and "the end?" in template(name).decode(ids)
    assert ids[0] == template(name).prompt(talk(("U", "q")))[0]


def test_the_blank_that_a_template_writes_before_an_answer_is_trained_and_cut_from_the_text() -> None:
    chat = template("plain")
    (window,) = chat.windows(talk(("U", "q1"), ("A", "Hello"), ("U", "q2"), ("A", "你好")), 400)
    written = [ids for _before, ids in answers(window)]
    assert [chat.decode(ids) for ids in written] == [" Hello", " 你好"]
    for ids, text in zip(written, ("Hello", "你好"), strict=True):
        stream = TokenStream(chat, chat.answer_lead)
        assert "".join(stream.push(id_) for id_ in ids[:-1]) == text
    assert window.trained_bytes == len("Hello你好".encode()) + 2


class _Scored(_Chat):
    """Records what is scored."""

    eval_context = 16
    _guess_nats = 1.0

    def _active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _nats(self, ids: Sequence[int], scored: Sequence[bool]) -> float:
        self.seen = [*getattr(self, "seen", []), list(ids)]
        return 1.0


@pytest.mark.parametrize("name", ["plain_bos", "chatml", "llama2", "qwen3"])
def test_general_text_begins_with_the_bos_of_the_tokenizer(name: str, tmp_path: Path) -> None:
    chat = template(name)
    begins = [chat.tokenizer.bos_token_id] if PUBLIC[name].adds_bos else []
    text = "Boil some water and wait. " * 20
    model = _Scored(chat, 64)
    model.rolling_nll([text.encode()])
    (tmp_path / "a.txt").write_text(text * 40, encoding="utf-8")
    windows = [ids for ids, _size in tokenized_general_windows(chat, [tmp_path / "a.txt"], 16, 800)]
    for ids in [*model.seen, *windows]:
        assert len(ids) <= 16 and ids[: len(begins)] == begins
        assert chat.tokenizer.bos_token_id not in ids[len(begins) :]


@pytest.mark.parametrize("name", ["chatml", "llama32", "qwen3", "deepseek_r1"])
def test_prompts_are_those_of_llama_cpp_with_thinking_off(name: str, tmp_path: Path) -> None:
    folder = write_arch(tmp_path / name, "llama", tokenizer=public_tokenizer(name))
    file = write_gguf(tmp_path / "model.gguf", folder)
    ours = (template(name), ChatTemplate(open_gguf(file).tokenizer()))
    with LlamaCpp(file) as llama:
        for messages in (
            talk(("U", "hello")),
            talk(("S", "Be brief."), ("U", "q1"), ("A", " a1\n"), ("U", "  你好 \n")),
        ):
            turns = [{"role": one.role, "content": one.content} for one in messages]
            ids = llama.tokenize(llama.template(turns), bos=True)
            assert [chat.prompt(messages) for chat in ours] == [ids, ids]
            body = {"messages": turns, "max_tokens": 1, "chat_template_kwargs": FIXED}
            assert llama.post("/v1/chat/completions", body)["usage"]["prompt_tokens"] == len(ids)
