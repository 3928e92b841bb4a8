"""Pasted text arrives whole and as one event, whatever is in it and however the terminal's stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver

from tui.terminal import paste
from tui.terminal.paste import BEGIN, END, PasteSafeParser

TEXT = st.lists(
    st.sampled_from(["word", "\r", "\n", "\x1b", "\x1b[31m", "\x1b[A", "\x1b[200~", "\x1b[", "字", "\t", "~", "\x1bOP"]),
    max_size=20,
).map("".join)  # fmt: skip


def parsed(stream: str, cuts: list[int], parser: XTermParser) -> list[events.Event]:
    found: list[events.Event] = []
    at = number = 0
    while at < len(stream):
        step = cuts[number % len(cuts)]
        found += [event for event in parser.feed(stream[at : at + step]) if isinstance(event, events.Event)]
        at, number = at + step, number + 1
    return found


@settings(deadline=None)
@given(text=TEXT, cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_paste_is_one_event_with_all_of_its_text(text: str, cuts: list[int]) -> None:
    found = parsed(f"a{BEGIN}{text}{END}b", cuts, PasteSafeParser())
    keys = [event.character for event in found if isinstance(event, events.Key)]
    pastes = [event.text for event in found if isinstance(event, events.Paste)]
    assert keys == ["a", "b"], "no part of the text is a key: an enter would send a draft"
    # Textual drops an empty paste.
    assert pastes == [text.replace("\x1b", "␛")] or (pastes, text) == ([], "")


@pytest.mark.parametrize("keys", ["\x1b[A", "\x1b", "\x1bOP", "\x1b[13;2u", "\x1b[<0;3;4M", "abc", "字"])
def test_keys_outside_a_paste_are_read_as_by_textual(keys: str) -> None:
    def names(parser: XTermParser) -> list[str]:
        return [repr(event) for event in parsed(keys, [len(keys)], parser)]

    assert names(PasteSafeParser()) == names(XTermParser())


def test_two_pastes_in_a_row_are_two_events() -> None:
    stream = f"{BEGIN}one\x1b[0m{END}{BEGIN}two{END}"
    pastes = [e.text for e in parsed(stream, [4], PasteSafeParser()) if isinstance(e, events.Paste)]
    assert pastes == ["one␛[0m", "two"]


def test_the_driver_of_textual_makes_its_parser_from_the_name_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linux_driver, "XTermParser", XTermParser)
    assert "XTermParser" in linux_driver.LinuxDriver.run_input_thread.__code__.co_names
    paste.install()
    assert vars(linux_driver)["XTermParser"] is PasteSafeParser
