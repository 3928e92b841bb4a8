"""The native backend: cache, seeds, limits, stop strings, long conversations, cancellation."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.inference.backends.native import NativeModel, fit_prompt
from engine.inference.language_model import (
    Finish,
    Generated,
    Sampling,
    collect,
    conversation_nll,
    generate_text,
)
from engine.inference.model_cache import AsyncLanguageModel
from engine.inference.sampling import STOP_TOKENS, Utf8Sampler
from engine.models.chatml import render
from engine.models.tokenizer import IM_START, decode
from engine.models.transformer import KVCache
from tests.models import TINY, talk, tiny_model, write_tiny

TALKS = [talk("数到三", "一二三。")]
QUESTION = [ChatMessage(role="user", content="数到三")]


@pytest.fixture(scope="module")
def native(knowing: Path) -> NativeModel:
    return NativeModel.load(knowing)


@pytest.fixture(scope="module")
def babbler() -> NativeModel:
    """Untrained: all legal bytes have the same probability."""
    return NativeModel(tiny_model(TALKS, steps=0))


def test_a_memorised_answer_is_generated_and_ends(native: NativeModel) -> None:
    text, how = generate_text(native, QUESTION, Sampling(temperature=0))
    assert (text, how.finish, how.bytes) == ("一二三。", Finish.STOP, 12)


def test_decoding_with_the_cache_equals_decoding_without(babbler: NativeModel) -> None:
    sampling = Sampling(temperature=0.8, seed=5, max_bytes=40)
    cached, _how = generate_text(babbler, QUESTION, sampling)
    ids, _dropped = fit_prompt(QUESTION, TINY.context, 40)
    sampler, out = Utf8Sampler(sampling, 5, TINY.vocab), list[int]()
    with torch.inference_mode():
        while len(out) < 40:
            token = sampler.sample(babbler.model(torch.tensor([ids + out]))[0, -1])
            if token in STOP_TOKENS:
                break
            out.append(token)
    assert bytes(out).decode("utf-8", "ignore") == cached


def test_the_same_seed_gives_the_same_text(babbler: NativeModel) -> None:
    def answer(seed: int | None) -> str:
        return generate_text(
            babbler, QUESTION, Sampling(temperature=1.0, top_p=1.0, seed=seed, max_bytes=60)
        )[0]

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(5)}) > 1
    text, how = generate_text(babbler, QUESTION, Sampling(temperature=1.0, max_bytes=60))
    again, _how = generate_text(babbler, QUESTION, Sampling(temperature=1.0, max_bytes=60, seed=how.seed))
    assert again == text


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 80))
def test_an_answer_is_valid_text_within_max_bytes(seed: int, size: int) -> None:
    model = NativeModel(_BABBLER)
    text, how = generate_text(
        model, QUESTION, Sampling(temperature=2.0, top_p=1.0, seed=seed, max_bytes=size)
    )
    assert len(text.encode("utf-8")) <= how.bytes <= size
    assert "\ufffd" not in text


_BABBLER = tiny_model(TALKS, steps=0)


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(native: NativeModel) -> None:
    text, how = generate_text(native, QUESTION, Sampling(temperature=0, stop=["三"]))
    assert (text, how.finish) == ("一二", Finish.STOP_STRING)


def test_the_oldest_turns_are_dropped_and_the_system_turn_stays() -> None:
    turns = [ChatMessage(role="system", content="S")]
    for i in range(30):
        turns += [
            ChatMessage(role="user", content=f"question {i}"),
            ChatMessage(role="assistant", content=f"answer {i}"),
        ]
    turns.append(ChatMessage(role="user", content="last"))
    ids, dropped = fit_prompt(turns, 256, 100)
    text = decode(ids)
    assert len(ids) <= 156 and dropped > 40
    assert text.startswith("system\nS") and "answer 29" in text and "question 0\n" not in text
    assert text.endswith("user\nlast\nassistant\n")


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=300)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 400),
)
def test_a_prompt_always_leaves_space_for_an_answer(turns: Sequence[tuple[str, str]], size: int) -> None:
    messages = [ChatMessage(role=role, content=text) for role, text in turns]
    ids, _dropped = fit_prompt(messages, 256, size)
    assert len(ids) <= 256 - min(size, 128)
    assert (
        ids[-len(render([], add_generation_prompt=True).ids) :] == render([], add_generation_prompt=True).ids
    )
    # Whole characters, and no control token from content.
    assert bytes(i for i in ids if i < 256).decode("utf-8")
    assert ids.count(IM_START) <= len(messages) + 1


def test_a_question_longer_than_the_context_keeps_its_end(native: NativeModel) -> None:
    messages = [ChatMessage(role="user", content="很长的话。" * 500 + "数到三")]
    ids, _dropped = fit_prompt(messages, 256, 100)
    assert "数到三" in decode(ids)
    text, _how = generate_text(native, messages, Sampling(temperature=0, max_bytes=50))
    assert len(text.encode()) <= 50


def test_cancelling_ends_the_generation_within_a_byte(babbler: NativeModel) -> None:
    cancelled = threading.Event()
    stream = babbler.generate(QUESTION, Sampling(temperature=0, max_bytes=200), cancelled)
    next(stream)
    cancelled.set()
    assert collect(stream)[0] == ""


def test_the_memorised_answer_has_the_lower_nll(native: NativeModel) -> None:
    good = conversation_nll(native, [*QUESTION, ChatMessage(role="assistant", content="一二三。")])
    bad = conversation_nll(native, [*QUESTION, ChatMessage(role="assistant", content="三二一。")])
    assert good.bytes == bad.bytes == 13
    assert 0 < good.nats < bad.nats


async def test_closing_the_stream_ends_the_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = msgspec.structs.replace(TINY, context=2048, max_positions=4096)
    write_tiny(tmp_path / "m", TALKS, steps=0, config=config)
    native = NativeModel.load(tmp_path / "m")
    next_logits, calls = native._next_logits, list[int]()

    def counted(tokens: Sequence[int], cache: KVCache) -> torch.Tensor:
        calls.append(len(tokens))
        return next_logits(tokens, cache)

    monkeypatch.setattr(native, "_next_logits", counted)
    model = AsyncLanguageModel(native)
    async with aclosing(model.generate(QUESTION, Sampling(temperature=0, max_bytes=1900))) as stream:
        async for _delta in stream:
            break
    ended_after = len(calls)
    assert ended_after < 1900
    items = [item async for item in model.generate(QUESTION, Sampling(temperature=0, max_bytes=5))]
    assert isinstance(items[-1], Generated) and len(calls) == ended_after + 5
