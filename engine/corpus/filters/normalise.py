"""Normalises text for pattern matching, and to its letters, by which similar texts are found.

Stored text is never normalised. `filters.folding` has the form in which texts are equal.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from engine.corpus.filters.traditional import simplified

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)


_HYPHENS = frozenset("\u2010\u2011\u2012\u2212\u2043\u02d7")
"""Characters that look like a hyphen, except dashes."""

_COMMON_PUNCTUATION = tuple(
    (character, unicodedata.normalize("NFKC", character)) for character in "，！？：；（）…～\u3000"
)
"""Chinese punctuation that NFKC changes. None combines with its neighbours."""


_MAX_CACHED = 2_000
"""Characters of a text whose NFKC form is cached."""


def nfkc(text: str) -> str:
    """NFKC of `text`, twenty times as fast where only common Chinese punctuation changes."""
    if text.isascii():
        return text
    return _nfkc_cached(text) if len(text) <= _MAX_CACHED else _nfkc(text)


def _nfkc(text: str) -> str:
    for character, folded in _COMMON_PUNCTUATION:
        text = text.replace(character, folded)
    return unicodedata.normalize("NFKC", text)


_nfkc_cached = lru_cache(maxsize=256)(_nfkc)
"""Several filters normalise the same turn one after the other."""


_NO_LETTER = re.compile(r"[\W_]+")
"""Whatever `str.isalnum` denies."""


def letters(text: str) -> str:
    """The letters and digits of a text: NFKC, case-folded, Chinese in simplified characters. Texts that look alike share most of their 3-grams in this form.

    A text without letters and digits (emoji, symbols) becomes its NFKC form, so that it still differs from others.
    """
    normal = simplified(nfkc(text)).casefold()
    return _NO_LETTER.sub("", normal) or normal.strip()


@dataclass(frozen=True)
class NormalisedText:
    """NFKC text with a map of its indices to the original.

    `starts[i]` is the index in the original of the character that became `text[i]`; None when all indices are equal.
    """

    text: str
    starts: list[int] | None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A half-open range of `text` as one of the original, in code points."""
        if self.starts is None:
            return start, end
        return self.starts[start], self.starts[end - 1] + 1


class _CharacterMap(dict[int, str]):
    """NFKC of single characters for `str.translate`, computed lazily; invisible ones are removed."""

    def __init__(self) -> None:
        self.resized: set[str] = set()
        """Characters seen that do not map to exactly one."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Chinese punctuation ends a password; in its ASCII form it could be part of one.
        keep = character in "，！？；"
        folded = character if keep else unicodedata.normalize("NFKC", character)
        if folded in _HYPHENS:
            folded = "-"
        elif len(folded) == 1 and folded.isdecimal():
            folded = str(unicodedata.decimal(folded))
        folded = "" if INVISIBLE.match(character) else folded
        self[code] = folded
        if len(folded) != 1:
            self.resized.add(character)
        return folded


_CHARACTER_MAP = _CharacterMap()
_UNCHANGED = re.compile(
    "[\x00-\x7f\u3001\u3002\u3005-\u3011\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff，！？；“”‘’—·]*"
)
"""Text that the map leaves unchanged: most Chinese sentences."""


def normalise_with_map(text: str) -> NormalisedText:
    """NFKC character by character, without invisible characters, with a map to the original.

    The Chinese comma, semicolon, exclamation and question marks stay as they are.
    """
    if text.isascii() or _UNCHANGED.fullmatch(text):
        return NormalisedText(text, None)
    folded = text.translate(_CHARACTER_MAP)
    if _CHARACTER_MAP.resized.isdisjoint(text):
        return NormalisedText(folded, None)
    starts = [index for index, character in enumerate(text) for _ in _CHARACTER_MAP[ord(character)]]
    return NormalisedText(folded, starts)
