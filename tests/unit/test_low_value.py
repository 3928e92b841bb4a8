"""Low-value turns: on labelled dialogues, by example, and for any text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.filters.low_value import TurnKind, classify, classify_reply
from engine.corpus.filters.truncation import is_truncated, loop_share

DATA = Path(__file__).parent.parent / "data" / "corpus"


def test_crosswoz_small_talk_is_found_and_content_is_kept() -> None:
    rows = [json.loads(line) for line in (DATA / "crosswoz_turns.jsonl").read_text("utf-8").splitlines()]
    low = [classify(row["text"]).low for row in rows if row["low_value"]]
    good = [classify(row["text"]).low for row in rows if not row["low_value"]]
    assert len(low) > 50 and len(good) > 500
    assert sum(low) >= 0.95 * len(low)
    assert sum(good) <= 0.01 * len(good)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("谢谢！", TurnKind.THANKS),
        ("好的，非常感谢。", TurnKind.THANKS),
        ("Thanks, that helps a lot!", TurnKind.THANKS),
        ("thank you so much", TurnKind.THANKS),
        ("不客气，祝您旅途愉快！", TurnKind.WELCOME),
        ("You're welcome! Let me know if you have any other questions.", TurnKind.WELCOME),
        ("再见", TurnKind.GOODBYE),
        ("See you later!", TurnKind.GOODBYE),
        ("请问还有什么可以帮您的吗？", TurnKind.OFFER),
        ("你好", TurnKind.GREETING),
        ("Hello! How can I help you today?", TurnKind.GREETING),
        ("嗯嗯，好的。", TurnKind.ACKNOWLEDGEMENT),
        ("收到🙏", TurnKind.ACKNOWLEDGEMENT),
        ("Okay, got it.", TurnKind.ACKNOWLEDGEMENT),
        ("ＯＫ", TurnKind.ACKNOWLEDGEMENT),
        ("？？？", TurnKind.NOISE),
        ("👍👍", TurnKind.NOISE),
        ("哈哈哈哈哈", TurnKind.NOISE),
        ("   ", TurnKind.EMPTY),
        ("謝謝", TurnKind.THANKS),
        ("謝謝您的幫助", TurnKind.THANKS),
        ("好的，謝謝妳", TurnKind.THANKS),
        ("再見", TurnKind.GOODBYE),
        ("掰掰", TurnKind.GOODBYE),
        ("沒關係", TurnKind.WELCOME),
        ("不客氣，祝您旅途愉快！", TurnKind.WELCOME),
        ("好的，沒問題", TurnKind.ACKNOWLEDGEMENT),
        ("瞭解，明白", TurnKind.ACKNOWLEDGEMENT),
        ("請問還有什麼可以幫您", TurnKind.OFFER),
    ],
)
def test_small_talk_is_classified(text: str, kind: TurnKind) -> None:
    verdict = classify(text)
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
        "謝謝用英語怎麼說",
        "請幫我推薦一家餐館，謝謝",
        "Merci means thank you in French.",
        "Danke is German for thank you",
        "Merci是法语的谢谢",
        "说一句谢谢",
        "Say thanks",
    ],
)
def test_polite_content_is_content(text: str) -> None:
    assert not classify(text).low


def test_a_single_word_that_answers_a_question_is_content() -> None:
    assert classify("是的。").low
    assert not classify_reply("是的。", "鲸鱼是哺乳动物吗？").low
    assert not classify_reply("Yes.", "Is a whale a mammal?").low
    assert not classify_reply("谢谢", "Thank you 用中文怎么说").low
    assert classify_reply("不客气。", "好的，谢谢你了啊。").low
    assert classify_reply("好的。", "我知道了，谢谢。").low


def test_a_looping_answer_is_low_value() -> None:
    assert classify("我不知道该怎么说。" * 60).kind is TurnKind.REPETITION
    assert not classify("".join(chr(0x4E00 + 37 * i) for i in range(300))).low


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("Classify the sentiment: I love it", "Great"),
        ("Answer only ok or bad: 2+2=4", "ok"),
        ("Good or bad: rain at a picnic", "Good"),
        ("Choose a word for the colour of snow", "Nice"),
        ("选 A 还是 B", "好"),
        ("選A還是B", "好"),
        ("判断对错：地球是圆的", "对"),
        ("情感分类：这家店我还会再来", "好"),
        ("鯨魚是哺乳動物嗎", "是的。"),
        ("Give me a one word synonym of hello", "Hi"),
        ("Say hello", "Hello"),
        ("说一句谢谢", "谢谢"),
        ("請說一聲再見", "再見"),
        ("给我一个词，和你好一样的意思", "您好"),
    ],
)
def test_a_one_word_answer_to_a_task_is_content(task: str, answer: str) -> None:
    assert classify(answer).low
    assert not classify_reply(answer, task).low


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("跟你说一声谢谢", "不客气"),
        ("那还是谢谢您了", "不客气"),
        ("谢谢你的回复", "不客气"),
        ("我选择这家", "好的"),
        ("还是算了吧，我不去了", "好的"),
        ("帮我订一张票", "好的"),
        ("I just want to say thank you", "You're welcome!"),
        ("Thanks for the reply", "No problem"),
        ("I'll pick this one", "Great"),
    ],
)
def test_small_talk_that_answers_a_remark_or_instruction_is_low_value(said: str, answer: str) -> None:
    assert classify_reply(answer, said).low


@pytest.mark.parametrize("text", ["重复" * 20, "重复" * 40, "重复" * 400, "又是这样" * 12, "哈喽，" * 40])
def test_a_repeated_phrase_of_any_length_is_repetition(text: str) -> None:
    assert classify(text).kind is TurnKind.REPETITION


@pytest.mark.parametrize("answer", ["I like apple.\n" * 5, "我爱学习，" * 40])
def test_requested_repetition_is_not_a_loop(answer: str) -> None:
    assert not classify_reply(answer, "Say it five times: I like apple").low
    assert not classify_reply(answer, "把“我爱学习”重复40遍").low
    assert not classify_reply("I like apple. " * 5, "").low


LIST = (
    "第一，先把需求写清楚。\n第二，列出每一步要做的事情，并估计时间。\n第三，每天结束时对照计划检查进度，" * 2
)


@pytest.mark.parametrize(
    "text",
    [
        "可以这样写：\n```python\nfor i in range(10):\n    print(i)\n    if i > 5:\n        break\nelse:\n    print('完成')\n    total = 0",
        LIST,
        LIST + "第四\n- ",
        LIST + "因为",
        "There are three things to know before you start with this, and the most important one is that the",
        "You will need flour, eggs, milk and butter; mix them well, then let the dough rest for an hour (",
        LIST[:-1],
        LIST.replace("，", "。") + "先看看需求，再写出每一步要做的事",
        "The oven must be hot before the dough goes in. Let it rest first, for an hour or two. After that you can sha",
        "Plan the day before it begins.\n\n- Write down three things that must be done today, and no more.\n"
        "- Do the hardest of them first, while you are still fresh.\n- Take a br",
        "这几种方法都可以用，按自己的情况选一种就好。最常见的是先热敷，再轻轻按摩。" * 2
        + "还可以喝一些（不要太烫",
        "| 城市 | 天气 | 最高温度 | 最低温度 |\n|---|---|---|---|\n"
        + "| 北京 | 晴 | 20℃ | 8℃ |\n" * 4
        + "| 上海 | 多",
    ],
)
def test_a_truncated_answer_is_masked(text: str) -> None:
    verdict = classify_reply(text, "怎么做？")
    assert (verdict.low, verdict.kind, verdict.score) == (True, TurnKind.TRUNCATED, 0.8)
    assert not classify(text).low


@pytest.mark.parametrize(
    "text",
    [
        LIST[:-1] + "。",
        LIST[:-1].replace("。", ""),
        "水烧开以后再下面，不然容易糊，所以要一直看着锅\n" * 6 + "最后一步见（图 1) 或者（表 2）旁边的说明",
        "The steps are simple and quick. " * 5 + "(See 1) and 2) there) or https://example.org/a_b",
        "先把水烧开，然后下面条，煮三分钟左右就可以捞出来了。最后加一点盐和香油，再撒上葱花。" * 2 + "祝好",
        "The tickets are on sale from Monday. You find them on the page of the museum, see https://example.org/tickets",
        "Bring warm clothes, good shoes and something to drink. You may also need maps, a torch, matches etc",
        "可以这样写：\n```python\nfor i in range(10):\n    print(i)\n```\n" + "再运行一次就能看到结果了" * 6,
        "Yours sincerely, and with best wishes for the coming year from all of us here at the office\nAnna "
        * 2,
        "您好，",
    ],
)
def test_a_missing_full_stop_alone_is_not_truncation(text: str) -> None:
    assert classify_reply(text, "怎么做？").kind is not TurnKind.TRUNCATED


def test_a_loop_is_scored_by_its_share_of_the_answer() -> None:
    start = "光合作用把光能变成化学能，叶绿素吸收红光和蓝光，水被分解后放出氧气，二氧化碳被固定成糖。" * 2
    looped = start + "这是一个很重要的过程，" * 12
    verdict = classify_reply(looped, "什么是光合作用？")
    assert verdict.kind is TurnKind.REPETITION
    assert 0.5 < verdict.score < 0.7
    assert not classify(start + "这是一个很重要的过程。").low


@pytest.mark.parametrize(
    "text",
    [
        "| a | b | c |\n"
        + "| --- | --- | --- |\n" * 8
        + "以上是一个没有内容的表格的样子，可以按需要填写各列的名字",
        "=" * 300,
        "1 1 1 1 " * 40,
        "ff " * 60,
        "啦啦啦，我们一起唱；啦啦啦，明天再来；" * 2
        + "太阳出来的时候，大家都走到院子里，把昨天没有说完的话接着说下去，一直说到天黑。" * 2,
    ],
)
def test_tables_rules_numbers_and_refrains_are_not_loops(text: str) -> None:
    assert loop_share(text) == 0.0


@given(st.text(min_size=1, max_size=30), st.integers(1, 60), st.text(max_size=60))
def test_the_loop_share_is_between_0_and_1(unit: str, times: int, start: str) -> None:
    text = start + unit * times
    assert 0.0 <= loop_share(text) <= 1.0
    is_truncated(text)


@pytest.mark.parametrize(
    "text", ["a. " * 400_000 + "end of", "。" * 400_000 + "完了", "a/_=" * 300_000, "(" * 900_000 + "a"]
)
def test_a_text_of_a_megabyte_is_classified(text: str) -> None:
    is_truncated(text)


@given(st.text(max_size=300))
def test_any_text_gets_a_score_between_0_and_1(text: str) -> None:
    verdict = classify(text)
    assert 0.0 <= verdict.score <= 1.0
    assert verdict.low == (verdict.score > 0)
