"""Low-value turns: on labelled dialogues, by example, and for any text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.filters.low_value import Kind, judge, judge_in_context

DATA = Path(__file__).parent.parent / "data" / "corpus"


def test_crosswoz_courtesy_is_found_and_good_turns_stay() -> None:
    rows = [json.loads(line) for line in (DATA / "crosswoz_turns.jsonl").read_text("utf-8").splitlines()]
    low = [judge(row["text"]).low for row in rows if row["low_value"]]
    good = [judge(row["text"]).low for row in rows if not row["low_value"]]
    assert len(low) > 50 and len(good) > 500
    assert sum(low) >= 0.95 * len(low)
    assert sum(good) <= 0.01 * len(good)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("谢谢！", Kind.THANKS),
        ("好的，非常感谢。", Kind.THANKS),
        ("Thanks, that helps a lot!", Kind.THANKS),
        ("thank you so much", Kind.THANKS),
        ("不客气，祝您旅途愉快！", Kind.WELCOME),
        ("You're welcome! Let me know if you have any other questions.", Kind.WELCOME),
        ("再见", Kind.GOODBYE),
        ("See you later!", Kind.GOODBYE),
        ("请问还有什么可以帮您的吗？", Kind.OFFER),
        ("你好", Kind.GREETING),
        ("Hello! How can I help you today?", Kind.GREETING),
        ("嗯嗯，好的。", Kind.ACKNOWLEDGEMENT),
        ("收到🙏", Kind.ACKNOWLEDGEMENT),
        ("Okay, got it.", Kind.ACKNOWLEDGEMENT),
        ("ＯＫ", Kind.ACKNOWLEDGEMENT),
        ("？？？", Kind.NOISE),
        ("👍👍", Kind.NOISE),
        ("哈哈哈哈哈", Kind.NOISE),
        ("   ", Kind.EMPTY),
    ],
)
def test_courtesy_is_named(text: str, kind: Kind) -> None:
    verdict = judge(text)
    assert (verdict.low, verdict.kind) == (True, kind)


@pytest.mark.parametrize(
    "text",
    [
        "谢谢用英语怎么说",
        "感谢信怎么写？",
        "谢灵运是南朝诗人",
        "好的谢谢，那它家评分高吗？",
        "你好，请帮我推荐一家评分4分以上的餐馆，谢谢！",
        "好的，我先把配置改成8080端口",
        "您太客气了，它位于北京市朝阳区酒仙桥路2号，特别好找。",
        "Thanks. Now write the tests",
        "Thanks to photosynthesis, plants produce oxygen.",
        "Thank you for contacting support. Your ticket number is 12345.",
        "Sure! Here is the code:\nprint(1)",
        "right, and the derivative is zero",
        "Hello, how do I sort a list in python?",
        "1+1",
        "42",
        "疫",
        "Paris",
        "没有",
    ],
)
def test_content_in_polite_clothes_stays(text: str) -> None:
    assert not judge(text).low


def test_a_bare_word_that_answers_a_question_is_its_content() -> None:
    assert judge("是的。").low
    assert not judge_in_context("是的。", "鲸鱼是哺乳动物吗？").low
    assert not judge_in_context("Yes.", "Is a whale a mammal?").low
    assert not judge_in_context("谢谢", "Thank you 用中文怎么说").low
    assert judge_in_context("不客气。", "好的，谢谢你了啊。").low
    assert judge_in_context("好的。", "我知道了，谢谢。").low


def test_an_answer_that_loops_is_low_in_value() -> None:
    assert judge("我不知道该怎么说。" * 60).kind is Kind.REPETITION
    assert not judge("".join(chr(0x4E00 + 37 * i) for i in range(300))).low


@given(st.text(max_size=300))
def test_any_text_gets_a_verdict_between_0_and_1(text: str) -> None:
    verdict = judge(text)
    assert 0.0 <= verdict.score <= 1.0
    assert verdict.low == (verdict.score > 0)
