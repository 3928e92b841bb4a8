"""One branched talk, written as each program writes it in any order, gives the same conversation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.branched_talks import DATABASES, JSON_EXPORTS, BranchedTalk, TalkMessage, write_talk
from tests.unit.test_importers import read


@st.composite
def talks(draw: st.DrawFn) -> BranchedTalk:
    """Questions and answers in turn; a question may be edited and an answer made again at any place."""
    messages = [TalkMessage(-1, False, "text 0")]
    depths = [0]
    for place in range(1, draw(st.integers(2, 12))):
        parent = draw(st.integers(0, place - 1))
        depths.append(depths[parent] + 1)
        messages.append(TalkMessage(parent, depths[place] % 2 == 1, f"text {place}"))
    parents = {message.parent for message in messages}
    return BranchedTalk(
        messages, draw(st.sampled_from([n for n in range(len(messages)) if n not in parents]))
    )


@pytest.mark.parametrize("shape", [*JSON_EXPORTS, *DATABASES])
@settings(max_examples=10, deadline=None)
@given(talks(), st.randoms(use_true_random=False))
def test_a_branched_talk_is_read_as_it_was_shown(
    tmp_path_factory: pytest.TempPathFactory, shape: str, talk: BranchedTalk, chance: random.Random
) -> None:
    order = list(range(len(talk.messages)))
    chance.shuffle(order)
    path = tmp_path_factory.mktemp("talk") / "x.json"
    write_talk(shape, talk, order, path)
    (conversation,), skipped = read(path)
    assert [turn.text for turn in conversation.turns] == talk.shown()
    assert {turn.role for turn in conversation.turns[::2]} == {"user"}
    alternatives = [text for turn in conversation.turns for text in turn.alternatives]
    assert len(conversation.turns) + len(alternatives) + sum(skipped.values()) == len(talk.messages)
    for turn, before in zip(conversation.turns[1:], conversation.turns, strict=False):
        question = next(n for n, message in enumerate(talk.messages) if message.text == before.text)
        siblings = {message.text for message in talk.messages if message.parent == question} - {turn.text}
        assert set(turn.alternatives) == (siblings if turn.role == "assistant" else set())
