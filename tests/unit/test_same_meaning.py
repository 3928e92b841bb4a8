"""Near duplicates say the same: one figure, sign, name or word makes another text, a greeting or a slip does not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.dedup.alignment import differences
from engine.corpus.dedup.meaning import ComparedText, SpokenText, same_text, say_the_same
from engine.corpus.dedup.near import near_pairs
from tests.corpus_store import conversation, memory

_OTHERS = (Path(__file__).parents[2] / "bench" / "data" / "corpus" / "other_meaning.txt").read_text("utf-8")
"""Two texts a line that say different things."""
_FRAMES = {
    "alone": ("", ""),
    "in a long English text": (
        "I have a question that I could not answer for myself after a long search on many sites, so here it is: ",
        " That is what I would like to know about it, and a short answer will do.",
    ),
    "in a long Chinese text": (
        "我想了很久都没有想明白这个问题，找了很多资料也没有看到答案，所以来问一下：",
        "。希望能得到一个简短的回答，这样我就可以继续写下去，非常期待看到结果。",
    ),
    "as the word of a template": (
        "You are an assistant. Read what stands behind the colon with care, keep to the form that is asked for, and answer in one "
        "sentence without any explanation, note or greeting. The text is: ",
        "",
    ),
}


@pytest.mark.parametrize("frame", _FRAMES.values(), ids=list(_FRAMES))
@pytest.mark.parametrize("line", _OTHERS.strip().splitlines())
def test_another_meaning_is_never_a_near_duplicate(line: str, frame: tuple[str, str]) -> None:
    one, other = (f"{frame[0]}{text}{frame[1]}" for text in line.split("|"))
    assert not same_text(ComparedText(one), ComparedText(other))
    assert not same_text(ComparedText(other), ComparedText(one))
    assert near_pairs([one, other], 0.0) == []


_SAME = [
    ("Hello, how do I sort a list in Python?", "how do I sort a list in Python"),
    ("How do I sort the list in Python?", "How do I sort a list in Python? Thanks!"),
    ("Please tell me how to sort it.", "Tell me how to sort it"),
    ("怎么写快速排序？", "怎么写快速排序呢？"),
    ("你好，请问怎么写快速排序？", "怎么写快速排序"),
    ("怎么写快速排序？谢谢！", "您好！怎么写快速排序？"),
    ("你说的是什么意思", "您说的是什么意思？"),
    ("（好的）我明白了，谢谢你。", "(好的)我明白了"),
    ("他叫列奥纳多·达·芬奇", "他叫列奥纳多达芬奇"),
    ("《红楼梦》的作者是谁？", "红楼梦的作者是谁"),
    ("She said “yes” at once.", 'She said "yes" at once'),
    ("Rome (the old one) is large", "Rome, the old one, is large"),
]


@pytest.mark.parametrize("one, other", _SAME)
def test_courtesy_and_punctuation_say_nothing_else(one: str, other: str) -> None:
    assert same_text(ComparedText(one), ComparedText(other))


_PUMP = (
    "A refrigerator moves heat from the inside to the outside. A liquid boils into gas in the coils inside and takes heat with it. A pump presses "
    "the gas together behind the fridge, where it becomes liquid again and gives off the heat into the kitchen."
)
_DISH = "先把五花肉切成两厘米的方块，冷水下锅焯水。锅里放少许油和冰糖，小火炒出糖色，放入肉块翻炒上色，然后倒入热水，小火炖一个小时，撒上葱花就可以上桌了。"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_PUMP, _PUMP.replace("pump", "**pump**").replace("coils", "*coils*")),
        (_PUMP, "- " + _PUMP.replace(". ", ".\n- ")),
        (_PUMP, "1. " + _PUMP.replace(". A liquid", ".\n2. A liquid").replace(". A pump", ".\n3. A pump")),
        ("The fridge\n" + _PUMP, "## The fridge\n---\n" + _PUMP),
        ("* 5 eggs\n* flour and milk", "- 5 eggs\n- flour and milk"),
        ("It was late – he said “no” — and left the room.", 'It was late - he said "no" -- and left the room.'),
        ("Salt&nbsp;and pepper &amp; oil are enough for it.", "Salt and pepper & oil are enough for it."),
        ("Read [the manual](https://example.org/a) first.", "Read the manual (https://example.org/a) first."),
        ("运行 **`make`** 就好", "运行 `make` 就好"),
        ("要点：\n一、多喝水\n二、早点睡", "要点：\n多喝水\n早点睡"),
        (_PUMP, "Sure! " + _PUMP + " I hope this helps!"),
        (_PUMP, _PUMP + "\n\nKind regards"),
        (_DISH, "当然可以！" + _DISH + "希望这些步骤对你有帮助！"),
        ("The colour of the theatre was analysed by a traveller from the centre.", "The color of the theater was analyzed by a traveler from the center."),
        ("They don't know that it isn't there, and I can't say.", "They do not know that it is not there, and I cannot say."),
        ("我們今天去圖書館看書，然後回家吃飯", "我们今天去图书馆看书，然后回家吃饭"),
        (_PUMP, _PUMP.replace("becomes liquid", "turns liquid").replace("and takes", "and then takes")),
        (_DISH, _DISH.replace("就可以", "即可").replace("少许油", "一点油").replace("撒上", "洒上")),
        ("请给我一份详细的菜谱，包括需要的材料和每一步的做法，谢谢", "请给我一份菜谱，包括需要的材料和每一步的做法"),
    ],
)  # fmt: skip
def test_layout_manners_and_spelling_say_nothing_else(one: str, other: str) -> None:
    assert same_text(ComparedText(one), ComparedText(other))
    assert same_text(ComparedText(other), ComparedText(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("- 5 degrees", "5 degrees"), ("- x", "x"), ("x - y", "x y"), ("* 3", "- 3"), ("1. Paris", "2. Paris"), ("a ** b ** c", "a b c"),
        ("2 * x is y", "2 x is y"), ("# x = 1", "x = 1"), ("profit = income - cost", "profit = income cost"), ("+ add this line", "- add this line"),
        ("open Monday - Friday", "open Monday, Friday"), ("the `x` - offset is used", "the `x` * offset is used"), ("~~not~~ good", "not good"),
        ("[here](https://a.com/x)", "[here](https://a.com/y)"), ("see https://a.com/B for it", "see https://a.com/b for it"),
        ("how to spell colour", "how to spell color"), ("Anna Grey came", "Anna Gray came"), ("&lt;b&gt; in html", "<b> in html"),
        ("they don't know", "they do know"), ("too hot to drink", "hot to drink"), ("我不能去", "我能去"), ("他在哪里", "他在那里"), ("1) b\n2) a", "1) a\n2) b"),
        ("it is 5' long", 'it is 5" long'),
        ("get off the bus", "turn off the bus"), ("at one", "at once"), ("- [x] buy milk", "- [ ] buy milk"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("frame", _FRAMES.values(), ids=list(_FRAMES))
def test_the_same_marks_and_words_count_elsewhere(one: str, other: str, frame: tuple[str, str]) -> None:
    texts = [ComparedText(f"{frame[0]}{text}{frame[1]}") for text in (one, other)]
    assert not same_text(*texts)
    assert not same_text(*reversed(texts))


_LONG = (
    "When the harvest was over the farmers of the valley brought their waggons down to the river, where a merchant from the coast "
    "waited with money and with stories about distant countries that nobody had seen."
)


@pytest.mark.parametrize(
    "word, slip",
    [
        ("harvest", "harvst"), ("farmers", "farmerrs"), ("waggons", "wagggons"), ("merchant", "mecrhant"), ("money", "moneyy"),
        ("with", "wiht"), ("distant", "disstant"), ("countries", "contries"), ("the valley", "thevalley"), ("river", "rivver"), ("stories", "storries"), ("about", "abuot"),
    ],
)  # fmt: skip
def test_a_slip_in_a_long_text_is_a_near_duplicate(word: str, slip: str) -> None:
    assert same_text(ComparedText(_LONG), ComparedText(_LONG.replace(word, slip, 1)))


@pytest.mark.parametrize(
    "word, other",
    [
        ("farmers", "framers"), ("valley", "volley"), ("river", "rover"), ("merchant", "merchants"), ("coast", "cost"),
        ("money", "monkey"), ("distant", "instant"), ("countries", "counties"), ("seen", "sent"), ("stories", "stores"),
        ("down", "dawn"), ("brought", "bought"), ("waited", "wanted"), ("with money", "without money"),
    ],
)  # fmt: skip
def test_another_word_in_a_long_text_is_none(word: str, other: str) -> None:
    assert not same_text(ComparedText(_LONG), ComparedText(_LONG.replace(word, other, 1)))


def test_the_answer_weighs_as_much_as_the_question() -> None:
    question = (
        "Translate the English word into German and answer with the German word only. " * 4 + "The word is: "
    )
    talks = [
        SpokenText.of([("user", question + word), ("assistant", answer)])
        for word, answer in (("river", "Fluss"), ("river", "Strom"), ("stone", "Stein"), ("stone", "Fluss"))
    ]
    assert [say_the_same(one, other) for one in talks for other in talks if one is not other] == [False] * 12


def test_what_one_says_is_not_what_the_other_says() -> None:
    one = SpokenText.of([("user", "Is it blue?"), ("assistant", "It is green.")])
    other = SpokenText.of([("user", "It is green."), ("assistant", "Is it blue?")])
    assert not say_the_same(one, other)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8, 1.0])
def test_a_template_keeps_all_its_words_at_any_threshold(tmp_path: Path, threshold: float) -> None:
    question = "Translate the following English word into German. Answer with the German word only, without an article. The word is: "
    words = {
        "apple": "Apfel",
        "river": "Fluss",
        "stone": "Stein",
        "candle": "Kerze",
        "market": "Markt",
        "tiger": "Tiger",
    }
    talks = [conversation(word, question + word, answer) for word, answer in words.items()]
    talks += [
        conversation(
            f"op{n}", f"Rewrite this function: def f(a, b): return a {sign} b", f"f = lambda a, b: a {sign} b"
        )
        for n, sign in enumerate(("<", ">", "<=", ">=", "==", "!=", "+", "-", "*", "/", "%"))
    ]
    with memory(tmp_path, talks) as store:
        assert build_corpus(store, Settings(near_threshold=threshold)).accepted == len(talks)


_NOUNS = ["bridge", "garden", "window", "engine", "market", "forest", "ladder", "basket", "mirror", "valley"]
_NAMES = ["Anna", "Peter", "Maria", "Johann", "Berlin", "Madrid", "Oslo", "Kyoto"]
_ZH = ["的桥梁", "和花园", "在窗户边", "看见市场", "这片森林", "用梯子", "那个篮子", "照镜子"]


@st.composite
def _sentences(draw: st.DrawFn) -> list[str]:
    """Words of a text in one of two languages, with two figures, two names and an operator."""
    words = draw(st.lists(st.sampled_from(draw(st.sampled_from([_NOUNS, _ZH]))), min_size=6, max_size=60))
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=2, max_size=2, unique=True))
    figures = draw(st.lists(st.integers(1, 10**6), min_size=2, max_size=2, unique=True))
    for word in (*names, *map(str, figures), draw(st.sampled_from(["+", "-", "<", ">=", "=="]))):
        words.insert(draw(st.integers(1, len(words) - 1)), word)
    return words


def _changed(words: list[str], chance: random.Random) -> list[str]:
    """The words with one change of meaning."""
    words = list(words)
    names = [n for n, word in enumerate(words) if word in _NAMES]
    figures = [n for n, word in enumerate(words) if word.isdigit()]
    (sign,) = (n for n, word in enumerate(words) if not word.isalnum())
    match chance.randrange(8):
        case 0:
            place = chance.choice(figures)
            digit = chance.randrange(len(words[place]))
            other = chance.choice([d for d in "123456789" if d != words[place][digit]])
            words[place] = words[place][:digit] + other + words[place][digit + 1 :]
        case 1:
            words[figures[0]], words[figures[1]] = words[figures[1]], words[figures[0]]
        case 2:
            words.insert(chance.randrange(len(words)), chance.choice(["not", "不", "never", "没"]))
        case 3:
            words[sign] = chance.choice(
                [s for s in ("+", "-", "<", ">=", "==", "!=", "*") if s != words[sign]]
            )
        case 4:
            words[chance.choice(names)] = chance.choice(["Clara", "Lisbon", "Johannes", "Petra"])
        case 5:
            words[names[0]], words[names[1]] = words[names[1]], words[names[0]]
        case 6:
            words[chance.choice(figures)] += chance.choice(["%", ".5", "km"])
        case _:
            words[chance.randrange(len(words))] = chance.choice(["tunnel", "隧道"])
    return words


@given(_sentences(), st.integers(0, 2**32))
def test_a_change_of_meaning_is_never_a_near_duplicate(words: list[str], seed: int) -> None:
    one, other = " ".join(words), " ".join(_changed(words, random.Random(seed)))
    assert not same_text(ComparedText(one), ComparedText(other))
    for question, answer in ((one, other), (other, one)):
        talks = [SpokenText.of([("user", question), ("assistant", text)]) for text in (question, answer)]
        assert not say_the_same(*talks)


@given(_sentences(), st.data())
def test_a_harmless_edit_is_still_a_near_duplicate(words: list[str], data: st.DataObject) -> None:
    one = " ".join(words)
    edited = list(words)
    if len(words) > 30 and data.draw(st.booleans(), label="slip"):
        place = data.draw(
            st.sampled_from([n for n, word in enumerate(words) if len(word) > 2 and word.islower()] or [0])
        )
        if len(words[place]) > 2 and words[place].islower() and words[place].isascii():
            edited[place] = words[place][:2] + words[place][1:]
    marks = st.sampled_from([" ", "  ", "\n", ", ", "; ", "。", "，", "！ ", " "])
    other = "".join(
        word
        + (data.draw(marks) if n + 1 == len(edited) or (word.isalpha() and edited[n + 1].isalpha()) else " ")
        for n, word in enumerate(edited)
    )
    other = (
        data.draw(st.sampled_from(["", "Hello! ", "你好，"]))
        + other
        + data.draw(st.sampled_from(["", ". Thanks!", "，谢谢！"]))
    )
    assert same_text(ComparedText(one), ComparedText(other))


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_the_differences_lead_from_one_text_to_the_other(one: list[str], other: list[str]) -> None:
    found = differences(one, other, most=len(one) + len(other))
    assert found is not None
    made: list[str] = []
    end = 0
    for change in found:
        made += one[end : change.start] + other[change.other_start : change.other_end]
        end = change.end
    assert made + one[end:] == other
    size = sum(change.end - change.start + change.other_end - change.other_start for change in found)
    assert size == 0 or differences(one, other, most=size - 1) is None


@pytest.mark.parametrize(
    "pump",
    [
        "\n",
        "thanks. ",
        "hi ",
        "谢谢！",
        "的",
        "a的",
        "1.",
        "it-",
        "it's ",
        "'",
        "`a`",
        "x = 1\n",
        "的b",
        "- ",
    ],
)
def test_reading_a_text_is_linear(pump: str) -> None:
    """A hundred thousand repetitions: quadratic steps would take minutes."""
    one, other = (ComparedText(f"{start}{pump * 100_000}") for start in ("word ", "world "))
    assert not same_text(one, other)


_CODE = "Here is the function that was asked for:\n\n```python\ndef f(values):\n    for value in values:\n        total = g(value)\n    return total\n```\nIt takes a list and gives back what the last call returned."


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total", "Total"),
        ("    return", "        return"),
        ("g(value)", "g(value, 1)"),
        ("for value in values", "for value in value"),
        ("def f", "def h"),
        ("total = g", "total += g"),
    ],
)
def test_in_code_every_letter_counts(old: str, new: str) -> None:
    assert _CODE.count(old)
    assert not same_text(ComparedText(_CODE), ComparedText(_CODE.replace(old, new, 1)))
    assert same_text(ComparedText(_CODE), ComparedText(_CODE.replace("asked for:", "asked for")))
    assert same_text(ComparedText(_CODE), ComparedText(_CODE.replace("\n", "  \n")))
