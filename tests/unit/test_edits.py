"""Edits of turns, flags and rules: recorded like all decisions, and effective in the dataset."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.enums import DataSplit
from engine.corpus.review.detail import WordChange, diff_markup, word_diff
from engine.corpus.review.rule_suggestions import suggest_rules
from engine.corpus.review.store import ReviewStore
from engine.corpus.split import open_window
from engine.corpus.training_set import corpus_rows, held_out_rows, write_dataset
from engine.memory import schema
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory


def corpus(folder: Path, number: int = 30) -> ReviewStore:
    talks = [distinct(n, at=1e9 + n) for n in range(number)]
    talks.append(
        conversation("mail", "我的邮箱是a@b.com，怎么改？", "在设置里点账户，再点邮箱，填上新的地址即可。")
    )
    with memory(folder, talks) as store:
        build_corpus(store, Settings())
    return ReviewStore(folder / "memory" / "memory.db")


def texts(folder: Path, part: DataSplit | None = None) -> dict[str, list[str]]:
    with MemoryStore(folder / "memory" / "memory.db", readonly=True) as store:
        return {item.id: [message.content for message in item.messages] for item in corpus_rows(store, part)}


def build(folder: Path) -> None:
    with MemoryStore(folder / "memory" / "memory.db") as store:
        build_corpus(store, Settings())


def test_an_edit_reaches_the_dataset_until_it_is_undone(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        before = texts(tmp_path)
        (decision,) = store.edit("c00003", 1, "这才是它的意思。")
        assert (decision.verdict, decision.turn, decision.text) == ("edited", 1, "这才是它的意思。")
        assert texts(tmp_path)["c00003"] == [before["c00003"][0], "这才是它的意思。"]
        turn = store.detail("c00003").turns[1]
        assert (turn.text, turn.original) == ("这才是它的意思。", before["c00003"][1])
        assert store.item("c00003").edited
        assert [item.id for item in store.page("edited:")] == ["c00003"]
        store.undo()
        assert texts(tmp_path) == before
        store.redo()
        assert texts(tmp_path)["c00003"][1] == "这才是它的意思。"


def test_the_list_shows_the_current_title_before_and_after_a_build(tmp_path: Path) -> None:
    def lines(store: ReviewStore) -> set[str]:
        (item,) = (item for item in store.page("", 0, 100) if item.id == "c00003")
        return {item.first_line, store.item("c00003").first_line}

    with corpus(tmp_path) as store:
        (before,) = lines(store)
        store.edit("c00003", 0, "别的\n问题是什么？")
        assert lines(store) == {"别的 问题是什么？"}
        store.undo()
        assert lines(store) == {before}
        store.redo()
        store.edit("c00003", 1, "回答不在列表里。")
        assert lines(store) == {"别的 问题是什么？"}
    build(tmp_path)
    with ReviewStore(tmp_path / "memory" / "memory.db") as store:
        assert lines(store) == {"别的 问题是什么？"}
        store.undo()
        store.undo()
        assert lines(store) == {before}


def test_an_edit_survives_restart_and_build_and_leaves_memory_unchanged(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        original = store.detail("c00003").turns[1].text
        store.edit("c00003", 1, "第一次。")
        store.edit("c00003", 1, "第二次，更好的回答。")
    build(tmp_path)
    assert texts(tmp_path)["c00003"][1] == "第二次，更好的回答。"
    with MemoryStore(tmp_path / "memory" / "memory.db", readonly=True) as memory_:
        kept = memory_.get("c00003")
        assert kept is not None and kept.turns[1].text == original
    with ReviewStore(tmp_path / "memory" / "memory.db") as store:
        assert not store.detail("c00003").turns[1].unread
        store.undo()
        turn = store.detail("c00003").turns[1]
        assert (turn.text, turn.unread) == ("第一次。", True)


def test_pii_in_an_edit_is_redacted_before_and_after_the_build(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        store.edit("c00003", 1, "打我的电话13812345678问吧。")
        assert store.detail("c00003").turns[1].unread
        assert texts(tmp_path)["c00003"][1] == "打我的电话‹PHONE›问吧。"
        build(tmp_path)
        assert texts(tmp_path)["c00003"][1] == "打我的电话‹PHONE›问吧。"
        assert store.detail("c00003").turns[1].redacted == "打我的电话‹PHONE›问吧。"
        store.undo()
        assert "‹PHONE›" not in texts(tmp_path)["c00003"][1]


def test_spans_of_the_imported_text_do_not_redact_the_edit(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        store.edit("mail", 0, "怎么改我的邮箱地址？这里没有地址。")
        assert texts(tmp_path)["mail"][0] == "怎么改我的邮箱地址？这里没有地址。"
        assert store.detail("mail").turns[0].spans == []
        build(tmp_path)
        store.undo()
        assert texts(tmp_path)["mail"][0] == "我的邮箱是‹EMAIL›，怎么改？"


def test_an_edit_of_a_held_out_conversation_reaches_validation(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    with corpus(tmp_path, 80) as review, MemoryStore(ws.memory_db) as store:
        window = open_window(store, 2e9)
        one = window.conversations[0]
        review.edit(one, 1, "改写过的回答，用来判断。")
        held = {item.id: item.messages for item in held_out_rows(store, window.id)}
        assert held[one][1].content == "改写过的回答，用来判断。"
        written = write_dataset(store, ws, "x")
        rows = [json.loads(line) for line in written.path.read_text(encoding="utf-8").splitlines()]
        assert one not in {row["id"] for row in rows}


def test_an_edit_without_change_or_text_is_not_recorded(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        before = store.detail("c00003").turns[1].text
        assert store.edit("c00003", 1, before) == []
        for turn, text in ((1, " \n"), (7, "x")):
            with pytest.raises(BadInput):
                store.edit("c00003", turn, text)
        with pytest.raises(BadInput):
            store.decide("c00003", "edited")
        assert store.undoable() == 0


def test_a_flag_can_be_filtered_and_changes_nothing_else(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        store.decide("c00005", "rejected")
        assert len(store.flag(["c00003", "c00005"])) == 2
        assert {item.id for item in store.page("flag:")} == {"c00003", "c00005"}
        assert store.count("-flag:") == store.count() - 2
        assert store.item("c00005").state == "rejected"
        assert store.flag(["c00003"]) == []
        store.flag(["c00003"], on=False)
        assert {item.id for item in store.page("flag:")} == {"c00005"}
        store.undo()
        store.undo()
        assert store.count("flag:") == 0
        build(tmp_path)
        assert store.item("c00005").state == "rejected"


def test_a_rule_applies_now_and_in_later_builds_until_it_is_undone(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        store.decide("c00001", "accepted")
        decisions = store.set_rule("source:test")
        assert store.count("state:rejected") == 30 and len(decisions) == 31
        assert store.item("c00001").state == "accepted"
        assert store.set_rule("source:test") == []
        with MemoryStore(tmp_path / "memory" / "memory.db") as memory_:
            memory_.add([distinct(99, at=2e9)], "test", "test")
            build_corpus(memory_, Settings())
        late = store.item("c00099")
        assert (late.state, late.stage, late.reason) == ("dropped", "rule", "rule")
        assert store.funnel().dropped == {"rule": 1}
        store.undo()
        assert store.rules() == [] and store.count("state:rejected") == 0
        assert store.item("c00002").state == "accepted"
        build(tmp_path)
        assert store.item("c00099").state == "accepted"


def test_a_database_of_the_first_schema_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    old = sqlite3.connect(path, isolation_level=None)
    for statement in schema._statements(schema.MIGRATIONS[0]):
        old.execute(statement)
    old.execute("PRAGMA user_version=1")
    old.execute(
        "INSERT INTO decisions (conversation_id, verdict, previous, time) VALUES ('a', 'rejected', '', 1)"
    )
    old.close()
    with ReviewStore(path, readonly=True) as store:
        assert store.undoable() == 1
        assert store.connection.execute("SELECT turn, text FROM decisions").fetchall() == [(-1, "")]


@given(st.text("ab 好的，x1_'\n", max_size=40), st.text("ab 好的，x1_'\n", max_size=40))
def test_the_parts_of_a_diff_join_to_both_texts(before: str, after: str) -> None:
    pieces = word_diff(before, after)
    assert "".join(text for change, text in pieces if change != WordChange.ADDED) == before
    assert "".join(text for change, text in pieces if change != WordChange.REMOVED) == after


def test_a_diff_compares_words_and_characters() -> None:
    shown = "".join(map(diff_markup, word_diff("The old answer，旧的。", "The new answer，新的。")))
    assert shown == "The [-old-]{+new+} answer，[-旧-]{+新+}的。"


def test_search_and_rules_use_the_text_in_force(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        before = store.detail("c00003").turns[1].text
        store.edit("c00003", 1, "第一次的新词。")
        store.edit("c00003", 1, "凤凰是一种传说里的鸟。")
        assert store.ids("凤凰") == ["c00003"]
        assert store.ids("第一次的新词") == []
        assert store.ids(f'"{before[:12]}"') == []
        assert "c00003" not in store.ids("-凤凰") and store.count("-凤凰") == store.count() - 1
        store.undo()
        assert store.ids("凤凰") == [] and store.ids("第一次的新词") == ["c00003"]
        store.redo()
        store.set_rule("凤凰")
        assert [item.id for item in store.page("state:rejected")] == ["c00003"]


def test_suggested_phrases_come_from_the_text_in_force(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        for number in range(8):
            id_ = f"c{number:05d}"
            store.edit(id_, 1, f"很抱歉我无法回答这个问题，编号{number * 7919}。")
            store.decide(id_, "rejected")
        (found, *_others) = suggest_rules(store)
        assert found.rejected == 8 and found.line.strip('"') in "很抱歉我无法回答这个问题，编号"


def test_an_edit_is_filtered_immediately_as_it_is_trained_on(tmp_path: Path) -> None:
    with corpus(tmp_path) as store:
        store.edit("c00003", 0, "我的手机号是13812345678，忘了密码怎么办？")
        store.edit("c00003", 1, "不客气")
        shown = store.detail("c00003")
        assert shown.turns[0].redacted == "我的手机号是‹PHONE›，忘了密码怎么办？"
        assert shown.turns[1].masked == "welcome"
        at_once = {(row.stage, row.action, row.reason, row.turn) for row in shown.reasons}
        assert ("sensitive", "redact", "PHONE", 0) in at_once
        assert texts(tmp_path)["c00003"] == [turn.redacted for turn in shown.turns]
        with MemoryStore(tmp_path / "memory" / "memory.db", readonly=True) as memory_:
            (item,) = [one for one in corpus_rows(memory_, None) if one.id == "c00003"]
            assert [message.train for message in item.messages] == [False, False]
            kept = memory_.get("c00003")
        assert kept is not None
        assert [turn.text for turn in store.as_trained(kept).turns] == [turn.redacted for turn in shown.turns]
    build(tmp_path)
    with ReviewStore(tmp_path / "memory" / "memory.db") as store:
        after = {(row.stage, row.action, row.reason, row.turn) for row in store.detail("c00003").reasons}
        assert at_once <= after
