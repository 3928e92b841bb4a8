"""The filter line completes fields and values with counts, and takes every word that the screen shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.i18n import set_language
from engine.core.paths import Workspace
from engine.corpus.enums import (
    DUPLICATE_LABELS,
    PII_LABELS,
    REASON_LABELS,
    REJECTION_LABELS,
    REVIEW_LABELS,
    STAGE_LABELS,
    STATE_LABELS,
)
from engine.corpus.review.filter_query import invalid_terms, parse_filter
from engine.corpus.review.store import ReviewStore
from tests.tui.corpus_workspace import build, opened
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.tabs.corpus.filter_completion import FIELDS, completions, split_line, value_word

COUNTS = {
    "state": {"accepted": 669, "dropped": 18, "reviewed": 60, "unreviewed": 645},
    "stage": {"sensitive": 193, "near": 16, "low_value": 3},
    "reason": {"PHONE": 180, "near_duplicate": 16, "unwanted": 12, "too long, really": 1},
    "lang": {"zh": 700, "en": 5},
    "source": {"chatgpt": 5},
    "split": {},
    "flag": {"": 0},
    "edited": {"": 2},
}


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    build(workspace)
    return workspace


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("stage:", [("PII", 193), ("near", 16), ("low value", 3)]),
        ("stage:lo", [("low value", 3)]),
        ("stage:val", [("low value", 3)]),
        ('stage:"low v', [("low value", 3)]),
        ("stage：ne", [("near", 16)]),
        ("stage:nothing", []),
        ("lang:zh -state:un", [("unreviewed", 645)]),
        ("reason:un", [("unwanted", 12)]),
        ("st", [("state:", None), ("stage:", None)]),
        ("lo", [('stage:"low value"', 3), ('reason:"too long, really"', 1)]),
        ("la", [("lang:", None)]),
        ("pho", [("reason:phone", 180)]),
        ("unr", [("state:unreviewed", 645)]),
        ('"two words', []),
    ],
)
def test_what_a_line_may_go_on_with(line: str, shown: list[tuple[str, int | None]]) -> None:
    assert [(one.shown, one.conversations) for one in completions(line, COUNTS)] == shown


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("lang:zh stage:low", 'lang:zh stage:"low value" '),
        ("-stage:ne", "-stage:near "),
        ("reason:too", 'reason:"too long, really" '),
        ("sour", "source:"),
        ("edi", "edited:"),
    ],
)
def test_the_line_with_its_completion(line: str, completed: str) -> None:
    assert completions(line, COUNTS)[0].line == completed


@given(st.text(alphabet="ab:\"' 低-：", max_size=12))
def test_any_line_can_be_completed(line: str) -> None:
    before, term = split_line(line)
    assert before + term == line
    for one in completions(line, COUNTS):
        assert one.line.startswith(before)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("state", (*STATE_LABELS, *REVIEW_LABELS)),
        ("stage", (*STAGE_LABELS, "duplicates")),
        ("stage", tuple(PII_LABELS)),
        ("reason", (*REASON_LABELS, *PII_LABELS, *REJECTION_LABELS)),
    ],
)
def test_each_word_that_is_offered_means_its_value(
    language: str, field: str, values: tuple[str, ...]
) -> None:
    set_language(language)
    try:
        words = {str(value): value_word(field, str(value)) for value in values}
    finally:
        set_language("en")
    for value, word in words.items():
        assert invalid_terms(f'{field}:"{word}"') == []
        assert parse_filter(f'{field}:"{word}"') == parse_filter(f"{field}:{value}")


@pytest.mark.parametrize("word", [*DUPLICATE_LABELS, "twin", "dup"])
def test_all_kinds_of_duplicates_have_one_word(word: str) -> None:
    assert parse_filter(f"stage:{word}") == parse_filter("stage:duplicates")


def test_each_count_is_what_its_filter_leaves(ws: Workspace) -> None:
    with ReviewStore(ws.memory_db) as store:
        ids = store.ids()
        store.decide(ids[0], "rejected", "unwanted")
        store.decide(ids[1], "rejected", "my own words")
        store.decide(ids[2], "accepted")
        store.decide(ids[2], "pending")
        store.flag([ids[3]])
        store.edit(ids[4], 0, "Another question?")
        for line in ("", "lang:zh", "-state:rejected"):
            counts = store.filter_counts(line)
            assert set(counts) == set(FIELDS)
            for field, values in counts.items():
                for value, count in values.items():
                    assert store.count(f'{line} {field}:"{value}"') == count, (line, field, value)
        assert store.filter_counts()["reason"]["my own words"] == 1
        assert store.filter_counts()["state"]["unreviewed"] == 3


async def test_tab_completes_in_the_prompt_and_the_list_follows(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot)
        await pilot.press("slash")
        await until(pilot, lambda: "state: · stage:" in text_of(app))
        await pilot.press(*"stage:")
        await until(pilot, lambda: "stage: PII 1" in text_of(app))
        await pilot.press("tab")
        await until(pilot, lambda: "Filter: stage:PII" in text_of(app))
        await pilot.press(*"stat", "tab", *"un")
        await until(pilot, lambda: "state: unreviewed 1" in text_of(app))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: tab.conversations.filter == "stage:PII state:unreviewed")
        await until(pilot, lambda: len(tab.conversations.ids) == 1)
        await pilot.press("slash")
        await until(pilot, lambda: "Filter:" in text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        assert tab.conversations.filter == "stage:PII state:unreviewed"
