"""The exchanges of a chat as lines: heads, versions, two answers side by side, an answer that grows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.chats.record import ChatAnswer, ChatExchange
from engine.inference.language_model import Sampling
from tests.unit.test_markdown_lines import SOURCES
from tui.tabs.chat.status_text import ChatState, status_parts
from tui.tabs.chat.transcript_text import ExchangeLayout, context_used, model_label
from tui.terminal.glyphs import ASCII, UNICODE
from tui.terminal.text import plain


def exchange(*answers: str, model: str = "m", finish: str = "stop") -> ChatExchange:
    made = ChatExchange(question="why?", asked_at=0.0)
    for text in answers:
        answer = made.begin(model, 0.0)
        answer.text, answer.finish = text, finish
    return made


def pair(left: str, right: str) -> ChatExchange:
    made = ChatExchange(question="why?", asked_at=0.0)
    for answer, text in zip(made.begin_pair(["one", "two"], 0.0), (left, right), strict=True):
        answer.text, answer.finish = text, "stop"
    return made


def drawn(made: ChatExchange, width: int = 80) -> list[str]:
    lines = ExchangeLayout(made, width, UNICODE).lines
    return ["".join(span.text for span in line).rstrip() for line in lines]


def test_who_speaks_is_told_without_colours() -> None:
    assert drawn(exchange("because")) == ["  you", "  │ why?", "  m", "  because", ""]


def test_versions_are_numbered_and_a_corrected_one_says_so() -> None:
    made = exchange("a", "b")
    assert "  m   ‹ 2/2 ›" in drawn(made)
    made.correct("mine", 0.0)
    assert "  corrected by you   ‹ 3/3 ›" in drawn(made)


@pytest.mark.parametrize(
    ("finish", "text", "note"),
    [
        ("stopped", "half", "(stopped)"),
        ("length", "half", "(cut at the maximum answer length)"),
        ("stop", "", "(no answer)"),
        ("stop", "whole", None),
    ],
)
def test_how_an_answer_ended_stands_below_it(finish: str, text: str, note: str | None) -> None:
    lines = drawn(exchange(text, finish=finish))
    assert [line.strip() for line in lines if line.strip().startswith("(")] == ([note] if note else [])


def test_two_answers_stand_beside_each_other_where_there_is_room() -> None:
    made = pair("L", "R")
    wide, narrow = drawn(made, 80), drawn(made, 50)
    assert any("left" in line and "right" in line for line in wide)
    assert narrow[2:] == ["  left", "  L", "", "  right", "  R", ""]
    assert not any(name in line for line in wide for name in ("one", "two")), "unnamed until the vote"
    made.vote("right", 0.0)
    assert any("one" in line and "two   ✓ better" in line for line in drawn(made, 80))


def test_signs_of_a_poor_terminal_are_ascii() -> None:
    made = exchange("- a\n\n> b\n\n`c`", "- a\n\n> b\n\n`c`")
    lines = ExchangeLayout(made, 80, ASCII).lines
    assert all(span.text.isascii() for line in lines for span in line)


@settings(deadline=None, max_examples=40)
@given(
    texts=st.tuples(SOURCES, SOURCES), cut=st.integers(1, 9), width=st.integers(30, 90), both=st.booleans()
)
def test_an_answer_that_grows_is_drawn_as_a_new_layout_draws_it(
    texts: tuple[str, str], cut: int, width: int, both: bool
) -> None:
    made = pair("", "") if both else exchange("")
    for answer in made.answers:
        answer.finish = ""
    layout = ExchangeLayout(made, width, UNICODE)
    shown = list(layout.lines)
    for version, text in enumerate(texts[: len(made.answers)]):
        for at in range(0, len(text), cut):
            piece = text[at : at + cut]
            made.answers[version].text += piece
            changed = layout.append(version, piece)
            shown = shown[:changed] + layout.lines[changed:]
            assert shown == layout.lines, "nothing above the first changed line is drawn again"
    assert layout.lines == ExchangeLayout(made, width, UNICODE).lines


@given(question=st.text(max_size=80), width=st.integers(30, 90))
def test_a_question_is_drawn_within_the_width_and_controls_nothing(question: str, width: int) -> None:
    made = ChatExchange(question=question, asked_at=0.0)
    for line in drawn(made, width):
        assert plain(line) == line
        assert cell_len(line) <= width


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("native-1", "native-1"),
        ("/models/smol.gguf", "smol.gguf"),
        ("/models/dir/", "dir"),
        ("HuggingFaceTB/SmolLM2", "HuggingFaceTB/SmolLM2"),
        ("qwen3 + /adapters/mine", "qwen3 + mine"),
        ("ollama:qwen3:0.6b", "ollama:qwen3:0.6b"),
        ("evil\nname\x1b", "evil⏎name␛"),
    ],
)
def test_a_model_is_shown_by_a_short_name(name: str, label: str) -> None:
    assert model_label(name) == label


def test_the_context_is_told_in_tokens() -> None:
    made = exchange("a")
    answer = made.answers[0]
    assert context_used(answer) == ""
    answer.prompt_tokens, answer.tokens = 1000, 12
    assert context_used(answer) == "1,012 tokens of context"
    answer.context = 2048
    assert context_used(answer) == "1,012 of 2,048 tokens"


def test_the_line_of_figures_says_what_differs_from_the_default() -> None:
    def parts(sampling: Sampling) -> list[str]:
        return list(status_parts(ChatState("m", True, "", sampling, False, None, None, 1)))

    assert parts(Sampling()) == ["m (in use)"]
    changed = Sampling(temperature=0.0, top_p=0.5, max_tokens=1000, seed=7)
    assert parts(changed)[1:] == ["temperature 0", "top-p 0.5", "at most 1,000 tokens", "seed 7"]


def test_until_the_first_word_the_line_says_what_the_person_waits_for() -> None:
    def parts(text: str, rate: float = 0.0) -> list[str]:
        answer = ChatAnswer(text=text, model="m")
        state = ChatState("m", True, "", Sampling(), False, answer, 25.0, 1, tokens_per_s=rate)
        return list(status_parts(state))

    assert parts("") == ["m (in use)", "25 s   esc stops", "loads the model and reads the question"]
    assert parts("Basil") == ["m (in use)", "25 s   esc stops"]
    assert parts("Basil is", 23.4) == ["m (in use)", "25 s   esc stops", "23 tokens/s"]
