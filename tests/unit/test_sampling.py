"""Sampling bytes: valid UTF-8 only, no control token inside a character, exact stop strings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference.language_model import Sampling
from engine.inference.sampling import NEXT, STOP_TOKENS, StopStrings, TokenSampler, Utf8Sampler, log_prob
from engine.models.tokenizer import VOCAB, Utf8Stream


@given(st.text(max_size=40))
def test_the_state_machine_accepts_every_text(text: str) -> None:
    state = 0
    for byte in text.encode():
        state = NEXT[state][byte]
    assert state == 0


@given(st.binary(max_size=8))
def test_the_state_machine_accepts_exactly_valid_utf8(data: bytes) -> None:
    state: int | None = 0
    for byte in data:
        state = NEXT[state].get(byte) if state is not None else None
    try:
        data.decode("utf-8")
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert (state == 0) == valid


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    top_p=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_text_is_valid_for_any_logits(seed: int, temperature: float, top_p: float) -> None:
    logits = torch.Generator().manual_seed(seed % 1000)
    sampler = Utf8Sampler(Sampling(temperature=temperature, top_p=top_p), seed, VOCAB)
    stream, data = Utf8Stream(), bytearray()
    for _ in range(60):
        token = sampler.sample(torch.randn(VOCAB, generator=logits) * 5)
        assert token < 256 or token in STOP_TOKENS
        if token in STOP_TOKENS:
            assert sampler.state == 0
            break
        data.append(token)
        stream.push(token)
    assert stream.dropped == 0
    data.decode("utf-8", "strict") if sampler.state == 0 else data[:-3].decode("utf-8", "ignore")


def test_control_tokens_are_never_sampled() -> None:
    logits = torch.zeros(VOCAB)
    logits[[257, 259, 260, 261, 262, 263]] = 50.0
    sampler = Utf8Sampler(Sampling(temperature=1.0), 0, VOCAB)
    for _ in range(50):
        token = sampler.sample(logits)
        assert token < 256 or token in STOP_TOKENS


def test_the_same_seed_samples_the_same_bytes() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Utf8Sampler(Sampling(temperature=1.0), seed, VOCAB)
        return [sampler.sample(torch.zeros(VOCAB)) for _ in range(20)]

    assert draw(7) == draw(7) != draw(8)


def test_top_p_excludes_unlikely_bytes() -> None:
    logits = torch.full((VOCAB,), -10.0)
    logits[ord("a")], logits[ord("b")] = 5.0, 3.0
    sampler = Utf8Sampler(Sampling(temperature=1.0, top_p=0.5), 0, VOCAB)
    assert {sampler.sample(logits) for _ in range(40)} == {ord("a")}


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_cut_a_stream_as_they_cut_its_text(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    matcher, out, rest = StopStrings(stops), "", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        out, rest = out + matcher.push(rest[:size]), rest[size:]
    out += matcher.flush()
    # In a stream the stop string that is complete first ends the text.
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    assert matcher.found == bool(ends)
    assert text.startswith(out)
    if ends:
        assert not any(stop in out for stop in stops)
    else:
        assert out == text


def test_a_possible_prefix_of_a_stop_string_is_buffered() -> None:
    matcher = StopStrings(["用户:"])
    assert [matcher.push(piece) for piece in ("好", "用", "户", "名")] == ["好", "", "", "用户名"]
    assert [matcher.push(piece) for piece in ("x用", "户", ":")] == ["x", "", ""]
    assert matcher.found and matcher.push("more") == ""


@pytest.mark.parametrize("state", range(8))
def test_every_state_has_a_successor(state: int) -> None:
    assert NEXT[state]


LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0])


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0, top_p=1.0, top_k=3), {0, 1, 2}),
        (Sampling(temperature=1.0, top_p=1.0, top_k=0), set(range(8))),
        (Sampling(temperature=1.0, top_p=1.0, top_k=99), set(range(8))),
        (Sampling(temperature=1.0, top_p=1.0, min_p=0.5), {0, 1}),
        (Sampling(temperature=1.0, top_p=1.0, min_p=1.0), {0}),
        (Sampling(temperature=2.0, top_p=1.0, min_p=0.5), {0, 1, 2}),
        (Sampling(temperature=1.0, top_p=0.5, top_k=4), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.9, min_p=0.3), {0, 1, 2}),
    ],
    ids=str,
)
def test_only_the_chosen_tokens_are_sampled(sampling: Sampling, kept: set[int]) -> None:
    sampler = TokenSampler(sampling, 0)
    assert {sampler.sample(LOGITS) for _number in range(600)} == kept
    assert kept == _kept_by_transformers(sampling)


def _kept_by_transformers(sampling: Sampling) -> set[int]:
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    steps: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
    steps += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    steps += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    steps += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    scores = LOGITS[None]
    for step in steps:
        scores = step(torch.empty(1, 0, dtype=torch.long), scores)
    return {index for index, value in enumerate(scores[0].tolist()) if value > float("-inf")}


@pytest.mark.parametrize("penalty", [1.0, 1.3, 4.0])
@pytest.mark.parametrize("last", [0, 1, 3, -1])
def test_the_repeat_penalty_is_that_of_transformers(penalty: float, last: int) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    prompt = [0, 1, 7, 0]
    sampling = Sampling(temperature=0.0, repeat_penalty=penalty, repeat_last_n=last)
    sampler = TokenSampler(sampling, 0, prompt)
    recent = prompt if last < 0 else prompt[len(prompt) - last :]
    for _number in range(5):
        window = recent if last < 0 else recent[len(recent) - last :]
        ids = torch.tensor([window], dtype=torch.long)
        expected = int(RepetitionPenaltyLogitsProcessor(penalty)(ids, LOGITS[None].clone())[0].argmax())
        assert sampler.sample(LOGITS) == expected
        recent = [*recent, expected]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0.0), 0),
        (Sampling(temperature=0.0, presence_penalty=1.2), 1),
        (Sampling(temperature=0.0, frequency_penalty=0.4), 0),
        (Sampling(temperature=0.0, frequency_penalty=0.6), 1),
    ],
    ids=str,
)
def test_presence_counts_once_and_frequency_each_time(sampling: Sampling, expected: int) -> None:
    assert TokenSampler(sampling, 0, [0]).sample(LOGITS) == expected


def test_log_probabilities_are_those_before_sampling() -> None:
    scored = log_prob(LOGITS, 2, 3, lambda token: b"\xe4" if token == 2 else bytes([97 + token]))
    exact = LOGITS.log_softmax(dim=-1).tolist()
    assert (scored.text, scored.bytes) == ("\ufffd", [0xE4])
    assert [scored.logprob, *(one.logprob for one in scored.top)] == pytest.approx([exact[2], *exact[:3]])
    assert [one.text for one in scored.top] == ["a", "b", "\ufffd"]
