"""The demo: which base it takes and why, what it leaves for the next one, and its end on the terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.errors import BadInput
from engine.core.paths import Workspace, shipped
from engine.models.add import fetched_file
from engine.pipeline import demo
from engine.pipeline.demo_base import MODEL as BASE
from engine.pipeline.demo_base import NEED_MB, Circumstances, is_fetched, why_built_in
from engine.runs.kinds import TrainMode
from engine.validation.report import AnswerPair
from engine.workspace.demo import MARKER_FILE, clear_demo_workspace
from tests.package_index import CONTENT, MODEL
from tui.cli.demo_text import MOST_LINES, WIDTH, questions

USUAL = Circumstances(language="en", budget_mb=4096, at_hand=False, offline=False, installer=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"language": "zh"}, "English only"),
        ({"language": "zh", "at_hand": True}, "English only"),
        ({"budget_mb": NEED_MB - 1}, f"{NEED_MB:,} MB of memory, and {NEED_MB - 1:,} MB are available"),
        ({"budget_mb": NEED_MB - 1, "at_hand": True}, "MB of memory"),
        ({"budget_mb": NEED_MB}, ""),
        ({"offline": True}, "not on this machine"),
        ({"offline": True, "at_hand": True}, ""),
        ({"installer": False}, "pip or uv"),
        ({"installer": False, "at_hand": True}, ""),
    ],
)
def test_the_real_base_is_taken_where_nothing_stands_against_it(
    changes: dict[str, object], reason: str
) -> None:
    said = why_built_in(replace(USUAL, **changes))  # type: ignore[arg-type]
    assert bool(said) == bool(reason) and reason in said


def test_a_model_is_fetched_only_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    assert not is_fetched(file, MODEL)
    file.write_bytes(CONTENT[:-1])
    assert not is_fetched(file, MODEL)
    file.write_bytes(CONTENT[:-1] + b"x")
    assert not is_fetched(file, MODEL)
    file.write_bytes(CONTENT)
    assert is_fetched(file, MODEL)


def test_a_new_demo_removes_the_old_one_except_for_the_model_that_it_fetched(tmp_path: Path) -> None:
    ws = Workspace(tmp_path / "ws-demo")
    clear_demo_workspace(ws)
    for file in (
        fetched_file(ws, BASE),
        ws.models / "native-1" / "card.json",
        ws.memory_db,
        ws.root / "notes",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("old")
    (ws.models / ".smollm2.gguf.new.x").mkdir()
    clear_demo_workspace(ws)
    left = sorted(path.relative_to(ws.root).as_posix() for path in ws.root.rglob("*") if path.is_file())
    assert left == ["demo.json", "models/smollm2.gguf"]
    assert [path.name for path in ws.models.iterdir()] == ["smollm2.gguf"]


def test_without_a_fetched_model_nothing_but_the_marker_is_left(tmp_path: Path) -> None:
    ws = Workspace(tmp_path / "ws-demo")
    clear_demo_workspace(ws)
    (ws.models / "native-1").mkdir(parents=True)
    clear_demo_workspace(ws)
    assert [path.name for path in ws.root.iterdir()] == [MARKER_FILE]


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(BadInput, match="files in it"):
        clear_demo_workspace(ws)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("base", [None, "/models/smollm2.gguf"])
def test_steps_replace_the_time_limit_of_either_training(base: str | None) -> None:
    timed, short = demo.training_of(base, None), demo.training_of(base, 4)
    assert timed.mode is (TrainMode.LORA if base else TrainMode.NATIVE) and timed.model == base
    assert timed.time_budget_s and timed.max_steps is None
    assert short.time_budget_s is None and short.max_steps == 4


def test_the_shipped_texts_and_conversations_of_both_languages_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    for language, name in (("en", "one_year.jsonl"), ("zh", "crosswoz.jsonl")):
        monkeypatch.setattr(demo, "language", lambda language=language: language)
        files = [*demo._conversations(), *demo._texts()]
        assert all(file.is_file() and file.is_relative_to(shipped("data")) for file in files)
        assert name in [file.name for file in files]


def test_answers_stand_below_each_other_within_80_columns() -> None:
    long = (
        "1. Check the valve.\n2. Bleed it.\n" + "And then look at the pressure of the boiler once more. " * 9
    )
    pair = AnswerPair(question="My radiator\nis cold?", wanted="w", base=long, new="Bleed it. How old is it?")
    lines = questions([pair, pair, pair])
    assert all(len(line) <= WIDTH + 2 and "\n" not in line for line in lines)
    assert sum(line.startswith("   before") for line in lines) == 3
    assert [line.strip() for line in lines if line.startswith("   after")] == [
        "after    Bleed it. How old is it?"
    ] * 3
    first = lines[lines.index("1. My radiator is cold?") + 1 :]
    assert len(first[: next(i for i, row in enumerate(first) if "after" in row)]) == MOST_LINES
    assert first[MOST_LINES - 1].endswith(" …")
    assert questions([]) == []
