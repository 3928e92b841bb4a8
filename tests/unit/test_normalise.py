"""Shortcuts of the filters: they give what the long way gives."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.corpus.filters import documents, injection, phones, secrets, sensitive
from engine.corpus.filters.near import near_pairs
from engine.corpus.filters.normalise import fold, fold_joined, fold_with_map, nfkc

_ANY = st.text(
    st.one_of(
        st.sampled_from("，！？：；（）…～\u3000 _eé\u0301\u0338\u1100\u1161①㎞ﬁ한あ漢aB1"),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
)


@given(_ANY)
def test_the_fast_nfkc_is_nfkc(text: str) -> None:
    assert nfkc(text) == unicodedata.normalize("NFKC", text)


@given(st.lists(_ANY, max_size=5))
def test_a_conversation_folds_as_its_turns_do(texts: list[str]) -> None:
    assert fold_joined(texts, [fold(text) for text in texts]) == fold(" ".join(texts))


@given(_ANY)
def test_every_character_of_a_folded_text_is_traced(text: str) -> None:
    folded = fold_with_map(text)
    for place in range(len(folded.text)):
        start, end = folded.span(place, place + 1)
        assert 0 <= start < end <= len(text)
        assert folded.text[place] in fold_with_map(text[start:end]).text


_RAW = {sign for _kind, sign, _pattern in injection._PATTERNS}
_BEHIND_SIGNS = [
    *((sign, pattern) for _kind, sign, pattern in injection._PATTERNS),
    *((sensitive._PASSWORD_WORD, pattern) for pattern in secrets._PASSWORD),
    (sensitive._WECHAT_SIGN, sensitive._WECHAT),
    (sensitive._WECHAT_SIGN, sensitive._WXID),
    (sensitive._ADDRESS_SIGN, sensitive._ADDRESS),
    (sensitive._NINE, documents._CARD),
    (sensitive._NINE, documents._ACCOUNT),
    (sensitive._NINE, documents._SSN),
    (sensitive._NINE, documents._SSN_LABELLED),
    *phones._SHAPES,
]


@pytest.mark.parametrize("sign, pattern", _BEHIND_SIGNS, ids=range(len(_BEHIND_SIGNS)))
def test_nothing_is_found_without_its_sign(sign: re.Pattern[str], pattern: re.Pattern[str]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.from_regex(pattern))
    def check(text: str) -> None:
        for read in (fold_with_map(text).text, *((text,) if sign in _RAW else ())):
            assert sign.search(read) or not pattern.search(read)

    check()


def test_only_pairs_that_are_asked_for_are_compared() -> None:
    texts = [
        fold(f"巴黎是法国的首都，有两百多万人口，位于塞纳河畔，是欧洲的大城市之一{end}")
        for end in ("", "。对", "呀")
    ]
    assert [(pair.first, pair.second) for pair in near_pairs(texts)] == [(0, 1), (0, 2), (1, 2)]
    across = near_pairs(texts, compared=lambda first, second: (first == 0) != (second == 0))
    assert [(pair.first, pair.second) for pair in across] == [(0, 1), (0, 2)]
