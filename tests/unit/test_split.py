"""Test windows: nothing similar to a test conversation is trained on, however memory grows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.core.settings import Settings
from engine.corpus import split
from engine.corpus.build import build_corpus
from engine.corpus.contamination import ContaminationError, check_not_trained_on, check_split_contamination
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory

DAY = 86400.0


def parts(store: MemoryStore) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for id_, part in store.connection.execute("SELECT conversation_id, split FROM corpus"):
        found.setdefault(part, set()).add(id_)
    return found


def dates(store: MemoryStore, ids: set[str]) -> list[float]:
    return [
        store.connection.execute("SELECT started_at FROM conversations WHERE id = ?", (id_,)).fetchone()[0]
        for id_ in ids
    ]


def test_the_first_window_is_the_newest_twenty_clusters(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(80)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        assert (len(window.clusters), window.dated, window.border) == (20, True, DAY * 60)
        found = parts(store)
        assert max(dates(store, found["train"])) < min(dates(store, found["test"]))
        assert set(window.conversations) == found["test"]
        assert split.open_window(store, 2.0) == window


def test_a_large_memory_holds_out_fifteen_percent(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(200)]) as store:
        build_corpus(store, Settings())
        assert len(split.open_window(store, 1.0).clusters) == 30


def test_few_conversations_leave_half_to_train_on(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(30)]) as store:
        build_corpus(store, Settings())
        plan = split.plan_split(store)
        assert (len(plan.test), len(plan.train), plan.verdict_possible, plan.missing) == (15, 15, False, 30)


def test_a_cluster_across_the_border_trains_without_its_newer_members(tmp_path: Path) -> None:
    old, new = (
        "早先问过的这个问题究竟应该怎么办才好呢",
        "换了说法的回答，和先前的完全不是一回事，长短也不同。",
    )
    talks = [distinct(n, at=DAY * n) for n in range(80)]
    talks += [
        conversation("old", old, "先前的回答在这里，说的是另外一套办法。", at=DAY * 5),
        conversation("new", old, new, at=DAY * 75),
    ]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        split.open_window(store, 1.0)
        found = parts(store)
        assert dates(store, found["border"]) == [DAY * 75]
        assert DAY * 5 in dates(store, found["train"])


def test_newer_conversations_wait_until_twenty_clusters_do(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(80)]) as store:
        build_corpus(store, Settings())
        first = split.open_window(store, 1.0)
        trained = frozenset(parts(store)["train"])
        store.add([distinct(n, at=DAY * n) for n in range(80, 95)], "test", "b")
        build_corpus(store, Settings())
        assert split.open_window(store, 2.0, trained=trained).id == first.id
        assert len(parts(store)["waiting"]) == 15
        store.add([distinct(n, at=DAY * n) for n in range(95, 105)], "test", "c")
        build_corpus(store, Settings())
        second = split.open_window(store, 3.0, trained=trained)
        found = parts(store)
        assert second.id != first.id and len(second.clusters) == 20
        assert set(first.conversations) <= found["train"]
        assert set(second.conversations).isdisjoint(first.conversations)
        assert min(dates(store, found["test"])) > max(dates(store, found["train"]))
        retired = store.connection.execute(
            "SELECT COUNT(*) FROM ledger WHERE stage = 'split' AND action = 'retire'"
        ).fetchone()
        assert retired[0] == 20
        build_corpus(store, Settings(), trained=trained)
        assert parts(store) == found


def test_an_old_export_imported_late_is_trained_on(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * (1000 + n)) for n in range(80)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        store.add([distinct(n, at=DAY * (n - 500)) for n in range(500, 540)], "test", "b")
        build_corpus(store, Settings())
        assert split.open_window(store, 2.0).id == window.id
        assert sum(time < DAY * 900 for time in dates(store, parts(store)["train"])) == 40


def test_undated_conversations_are_split_by_a_stable_hash(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n) for n in range(100)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        assert (window.dated, len(window.clusters)) == (False, 20)
        before = parts(store)
        store.add([distinct(n) for n in range(100, 130)], "test", "b")
        build_corpus(store, Settings())
        assert split.open_window(store, 2.0).id == window.id
        after = parts(store)
        assert before["test"] == after["test"] and before["train"] <= after["train"]


def test_the_same_date_for_all_falls_back_to_the_hash(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY) for n in range(80)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        assert not window.dated and len(parts(store)["train"]) == 60


def test_a_model_trained_on_the_window_is_refused_by_id(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(80)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        check_not_trained_on(store, window, frozenset(parts(store)["train"]))
        seen = window.conversations[3]
        with pytest.raises(BadInput, match=seen):
            check_not_trained_on(store, window, frozenset([seen]), model="mine")


def test_changed_members_of_a_frozen_window_are_an_error(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(80)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        store.connection.execute(
            "DELETE FROM window_members WHERE conversation_id = ?", (window.conversations[0],)
        )
        with pytest.raises(BadInput, match="frozen"):
            split.open_window(store, 2.0)


def test_a_deleted_conversation_leaves_its_frozen_window(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(160)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        gone, *kept = window.conversations
        store.forget([gone])
        build_corpus(store, Settings())
        after = split.open_window(store, 2.0)
        assert (after.id, after.conversations) == (window.id, kept)
        store.connection.execute("DELETE FROM window_members WHERE conversation_id = ?", (kept[0],))
        store.forget([kept[1]])
        with pytest.raises(BadInput, match="frozen"):
            split.open_window(store, 3.0)


def test_judged_candidates_are_counted(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n) for n in range(60)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        assert [split.count_look(store, window.id) for _ in range(3)] == [1, 2, 3]


def test_contamination_is_refused(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n, at=DAY * n) for n in range(80)]) as store:
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        check_split_contamination(store, window)
        inside = next(iter(parts(store)["train"]))
        store.connection.execute(
            "UPDATE turns SET text = (SELECT text FROM turns t WHERE t.conversation_id = ? AND t.position = turns.position) "
            "WHERE conversation_id = ?",
            (inside, window.conversations[0]),
        )
        with pytest.raises(ContaminationError, match=inside):
            check_split_contamination(store, window)


@st.composite
def growing_memory(draw: st.DrawFn) -> list[list[Conversation]]:
    """Successive imports: new conversations, near duplicates of earlier ones, repeated questions."""
    number = 0
    imports: list[list[Conversation]] = []
    for _ in range(draw(st.integers(1, 3))):
        batch = []
        for _ in range(draw(st.integers(1, 45))):
            number += 1
            source = draw(st.sampled_from([number, number, number, max(1, number // 2)]))
            at = draw(st.sampled_from([None, DAY * number, DAY * number, DAY * (number % 7)]))
            talk = distinct(source, at=at)
            question, answer = (turn.text for turn in talk.turns)
            form = draw(st.integers(0, 2))
            answer = (answer, answer + "！就是这样", distinct(number + 5000).turns[1].text)[form]
            batch.append(conversation(f"n{number}", question, answer, at=at))
        imports.append(batch)
    return imports


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(growing_memory(), st.integers(0, 1000))
def test_no_run_trains_on_its_test_set(imports: list[list[Conversation]], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, memory(Path(folder), []) as store:
        trained: frozenset[str] = frozenset()
        for round_, batch in enumerate(imports):
            store.add(batch, "test", f"{round_}")
            build_corpus(store, Settings(), trained=trained)
            window = split.open_window(store, float(round_), trained=trained)
            found = parts(store)
            check_split_contamination(store, window)
            check_not_trained_on(store, window, trained)
            assert found.get("test", set()) <= set(window.conversations)
            assert set(window.conversations).isdisjoint(found.get("train", set()))
            clusters = dict(store.connection.execute("SELECT conversation_id, cluster FROM corpus"))
            test = {clusters[id_] for id_ in found.get("test", set())}
            assert test.isdisjoint(clusters[id_] for id_ in found.get("train", set()))
            if (seed >> round_) % 2:
                trained |= frozenset(found.get("train", set()))


def test_a_rejected_conversation_leaves_the_test_set(tmp_path: Path) -> None:
    with (
        memory(tmp_path, [distinct(n, at=DAY * n) for n in range(80)]) as store,
        ReviewStore(store.path) as review,
    ):
        build_corpus(store, Settings())
        window = split.open_window(store, 1.0)
        review.decide(window.conversations[0], "rejected")
        plan = split.assign(store)
        assert plan.test_clusters == 19 and not plan.verdict_possible
