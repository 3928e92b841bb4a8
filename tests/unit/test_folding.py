"""Texts are equal only where nothing that may change the meaning differs."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.filters.folding import fold

_DIFFERENT = [
    ("a + b", "a - b"),
    ("x == y", "x != y"),
    ("x >= 10", "x <= 10"),
    ("x > 10", "x < 10"),
    ("a*b*c", "a/b/c"),
    ("a % b", "a & b"),
    ("a ^ b", "a | b"),
    ("~x", "x"),
    ("it is -5 degrees", "it is 5 degrees"),
    ("it is −5 degrees", "it is 5 degrees"),
    ("it is –5 degrees", "it is 5 degrees"),
    ("pi is 3.14", "pi is 314"),
    ("take .5 of it", "take 5 of it"),
    ("价格是 1,000 元", "价格是 1.000 元"),
    ("C++", "C#"),
    ("I use C++.", "I use C."),
    (".NET", "NET"),
    ("return !done", "return done"),
    ("5! = 120", "5 = 120"),
    ("grep -v", "grep v"),
    ("[1, 2, 3]", "{1, 2, 3}"),
    ("(a + b) * c", "a + (b * c)"),
    ("s[1:]", "s[1]"),
    ("x ? y : z", "x y z"),
    ("a ?? b", "a b"),
    ("std::move", "std move"),
    ("12:30", "1230"),
    ("10 20", "1020"),
    ("[12, 3]", "[1, 23]"),
    ("10²", "102"),
    ("½", "12"),
    ("①②", "12"),
    ("5 mW", "5 MW"),
    ("5 Mb", "5 MB"),
    ("now here", "nowhere"),
    ("don't", "dont"),
    ("résumé", "resume"),
    ("कि", "का"),
    ("😀", "😭"),
    ("great :)", "great :("),
    ("100 %", "100 ‰"),
    ("$5", "€5"),
    ("#include", "include"),
    ("@user", "user"),
    ("C:\\x", "C:/x"),
    ("`True`", "`true`"),
    ("echo '$x'", 'echo "$x"'),
    ("你真的喜欢他吗？", "你真的喜欢他！"),
    ("```\nif a:\n    b\n    c\n```", "```\nif a:\n    b\nc\n```"),
    ("if a:\n    b\n    c", "if a:\n    b\nc"),
    ("```\nprint(1.)\n```", "```\nprint(1)\n```"),
    ("~~~\nA\n~~~", "~~~\na\n~~~"),
    ("a:\n  b: 1\n  c: 2", "a:\n  b: 1\nc: 2"),
    ("？", "。"),
]
_EQUAL = [
    ("Ｈｅｌｌｏ，  World！", "hello world"),
    ("你好，世界。", "你好,世界"),
    ("10 km", "10km"),
    ("Is it?", "is it"),
    ("He said “yes”.", "He said yes"),
    ("他说：“好”。", '他说:"好"'),
    ("x = 1", "x=1"),
    ("Hello...", "hello…"),
    ("Bonjour !", "bonjour"),
    ("好的～", "好的"),
    ("我用Python，他用Java", "我用 Python,他用 Java"),
    ("好！！！", "好"),
    ("a — b", "a b"),
    ("It’s", "it's"),
    ("5–6", "5-6"),
    ("What?! No.", "what no"),
    ("共 5！", "共5"),
    ("cafe\u0301", "café"),
    ("zero\u200bwidth", "zerowidth"),
    ("```\na   \n```", "```\na\n```"),
    ("one\n\n  \ntwo", "one two"),
    ("　　第一段。\n    第二段。", "第一段\n第二段"),
]


@pytest.mark.parametrize("one, other", _DIFFERENT)
def test_what_changes_the_meaning_is_kept(one: str, other: str) -> None:
    assert fold(one) != fold(other)
    assert (
        fold(f"我想知道 {one} 在这里 here") != fold(f"我想知道 {other} 在这里 here")
        or "\n" in one
        or not one[0].isalnum()
    )


@pytest.mark.parametrize("one, other", _EQUAL)
def test_width_space_and_the_punctuation_of_sentences_are_ignored(one: str, other: str) -> None:
    assert fold(one) == fold(other)


_WORD = st.text(alphabet=string.ascii_lowercase + "的学校", min_size=1, max_size=6)


@given(st.lists(_WORD, min_size=1, max_size=8), st.data())
def test_harmless_edits_leave_a_text_equal(words: list[str], data: st.DataObject) -> None:
    edited = "".join(
        word + data.draw(st.sampled_from([" ", "  ", "\n", ", ", "; ", ". ", "! "]), label="after")
        for word in words
    )
    assert fold(edited) == fold(" ".join(words))
    assert fold(edited.translate({code: code + 0xFEE0 for code in range(0x61, 0x7B)})) == fold(edited)


@given(_WORD, st.sampled_from("+-*/%&|^=<>#@$\\_"), st.integers(0, 6))
def test_a_sign_put_in_anywhere_makes_another_text(word: str, sign: str, place: int) -> None:
    assert fold(word[:place] + sign + word[place:]) != fold(word)


@given(
    st.text(alphabet="0123456789.,-", min_size=1, max_size=8),
    st.text(alphabet="0123456789.,-", min_size=1, max_size=8),
)
def test_figures_are_equal_only_when_their_digits_and_signs_are(one: str, other: str) -> None:
    if one.rstrip(".,") != other.rstrip(".,") and one[-1].isdigit() and other[-1].isdigit():
        assert fold(one) != fold(other)


@given(st.text(max_size=40))
def test_folding_a_text_never_fails_and_keeps_something(text: str) -> None:
    assert bool(fold(text)) == bool(text.strip()) or not any(map(str.isalnum, text))


@pytest.mark.parametrize(
    "pump", [".", " ", "!", "a.", "!!=", '"', "`", "~", " !", "“", " \t", "5!", "！", "```\n", "    x\n"]
)
def test_folding_is_linear(pump: str) -> None:
    """A hundred thousand repetitions: quadratic steps would take minutes."""
    assert isinstance(fold(pump * 100_000), str)
