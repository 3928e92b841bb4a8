"""Whether two similar texts say the same: the second reading of near duplicates.

Similar letters select pairs; in a long text one word or figure is a small share of them and makes another question of it. Here
the words of both texts are aligned, and every difference must be harmless by its kind: a greeting, an article, a slip of the
pen in a long text. Everything else counts: figures, signs, negation, any other word. Questions and answers are compared apart,
so that a short answer weighs as much as a long question.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise

from engine.corpus.dedup.alignment import Difference, differences
from engine.corpus.dedup.courtesy import without_courtesy
from engine.corpus.dedup.layout import without_layout
from engine.corpus.dedup.slips import is_chinese, is_moved, is_slip
from engine.corpus.dedup.spelling import american, is_about_spelling, without_contractions
from engine.corpus.dedup.vocabulary import (
    BROKEN,
    FILLERS,
    FINAL_PARTICLES,
    VARIANTS,
    is_weighty,
)
from engine.corpus.dedup.wording import MIN_PHRASED, allowed_edits, is_of_grammar, without_phrases
from engine.corpus.filters.folding import CJK, code_and_prose, without_punctuation
from engine.corpus.filters.traditional import simplified

MAX_SLIPS = 0.06
"""Share of the words (in Chinese, characters) of a text that may be slips of the pen."""
MIN_LENGTH_FOR_SLIPS = 20
"""Words, or Chinese characters, below which a text has no slips: one of them makes another text."""
_MOST_SLIPS = 100
"""Slips that are looked for in a text of any length: the time grows with their square."""
_MOST_PHRASED = 8
"""Words, or Chinese characters, of other phrases in a text of any length; and their share of a long text."""
_PHRASED_SHARE = 0.15
_DIGITS = frozenset("0123456789")
_EXACT = frozenset("0123456789\x02")
_COUNTED = frozenset(["few", "little", "bit", "lot", "number", "couple"])
"""Words that an article before them changes."""
_MAX_FILLERS = 4
"""Articles and the like by which two texts may differ."""
_TOKEN = re.compile(
    rf"https?://[^\s{CJK}]*[^\s{CJK}.,:;!?)\]'\"]|\d+(?:[.,:]\d+)*+|[{CJK}]|[^\W\d{CJK}][^\W{CJK}]*+(?:['-][^\W{CJK}]++)*+|[:;]['-]?[()]|\S"
)
_FORMULA = re.compile(r"[=+*/^%{}\[\]$;<>\\|&~`_]|[-−]\s?\(|\)\s?[-−]|[A-Za-z0-9]\(")
_URL = re.compile(rf"https?://[^\s{CJK}]+")
_BOLD_CODE = re.compile(r"(?<![\w*])\*\*(`[^`\n]{1,200}`)\*\*(?![\w*])")
_INLINE = "\x03"
"""Stands for a piece of code before prose in the same line."""
_BRACKETS = frozenset("'\"()《》〈〉【】〔〕")
"""Signs that say nothing in prose and much in a formula."""
_CODE = "\x02"
"""Before a line of code."""
_CASED_UNIT = re.compile(r"[mM](?:[glLWVAJNsmBb]|Hz|Pa|[bB]ps)|[kKGTP]i?[bB](?:ps)?")
_BEFORE_CASED = frozenset("\\[")
"""Signs of a regular expression after which the case counts."""
_BROKEN_WORD = re.compile(r"(?<=[A-Za-z])[的了](?=[A-Za-z])")


class SpokenText:
    """What each role says in a conversation, by role; equal roles are joined."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._parts: dict[str, ComparedText] = {}

    @classmethod
    def of(cls, turns: Iterable[tuple[str, str]]) -> SpokenText:
        """From (role, text) of the turns."""
        texts: dict[str, list[str]] = {}
        for role, text in turns:
            texts.setdefault(role, []).append(text)
        return cls({role: "\n".join(parts) for role, parts in texts.items()})

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(self._texts)

    def part(self, role: str) -> ComparedText:
        if role not in self._parts:
            self._parts[role] = ComparedText(self._texts[role])
        return self._parts[role]


def say_the_same(one: SpokenText, other: SpokenText) -> bool:
    """Whether what each role says is the same but for harmless differences."""
    return one.roles == other.roles and all(
        same_text(one.part(role), other.part(role)) for role in sorted(one.roles)
    )


class ComparedText:
    """The words, figures, signs and pieces of code of a text, without the punctuation of its sentences."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def tokens(self) -> list[str]:
        """Case is kept. A piece of code is one token."""
        found: list[str] = []
        formula = False
        for code, part in self._parts:
            if code:
                found += [_CODE + line.rstrip() for line in part.splitlines() if line.strip()]
                formula = True
            else:
                found += _TOKEN.findall(part)
                formula = formula or _FORMULA.search(_URL.sub("", part)) is not None
        return found if formula else _without_brackets(found)

    @cached_property
    def _parts(self) -> list[tuple[bool, str]]:
        """Code, and prose without its layout, in order; each with whether it is code."""
        found: list[tuple[bool, str]] = []
        # Prose after a piece of code in its line begins no line.
        inline = False
        for code, part in code_and_prose(_BOLD_CODE.sub(r"\1", without_courtesy(self._text))):
            found.append(
                (code, part if code else self._plain(_INLINE + part)[1:] if inline else self._plain(part))
            )
            inline = code and part.startswith("`")
        return found

    def _plain(self, prose: str) -> str:
        plain = _BROKEN_WORD.sub(BROKEN, without_punctuation(simplified(without_layout(prose))))
        return plain if self.counts_spelling else without_contractions(plain)

    @cached_property
    def counts_spelling(self) -> bool:
        return is_about_spelling(self._text)

    @cached_property
    def phrased(self) -> ComparedText:
        """The same text with one phrase for all that say the same."""
        other = ComparedText("")
        other.counts_spelling = self.counts_spelling
        other._parts = [(code, part if code else without_phrases(part)) for code, part in self._parts]
        return other

    @cached_property
    def holds_phrases(self) -> bool:
        """Whether `phrased` is another text."""
        return self.phrased.keys != self.keys

    @cached_property
    def keys(self) -> list[str]:
        """The form in which tokens are equal: without case, but in code and in units after a figure."""
        tokens = self.tokens
        keys = [_key(token, self.counts_spelling) for token in tokens]
        for before, (place, token) in zip(tokens, enumerate(tokens[1:], 1), strict=False):
            if (before[0] in _DIGITS and _CASED_UNIT.fullmatch(token)) or before in _BEFORE_CASED:
                keys[place] = token
        return keys

    @cached_property
    def figures(self) -> list[str]:
        """The figures and pieces of code in their order; no phrase holds one."""
        return [key for key in self.keys if key[0] in _EXACT]

    @cached_property
    def weighty(self) -> list[str]:
        """Figures, signs and negations in their order: two texts that say the same have the same."""
        return [key for key in self.keys if is_weighty(key)]


def _without_brackets(tokens: Sequence[str]) -> list[str]:
    """Without brackets and quotation marks. A single mark after a figure is its unit: feet, inches, minutes, seconds."""
    single = {sign for sign in "'\"" if tokens.count(sign) % 2}
    return [
        token
        for before, token in zip(("", *tokens), tokens, strict=False)
        if token not in _BRACKETS or (token in single and before[:1] in _DIGITS)
    ]


@lru_cache(maxsize=8192)
def _key(token: str, counts_spelling: bool) -> str:
    if len(token) == 1:
        folded = token.casefold()
        return VARIANTS.get(folded, folded)
    if token.startswith(_CODE) or "://" in token:
        return token
    return token.casefold() if counts_spelling else american(token)


def same_text(one: ComparedText, other: ComparedText) -> bool:
    """Whether all differences of two texts are harmless."""
    if one.keys == other.keys:
        return True
    if one.figures != other.figures:
        return False
    if _differ_harmlessly(one, other):
        return True
    return (
        max(len(one.keys), len(other.keys)) >= MIN_PHRASED
        and (one.holds_phrases or other.holds_phrases)
        and _few_differ(one.keys, other.keys)
        and (one.phrased.keys == other.phrased.keys or _differ_harmlessly(one.phrased, other.phrased))
    )


def _few_differ(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether so few words differ that other phrases may be all of it."""
    here, there = Counter(one), Counter(other)
    most = max(_MOST_PHRASED, _PHRASED_SHARE * max(len(one), len(other)))
    return (here - there).total() <= most and (there - here).total() <= most


def _differ_harmlessly(one: ComparedText, other: ComparedText) -> bool:
    if one.weighty != other.weighty:
        return False
    shorter = min(len(one.keys), len(other.keys))
    slips = min(_MOST_SLIPS, math.ceil(MAX_SLIPS * shorter)) if shorter >= MIN_LENGTH_FOR_SLIPS else 0
    grammar = allowed_edits(shorter)
    found = differences(one.keys, other.keys, most=2 * (slips + grammar) + _MAX_FILLERS)
    if found is None:
        return False
    if any(is_moved(before, after, one.keys, other.keys) for before, after in pairwise(found)):
        return False
    fillers = 0
    for difference in (single for several in found for single in _one_by_one(several)):
        if _is_filler(difference, one.keys, other.keys):
            fillers += 1
        elif slips and is_slip(difference, one.tokens, other.tokens):
            slips -= 1
        elif grammar and is_of_grammar(difference, one.keys, other.keys):
            grammar -= 1
        else:
            return False
    return fillers <= _MAX_FILLERS


def _one_by_one(found: Difference) -> Iterable[Difference]:
    """As many tokens in place of as many others, each for its own; other differences as they are."""
    size = found.end - found.start
    if size < 2 or size != found.other_end - found.other_start:
        return (found,)
    return (
        Difference(found.start + n, found.start + n + 1, found.other_start + n, found.other_start + n + 1)
        for n in range(size)
    )


def _is_filler(found: Difference, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether only particles, articles and the like were put in or left out. An article is none at the end, where a
    template has its word."""
    changed = [*one[found.start : found.end], *other[found.other_start : found.other_end]]
    if found.start and is_chinese(one[found.start - 1]) and FINAL_PARTICLES.issuperset(changed):
        return True
    at_end = found.end == len(one) or found.other_end == len(other)
    # "A few" is not "few".
    counts = not at_end and one[found.end] in _COUNTED
    return not at_end and not counts and FILLERS.issuperset(changed)
