"""The view of a conversation: wrapping, highlighted places, growth at the end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from tui.terminal.text import plain
from tui.widgets.conversation import ConversationView, StyledSpan, TextBlock, wrap

texts = st.text(alphabet=st.sampled_from("ab cde 中文，\n长wordlonger "), max_size=300)


@given(texts, st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing_but_the_place_of_the_break(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cell_len(text[begin:end]) <= max(2, width) for begin, end in lines)
    kept = "".join(text[begin:end] for begin, end in lines)
    assert kept.replace(" ", "") == text.replace("\n", "").replace(" ", "")
    for (_begin, end), (begin, _end) in pairwise(lines):
        assert text[end:begin] in ("", " ", "\n")


@given(texts, texts, st.integers(2, 40))
def test_appended_text_changes_only_the_last_line(text: str, more: str, width: int) -> None:
    before, after = wrap(text, width), wrap(text + more, width)
    assert after[: len(before) - 1] == before[:-1]
    assert before[:-1] + wrap(text + more, width, before[-1][0]) == after


def test_words_are_not_split_and_chinese_fills_its_lines() -> None:
    text = "the quick brown fox"
    assert [text[b:e] for b, e in wrap(text, 10)] == ["the quick ", "brown fox"]
    text = "does not converse here"
    assert [text[b:e] for b, e in wrap(text, 8)] == ["does not", "converse", "here"]
    text = "torn that the contract of the senate"
    assert [text[b:e] for b, e in wrap(text, 19)] == ["torn that the ", "contract of the ", "senate"]
    text = "怎么重置手机"
    assert [text[b:e] for b, e in wrap(text, 5)] == ["怎么", "重置", "手机"]


class ViewApp(App[None]):
    def compose(self) -> ComposeResult:
        yield ConversationView()


def drawn(view: ConversationView) -> str:
    return "\n".join(view.render_line(y).text.rstrip() for y in range(view.size.height))


async def test_spans_keep_their_colour_and_markup_stays_text() -> None:
    app = ViewApp()
    async with app.run_test(size=(60, 10)) as pilot:
        view = app.query_one(ConversationView)
        view.set_blocks(
            [
                TextBlock(
                    "you",
                    (StyledSpan("call "), StyledSpan("[red]13800[/]", "redacted"), StyledSpan(" now\x1b[2J")),
                ),
                TextBlock("why", (StyledSpan("x"),)),
            ]
        )
        await pilot.pause()
        assert drawn(view).splitlines()[0] == "you     call [red]13800[/] now␛[2J"
        bold = {segment.text: bool(segment.style and segment.style.bold) for segment in view.render_line(0)}
        assert bold["[red]13800[/]"]
        assert not bold["call "]
        assert drawn(view).splitlines()[1] == "why     x"


async def test_growing_text_is_drawn_like_complete_text() -> None:
    app = ViewApp()
    text = "Streaming 中文 answers come in pieces,\nand every piece [bold]is[/] drawn. " * 20
    async with app.run_test(size=(50, 12)) as pilot:
        view = app.query_one(ConversationView)
        view.add_block(TextBlock("model", (StyledSpan(""),)))
        for start in range(0, len(text), 7):
            view.append(text[start : start + 7])
        await pilot.pause()
        grown = drawn(view)
        assert view.at_end
        view.set_blocks([TextBlock("model", (StyledSpan(text),))], end=True)
        await pilot.pause()
        assert drawn(view) == grown
        assert plain(text).strip()[-10:] in grown


async def test_a_reader_who_scrolled_up_stays_there_while_text_arrives() -> None:
    app = ViewApp()
    async with app.run_test(size=(50, 8)) as pilot:
        view = app.query_one(ConversationView)
        view.set_blocks([TextBlock("model", (StyledSpan("line\n" * 60),))], end=True)
        await pilot.pause()
        view.focus()
        await pilot.press("g")
        await pilot.pause()
        view.append("more\n" * 10)
        await pilot.pause()
        assert view.scroll_offset.y == 0
        await pilot.press("G")
        await pilot.pause()
        view.append("end")
        await pilot.pause()
        assert view.at_end


async def test_a_very_long_turn_is_cut_and_shows_the_number_of_dropped_characters() -> None:
    app = ViewApp()
    async with app.run_test(size=(50, 8)) as pilot:
        view = app.query_one(ConversationView)
        view.set_blocks([TextBlock("you", (StyledSpan("x" * 100_000),))])
        await pilot.pause()
        assert view.plain_text.endswith("… +40,000")
