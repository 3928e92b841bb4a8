"""The fast paths of the filters give the results of the slow ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.corpus.dedup.near import similar_pairs
from engine.corpus.filters import (
    addresses,
    emails,
    id_numbers,
    national_ids,
    passwords,
    phones,
    pii,
    prompt_injection,
    secrets,
    western_addresses,
)
from engine.corpus.filters.lazy_pattern import LazyPattern
from engine.corpus.filters.normalise import letters, nfkc, normalise_with_map
from engine.corpus.filters.prefilter import PiiHint, pii_hints

_ANY = st.text(
    st.one_of(
        st.sampled_from("，！？：；（）…～\u3000 _eé\u0301\u0338\u1100\u1161①㎞ﬁ한あ漢aB1"),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
)


@given(_ANY)
def test_the_fast_nfkc_equals_nfkc(text: str) -> None:
    assert nfkc(text) == unicodedata.normalize("NFKC", text)


@given(_ANY)
def test_every_character_of_a_normalised_text_maps_to_the_original(text: str) -> None:
    folded = normalise_with_map(text)
    for place in range(len(folded.text)):
        start, end = folded.span(place, place + 1)
        assert 0 <= start < end <= len(text)
        assert folded.text[place] in normalise_with_map(text[start:end]).text


def _searched(sign: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda read: sign.search(read) is not None


def _sign(one: PiiHint) -> Callable[[str], bool]:
    return lambda read: bool(pii_hints(read) & one)


_RAW = [
    ("<s>", prompt_injection._has_bracket, prompt_injection._CONTROL_TOKEN),
    ("以前忽略", prompt_injection._may_instruct, prompt_injection._INSTRUCTION),
]


def _labelled_password(read: str) -> bool:
    return passwords._ODD_I.search(read) is not None or passwords._may_be_labelled(read.lower())


def _secret_phrase(read: str) -> bool:
    return passwords._ODD_I.search(read) is not None or passwords._may_be_phrase(read.lower())


def compiled(pattern: object) -> re.Pattern[str]:
    if isinstance(pattern, LazyPattern):
        return pattern.compiled()
    assert isinstance(pattern, re.Pattern)
    return pattern


_BEHIND_SIGNS = [
    *((_sign(PiiHint.PASSWORD), pattern) for pattern in passwords._PASSWORD),
    *((_labelled_password, pattern) for pattern in passwords._PASSWORD),
    (_secret_phrase, passwords.PHRASE),
    (_sign(PiiHint.PASSWORD), passwords.COMMAND_PASSWORD),
    (lambda read: "hook" in read, secrets.WEBHOOK),
    (_sign(PiiHint.VENDOR_KEY), secrets.VENDOR_KEY),
    (_sign(PiiHint.VENDOR_KEY), secrets.WEBHOOK),
    (_sign(PiiHint.NAMED_KEY), secrets._TWILIO),
    (_sign(PiiHint.WALLET), national_ids._WALLET),
    (_sign(PiiHint.DASHES), secrets._KEY_BEGIN),
    (_sign(PiiHint.EMAIL), emails.EMAIL),
    (lambda read: emails.may_be_spelt(read.lower()), emails.SPELT),
    (_sign(PiiHint.URL_PASSWORD), passwords.URL_PASSWORD),
    (_sign(PiiHint.IP_ADDRESS), pii._IPV4),
    (_sign(PiiHint.IP_ADDRESS), pii._IPV6),
    (_sign(PiiHint.PLATE), pii._PLATE),
    (_sign(PiiHint.WECHAT), pii._WECHAT),
    (_sign(PiiHint.WECHAT), pii._WXID),
    (_sign(PiiHint.ADDRESS), addresses._HOUSE),
    (_sign(PiiHint.QQ), pii._QQ),
    (_sign(PiiHint.CARD), id_numbers._CARD),
    (_sign(PiiHint.CARD), id_numbers._ACCOUNT),
    *(
        (_sign(PiiHint.RESIDENT_ID), pattern)
        for pattern in (id_numbers._ID, id_numbers._OLD_ID, id_numbers._LABELLED_ID, id_numbers._HK_ID)
    ),
    (_sign(PiiHint.SSN), id_numbers._SSN),
    (_sign(PiiHint.SSN), id_numbers._SSN_LABELLED),
    (_sign(PiiHint.CREDIT_CODE), id_numbers._CREDIT_CODE),
    *(
        (_sign(PiiHint.PHONE), pattern)
        for pattern in (phones._GROUPED_CN, phones._MOBILE_CN, phones._SPACED_CN)
    ),
    *((_searched(sign), pattern) for sign, pattern in phones._FORMATS),
    (_searched(western_addresses._BEHIND_NAME), western_addresses.GERMAN),
    *(
        (western_addresses.may_hold_western, pattern)
        for pattern in (western_addresses.ENGLISH, western_addresses.GERMAN, western_addresses.PO_BOX)
    ),
    *((_searched(condition), pattern) for condition, _words, pattern in western_addresses._BY_WORDS),
]


@pytest.mark.parametrize("sign, pattern", _BEHIND_SIGNS, ids=range(len(_BEHIND_SIGNS)))
def test_no_pattern_matches_without_its_condition(
    sign: Callable[[str], bool], pattern: re.Pattern[str]
) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(st.from_regex(compiled(pattern)))
    def check(text: str) -> None:
        read = normalise_with_map(text).text
        assert sign(read) or not pattern.search(read)

    check()


@pytest.mark.parametrize("example, sign, pattern", _RAW, ids=["bracket", "order"])
def test_no_marker_matches_without_its_condition(
    example: str, sign: Callable[[str], bool], pattern: re.Pattern[str]
) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(st.from_regex(pattern))
    def check(text: str) -> None:
        assert sign(text)

    assert sign(example)
    check()


def test_only_allowed_pairs_are_compared() -> None:
    texts = [
        letters(f"巴黎是法国的首都，有两百多万人口，位于塞纳河畔，是欧洲的大城市之一{end}")
        for end in ("", "。对", "呀")
    ]
    assert [(pair.first, pair.second) for pair in similar_pairs(texts)] == [(0, 1), (0, 2), (1, 2)]
    across = similar_pairs(texts, may_compare=lambda first, second: (first == 0) != (second == 0))
    assert [(pair.first, pair.second) for pair in across] == [(0, 1), (0, 2)]
