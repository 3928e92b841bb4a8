"""`models`, `promote`, `rollback`, `validate --scores` and `chat` as a person runs them."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.inference.client import InferenceClient
from tests.models import talk, write_tiny

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ws() -> Iterator[Workspace]:
    root = Path(tempfile.mkdtemp(prefix="h2q-cmd-"))
    made = Workspace(root / "ws")
    for number, name in enumerate(("one", "two")):
        write_tiny(made.models / name, [talk("数到三", "一二三。")], steps=60, created_at=1e9 + number)
    yield made
    asyncio.run(InferenceClient(made).shutdown())
    shutil.rmtree(made.runtime, ignore_errors=True)
    shutil.rmtree(root)


@pytest.fixture
def h2q(ws: Workspace) -> Command:
    def run(*words: str, stdin: str = "", where: Path = ws.root) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-c",
            "from tui.cli.main import main; main()",
            "--lang",
            "en",
            "--data-dir",
            str(where),
        ]
        return subprocess.run([*command, *words], input=stdin, capture_output=True, text=True, timeout=120)

    return run


def test_from_promotion_to_rollback(h2q: Command, ws: Workspace) -> None:
    assert h2q("promote", "one").returncode == 0
    done = json.loads(h2q("promote", "two", "--json").stdout)
    assert (done["name"], done["previous"]) == ("two", "one")
    listed = json.loads(h2q("models", "list", "--json").stdout)
    assert listed["in_use"] == "two"
    assert [(row["name"], row["in_use"]) for row in listed["models"]] == [("two", True), ("one", False)]
    backups = json.loads(h2q("rollback", "--list", "--json").stdout)["backups"]
    assert [row["model"] for row in backups] == ["one", ""]
    assert "one is in use again" in h2q("rollback").stdout
    wrong = h2q("rollback", "--to", "20010101_000000")
    assert wrong.returncode == 2 and "h2q-tui rollback --list" in wrong.stderr


def test_one_answer_goes_to_stdout(h2q: Command) -> None:
    h2q("promote", "one")
    plain = h2q("chat", "--prompt", "数到三", "--temperature", "0")
    assert (plain.returncode, plain.stdout) == (0, "一二三。\n")
    answer = json.loads(
        h2q("chat", "--json", "--model", "two", "--prompt", "数到三", "--temperature", "0").stdout
    )
    assert (answer["model"], answer["answer"], answer["finish"]) == ("two", "一二三。", "stop")


def test_a_conversation_may_come_from_a_pipe(h2q: Command) -> None:
    h2q("promote", "one")
    found = h2q("chat", "--temperature", "0", "--json", stdin="数到三\n\nclear\n数到三\nexit\nnever\n")
    answers = json.loads(found.stdout)["answers"]
    assert [row["answer"] for row in answers] == ["一二三。", "一二三。"]


def test_what_a_model_says_cannot_steer_the_terminal(h2q: Command, ws: Workspace) -> None:
    write_tiny(ws.models / "evil", [talk("x", "\x1b[2J\x07ok")], steps=90)
    found = h2q("chat", "--model", "evil", "--prompt", "x", "--temperature", "0")
    assert found.returncode == 0
    assert "\x1b" not in found.stdout and "\x07" not in found.stdout
    assert "␛[2J" in found.stdout


@pytest.mark.parametrize(
    ("words", "said"),
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
def test_wrong_names_are_one_sentence_with_a_mend(h2q: Command, words: tuple[str, ...], said: str) -> None:
    found = h2q(*words)
    assert found.returncode == 2
    assert said in found.stderr and "→ h2q-tui" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_without_a_model_the_demo_is_offered(h2q: Command, tmp_path: Path) -> None:
    found = h2q("chat", "--prompt", "x", where=tmp_path / "empty")
    assert found.returncode == 2 and "h2q-tui demo" in found.stderr
    assert not (tmp_path / "empty").exists()


def test_the_one_in_use_is_not_removed(h2q: Command, ws: Workspace) -> None:
    write_tiny(ws.models / "spare", [talk("x", "y")], steps=1)
    h2q("promote", "one")
    refused = h2q("models", "remove", "one", "--yes")
    assert refused.returncode == 2 and "in use" in refused.stderr
    # What the refusal names takes it out of use, and then it can go, damaged as it may be.
    weights = ws.models / "one" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    hint = shlex.split(refused.stderr.partition(" → ")[2].strip())[1:]
    assert hint[0] == "rollback"
    assert h2q(*hint[: hint.index("--data-dir")]).returncode == 0
    assert json.loads(h2q("models", "list", "--json").stdout)["in_use"] != "one"
    weights.write_bytes(whole)
    assert h2q("models", "remove", "spare", "--yes").returncode == 0
    assert not (ws.models / "spare").exists()


def test_scores_from_elsewhere_are_judged(h2q: Command, tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(
        "".join(
            json.dumps({"group": f"g{i}", "base": 0.5, "new": 0.55 + (i % 3) * 0.01}) + "\n"
            for i in range(30)
        )
    )
    found = h2q("validate", "--scores", str(file), "--json")
    verdict = json.loads(found.stdout)
    assert (found.returncode, verdict["decision"], verdict["n_groups"]) == (0, "promote", 30)
    assert set(verdict) >= {
        *("decision", "n_cases", "n_groups", "base", "new", "delta", "p_value", "ci95"),
        *("mcnemar_p", "noninferiority", "needed_cases", "reasons"),
    }
    file.write_text('{"group": 1, "base": 1, "new": 2}\n{"group": 1,\n')
    broken = h2q("validate", "--scores", str(file))
    assert broken.returncode == 2 and f"{file}, line 2" in broken.stderr
