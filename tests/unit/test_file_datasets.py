"""`--data`: what is held out has no near duplicate in what is trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.corpus.dataset import DatasetRow, read_dataset
from engine.corpus.filters.normalise import letters
from engine.training.lora.files import HELD_OUT, FileDataset, read_files

TOPICS = ("boiler", "river", "ladder", "garden", "window", "violin", "cellar", "bridge", "candle", "market")
VERBS = ("repair", "paint", "measure", "move", "sell", "clean", "draw", "insure")
CHANGES: dict[str, Callable[[str], str]] = {
    "a blank more": lambda text: f" {text}  ",
    "a mark more": lambda text: f"{text}!",
    "other capitals": str.upper,
    "full width": lambda text: text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}),
    "a slip": lambda text: text.replace("should ask", "shoud ask"),
}


def rows() -> list[dict[str, str]]:
    return [
        {
            "instruction": f"How do I {verb} the {topic} of my aunt?",
            "input": "",
            "output": f"To {verb} a {topic} you should ask the {VERBS[n % 8]}er from {TOPICS[n % 10]} street number {n}.",
        }
        for n, (topic, verb) in enumerate((topic, verb) for topic in TOPICS for verb in VERBS)
    ]


def written(folder: Path, found: list[dict[str, str]]) -> FileDataset:
    folder.mkdir(exist_ok=True)
    file = folder / "alpaca.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    return read_files([file], folder, "x")


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates_stay_on_one_side(tmp_path: Path, change: str) -> None:
    plain = rows()
    changed = [
        {**row, "output": CHANGES[change](row["output"]), "instruction": CHANGES[change](row["instruction"])}
        for row in plain[::2]
    ]
    data = written(tmp_path / "data", plain + changed)
    train = list(read_dataset(data.path))

    def answers(found: list[DatasetRow]) -> set[str]:
        texts = {
            letters(message.content)
            for row in found
            for message in row.messages
            if message.role == "assistant"
        }
        return {text.replace("shoudask", "shouldask") for text in texts}

    assert not answers(train) & answers(data.held_out)
    assert not {row.cluster for row in train} & {row.cluster for row in data.held_out}
    total = len(train) + len(data.held_out)
    assert total // HELD_OUT - 1 <= len(data.held_out) <= total // HELD_OUT
    assert data.lineage.conversations == sorted(row.id for row in train)
    assert data.lineage.clusters == sorted({row.cluster for row in train})


def test_short_answers_that_differ_in_marks_alone_stay_on_one_side(tmp_path: Path) -> None:
    pairs = [(f"{a}{b}?", f"{b}{a}") for a in "abcdefgh" for b in "qrst"]
    found = [{"instruction": q, "input": "", "output": end} for q, a in pairs for end in (a, f"{a}!")]
    data = written(tmp_path / "data", found)
    train = {letters(row.messages[1].content) for row in read_dataset(data.path)}
    assert data.held_out and not train & {letters(row.messages[1].content) for row in data.held_out}


def test_unlike_conversations_are_each_a_cluster_of_their_own(tmp_path: Path) -> None:
    data = written(tmp_path / "data", rows())
    assert len(data.held_out) == len(rows()) // HELD_OUT
    assert all(row.cluster == row.id for row in (*data.held_out, *read_dataset(data.path)))


@pytest.mark.parametrize("groups, held_out", [(1, 0), (2, 6)])
def test_a_file_of_few_clusters_is_divided_between_them_or_not_at_all(
    tmp_path: Path, groups: int, held_out: int
) -> None:
    found = [
        {**row, "output": row["output"] + "!" * n}
        for row in rows()[:: len(rows()) // 2][:groups]
        for n in range(6)
    ]
    data = written(tmp_path / "data", found)
    assert len(data.held_out) == held_out
    assert len(list(read_dataset(data.path))) == 6 * groups - held_out
