"""The review: pages under a filter, details, and decisions that are never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.core.i18n import in_every_language
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.enums import PII_LABELS, REASON_LABELS, STAGE_LABELS, STATE_LABELS
from engine.corpus.preview import render_preview
from engine.corpus.review.filter_query import ListOrder, invalid_terms, parse_filter
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewItem
from tests.corpus_store import conversation, distinct, memory


def reviewed(folder: Path, number: int = 12) -> ReviewStore:
    """A review of distinct conversations, two near duplicates, one with PII and one of small talk."""
    talks = [distinct(n, at=1e9 + n) for n in range(number)]
    talks += [
        conversation(
            "private", "我的邮箱是a@b.com，怎么改？", "在设置里点账户，再点邮箱，填上新的地址即可。"
        ),
        conversation(
            "english",
            "How do I rename a branch?",
            "Use git branch -m with the old and the new name.",
            "Thanks!",
            "You're welcome!",
        ),
        conversation("polite", "谢谢", "不客气"),
    ]
    with memory(folder, talks) as store:
        build_corpus(store, Settings())
    return ReviewStore(folder / "memory" / "memory.db")


def states(store: ReviewStore) -> dict[str, str]:
    return {item.id: item.state for item in store.page(limit=1000)}


def test_pages_cover_everything_once_in_every_order(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        for order in ListOrder:
            ids = [item.id for start in range(0, 20, 4) for item in store.page("", start, 4, order)]
            assert len(ids) == len(set(ids)) == store.count() == 15
            assert ids == store.ids("", order)
        assert store.page()[0].time == 1e9 + 11


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("", 15),
        ("state:dropped", 1),
        ("-state:dropped", 14),
        ("stage:sensitive", 1),
        ("stage:low_value", 2),
        ('stage:"low value"', 2),
        ("stage:Low-Value", 2),
        ("stage:低价值", 2),
        ("stage:pii", 1),
        ("state:已接受", 14),
        ("reason:email", 1),
        ("lang:en", 1),
        ("source:test lang:zh", 14),
        ("len>20 lang:en", 1),
        ("len<10", 1),
        ("pairs>=1 turns=4", 1),
        ("git", 1),
        ('"rename a branch"', 1),
        ("邮箱 设置", 1),
        ("100%", 0),
        ("nofield:x", 0),
        ('"open quote', 0),
    ],
)
def test_the_filter_line(tmp_path: Path, line: str, count: int) -> None:
    with reviewed(tmp_path) as store:
        assert store.count(line) == count == len(store.page(line))


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("state", STATE_LABELS),
        ("stage", STAGE_LABELS),
        ("reason", REASON_LABELS),
        ("reason", PII_LABELS),
    ],
)
def test_the_filter_accepts_every_label_in_every_language(field: str, labels: dict[str, str]) -> None:
    for value, label in labels.items():
        for word in in_every_language(label):
            assert invalid_terms(f'{field}:"{word}"') == []
            assert parse_filter(f'{field}:"{word}"') == parse_filter(f"{field}:{value}")


@given(st.text(max_size=40))
def test_any_filter_line_is_a_valid_query(line: str) -> None:
    with ReviewStore(Path("/nowhere/memory.db")) as store:
        assert store.count(line) == 0 == len(store.page(line))
    assert parse_filter(line).sql


def test_the_detail_shows_spans_masks_and_cluster(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        private = store.detail(store.page("stage:sensitive")[0].id)
        assert private.turns[0].spans == [("EMAIL", 5, 12)]
        assert private.turns[0].redacted == "我的邮箱是‹EMAIL›，怎么改？"
        assert [(why.stage, why.action, why.turn) for why in private.reasons] == [("sensitive", "redact", 0)]
        english = store.detail(store.page("lang:en")[0].id)
        assert [turn.masked for turn in english.turns] == ["", "", "thanks", "welcome"]
        shown = render_preview(english)
        assert [part.train for part in shown.parts] == [False, True, False, False]
        assert shown.trained == len(english.turns[1].text) + 1


def test_decisions_are_undone_and_redone_across_restarts(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        before = states(store)
        first, second = store.ids("state:accepted")[:2]
        store.decide(first, "rejected", "dull")
        store.decide(second, "rejected")
        store.decide(first, "accepted")
    with ReviewStore(store.path) as store:
        assert store.undo()[0].verdict == "accepted"
        assert store.item(first).state == "rejected"
        assert [decision.id for decision in store.redo()] == [first]
        assert store.item(first).state == "accepted"
        assert [len(store.undo()) for _ in range(4)] == [1, 1, 1, 0]
        assert states(store) == before
    with ReviewStore(store.path) as store:
        assert [len(store.redo()) for _ in range(4)] == [1, 1, 1, 0]
        assert store.item(second).state == "rejected"
        assert store.detail(first).decisions[-1].reason == "dull"


def test_a_new_decision_ends_redo(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        first, second = store.ids("state:accepted")[:2]
        store.decide(first, "rejected")
        store.undo()
        store.decide(second, "rejected")
        assert store.redo() == []


def test_a_decision_undone_before_a_newer_one_is_never_redone(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        id_ = store.ids("state:accepted")[0]
        store.decide(id_, "rejected")
        store.undo()
        store.decide(id_, "accepted")
        store.undo()
        assert [decision.verdict for decision in store.redo()] == ["accepted"]
        assert store.redo() == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["accept", "reject", "all", "flag", "undo", "undo", "redo"]), max_size=30))
def test_undo_and_redo_follow_the_editor_model(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, reviewed(Path(folder), 4) as store:
        ids = store.ids()
        past: list[list[ReviewItem]] = []
        future: list[list[ReviewItem]] = []
        now = list(store.page())
        for number, step in enumerate(steps):
            if step in ("undo", "redo"):
                here, there = (past, future) if step == "undo" else (future, past)
                assert bool((store.undo if step == "undo" else store.redo)()) == bool(here)
                if here:
                    there.append(now)
                    now = here.pop()
            else:
                id_ = ids[number * 3 % len(ids)]
                if step == "flag":
                    store.flag([id_], not store.item(id_).flagged)
                elif step == "all":
                    store.decide_all("lang:zh", ("rejected", "accepted")[number % 2])
                else:
                    store.decide(id_, f"{step}ed")
                past.append(now)
                future, now = [], store.page()
            assert store.page() == now


def test_a_decision_on_a_filter_is_one_undo_step(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        before = states(store)
        assert store.decide_all("lang:zh state:accepted", "rejected") == 13
        assert store.count("state:rejected") == 13
        assert len(store.undo()) == 13
        assert states(store) == before
        assert len(store.redo()) == 13


def test_a_dropped_conversation_can_be_restored_and_undone(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        dropped = store.page("state:dropped")[0].id
        assert store.decide(dropped, "accepted", "restored").previous == "dropped"
        assert store.funnel().dropped == {}
        store.undo()
        assert store.item(dropped).state == "dropped"


def test_unknown_ids_and_states_are_errors(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        with pytest.raises(BadInput, match="nothing"):
            store.decide("nothing", "accepted")
        with pytest.raises(BadInput, match="perhaps"):
            store.decide(store.ids()[0], "perhaps")
        with pytest.raises(BadInput):
            store.find("")


def test_a_store_is_empty_until_the_first_import(tmp_path: Path) -> None:
    store = ReviewStore(tmp_path / "memory" / "memory.db")
    assert (store.count(), store.page(), store.undo()) == (0, [], [])
    assert not store.path.exists()
    reviewed(tmp_path).close()
    assert store.count() == 15
    store.close()


_DECIDE_FOREVER = """
import sys
from engine.corpus.review.store import ReviewStore
from pathlib import Path
store = ReviewStore(Path(sys.argv[1]))
ids = store.ids()
while True:
    for id_ in ids:
        store.decide(id_, "rejected")
        print(id_, flush=True)
"""


def test_no_decision_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    with reviewed(tmp_path) as store:
        path = store.path
    process = subprocess.Popen(
        [sys.executable, "-c", _DECIDE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    printed += process.stdout.readlines()
    process.wait()
    with ReviewStore(path) as store:
        assert len(printed) <= store.undoable() <= len(printed) + 1
        while store.undo():
            pass
        assert set(states(store).values()) == {"accepted", "dropped"}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["accept", "reject", "all", "undo", "redo"]), max_size=25), st.randoms())
def test_undoing_everything_restores_the_initial_state(steps: list[str], chance: object) -> None:
    with tempfile.TemporaryDirectory() as folder, reviewed(Path(folder), 4) as store:
        before = states(store)
        ids = store.ids()
        for number, step in enumerate(steps):
            if step in ("accept", "reject"):
                store.decide(ids[number % len(ids)], f"{step}ed")
            elif step == "all":
                store.decide_all("lang:zh", "rejected")
            else:
                (store.undo if step == "undo" else store.redo)()
        while store.undo():
            pass
        assert states(store) == before
