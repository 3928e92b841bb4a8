"""`models`, `promote`, `rollback`, `validate --scores` and `chat` on the command line."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.chats.store import read_chats
from engine.core.paths import Workspace
from engine.inference.client import InferenceClient
from tests.cli import CliResult, run_cli
from tests.models import copy_model, talk, write_tiny
from tui.cli.chat_input import MOST_BYTES, read_question

H2q = Callable[..., CliResult]


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(scope="module")
def ws(knowing: Path) -> Iterator[Workspace]:
    root = Path(tempfile.mkdtemp(prefix="h2q-cmd-"))
    ws = Workspace(root / "ws")
    for number, name in enumerate(("one", "two")):
        copy_model(knowing, ws.models / name, created_at=1e9 + number)
    yield ws
    asyncio.run(InferenceClient(ws).shutdown())
    shutil.rmtree(ws.runtime, ignore_errors=True)
    shutil.rmtree(root)


@pytest.fixture
def h2q(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> H2q:
    def run(*words: str, stdin: str = "", where: Path = ws.root) -> CliResult:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return run_cli("--data-dir", str(where), *words)

    return run


def test_a_promotion_is_rolled_back(h2q: H2q, ws: Workspace) -> None:
    assert h2q("promote", "one").code == 0
    done = json.loads(h2q("promote", "two", "--json").out)
    assert (done["name"], done["previous"]) == ("two", "one")
    listed = json.loads(h2q("models", "list", "--json").out)
    assert listed["in_use"] == "two"
    assert [(row["name"], row["in_use"]) for row in listed["models"]] == [("two", True), ("one", False)]
    backups = json.loads(h2q("rollback", "--list", "--json").out)["backups"]
    assert [row["model"] for row in backups] == ["one", ""]
    assert "one is in use again" in h2q("rollback").out
    wrong = h2q("rollback", "--to", "20010101_000000")
    assert wrong.code == 2 and "h2q-tui rollback --list" in wrong.err


def test_prompt_prints_one_answer(h2q: H2q) -> None:
    h2q("promote", "one")
    plain = h2q("chat", "--prompt", "数到三", "--temperature", "0")
    assert (plain.code, plain.out) == (0, "一二三。\n")
    answer = json.loads(
        h2q("chat", "--json", "--model", "two", "--prompt", "数到三", "--temperature", "0").out
    )
    assert (answer["model"], answer["answer"], answer["finish"]) == ("two", "一二三。", "stop")


def test_a_cut_answer_says_so_beside_the_output(h2q: H2q) -> None:
    result = h2q("chat", "--model", "one", "--prompt", "数到三", "--temperature", "0", "--max-bytes", "6")
    assert (result.code, result.out) == (0, "一二\n")
    assert "cut at its maximum length: --max-bytes" in result.err
    whole = h2q("chat", "--model", "one", "--prompt", "数到三", "--temperature", "0")
    assert "cut" not in whole.err


def test_questions_are_read_from_a_pipe(h2q: H2q) -> None:
    h2q("promote", "one")
    result = h2q("chat", "--temperature", "0", "--json", stdin="数到三\n\nclear\n数到三\nexit\nnever\n")
    answers = json.loads(result.out)["answers"]
    assert [row["answer"] for row in answers] == ["一二三。", "一二三。"]


def test_piped_text_is_the_material_of_the_prompt(h2q: H2q) -> None:
    asked = ("chat", "--model", "one", "--temperature", "0", "--json", "--prompt", "What is it?")
    answer = json.loads(h2q(*asked, stdin="line 1\nline 2\n").out)
    assert answer["prompt"] == "line 1\nline 2\n\nWhat is it?", (
        "the text first, what is to be done with it last"
    )
    assert not answer["cut_question"] and answer["prompt_tokens"] > answer["tokens"] > 0
    assert json.loads(h2q(*asked, stdin=" \n").out)["prompt"] == "What is it?"


def test_a_text_beyond_the_context_says_so_beside_the_output(h2q: H2q) -> None:
    result = h2q("chat", "--model", "one", "--temperature", "0", "--prompt", "数到三", stdin="word " * 200)
    assert result.code == 0 and result.out.strip()
    assert "longer than the context (256 tokens): its beginning was left out" in result.err


@pytest.mark.parametrize("data", [b"a\0b", b"x" * (MOST_BYTES + 1)], ids=["binary", "huge"])
def test_what_cannot_be_asked_is_refused_in_one_sentence(ws: Workspace, data: bytes) -> None:
    command = [sys.executable, "-m", "tui.cli.main", "--lang", "en", "--data-dir", str(ws.root)]
    ended = subprocess.run(
        [*command, "chat", "--model", "one", "--prompt", "x"], input=data, capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert len(ended.stderr.decode().strip().splitlines()) == 1 and "standard input" in ended.stderr.decode()


def test_an_answer_ends_after_max_tokens(h2q: H2q) -> None:
    result = h2q("chat", "--model", "one", "--prompt", "数到三", "--temperature", "0", "--max-tokens", "6")
    assert (result.code, result.out) == (0, "一二\n")
    assert "--max-tokens" in result.err


@pytest.mark.parametrize(
    ("lines", "question"),
    [
        (["hi"], "hi"),
        (["  hi  "], "hi"),
        (["one\\", "two"], "one\ntwo"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (['"""one', "", 'two"""'], "one\n\ntwo"),
        (['"""one"""'], "one"),
        (['say """ aloud'], 'say """ aloud'),
        (["a\nb"], "a\nb"),
        ([""], ""),
    ],
)
def test_a_question_may_have_several_lines(lines: list[str], question: str) -> None:
    left = iter(lines)
    assert read_question(lambda _prompt: next(left)) == question
    assert next(left, None) is None


def test_ctrl_c_stops_an_answer_and_keeps_the_chat_and_ctrl_d_leaves(ws: Workspace, h2q: H2q) -> None:
    h2q("promote", "one")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tui.cli.main", "--lang", "en", "--data-dir", str(ws.root)]
    chat = subprocess.Popen(
        [*command, "chat", "--temperature", "0"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    seen = b""

    def until(text: str, typed: bytes, again: bytes = b"") -> None:
        """Types when `text` and then the prompt are there: a key before the prompt is lost. `again` is typed while
        nothing comes: Python misses a signal that arrives between the prompt and the wait for a key."""
        nonlocal seen
        deadline = time.monotonic() + 60
        while text.encode() not in seen or not seen.endswith(b"> "):
            assert time.monotonic() < deadline, seen
            if select.select([master], [], [], 5)[0]:
                seen += os.read(master, 65536)
            elif again:
                os.write(master, again)
        seen = b""
        os.write(master, typed)

    try:
        until("", b"\x03")
        until("ctrl+d or exit leaves", "数到三\n".encode(), again=b"\x03")
        until("一二三。", b"clear\n")
        until("context cleared", b"\x04")
        assert chat.wait(30) == 0
    finally:
        chat.kill()
        os.close(master)
    (stored,) = read_chats(ws)
    assert [(one.question, one.text) for one in stored.exchanges] == [("数到三", "一二三。")]


def test_the_output_of_a_model_cannot_control_the_terminal(h2q: H2q) -> None:
    result = h2q("chat", "--model", "one", "--prompt", "x", "--temperature", "0")
    assert result.code == 0
    assert "\x1b" not in result.out and "\x07" not in result.out
    assert "␛[2J" in result.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("chat", "--model", "nothing", "--prompt", "x"), "no model named nothing"),
        (("promote", "nothing"), "no model named nothing"),
        (("models", "show", "nothing"), "no model named nothing"),
        (("models", "remove", "nothing"), "no model named nothing"),
        (("validate", "--base", "one", "--new", "nothing"), "no model named nothing"),
        (("validate", "--base", "one"), "--new NAME"),
        (("validate", "--scores", "nowhere.jsonl"), "nowhere.jsonl"),
        (("validate", "--scores", "x", "--base", "one"), "--scores takes no"),
        (("models", "remove", "two"), "needs confirmation: Delete the model two"),
    ],
)
def test_unknown_names_are_one_sentence_with_a_hint(h2q: H2q, words: tuple[str, ...], sentence: str) -> None:
    result = h2q(*words)
    assert result.code == 2
    assert sentence in result.err and "→ h2q-tui" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_without_a_model_the_hint_is_the_demo(h2q: H2q, tmp_path: Path) -> None:
    result = h2q("chat", "--prompt", "x", where=tmp_path / "empty")
    assert result.code == 2 and "h2q-tui demo" in result.err
    assert not (tmp_path / "empty").exists()


def test_the_model_in_use_cannot_be_removed(h2q: H2q, ws: Workspace) -> None:
    write_tiny(ws.models / "spare", [talk("x", "y")], steps=1)
    h2q("promote", "one")
    refused = h2q("models", "remove", "one", "--yes")
    assert refused.code == 2 and "in use" in refused.err
    # The hint takes a damaged model out of use, too.
    weights = ws.models / "one" / "model.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:100])
    hint = shlex.split(refused.err.partition(" → ")[2].strip())[1:]
    assert hint[0] == "rollback"
    assert h2q(*hint[: hint.index("--data-dir")]).code == 0
    assert json.loads(h2q("models", "list", "--json").out)["in_use"] != "one"
    weights.write_bytes(intact)
    assert h2q("models", "remove", "spare", "--yes").code == 0
    assert not (ws.models / "spare").exists()


def test_external_scores_are_compared(h2q: H2q, tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(
        "".join(
            json.dumps({"group": f"g{i}", "base": 0.5, "new": 0.55 + (i % 3) * 0.01}) + "\n"
            for i in range(30)
        )
    )
    result = h2q("validate", "--scores", str(file), "--json")
    verdict = json.loads(result.out)
    assert (result.code, verdict["decision"], verdict["n_groups"]) == (0, "promote", 30)
    assert set(verdict) >= {
        *("decision", "n_cases", "n_groups", "base", "new", "delta", "p_value", "ci95"),
        *("mcnemar_p", "noninferiority", "needed_cases", "reasons"),
    }
    file.write_text('{"group": 1, "base": 1, "new": 2}\n{"group": 1,\n')
    broken = h2q("validate", "--scores", str(file))
    assert broken.code == 2 and f"{file}, line 2" in broken.err
