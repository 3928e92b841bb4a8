"""Which entries of the palette a query finds, and in which order."""

from __future__ import annotations

import pytest

from tui.screens.palette import PaletteEntry, ranked
from tui.screens.palette_match import match, match_letters


async def _nothing() -> None:
    """Choosing an entry of a test does nothing."""


def entry(label: str, *words: str, detail: str = "", weight: float = 1.0) -> PaletteEntry:
    return PaletteEntry(label, label, _nothing, words=words, detail=detail, weight=weight)


ENTRIES = [
    entry("pause", "train.pause", "runs pause ID", detail="Pause or resume a training."),
    entry("log scale", "train.scale", detail="Loss on a logarithmic axis."),
    entry("log", "train.log", "runs attach ID"),
    entry("batch size", "streaming_batch_size", detail="windows of text in a step", weight=0.7),
    entry("new", "train.new", "train --detach", detail="Start a training run."),
    entry("导入对话", "corpus.import", "memory import PATH"),
    entry("roll back", "validate.roll_back", "rollback", detail="The model that was in use before."),
]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("log", "log"),
        ("log sc", "log scale"),
        ("SCALE", "log scale"),
        ("scale log", "log scale"),
        ("batch", "batch size"),
        ("rollback", "roll back"),
        ("导入", "导入对话"),
        ("对话", "导入对话"),
        ("memory import", "导入对话"),
        ("training run", "new"),
        ("resume", "pause"),
        ("lgsc", "log scale"),
        ("rb", "roll back"),
    ],
)
def test_the_best_entry_is_the_first(query: str, first: str) -> None:
    assert ranked(ENTRIES, query)[0][0].label == first


def test_every_word_must_match_and_scattered_letters_count_only_where_nothing_else_does() -> None:
    assert [one.label for one, _found in ranked(ENTRIES, "log zebra")] == []
    assert [one.label for one, _found in ranked(ENTRIES, "smol")] == []
    assert {one.label for one, _found in ranked(ENTRIES, "lo")} == {"log", "log scale"}


def test_without_a_query_all_entries_keep_their_order() -> None:
    assert [one for one, _found in ranked(ENTRIES, "  ")] == ENTRIES


@pytest.mark.parametrize(
    ("query", "label", "marked"),
    [
        ("sc", "log scale", "sc"),
        ("log sca", "log scale", "logsca"),
        ("对话", "导入对话", "对话"),
        ("ICH", "İch ich", "ich"),
    ],
)
def test_the_matched_letters_are_marked(query: str, label: str, marked: str) -> None:
    assert "".join(label[place] for place in match(query, label).places) == marked


def test_the_closest_letters_are_marked() -> None:
    found = match_letters("lsc", "load large log scale")
    assert found.places[0] == "load large log scale".index("log")
