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

_OTHERS = """
sort the list ascending|sort the list descending
who is the oldest person here|who is the youngest person here
the race was 10 km long|the race was 25 km long
what is the capital of Australia|what is the capital of Austria
tell me about ancient Rome|tell me about ancient Greece
you should take aspirin for it|you should not take aspirin for it
drive north for an hour|drive south for an hour
turn left at the light|turn right at the light
Anna lent Bob her bike|Bob lent Anna her bike
flights from Paris to London|flights from London to Paris
it costs 5 dollars|it costs 5 euros
a distance of 5 km|a distance of 5 m
the meeting is on Monday|the meeting is on Sunday
the meeting is on Tuesday|the meeting is on Thursday
before the war began|after the war began
encrypt the file|decrypt the file
the country is large|the county is large
he went there|he went here
the letter came from home|the letter came form home
import the module|export the module
increase the volume|decrease the volume
is it legal to do so|is it illegal to do so
a moral choice|a amoral choice
a typical case|an atypical case
it is possible|it is impossible
the maximum value|the minimum value
nitrate in the water|nitrite in the water
what is ethane|what is ethene
how to make a sandwich with ham|how to make a sandwich with jam
the first of May|the last of May
six minutes|ten minutes
twice a day|three times a day
half of it|all of it
Jane Austen wrote it|Emily Bronte wrote it
can help against cancer|can cause cancer
all students passed|some students passed
students must attend|students may attend
the cat bit the dog|the dog bit the cat
he is taller than her|she is taller than him
it rained and snowed|it rained or snowed
only if it rains|even if it rains
the affect of light|the effect of light
use Java for it|use JavaScript for it
use numpy version 1.2.3|use numpy version 1.3.2
call foo() first|call bar() first
a causal link|a casual link
pray for it|play for it
the public sector|the pubic sector
write in Python 2|write in Python 3
the adapter for USB-A|the adapter for USB-C
one desert in Africa|one dessert in Africa
a quiet place|a quite place
angel of light|angle of light
an internal error|an interval error
external|eternal
he was hired|he was fired
she adopted it|she adapted it
rows in the table|row in the table
convert Celsius to Fahrenheit|convert Fahrenheit to Celsius
translate into German|translate into French
his former boss|his farmer boss
the addition|the edition
bread in the oven|beard in the oven
the sun is up|the sun is down
a complement to it|a compliment to it
production is rising|reduction is rising
the insured person|the injured person
he was abroad|he was aboard
prescribe a drug|proscribe a drug
the defuse|the diffuse
emigrate from it|immigrate to it
按升序排列这些数|按降序排列这些数
最大的国家是哪个|最小的国家是哪个
北京今天的天气|南京今天的天气
他比我高|他比我矮
他不喜欢吃鱼|他喜欢吃鱼
你真的喜欢他吗|你真的喜欢他
小王借给小李一百元|小李借给小王一百元
第三章讲了什么|第五章讲了什么
往东走五公里|往西走五公里
往东走五公里|往东走五里
上半年的收入|下半年的收入
这个药每日两次|这个药每日三次
增加音量的办法|减少音量的办法
美国总统是谁|美国副总统是谁
他是前总统|他是总统
澳大利亚的首都|奥地利的首都
买入这只股票|卖出这只股票
张三打了李四|李四打了张三
把灯打开|把灯关上
有人来过|没人来过
必须参加|可以参加
北部地区的气候|东北部地区的气候
热带的植物|亚热带的植物
他的父亲是医生|他的母亲是医生
红楼梦的作者|西游记的作者
翻译单词：苹果|翻译单词：香蕉
一月的销量|十一月的销量
周一开会|周二开会
他是男的|他是女的
公斤换成斤|斤换成公斤
半小时后到|一小时后到
从上海到北京|从北京到上海
3.5 元|35 元
王小明是班长|王明是班长
李明得了奖|李鸣得了奖
x = a + b|x = a - b
if a > b: return a|if a < b: return a
while i <= n|while i < n
a and b|a or b
a[i] = 1|a[j] = 1
`x`|`y`
return !ok|return ok
i++|i--
x = 1|x = 2
print("a")|print("b")
def add(a, b)|def sub(a, b)
ls -l|ls -a
chmod 644 f|chmod 600 f
git push|git pull
git push -f|git push
SELECT a FROM t|SELECT b FROM t
SELECT MAX(x)|SELECT MIN(x)
ORDER BY x ASC|ORDER BY x DESC
true|false
None|NaN
http://a.com|https://a.com
foo_bar|foo_baz
C++|C
.NET 6|.NET 8
0x1F|0x2F
"""
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
]


@pytest.mark.parametrize("one, other", _SAME)
def test_courtesy_and_punctuation_say_nothing_else(one: str, other: str) -> None:
    assert same_text(ComparedText(one), ComparedText(other))


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
