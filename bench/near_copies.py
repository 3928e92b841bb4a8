"""Planted near copies of texts, by kind: what people and programs change without saying anything else.

The words of each kind are written down here and not taken from the program's tables; part of them is in none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Edit = Callable[[str, random.Random], str]

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？])\s*(?=\S)")
_OPENERS_EN = [
    "Sure! ",
    "Of course! ",
    "Certainly. ",
    "Absolutely! ",
    "Great question! ",
    "Happy to help! ",
    "Okay, ",
]
_CLOSERS_EN = [
    " I hope this helps!",
    " Let me know if you have any questions.",
    "\n\nBest regards",
    " Thanks!",
    "\n\nKind regards",
    " Hope this helps you.",
    " Feel free to ask.",
]
_OPENERS_ZH = ["好的，", "当然可以！", "没问题，", "您好，", "好的，没问题。", "很高兴为您解答。", "明白了，"]
_CLOSERS_ZH = [
    "希望对你有帮助",
    "谢谢！",
    "希望这些信息能帮到你。",
    "如有疑问，请随时告诉我。",
    "祝好！",
    "感谢！",
    "如果还有其他问题，欢迎随时提问。",
]
_SPELLINGS = [
    ("color", "colour"), ("center", "centre"), ("neighbor", "neighbour"), ("organiz", "organis"), ("recogniz", "recognis"), ("favorite", "favourite"),
    ("traveled", "travelled"), ("analyz", "analys"), ("theater", "theatre"), ("gray", "grey"), ("defense", "defence"), ("behavior", "behaviour"), ("honor", "honour"),
    ("labor", "labour"), ("catalog", "catalogue"), ("realiz", "realis"), ("meter", "metre"), ("program", "programme"), ("toward", "towards"), ("canceled", "cancelled"),
]  # fmt: skip
_CONTRACTIONS = [
    (" do not ", " don't "), (" is not ", " isn't "), (" it is ", " it's "), (" cannot ", " can't "), (" will not ", " won't "),
    (" was not ", " wasn't "), (" they are ", " they're "), (" I am ", " I'm "), (" would not ", " wouldn't "), (" that is ", " that's "), (" does not ", " doesn't "),
]  # fmt: skip
_PHRASES_EN = [
    ("for example", "for instance"), ("because of", "due to"), ("once more ", "again "), (" in order to ", " to "), ("also ", ""), ("However", "But"),
    ("begins", "starts"), ("perhaps", "maybe"), (" large ", " big "), ("then ", ""), ("almost", "nearly"), ("often", "frequently"), ("very ", ""), ("while", "whereas"),
]  # fmt: skip
_PHRASES_ZH = [
    ("但是", "但"), ("或者", "或"), ("因此", "所以"), ("以及", "和"), ("由于", "因为"), ("非常", "十分"), ("并且", "并"), ("已经", "已"), ("例如", "比如"),
    ("与", "和"), ("经常", "时常"), ("也", ""), ("如果", "假如"), ("其后", "之后"), ("随后", "然后"), ("还", ""),
]  # fmt: skip
_VARIANTS_ZH = [
    ("的", "地"),
    ("做", "作"),
    ("帐", "账"),
    ("你", "您"),
    ("撒", "洒"),
    ("地", "的"),
    ("像", "象"),
    ("得", "的"),
]
_COUNTING = frozenset(
    [
        "million",
        "thousand",
        "hundred",
        "billion",
        "second",
        "double",
        "single",
        "eleven",
        "twelve",
        "twenty",
        "nothing",
        "without",
    ]
)
_SCRIPTS = dict(zip("国学时会来这个说们对发后为长开东车马门问间见觉书电华语话请让记讲认识设议论诗调课谁词译试读级经给结绝统继续绿网红约纪线练组细终", "國學時會來這個說們對發後為長開東車馬門問間見覺書電華語話請讓記講認識設議論詩調課誰詞譯試讀級經給結絕統繼續綠網紅約紀線練組細終", strict=True))  # fmt: skip


def _is_chinese(text: str) -> bool:
    return sum("\u4e00" <= letter <= "\u9fff" for letter in text) > len(text) / 4


def _sentences(text: str) -> list[str]:
    return _SENTENCE.split(text)


def _bold(text: str, chance: random.Random) -> str:
    if _is_chinese(text):
        places = [
            n for n in range(1, len(text) - 3) if all("\u4e00" <= c <= "\u9fff" for c in text[n : n + 2])
        ]
        place = chance.choice(places)
        return f"{text[:place]}**{text[place : place + 2]}**{text[place + 2 :]}"
    words = text.split(" ")
    place = chance.choice([n for n, word in enumerate(words) if len(word) > 3 and word.isalpha()])
    mark = chance.choice(["**", "*"])
    words[place] = f"{mark}{words[place]}{mark}"
    return " ".join(words)


def _bullets(text: str, chance: random.Random) -> str:
    mark = chance.choice(["- ", "* ", "• "])
    return "\n".join(mark + sentence for sentence in _sentences(text))


def _numbers(text: str, chance: random.Random) -> str:
    form = chance.choice(["{}. ", "{}) ", "{}、"]) if _is_chinese(text) else chance.choice(["{}. ", "{}) "])
    return "\n".join(form.format(n) + sentence for n, sentence in enumerate(_sentences(text), 1))


def _heading(text: str, chance: random.Random) -> str:
    first, *rest = _sentences(text)
    return "\n".join([chance.choice(["## ", "# ", "### "]) + first, *rest])


def _quotes(text: str, chance: random.Random) -> str:
    plain = re.sub(r'"([^"]*)"', r"“\1”", text).replace("'", "’")
    return plain.replace("“", '"').replace("”", '"') if plain == text else plain


def _dashes(text: str, chance: random.Random) -> str:
    new = chance.choice([" - ", " -- ", " — ", "—"])
    commas = [found.start() for found in re.finditer(r"(?<=[a-z]), (?=[a-z])", text)]
    if not commas:
        return text
    place = chance.choice(commas)
    return text[:place] + new + text[place + 2 :]


def _courtesy(text: str, chance: random.Random) -> str:
    openers, closers = (_OPENERS_ZH, _CLOSERS_ZH) if _is_chinese(text) else (_OPENERS_EN, _CLOSERS_EN)
    end = text if text[-1] in ".!?。！？" else text + ("。" if _is_chinese(text) else ".")
    return chance.choice(
        [
            chance.choice(openers) + text,
            end + chance.choice(closers),
            chance.choice(openers) + end + chance.choice(closers),
        ]
    )


def _replaced(pairs: Sequence[tuple[str, str]], most: int) -> Edit:
    def edit(text: str, chance: random.Random) -> str:
        left = most
        for one, other in chance.sample(pairs, len(pairs)):
            old, new = (one, other) if one in text else (other, one)
            if left and old and old in text[:-10]:
                text = text.replace(old, new, 1)
                left -= 1
        return text

    return edit


def _script(text: str, chance: random.Random) -> str:
    return "".join(_SCRIPTS.get(letter, letter) for letter in text)


def _typo(text: str, chance: random.Random) -> str:
    """One slip in forty words: in a word of small letters, five or longer, not its first or last letter."""
    words = text.split(" ")
    places = [
        n
        for n, word in enumerate(words)
        if word not in _COUNTING and len(word) > 5 and word.isalpha() and word.islower() and word.isascii()
    ]
    for place in chance.sample(places, min(len(places), max(1, len(words) // 40))):
        word = words[place]
        at = chance.randrange(1, len(word) - 2)
        words[place] = chance.choice(
            [
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            ]
        )
    return " ".join(words)


KINDS: dict[str, Edit] = {
    "bold": _bold,
    "bullets": _bullets,
    "numbers": _numbers,
    "heading": _heading,
    "quotes": _quotes,
    "dashes": _dashes,
    "courtesy": _courtesy,
    "spelling": _replaced(_SPELLINGS, 20),
    "contractions": _replaced(_CONTRACTIONS, 5),
    "grammar.en": _replaced(_PHRASES_EN, 1),
    "grammar.zh": _replaced(_PHRASES_ZH, 1),
    "variants.zh": _replaced(_VARIANTS_ZH, 1),
    "script.zh": _script,
    "typo": _typo,
}


def plant(texts: Sequence[str], per_kind: int, seed: int = 7) -> list[tuple[str, str, str]]:
    """Kind, text and copy; for each kind the first texts, from a place of its own, in which its edit finds something to change."""
    found: list[tuple[str, str, str]] = []
    for number, (kind, edit) in enumerate(KINDS.items()):
        chance = random.Random(seed + number)
        order = chance.sample(range(len(texts)), len(texts))
        only_zh = kind.endswith(".zh")
        count = 0
        for place in order:
            text = texts[place]
            if count == per_kind:
                break
            if _is_chinese(text) != only_zh and (
                only_zh or kind in ("typo", "spelling", "contractions", "dashes", "grammar.en")
            ):
                continue
            copy = edit(text, chance)
            if copy != text:
                found.append((kind, text, copy))
                count += 1
    return found
