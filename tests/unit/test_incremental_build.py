"""An incremental build gives the same corpus as a full build."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.settings import Settings
from engine.corpus import split
from engine.corpus.build import build_corpus
from engine.corpus.contamination import check_split_contamination
from engine.corpus.dedup.near import SimilarPair
from engine.corpus.filters.pool import filter_all
from engine.corpus.filters.run import CorpusEntry
from engine.corpus.ledger import LedgerRow
from engine.corpus.review.store import ReviewStore
from engine.corpus.training_set import corpus_rows
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory

_SETTINGS = (
    Settings(),
    Settings(near_threshold=0.6),
    Settings(sensitive="drop"),
    Settings(review="manual"),
    Settings(low_value="keep"),
    Settings(low_value_phrases=("这就是它的意思",), sensitive_types={"EMAIL": "keep"}),
)
_ENDINGS = ("", "！就是这样", "，我的邮箱是a@b.com", " <|im_end|>", "。再说一遍，就是这样的意思。")
_OUTCOME = (
    "SELECT conversation_id, state, stage, reason, cluster, language, quality, pairs, first_line, sort_time, "
    "twin, split, automatic, made_of FROM corpus ORDER BY conversation_id",
    "SELECT conversation_id, stage, action, reason, turn, evidence, twin FROM ledger WHERE stage != 'split' "
    "ORDER BY conversation_id, rowid",
    "SELECT conversation_id, key, item, facts, sketches FROM assessments ORDER BY conversation_id",
)


def outcome(store: MemoryStore) -> list[list[Any]]:
    return [store.connection.execute(query).fetchall() for query in _OUTCOME]


def full_build(store: MemoryStore, folder: Path, own: Settings) -> tuple[object, list[list[Any]]]:
    """Funnel and corpus of a build of a copy without cached results."""
    path = folder / "whole.db"
    path.unlink(missing_ok=True)
    copy = sqlite3.connect(path)
    store.connection.backup(copy)
    copy.executescript(
        "DELETE FROM assessments; DELETE FROM corpus; DELETE FROM ledger WHERE stage != 'split'"
    )
    copy.close()
    with MemoryStore(path) as whole:
        return build_corpus(whole, own), outcome(whole)


def talk(number: int, ending: int, at: float | None, turns: int = 1) -> Conversation:
    """Conversations with one number are near duplicates; another ending or more turns make other ids."""
    question, answer = (turn.text for turn in distinct(number).turns)
    more = [
        text for n in range(1, turns) for text in (f"然后呢{n}？", distinct(number * 7 + n).turns[1].text)
    ]
    texts = [question, answer + _ENDINGS[ending], *more, *(["谢谢你", "不客气"] if number % 3 == 0 else [])]
    built = conversation(f"n{number}e{ending}t{turns}", *texts, at=at)
    # With equal number and ending the newer form supersedes the older one.
    return Conversation(
        id=built.id,
        source="test",
        external_id=f"x{number}e{ending}",
        started_at=at,
        updated_at=None if at is None else at + turns,
        turns=built.turns,
    )


_ADD = st.tuples(
    st.just("add"),
    st.lists(
        st.builds(
            talk,
            st.integers(0, 9),
            st.integers(0, len(_ENDINGS) - 1),
            st.sampled_from([None, 1e6, 2e6, 3e6]),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=8,
    ),
)
_PICK = st.integers(0, 10**6)
_STEP = st.one_of(
    _ADD,
    st.tuples(st.just("forget"), _PICK),
    st.tuples(st.sampled_from(["accepted", "rejected", "pending"]), _PICK),
    st.tuples(st.just("edit"), _PICK),
    st.tuples(st.sampled_from(["undo", "redo", "window"]), st.none()),
    st.tuples(st.just("rule"), st.sampled_from(["lang:zh pairs>=2", "邮箱", "len<90"])),
    st.tuples(st.just("settings"), st.sampled_from(_SETTINGS)),
)


def take(step: tuple[str, Any], store: MemoryStore, review: ReviewStore) -> None:
    kind, value = step
    ids = sorted(review.ids())
    one = ids[value % len(ids)] if ids and isinstance(value, int) else ""
    if kind == "add":
        store.add(value, "test", "test")
    elif kind == "undo":
        review.undo()
    elif kind == "redo":
        review.redo()
    elif kind == "window":
        split.open_window(store, 1.0)
    elif kind == "rule":
        review.set_rule(value, value not in review.rules())
    elif not one:
        return
    elif kind == "forget":
        store.forget([one])
    elif kind == "edit":
        review.edit(
            one, value % 2, f"改写过的第{value % 3}段话，我的电话是13800138000。" + "它" * (value % 5)
        )
    else:
        review.decide(one, kind)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(_STEP, min_size=2, max_size=10))
def test_an_incremental_build_equals_a_full_build(steps: list[tuple[str, Any]]) -> None:
    own = Settings()
    with (
        tempfile.TemporaryDirectory() as folder,
        memory(Path(folder), [talk(n, 0, 1e6 + n) for n in range(4)]) as store,
        ReviewStore(store.path) as review,
    ):
        build_corpus(store, own)
        for step in steps:
            if step[0] == "settings":
                own = step[1]
            else:
                take(step, store, review)
            figures = build_corpus(store, own)
            check_split_contamination(store)
        assert full_build(store, Path(folder), own) == (figures, outcome(store))


@pytest.fixture
def filtered_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the filtered conversations."""
    seen: list[str] = []
    each: Callable[..., Any] = filter_all

    def watched(works: Any, *values: Any, **named: Any) -> Any:
        kept = list(works)
        seen.extend(work.conversation.id for work in kept)
        return each(kept, *values, **named)

    monkeypatch.setattr("engine.corpus.filters.cache.filter_all", watched)
    return seen


def test_only_new_edited_or_reconfigured_conversations_are_filtered(
    tmp_path: Path, filtered_ids: list[str]
) -> None:
    with memory(tmp_path, [distinct(n, at=1e9 + n) for n in range(20)]) as store:
        build_corpus(store, Settings())
        assert len(filtered_ids) == 20
        filtered_ids.clear()
        build_corpus(store, Settings())
        build_corpus(store, Settings(near_threshold=0.5, review="manual"))
        assert filtered_ids == []
        store.add([distinct(77, at=2e9)], "test", "test")
        build_corpus(store, Settings())
        assert filtered_ids == ["c00077"]
        with ReviewStore(store.path) as review:
            review.edit("c00003", 1, "别的话，和以前的不一样。")
            build_corpus(store, Settings())
            review.undo()
            build_corpus(store, Settings())
        assert filtered_ids == ["c00077", "c00003", "c00003"]
        filtered_ids.clear()
        build_corpus(store, Settings(sensitive="drop"))
        assert len(filtered_ids) == 21


def test_changed_filter_code_filters_everything(
    tmp_path: Path, filtered_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory(tmp_path, [distinct(n) for n in range(5)]) as store:
        build_corpus(store, Settings())
        monkeypatch.setattr("engine.corpus.filters.cache.code_version", lambda: "another")
        build_corpus(store, Settings())
        assert len(filtered_ids) == 10


def test_a_stopped_build_resumes(tmp_path: Path, filtered_ids: list[str]) -> None:
    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with memory(tmp_path, [distinct(n) for n in range(250)]) as store:
        with pytest.raises(InterruptedError):
            build_corpus(store, Settings(), on_progress=stop)
        assert store.connection.execute("SELECT COUNT(*) FROM corpus").fetchone() == (0,)
        filtered_ids.clear()
        assert build_corpus(store, Settings()).collected == 250
        assert len(filtered_ids) == 150


def test_unchanged_rows_keep_their_time(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(1), conversation("polite", "谢谢", "不客气")]) as store:
        build_corpus(store, Settings(), now=1.0)
        store.add([conversation("again", "谢谢您", "不用客气")], "test", "test")
        build_corpus(store, Settings(), now=2.0)
        times = dict(
            store.connection.execute("SELECT conversation_id, time FROM ledger WHERE action = 'drop'")
        )
        assert times == {"polite": 1.0, "again": 2.0}


def test_a_deleted_conversation_leaves_no_rows(tmp_path: Path) -> None:
    with memory(
        tmp_path, [distinct(1), conversation("secret", "什么是绝密的暗号词？", "暗号是芝麻开门九五二七。")]
    ) as store:
        build_corpus(store, Settings())
        store.forget(["secret"])
        assert store.connection.execute("SELECT conversation_id FROM assessments").fetchall() == [("c00001",)]
        files = [path for path in store.path.parent.iterdir() if path.is_file()]
        assert not any("暗号".encode() in path.read_bytes() for path in files)


def grown(folder: Path, verdict: str, own: Settings, *, polite: bool = False) -> tuple[str, str, str]:
    """State, stage and reason of a conversation that grew after a decision on its shorter form."""
    short = ("谢谢", "不客气") if polite else ("怎么写快速排序？", "先选一个基准，再把两边各自排好。")
    more = ("好的", "嗯") if polite else ("那么归并排序呢？", "先把两半各自排好，再合并起来。")

    def of(id_: str, at: float, *texts: str) -> Conversation:
        built = conversation(id_, *texts, at=at)
        return Conversation(
            id=id_, source="test", external_id="x", started_at=at, updated_at=at, turns=built.turns
        )

    with memory(folder, [of("short", 1e9, *short), distinct(5)]) as store, ReviewStore(store.path) as review:
        build_corpus(store, own)
        review.decide("short", verdict, "dull")
        store.add([of("long", 2e9, *short, *more)], "test", "test")
        build_corpus(store, own)
        item = review.item("long")
        rows = [why.reason for why in review.detail("long").reasons]
        assert item.reason in rows or not item.reason
        trained = {one.id for one in corpus_rows(store, None)}
        assert ("long" in trained) == (item.state == "accepted")
        return item.state, item.stage, item.reason


def test_a_rejection_stays_when_the_conversation_grows(tmp_path: Path) -> None:
    assert grown(tmp_path, "rejected", Settings()) == ("pending", "review", "rejected_before")


def test_an_acceptance_does_not_cover_new_turns_that_need_review(
    tmp_path: Path,
) -> None:
    assert grown(tmp_path / "a", "accepted", Settings()) == ("accepted", "", "")
    manual = Settings(review="manual")
    assert grown(tmp_path / "b", "accepted", manual) == ("pending", "review", "accepted_before")
    kept = grown(tmp_path / "c", "accepted", Settings(), polite=True)
    assert kept == ("pending", "review", "accepted_before")


def test_a_decision_on_the_longer_form_takes_precedence(tmp_path: Path) -> None:
    grown(tmp_path, "rejected", Settings())
    with MemoryStore(tmp_path / "memory" / "memory.db") as store, ReviewStore(store.path) as review:
        review.decide("long", "accepted")
        build_corpus(store, Settings())
        assert review.item("long").state == "accepted"
        review.undo()
        review.undo()
        build_corpus(store, Settings())
        assert review.item("long").state == "accepted"


def test_an_edit_carries_over_to_the_longer_form_where_the_turn_is_unchanged(tmp_path: Path) -> None:
    texts = ("我叫王小明，怎么写快速排序？", "先选一个基准，再把两边各自排好。")

    def of(id_: str, at: float, *turns: str) -> Conversation:
        built = conversation(id_, *turns, at=at)
        return Conversation(
            id=id_, source="test", external_id="x", started_at=at, updated_at=at, turns=built.turns
        )

    with (
        memory(tmp_path, [of("short", 1e9, *texts), distinct(5)]) as store,
        ReviewStore(store.path) as review,
    ):
        build_corpus(store, Settings())
        review.edit("short", 0, "怎么写快速排序？")
        review.edit("short", 1, "先选基准，两边各自排好。")
        store.add(
            [of("long", 2e9, texts[0], "换了一个回答：用标准库的排序函数。", "好在哪里？", "它又快又稳。")],
            "test",
            "test",
        )
        build_corpus(store, Settings())
        texts_by_id = {
            one.id: [message.content for message in one.messages] for one in corpus_rows(store, None)
        }
        assert texts_by_id["long"][:2] == ["怎么写快速排序？", "换了一个回答：用标准库的排序函数。"]
        assert not any(turn.unread for turn in review.detail("long").turns)
        review.undo()
        review.undo()
        assert review.detail("long").turns[0].text == texts[0]


def test_rows_of_the_semantic_stage_are_updated(tmp_path: Path) -> None:
    def alike(store: object, entries: Sequence[CorpusEntry], decided: object) -> list[SimilarPair]:
        leader = max(item.id for item in entries)
        for item in entries:
            row = LedgerRow(
                conversation=item.id, stage="semantic", action="group", reason="alike", duplicate_of=leader
            )
            item.rows.append(row)
        return []

    with memory(tmp_path, [distinct(n) for n in range(3)]) as store:
        for leader in ("c00002", "c00009"):
            build_corpus(store, Settings(), semantic_stage=alike)
            twins = {twin for (twin,) in store.connection.execute("SELECT twin FROM ledger")}
            assert twins == {leader}
            store.add([distinct(9)], "test", "test")
