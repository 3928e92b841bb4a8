"""Which conversations stand before every chat: the documented rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.chat import ChatMessage
from engine.corpus.dataset import DatasetRow
from engine.corpus.message_choice import LARGEST_SHARE, Candidate, choose, exchanges_of


def turns(text: str) -> list[ChatMessage]:
    """ "U hello|A hi|x masked": role and text; `x` is a masked answer."""
    roles = {"S": "system", "U": "user", "A": "assistant", "x": "assistant", "T": "tool"}
    return [
        ChatMessage(role=roles[part[0]], content=part[2:], train=part[0] != "x") for part in text.split("|")
    ]


def candidate(
    id_: str, text: str, *, time: float | None = 0.0, quality: float = 0.5, cluster: str = ""
) -> Candidate:
    return Candidate(DatasetRow(id=id_, cluster=cluster or id_, messages=turns(text)), time, quality)


def count(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.content) + 2 for message in messages)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("U q|A a", "U q|A a"),
        ("S s|U q|A a|U r|A b", "U q|A a|U r|A b"),
        ("U q|A a|U r", "U q|A a"),
        ("U q|A a|U r|x b|U s|A c", "U q|A a"),
        ("U q|A a|T t|A b", "U q|A a"),
        ("U q|A a|A b|U r|A c", "U q|A a"),
        ("A a|U q|A b", ""),
        ("U q|x a", ""),
        ("U q|U r|A a", ""),
    ],
)
def test_only_whole_exchanges_with_trained_answers_stand_before_a_chat(text: str, kept: str) -> None:
    wanted = [(turn.role, turn.content) for turn in turns(kept)] if kept else []
    assert [(turn.role, turn.content) for turn in exchanges_of(turns(text))] == wanted


def _ids(found: list[Candidate], space: int) -> list[str]:
    return [one.id for one in choose(found, space, count)]


def test_where_only_some_fit_the_most_worth_are_chosen() -> None:
    found = [
        candidate(f"c{number}", f"U {text}|A {text[::-1]}", time=float(number), quality=0.5)
        for number, text in enumerate(("abcdefgh", "ijklmnop", "qrstuvwx", "12345678", "ABCDEFGH"))
    ]
    # Each takes 20 of 80, so that four fit: the oldest is left out.
    assert _ids(found, 80) == ["c1", "c2", "c3", "c4"]


def test_one_like_a_chosen_one_waits_behind_another_of_less_worth() -> None:
    same = "U how do I make green tea|A boil some water first"
    found = [
        candidate("a", same, time=4.0, quality=0.9),
        candidate("b", same, time=3.0, quality=0.9),
        candidate("c", "U 12345 67890 xyz|A qqq www eee rrr", time=2.0, quality=0.8),
        candidate("d", "U ~~~ ... ,,,|A ### $$$ %%%", time=1.0, quality=0.8),
        candidate("e", "U ??? !!! :::|A ((( ))) [[[", time=0.0, quality=0.8),
    ]
    # Four fit: the second of two alike is the one left out, although it is worth more than the others.
    assert [one.id for one in choose(found, 100, lambda _messages: 25)] == ["e", "d", "c", "a"]


def test_a_cluster_gives_one_conversation_its_best() -> None:
    found = [
        candidate("old", "U tea|A water", time=1.0, quality=0.2, cluster="k"),
        candidate("new", "U tea|A water!", time=2.0, quality=0.9, cluster="k"),
    ]
    assert _ids(found, 1000) == ["new"]


def test_of_a_long_conversation_the_first_exchanges_stand() -> None:
    long = "|".join(f"U question {n}|A answer {n}" for n in range(20))
    (one,) = choose([candidate("long", long)], 400, count)
    assert one.tokens <= 400 // LARGEST_SHARE and len(one.messages) % 2 == 0
    assert [turn.content for turn in one.messages[:2]] == ["question 0", "answer 0"]
    assert count(one.messages) + count(turns(long)[len(one.messages) : len(one.messages) + 2]) > 100


_texts = st.text("ab 再见x", max_size=30)


@given(
    st.lists(st.tuples(_texts, _texts, st.floats(0, 1), st.none() | st.floats(0, 1e9)), max_size=12),
    st.integers(0, 400),
    st.randoms(use_true_random=False),
)
def test_what_is_chosen_fits_is_whole_and_depends_on_the_corpus_alone(
    rows: list[tuple[str, str, float, float | None]], space: int, random: object
) -> None:
    found = [
        Candidate(
            DatasetRow(
                id=f"c{number}",
                cluster=f"k{number % 5}",
                messages=[
                    ChatMessage(role="user", content=question),
                    ChatMessage(role="assistant", content=answer),
                ],
            ),
            time,
            quality,
        )
        for number, (question, answer, quality, time) in enumerate(rows)
    ]
    chosen = choose(found, space, count)
    assert sum(one.tokens for one in chosen) <= space
    assert len({one.cluster for one in chosen}) == len(chosen)
    by_id = {one.row.id: one.row for one in found}
    for one in chosen:
        assert [turn.content for turn in one.messages] == [turn.content for turn in by_id[one.id].messages]
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(shuffled, space, count) == chosen
