"""Text from outside reaches the terminal as text."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content

from tui.terminal.rendering import PrintableFilter
from tui.terminal.text import cells, fit, json_escaped, one_line, plain, safe

ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")
any_text = st.text(st.characters(exclude_categories=[]), max_size=80)
hostile = st.lists(
    st.sampled_from(
        [
            "\x1b]52;c;aGk=\x07",
            "\x1b[2J",
            "\x9b2J",
            "\u202e",
            "\u2066",
            "\udc80",
            "[red]",
            "[@click=app.quit]x[/]",
            "\r",
            "\n",
            "\t",
            "怎么",
            "e\u0301",
            "\ufe0f",
            "\u2028",
        ]
    ),
    max_size=12,
).map("".join)


@given(any_text | hostile)
def test_no_character_that_a_terminal_interprets_is_left(text: str) -> None:
    shown = plain(text)
    left = {c for c in shown if unicodedata.category(c) in ACTING} - {"\n", "\u200c", "\u200d"}
    assert not left
    shown.encode("utf-8")


@given(any_text | hostile)
def test_one_line_is_one_line(text: str) -> None:
    assert "\n" not in one_line(text)
    assert len(one_line(text).splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=60))
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert plain(text) == text.replace("\u2800", "<U+2800>").translate(
        {0x3164: "<U+3164>", 0xFFA0: "<U+FFA0>", 0x115F: "<U+115F>", 0x1160: "<U+1160>"}
    )


@pytest.mark.parametrize(
    "character",
    ["\u034f", "\u115f", "\u1160", "\u2800", "\u3164", "\ufe00", "\ufe0e", "\U000e0100", "\U000e01ef"],
)
def test_an_invisible_character_is_marked_or_dropped(character: str) -> None:
    assert plain(f"a{character}b") in ("ab", f"a<U+{ord(character):04X}>b")


@given(st.dictionaries(any_text | hostile, any_text | hostile, max_size=4), st.booleans())
def test_json_is_escaped_without_a_change_of_its_values(value: dict[str, str], ascii_only: bool) -> None:
    document = json.dumps(value, ensure_ascii=False)
    escaped = json_escaped(document, ascii_only=ascii_only)
    assert json.loads(escaped) == value
    assert plain(escaped) == escaped
    assert escaped.isascii() or not ascii_only


@given(any_text | hostile, st.integers(0, 40))
def test_fitted_text_has_exactly_the_width(text: str, width: int) -> None:
    assert cells(fit(text, width)) == width


@given(hostile)
def test_markup_is_shown_not_read(text: str) -> None:
    content = safe(text)
    assert content.plain == plain(text)
    assert not content.spans


def test_an_escape_character_is_visible() -> None:
    assert plain("a\x1b[2J\x9b\u202eb") == "a␛[2J<U+009B><U+202E>b"
    assert one_line("one\r\ntwo") == "one⏎two"


@given(any_text | hostile)
def test_the_filter_before_the_terminal_lets_no_control_through(text: str) -> None:
    from rich.segment import Segment
    from textual.color import Color

    out = PrintableFilter().apply([Segment(text)], Color(0, 0, 0))
    assert not {c for c in "".join(s.text for s in out) if unicodedata.category(c) in ACTING} - {
        "\u200c",
        "\u200d",
    }


def test_safe_accepts_a_style() -> None:
    assert safe("[b]x", "bold") == Content.styled("[b]x", "bold")
