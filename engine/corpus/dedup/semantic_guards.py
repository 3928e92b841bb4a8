"""Rules that find a difference in meaning that embedders hardly see: figures, negation, "on" for "off", names, word order, and
in English one word exchanged in a sentence that is otherwise the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from engine.corpus.dedup.opposites import are_opposites
from engine.corpus.filters.normalise import letters, nfkc

_FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")
_FIGURE_ZH = re.compile(
    r"(?<![零〇一二三四五六七八九十百千万两半])[零〇一二三四五六七八九十百千万两半]+(?:个?[年月日岁元块点号次天时分秒倍里米斤页章节名位条张只本层楼度成折周季]|个)|"
    r"(?<=[第周])[一二三四五六七八九十日天]+|星期[一二三四五六日天]"
)
_FIGURE_WORDS = {
    word: str(value)
    for value, words in {
        0: "zero", 0.5: "half halves", 1: "first", 2: "two twice second double both", 3: "three thrice third triple",
        4: "four fourth quarter", 5: "five fifth", 6: "six sixth", 7: "seven seventh", 8: "eight eighth", 9: "nine ninth",
        10: "ten tenth", 11: "eleven", 12: "twelve dozen", 13: "thirteen", 14: "fourteen", 15: "fifteen", 16: "sixteen",
        17: "seventeen", 18: "eighteen", 19: "nineteen", 20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty",
        70: "seventy", 80: "eighty", 90: "ninety", 100: "hundred", 1000: "thousand", 10**6: "million", 10**9: "billion",
    }.items()
    for word in words.split()
}  # fmt: skip
_NEGATION = re.compile(
    r"不|没|无|非|未|勿|别|\b(?:not?|never|without|none|nor|neither|nobody|nothing|cannot)\b|n['’]t\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"\A\s*+(?:(yes|yeah|sure|true|right|是的?|对的?|能|可以|会)|(no|nope|false|wrong|不|没有?))\b",
    re.IGNORECASE,
)
_LATIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9+#.]*(?<!\.)")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NAME = re.compile(r"(?<![.!?:;\n\"“”(])(?<=[^\W.!?:;\n\"“”(]|[,’'-]) ?([A-Z][^\W\d_]*)")
_CJK = re.compile(r"[\u3400-\u9fff]")
_FRAME = 0.5
"""Share of a sentence that is the same around one exchanged word."""
_COPY = 0.75
"""Share of the words that two texts have in common, from which each other word counts."""
_LIGHT = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "i",
        "me",
        "my",
        "you",
        "your",
        "yours",
        "he",
        "him",
        "his",
        "she",
        "her",
        "we",
        "us",
        "our",
        "they",
        "them",
        "their",
        "one",
        "ones",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "do",
        "does",
        "did",
        "done",
        "have",
        "has",
        "had",
        "will",
        "would",
        "shall",
        "should",
        "can",
        "could",
        "may",
        "might",
        "must",
        "what",
        "which",
        "who",
        "whom",
        "whose",
        "when",
        "where",
        "why",
        "how",
        "there",
        "here",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "about",
        "as",
        "into",
        "onto",
        "and",
        "or",
        "so",
        "if",
        "then",
        "than",
        "also",
        "just",
        "please",
        "tell",
        "give",
        "show",
        "let",
        "get",
        "make",
        "want",
        "need",
        "like",
        "some",
        "any",
        "more",
        "most",
        "very",
        "really",
        "way",
        "ways",
        "good",
        "best",
        "kind",
        "sort",
        "thing",
        "things",
        "something",
        "mean",
        "means",
        "called",
        "say",
        "much",
        "many",
        "lot",
        "explain",
        "describe",
        "suggest",
    ]
)
"""Words that say little by themselves."""
_TURNS = frozenset(
    [
        "to",
        "from",
        "into",
        "out",
        "onto",
        "off",
        "over",
        "under",
        "above",
        "below",
        "with",
        "without",
        "for",
        "against",
        "by",
        "before",
        "after",
    ]
)
"""Words that turn the relation of the words around them."""


def may_mean_the_same(one: str, other: str) -> bool:
    """False where figures, negation, opposites or names differ, where the same words occur in another order, or where one
    English word is exchanged for another."""
    left, right = _Read(one), _Read(other)
    if left.folded == right.folded:
        return True
    if left.chinese != right.chinese or left.figures != right.figures:
        return False
    if left.answer and right.answer and left.answer != right.answer:
        return False
    if left.figure_words - right.figure_words and right.figure_words - left.figure_words:
        return False
    if left.negations % 2 != right.negations % 2 or bool(left.negations) != bool(right.negations):
        return False
    if are_opposites(left.words, right.words, left.text, right.text):
        return False
    if left.chinese:
        return left.latin_names == right.latin_names and Counter(left.folded) != Counter(right.folded)
    return left.names == right.names and not _exchanges_a_word(left, right)


class _Read:
    """A text as the rules read it."""

    def __init__(self, text: str) -> None:
        self.text = nfkc(text)
        self.folded = letters(text)
        self.chinese = _CJK.search(text) is not None
        self.negations = len(_NEGATION.findall(self.text))
        found = _ANSWER.match(self.text)
        self.answer = found.lastindex if found else None
        """1 for a yes, 2 for a no, None for neither."""

    @cached_property
    def words(self) -> list[str]:
        return [word.casefold().replace("’", "'") for word in _WORD.findall(self.text)]

    @cached_property
    def figures(self) -> Counter[str]:
        return Counter([*_FIGURE.findall(self.text), *_FIGURE_ZH.findall(self.text)])

    @cached_property
    def figure_words(self) -> Counter[str]:
        """English numbers in words. One text may have more of them: "twice" is "duplicate"."""
        return Counter(_FIGURE_WORDS[word] for word in self.words if word in _FIGURE_WORDS)

    @property
    def latin_names(self) -> frozenset[str]:
        """Words in Latin letters of a Chinese text, e.g. Linux, Python."""
        return frozenset(word.lower() for word in _LATIN_WORD.findall(self.text))

    @cached_property
    def names(self) -> list[str]:
        """Words with a capital within a sentence, in their order."""
        return [_stem(name.casefold()) for name in _NAME.findall(self.text) if name != "I"]

    @cached_property
    def content(self) -> list[str]:
        """The stems of the words that say something."""
        return [_stem(word) for word in self.words if word not in _LIGHT and len(word) > 1]


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    for ending in ("ing", "ies", "ied", "es", "ed", "ly", "er", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _exchanges_a_word(left: _Read, right: _Read) -> bool:
    """Whether two English texts have the same words but in one place, or nearly all, or have them in another order."""
    here, there = Counter(left.content), Counter(right.content)
    if here == there:
        turned = _TURNS & set(left.words) ^ _TURNS & set(right.words)
        return left.content != right.content or bool(turned)
    if (here & there).total() >= _COPY * max(here.total(), there.total()):
        return True
    old, new = _one_place(left.words, right.words)
    if len(left.words) - len(old) < _FRAME * max(len(left.words), len(right.words)):
        return False
    says_old, says_new = (not _LIGHT.issuperset(words) for words in (old, new))
    return (says_old and says_new) or (says_old and not new) or (says_new and not old)


def _one_place(one: Sequence[str], other: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands in each of two texts between the words with which both begin and end."""
    start = end = 0
    shorter = min(len(one), len(other))
    while start < shorter and one[start] == other[start]:
        start += 1
    while end < shorter - start and one[-1 - end] == other[-1 - end]:
        end += 1
    return one[start : len(one) - end], other[start : len(other) - end]
