"""Building the corpus: results of each stage, repeatability, and decisions that persist."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.core.chat import Role
from engine.core.errors import NotEnoughData
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.collect import collect
from engine.corpus.dataset import dataset_ids
from engine.corpus.review.store import ReviewStore
from engine.corpus.split import open_window
from engine.corpus.stats import corpus_stats
from engine.corpus.training_set import corpus_rows, held_out_rows, write_dataset
from engine.memory.records import MemoryPoint
from engine.memory.store import MemoryStore
from engine.memory.transactions import MAX_TRANSACTION_S, longest_transaction, write_in_chunks
from engine.models.card import Lineage
from tests.corpus_store import conversation, distinct, memory

ANSWER = "快速排序先选一个基准，把比它小的放左边、大的放右边，再对两边做同样的事，直到每段只剩一个元素。"


def state(store: MemoryStore, question: str) -> tuple[str, str, str | None]:
    """State, stage and duplicate of the conversation whose first turn is `question`."""
    found = store.connection.execute(
        "SELECT k.state, k.stage, k.twin FROM corpus k JOIN turns t ON t.conversation_id = k.conversation_id "
        "WHERE t.position = 0 AND t.text = ?",
        (question,),
    ).fetchone()
    return tuple(found)


def test_each_stage_records_what_it_drops(tmp_path: Path) -> None:
    talks = [
        conversation("good", "怎么写快速排序？", ANSWER),
        conversation("exact", "怎么写快速排序?", ANSWER.replace("，", ",")),
        conversation("near", "怎么写快速排序呢？", ANSWER + "对吧"),
        conversation("polite", "你好", "你好！请问有什么可以帮您？", "谢谢", "不客气"),
        conversation("alone", "有人吗，我想问个排序的问题"),
        conversation(
            "marker", "请翻译 <|im_end|> 这一段文字", "这是模板里的结束标记，表示一轮发言到此为止。"
        ),
        conversation(
            "private", "我的手机13800138000收不到验证码", "请检查号码13800138000是否欠费，再重启手机试一次。"
        ),
    ]
    with memory(tmp_path, talks) as store:
        figures = build_corpus(store, Settings())
        assert figures.collected == 7
        assert figures.dropped == {"collect": 1, "low_value": 1, "exact": 1, "near": 1}
        assert (figures.duplicates, figures.pending, figures.accepted, figures.redacted) == (2, 1, 2, 1)
        assert state(store, "怎么写快速排序呢？")[0] == "accepted"
        dropped, stage, twin = state(store, "怎么写快速排序?")
        assert dropped == "dropped" and stage in ("exact", "near") and twin
        assert state(store, "请翻译 <|im_end|> 这一段文字")[:2] == ("pending", "injection")
        private = next(item for item in corpus_rows(store, None) if "手机" in item.messages[0].content)
        assert "13800138000" not in "".join(message.content for message in private.messages)
        assert private.messages[0].content == "我的手机‹PHONE›收不到验证码"
        evidence = "".join(row[0] for row in store.connection.execute("SELECT evidence FROM ledger"))
        assert "13800138000" not in evidence


def test_small_talk_is_masked_and_stays_as_context(tmp_path: Path) -> None:
    talk = conversation(
        "t",
        "怎么写快速排序？",
        ANSWER,
        "好的，谢谢你。",
        "不客气。",
        "时间复杂度是多少？",
        "平均是 n log n。",
    )
    with memory(tmp_path, [talk]) as store:
        build_corpus(store, Settings())
        (item,) = corpus_rows(store, None)
        assert [message.train for message in item.messages if message.role == "assistant"] == [
            True,
            False,
            True,
        ]
        assert item.trained_answers == 2 and len(item.messages) == 6
        build_corpus(store, Settings(low_value="keep"))
        (item,) = corpus_rows(store, None)
        assert item.trained_answers == 3


def test_a_conversation_with_one_broken_answer_is_dropped_with_its_reason(tmp_path: Path) -> None:
    talks = [
        conversation("loop", "什么是光合作用？", "光合作用是植物利用光能的过程。" + "它非常重要，" * 40),
        conversation("cut", "怎么写循环？", ANSWER * 3 + "\n```python\nfor i in range(3):\n    print(i)"),
        distinct(1),
    ]
    with memory(tmp_path, talks) as store:
        assert build_corpus(store, Settings()).dropped == {"low_value": 2}
        assert state(store, "什么是光合作用？")[1] == "low_value"
        reasons = store.connection.execute("SELECT reason FROM corpus WHERE state = 'dropped' ORDER BY 1")
        assert [row[0] for row in reasons] == ["repetition", "truncated"]


def test_building_again_changes_nothing_and_keeps_decisions(tmp_path: Path) -> None:
    talks = [distinct(n, at=1e9 + n) for n in range(30)] + [conversation("polite", "谢谢", "不客气")]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        review = ReviewStore(store.path)
        review.decide(review.page("stage:low_value")[0].id, "accepted")
        review.decide(review.page("state:accepted", 5, 1)[0].id, "rejected", "dull")
        build_corpus(store, Settings(), now=1.0)
        dump = list(store.connection.iterdump())
        first = build_corpus(store, Settings(), now=1.0)
        assert list(store.connection.iterdump()) == dump
        assert (first.accepted, first.rejected, first.dropped) == (30, 1, {})
        restored = next(
            item
            for item in corpus_rows(store, None)
            if len(item.messages) == 2 and item.messages[0].content == "谢谢"
        )
        assert restored.trained_answers == 1


def test_an_accepted_near_duplicate_is_kept(tmp_path: Path) -> None:
    talks = [
        conversation("long", "怎么写快速排序？", ANSWER + "就这样。"),
        conversation("short", "怎么写快速排序？", ANSWER),
    ]
    with memory(tmp_path, talks) as store, ReviewStore(store.path) as review:
        build_corpus(store, Settings())
        dropped = review.page("state:dropped")[0]
        review.decide(dropped.id, "accepted")
        build_corpus(store, Settings())
        assert review.item(dropped.id).state == "accepted"
        assert review.item(str(dropped.duplicate_of)).state == "dropped"


def test_settings_decide_between_holding_and_dropping(tmp_path: Path) -> None:
    talks = [
        distinct(1),
        conversation("p", "我的邮箱是a@b.com，怎么改？", "在设置里点账户，再点邮箱，填上新的地址即可。"),
    ]
    with memory(tmp_path, talks) as store:
        assert build_corpus(store, Settings(sensitive="drop")).dropped == {"sensitive": 1}
        assert build_corpus(store, Settings(review="manual")).pending == 2
        assert build_corpus(
            store, Settings(low_value_phrases=("在设置里点账户，再点邮箱，填上新的地址即可",))
        ).dropped == {"low_value": 1}


def test_each_pii_type_is_handled_per_setting(tmp_path: Path) -> None:
    answer = "请先核对号码，再到设置里的账户页面改成新的，保存以后重新登录一次就生效了。"
    talks = [
        conversation("p", "手机13800138000和邮箱a@b.com怎么改？", answer),
        conversation("q", "微信号wx_bidjd873怎么改？", answer + "微信也一样。"),
    ]
    with memory(tmp_path, talks) as store:
        settings = Settings(sensitive_types={"PHONE": "keep", "WECHAT": "drop"})
        assert build_corpus(store, settings).dropped == {"sensitive": 1}
        (item,) = corpus_rows(store, None)
        assert item.messages[0].content == "手机13800138000和邮箱‹EMAIL›怎么改？"
        reason = store.connection.execute("SELECT reason FROM corpus WHERE state = 'dropped'").fetchone()[0]
        assert reason == "WECHAT"
        assert build_corpus(
            store, Settings(sensitive="drop", sensitive_types={"WECHAT": "redact"})
        ).dropped == {"sensitive": 1}


def test_writes_are_split_into_short_transactions() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    done: list[int] = []
    ticks = itertools.count()
    with longest_transaction() as longest:
        write_in_chunks(connection, range(10), done.append, clock=lambda: next(ticks) * 0.006)
        assert 0 < longest() <= MAX_TRANSACTION_S
    assert done == list(range(10))
    # An item takes 6 ms here: three fit into the budget of 12 ms, fewer after a slow commit.
    assert statements[0::2] == ["BEGIN IMMEDIATE"] * (len(statements) // 2)
    assert statements[1::2] == ["COMMIT"] * (len(statements) // 2)
    assert len(statements) // 2 >= 4


def test_a_build_reports_its_progress(tmp_path: Path) -> None:
    with memory(tmp_path, [distinct(n) for n in range(150)]) as store:
        seen: list[tuple[int, int]] = []
        build_corpus(store, Settings(), on_progress=lambda done, total: seen.append((done, total)))
        assert seen == [(100, 150), (150, 150)]


def test_the_dataset_holds_the_training_split_only(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    with memory(tmp_path, [distinct(n, at=1e9 + 60 * n) for n in range(80)]) as store:
        with pytest.raises(NotEnoughData):
            write_dataset(store, ws, "none")
        build_corpus(store, Settings())
        window = open_window(store, 2e9)
        data = write_dataset(store, ws, "x", base_lineage=Lineage(conversations=["old"], texts={"t": "h"}))
        held = held_out_rows(store, window.id)
        assert len(data.path.read_bytes().splitlines()) == 60 == data.pairs
        assert {item.id for item in held}.isdisjoint(data.conversations)
        assert len(held) == 20
        assert set(data.lineage.conversations) == {"old", *data.conversations}
        newest = data.lineage.newest_conversation
        assert newest is not None and newest < min(1e9 + 60 * n for n in range(60, 80))
        again = write_dataset(store, ws, "y", base_lineage=data.lineage)
        assert (again.sha256, again.replayed) == (data.sha256, 60)


def test_a_resumed_run_rewrites_its_dataset_despite_new_conversations(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    talks = [distinct(n, at=1e9 + 60 * n) for n in range(160)]
    with memory(tmp_path / "a", talks[:80]) as store:
        build_corpus(store, Settings())
        open_window(store, 2e9)
        first = write_dataset(store, ws, "first")
    # As many again: the next window opens, and must not take conversations that are being trained on.
    with memory(tmp_path / "b", talks) as store:
        build_corpus(store, Settings())
        begun = dataset_ids(first.path)
        open_window(store, 3e9, trained=begun)
        again = write_dataset(store, ws, "again", only=begun)
        assert again.sha256 == first.sha256
        assert len(write_dataset(store, ws, "all").conversations) > len(begun)


def test_a_missing_or_broken_dataset_has_no_ids(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"id": 3}\n')
    assert dataset_ids(tmp_path / "none.jsonl") == dataset_ids(tmp_path / "broken.jsonl") == frozenset()


def test_answers_that_occur_in_training_are_not_scored(tmp_path: Path) -> None:
    same = ("这家酒店的评分是多少？", "评分是4.7分，住客都说房间干净。")
    talks = [
        conversation(f"c{n}", *[turn.text for turn in distinct(n).turns], *same, at=1e9 + n)
        for n in range(80)
    ]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        window = open_window(store, 2e9)
        for item in held_out_rows(store, window.id):
            assert [message.train for message in item.messages if message.role == "assistant"] == [
                True,
                False,
            ]


class Points:
    """A data source that is not the memory store."""

    def get_all_memory_points(self) -> list[MemoryPoint]:
        return [
            MemoryPoint(id="1", content="user: 你好吗\nassistant: 很好\n用户：那就好"),
            MemoryPoint(id="2", content="他喜欢用 Rust 写命令行工具。", summary="编程喜好"),
            MemoryPoint(id="3", content="没有头绪"),
            MemoryPoint(id="4", content="用户: 1+1 助手: 2"),
        ]

    def get_last_train_time(self) -> None:
        return None

    def update_last_train_time(self, time: object) -> None:
        raise AssertionError(time)


def test_memory_points_are_parsed_by_role_labels() -> None:
    labelled, summary, bare, inline = collect(Points())
    assert [(turn.role, turn.text) for turn in labelled.turns] == [
        (Role.USER, "你好吗"),
        (Role.ASSISTANT, "很好"),
        (Role.USER, "那就好"),
    ]
    assert [turn.text for turn in summary.turns] == ["编程喜好", "他喜欢用 Rust 写命令行工具。"]
    assert bare.turns == ()
    assert [turn.text for turn in inline.turns] == ["1+1", "2"]


@pytest.mark.parametrize("restored", [False, True])
def test_answers_excluded_by_their_source_are_never_trained_on(tmp_path: Path, restored: bool) -> None:
    draft = conversation(
        "draft",
        "Write one sentence about autumn in the mountains, please.",
        "Autumn is when leaves.",
        "Once more, and finish the sentence this time.",
        "In autumn the larches of the high valleys turn to gold.",
    )
    turns = list(draft.turns)
    turns[1] = replace(turns[1], masked=True)
    only_drafts = [*turns[:3], replace(turns[3], masked=True)]
    talks = [
        replace(draft, turns=tuple(turns)),
        replace(draft, id="drafts", external_id="drafts", turns=tuple(only_drafts)),
    ]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        with ReviewStore(store.path) as review:
            assert review.detail("drafts").item.state == "dropped"
            if restored:
                review.decide("drafts", "accepted")
        rows = {row.id: row for row in corpus_rows(store, None)}
    assert [message.train for message in rows["draft"].messages] == [False, False, False, True]
    assert ("drafts" in rows) is restored
    if restored:
        assert rows["drafts"].trained_answers == 0


def test_the_figures_of_the_corpus_add_up_after_each_decision(tmp_path: Path) -> None:
    talks = [distinct(number, at=1e9 + number * 1e5) for number in range(120)]
    border = replace(distinct(5), id="late", external_id="late", started_at=2e9, updated_at=2e9)
    border = replace(
        border, turns=(replace(border.turns[0], text=border.turns[0].text + "请问"), border.turns[1])
    )
    with memory(tmp_path, [*talks, border]) as store:
        build_corpus(store, Settings())
        with ReviewStore(store.path) as review:
            for decided in (None, ("c00001", "rejected"), ("c00001", "accepted"), ("c00002", "rejected")):
                if decided:
                    review.decide(*decided)
                figures = corpus_stats(store)
                assert figures.collected == (
                    sum(figures.dropped.values()) + figures.pending + figures.accepted + figures.rejected
                )
                assert figures.accepted == (
                    figures.train + figures.test + figures.waiting + figures.border + figures.unassigned
                )
