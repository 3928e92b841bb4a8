"""Whether two similar texts say the same: the second reading of near duplicates.

Similar letters select pairs; in a long text one word or figure is a small share of them and makes another question of it. Here
the words of both texts are aligned, and every difference must be harmless by its kind: a greeting, an article, a slip of the
pen in a long text. Everything else counts: figures, signs, negation, any other word. Questions and answers are compared apart,
so that a short answer weighs as much as a long question.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

from engine.corpus.dedup.alignment import Difference, differences
from engine.corpus.dedup.slips import is_chinese, is_slip
from engine.corpus.dedup.vocabulary import (
    BROKEN,
    COURTESY_END,
    COURTESY_START,
    FILLERS,
    FINAL_PARTICLES,
    VARIANTS,
    is_weighty,
)
from engine.corpus.filters.folding import CJK, code_and_prose, without_punctuation

MAX_SLIPS = 0.06
"""Share of the words (in Chinese, characters) of a text that may be slips of the pen."""
MIN_LENGTH_FOR_SLIPS = 20
"""Words, or Chinese characters, below which a text has no slips: one of them makes another text."""
_MOST_SLIPS = 100
"""Slips that are looked for in a text of any length: the time grows with their square."""
_COUNTED = frozenset(["few", "little", "bit", "lot", "number", "couple"])
"""Words that an article before them changes."""
_MAX_FILLERS = 4
"""Articles and the like by which two texts may differ."""
_COURTESY_LENGTH = 100
"""Characters at the end of a text in which thanks are looked for."""
_TOKEN = re.compile(
    rf"\d+(?:[.,:]\d+)*+|[{CJK}]|[^\W\d{CJK}][^\W{CJK}]*+(?:['-][^\W{CJK}]++)*+|[:;]['-]?[()]|\S"
)
_FORMULA = re.compile(r"[=+*/^%{}\[\]$;<>\\|&~`_]|[-−]\s?\(|\)\s?[-−]|[A-Za-z0-9]\(")
_BRACKETS = frozenset("'\"()《》〈〉【】〔〕")
"""Signs that say nothing in prose and much in a formula."""
_CODE = "\x02"
"""Before a line of code."""
_CASED_UNIT = re.compile(r"[mM](?:[glLWVAJNsmBb]|Hz|Pa|[bB]ps)|[kKGTP]i?[bB](?:ps)?")
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
        prose = _without_courtesy(self._text)
        found: list[str] = []
        for code, part in code_and_prose(prose):
            if code:
                found += [_CODE + line.rstrip() for line in part.splitlines() if line.strip()]
            else:
                found += _TOKEN.findall(_BROKEN_WORD.sub(BROKEN, without_punctuation(part)))
        if not _FORMULA.search(prose):
            found = [token for token in found if token not in _BRACKETS]
        return found

    @cached_property
    def keys(self) -> list[str]:
        """The form in which tokens are equal: without case, but in code and in units after a figure."""
        tokens = self.tokens
        keys = [_key(token) for token in tokens]
        for place, token in enumerate(tokens[1:], 1):
            if tokens[place - 1][0].isdigit() and _CASED_UNIT.fullmatch(token):
                keys[place] = token
        return keys

    @cached_property
    def weighty(self) -> list[str]:
        """Figures, signs and negations in their order: two texts that say the same have the same."""
        return [key for key in self.keys if is_weighty(key)]


@lru_cache(maxsize=8192)
def _key(token: str) -> str:
    if token.startswith(_CODE):
        return token
    folded = token.casefold()
    return VARIANTS.get(folded, folded)


def _without_courtesy(text: str) -> str:
    """The text without a greeting at its start and thanks at its end, unless nothing else is said."""
    tail = max(0, len(text) - _COURTESY_LENGTH)
    short = text[:tail] + COURTESY_END.sub("", text[tail:])
    short = COURTESY_START.sub("", short if short.strip() else text)
    return short if short.strip() else text


def same_text(one: ComparedText, other: ComparedText) -> bool:
    """Whether all differences of two texts are harmless."""
    if one.keys == other.keys:
        return True
    if one.weighty != other.weighty:
        return False
    shorter = min(len(one.keys), len(other.keys))
    slips = min(_MOST_SLIPS, math.ceil(MAX_SLIPS * shorter)) if shorter >= MIN_LENGTH_FOR_SLIPS else 0
    found = differences(one.keys, other.keys, most=2 * slips + _MAX_FILLERS)
    if found is None:
        return False
    fillers = 0
    for difference in (single for several in found for single in _one_by_one(several)):
        if _is_filler(difference, one.keys, other.keys):
            fillers += 1
        elif slips and is_slip(difference, one.tokens, other.tokens):
            slips -= 1
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
