"""Help and errors of the command line: wrapping by cells, usage errors, global options."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput, error_text
from engine.core.i18n import language, set_language
from engine.core.paths import Workspace
from engine.runs.kinds import TrainParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from tests.cli import run_cli
from tui.cli.help import describe_usage_error, width, wrap
from tui.cli.main import main, parse_globals
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
def test_wrapped_lines_fit_the_width_and_keep_all_text(words: list[str], cells: int) -> None:
    text = " ".join(words)
    lines = wrap(text, cells)
    # Closing punctuation may exceed the width.
    assert all(width(line.rstrip("，。")) <= cells for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_closing_punctuation_never_begins_a_line() -> None:
    lines = wrap("这是一句很长的话，" * 12, 21)
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
def test_global_options_are_parsed_at_any_position(
    given_words: list[str], rest: list[str], field: str, value: object
) -> None:
    assert parse_globals(given_words) == rest
    assert getattr(options, field) == value


def test_a_global_option_without_its_value_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter):
        parse_globals(["paths", "--data-dir"])


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("No such command 'x'.", "没有命令 x"),
        ("Missing argument 'ID'.", "缺少 ID"),
        ("Option '--lang' requires an argument.", "--lang 需要一个值"),
        ("an error that a later typer may have.", "an error that a later typer may have"),
    ],
)
def test_errors_of_typer_are_translated(text: str, translation: str) -> None:
    set_language("zh")
    sentence, hint = describe_usage_error(typer.TyperException(text))
    assert sentence == translation
    assert hint == "h2q-tui --help"


def test_the_reason_of_an_invalid_value_is_translated() -> None:
    set_language("zh")
    problem = typer.BadParameter("Input should be a valid integer, unable to parse", param_hint="--epochs")
    assert describe_usage_error(problem)[0] == "--epochs：需要一个整数"


@pytest.mark.parametrize("words", [["list"], ["show", "latest"]])
def test_the_kind_of_a_run_is_translated(tmp_path: Path, words: list[str]) -> None:
    ws = Workspace(tmp_path)
    create_run(ws, make_spec(ws.root, TrainParams()))
    shown = run_cli("runs", *words, "--data-dir", str(ws.root), "--lang", "zh").out
    assert "训练" in shown and "train" not in shown


@pytest.mark.parametrize(
    ("text", "printed"),
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
def test_a_printed_command_has_the_data_dir_of_this_process(
    capsys: pytest.CaptureFixture[str], text: str, printed: str
) -> None:
    options.data_dir = "/a b"
    echo(text)
    assert capsys.readouterr().out == printed + "\n"
    options.data_dir = None
    echo(text)
    assert capsys.readouterr().out == text + "\n"


def test_a_group_without_a_command_prints_a_json_error_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["runs", "--json", "--lang", "en"])
    assert exit_.value.code == 2
    document = json.loads(capsys.readouterr().out)
    assert document == {"error": "a command is missing", "hint": "h2q-tui runs --help", "exit_code": 2}


def test_an_error_of_the_system_is_shown_without_its_number() -> None:
    assert error_text(PermissionError(13, "Permission denied", "/a")) == "Permission denied: /a"
    assert error_text(OSError("no answer")) == "no answer"
    assert error_text(BadInput("bad", hint="hint")) == "bad → hint"


def test_a_database_error_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("tui.cli.main.build", build)
    with pytest.raises(SystemExit) as exit_:
        main(["--lang", "en"])
    assert exit_.value.code == 5
    sentence = "The memory cannot be read or written (database or disk is full) → h2q-tui check"
    assert capsys.readouterr().err.strip() == sentence


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, typer.Abort])
def test_an_interrupted_command_prints_one_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    def stop(_store: object) -> None:
        raise interrupt

    run_cli("memory", "add", "--user", "hello", "--assistant", "good day", "--data-dir", str(tmp_path))
    monkeypatch.setattr("engine.corpus.stats.corpus_stats", stop)
    result = run_cli("corpus", "stats", "--json", "--data-dir", str(tmp_path))
    assert result.code == 130
    assert json.loads(result.out)["exit_code"] == 130
