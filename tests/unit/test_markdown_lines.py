"""Markdown as styled lines: what a model writes is drawn whole, within the width, and never read as our markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.widgets.markdown_lines import (
    ASCII_SIGNS,
    LONGEST,
    MarkdownDocument,
    MarkdownSigns,
    StyledLine,
    markdown_lines,
)


def text(lines: list[StyledLine]) -> list[str]:
    return ["".join(span.text for span in line).rstrip() for line in lines]


def kinds(source: str, word: str) -> set[str]:
    """The styles of the span that holds `word`."""
    spans = [span for line in markdown_lines(source, 60) for span in line if word in span.text]
    assert spans
    return {kind for span in spans for kind in span.kind.split()}


@pytest.mark.parametrize(
    ("source", "drawn"),
    [
        ("# Title\ntext", ["# Title", "", "text"]),
        ("one\ntwo", ["one", "two"]),
        ("- a\n- b\n  1. c\n  2. d", ["• a", "• b", "  1. c", "  2. d"]),
        ("3. c\n4. d", ["3. c", "4. d"]),
        ("> said\n> so", ["│ said", "│ so"]),
        ("```py\nx = 1\n\ny\n```\nafter", ["│ py", "│ x = 1", "│", "│ y", "", "after"]),
        ("before\n```\nunclosed\n# not a title", ["before", "", "│ unclosed", "│ # not a title"]),
        ("[red]x[/red] [b]y[/] <b>z</b> &amp;", ["[red]x[/red] [b]y[/] <b>z</b> &"]),
        (
            "see [here](https://x.test/a) and https://y.test",
            ["see here (https://x.test/a) and https://y.test"],
        ),
        ("![a cat](cat.png)", ["a cat (cat.png)"]),
        ("`a` **b** *c* ~~d~~", ["`a` b c d"]),
        ("| a | b |\n|---|--:|\n| 1 | 22 |", ["a │  b", "──┼───", "1 │ 22"]),
        ("- ", ["•"]),
        ("", []),
        ("a\x1b[31mb\x07\u202ec", ["a␛[31mb␇<U+202E>c"]),
        ("a\r\nb\rc", ["a", "b", "c"]),
    ],
)
def test_what_is_drawn(source: str, drawn: list[str]) -> None:
    assert text(markdown_lines(source, 60)) == drawn


@pytest.mark.parametrize(
    ("source", "word", "kind"),
    [
        ("**bold**", "bold", "strong"),
        ("*slanted*", "slanted", "em"),
        ("`code`", "code", "code"),
        ("# head", "head", "strong"),
        ("```python\ndef f(): pass\n```", "def", "strong"),
        ("```python\n# why\n```", "why", "dim"),
        ("```nolanguage\ndef\n```", "def", "block"),
        ("**a *b* c**", "b", "em"),
    ],
)
def test_styles(source: str, word: str, kind: str) -> None:
    assert kind in kinds(source, word)


PIECES = st.sampled_from(
    [
        "word ", "字符串", "**bold** ", "`code` ", "*", "_", "\n", "\n\n", "- item\n", "  1. sub\n", "> quote\n",
        "```python\n", "```\n", "x = 1  # c\n", "# Head\n", "---\n", "===\n", "| a | b |\n|---|---|\n| 1 | 2 |\n",
        "[l](u)", "<b>", "&lt;", "\\", "\t", "\x1b[0m", "\r\n", "\r", "    code\n", "| ", "-", "averyveryverylongword" * 3, "[l]: /u\n", "[l]",
    ]
)  # fmt: skip
SOURCES = st.lists(PIECES, max_size=30).map("".join)


@settings(deadline=None)
@given(source=SOURCES, cuts=st.lists(st.integers(1, 7), min_size=1, max_size=8), width=st.integers(20, 70))
def test_a_text_that_comes_in_pieces_ends_as_the_whole_text(source: str, cuts: list[int], width: int) -> None:
    document = MarkdownDocument(width, MarkdownSigns())
    shown: list[StyledLine] = []
    at = number = 0
    while at < len(source):
        step = cuts[number % len(cuts)]
        changed = document.append(source[at : at + step])
        shown = shown[:changed] + document.lines[changed:]
        assert shown == document.lines, "the lines before the first changed one are unchanged"
        at, number = at + step, number + 1
    changed = document.finish()
    assert shown[:changed] + document.lines[changed:] == document.lines
    assert document.lines == markdown_lines(source, width)


@given(source=SOURCES, width=st.integers(20, 70))
def test_no_line_is_wider_than_the_view_and_none_controls_the_terminal(source: str, width: int) -> None:
    for line in text(markdown_lines(source, width, ASCII_SIGNS)):
        assert line.isprintable()
        # A list within a list within a quote has eight cells at least, however narrow the view is.
        assert cell_len(line) <= width or width < 40


@given(words=st.lists(st.text("abc字é[]<&\\", min_size=1, max_size=12), min_size=1, max_size=20))
def test_code_is_drawn_character_for_character(words: list[str]) -> None:
    code = " ".join(words)
    drawn = text(markdown_lines(f"~~~\n{code}\n~~~", 30))
    assert "".join(line.removeprefix("│ ").removeprefix("│") for line in drawn).replace(
        " ", ""
    ) == code.replace(" ", "")


def test_a_huge_text_is_counted_beyond_the_limit() -> None:
    drawn = text(markdown_lines("word " * (LONGEST // 5 + 100), 60))
    assert drawn[-1] == "… +500"


def test_a_table_that_does_not_fit_becomes_lines_of_its_cells() -> None:
    head = (
        "|" + "|".join(f"col{n}" for n in range(12)) + "|\n|" + "---|" * 12 + "\n|" + "|".join("v" * 12) + "|"
    )
    drawn = text(markdown_lines(head, 40))
    assert drawn[:2] == ["col0: v", "col1: v"] and max(map(len, drawn)) <= 40
