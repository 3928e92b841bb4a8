"""The command line's own words: wrapping by cells, usage errors, global options."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput, error_text
from engine.core.i18n import language, set_language
from tui.cli.help import describe, width, wrapped
from tui.cli.main import main, take_globals
from tui.cli.output import echo
from tui.cli.session import GlobalOptions, options

WORDS = st.lists(st.text(st.sampled_from("abcXYZ语料库模型训练，。x-"), min_size=1, max_size=12), max_size=40)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    before = language()
    vars(options).update(vars(GlobalOptions()))
    yield
    vars(options).update(vars(GlobalOptions()))
    set_language(before)


@given(WORDS, st.integers(20, 90))
def test_no_line_is_wider_than_asked_and_nothing_is_lost(words: list[str], cells: int) -> None:
    text = " ".join(words)
    lines = wrapped(text, cells)
    # Closing marks may hang over the edge.
    assert all(width(line.rstrip("，。")) <= cells for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_closing_mark_never_begins_a_line() -> None:
    lines = wrapped("这是一句很长的话，" * 12, 21)
    assert len(lines) > 4
    assert not [line for line in lines if line[0] in "，。"]


@pytest.mark.parametrize(
    ("given_words", "rest", "field", "value"),
    [
        (["--json", "paths"], ["paths"], "json", True),
        (["paths", "--json"], ["paths"], "json", True),
        (["train", "--data-dir", "x", "--epochs", "2"], ["train", "--epochs", "2"], "data_dir", "x"),
        (["--lang=zh", "paths"], ["paths"], "lang", "zh"),
        (["corpus", "show", "--", "--json"], ["corpus", "show", "--", "--json"], "json", False),
        (["train", "--data", "x"], ["train", "--data", "x"], "data_dir", None),
    ],
)
def test_global_options_are_taken_wherever_they_stand(
    given_words: list[str], rest: list[str], field: str, value: object
) -> None:
    assert take_globals(given_words) == rest
    assert getattr(options, field) == value


def test_a_global_option_without_its_value_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter):
        take_globals(["paths", "--data-dir"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No such command 'x'.", "没有命令 x"),
        ("Missing argument 'ID'.", "缺少 ID"),
        ("Option '--lang' requires an argument.", "--lang 需要一个值"),
        ("a sentence that typer may say some day.", "a sentence that typer may say some day"),
    ],
)
def test_sentences_of_typer_are_said_in_the_persons_language(text: str, said: str) -> None:
    set_language("zh")
    sentence, hint = describe(typer.TyperException(text))
    assert sentence == said
    assert hint == "h2q-tui --help"


def test_the_reason_of_a_bad_value_is_translated_too() -> None:
    set_language("zh")
    problem = typer.BadParameter("Input should be a valid integer, unable to parse", param_hint="--epochs")
    assert describe(problem)[0] == "--epochs：需要一个整数"


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("no run x → h2q-tui runs list", "no run x → h2q-tui runs list --data-dir '/a b'"),
        (
            "3 more → h2q-tui memory list --offset 2",
            "3 more → h2q-tui memory list --offset 2 --data-dir '/a b'",
        ),
        ("bad → h2q-tui demo --data-dir /c", "bad → h2q-tui demo --data-dir /c"),
        ("bad usage → h2q-tui train --help", "bad usage → h2q-tui train --help"),
        ("bad → rm /a", "bad → rm /a"),
        ("a text with h2q-tui in it", "a text with h2q-tui in it"),
    ],
)
def test_a_printed_command_runs_on_the_workspace_that_was_chosen(
    capsys: pytest.CaptureFixture[str], said: str, printed: str
) -> None:
    options.data_dir = "/a b"
    echo(said)
    assert capsys.readouterr().out == printed + "\n"
    options.data_dir = None
    echo(said)
    assert capsys.readouterr().out == said + "\n"


def test_a_group_without_a_command_is_one_document_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["runs", "--json", "--lang", "en"])
    assert leave.value.code == 2
    said = json.loads(capsys.readouterr().out)
    assert said == {"error": "a command is missing", "hint": "h2q-tui runs --help", "exit_code": 2}


def test_a_failure_of_the_system_is_said_without_its_number() -> None:
    assert error_text(PermissionError(13, "Permission denied", "/a")) == "Permission denied: /a"
    assert error_text(OSError("no answer")) == "no answer"
    assert error_text(BadInput("bad", hint="hint")) == "bad → hint"


def test_a_memory_that_cannot_be_written_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("tui.cli.main.build", build)
    with pytest.raises(SystemExit) as leave:
        main(["--lang", "en"])
    assert leave.value.code == 5
    said = "The memory cannot be read or written (database or disk is full) → h2q-tui check"
    assert capsys.readouterr().err.strip() == said
