"""Text folded for comparing: NFKC, one case, no punctuation. What is kept is never folded."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)


_HYPHENS = frozenset("\u2010\u2011\u2012\u2212\u2043\u02d7")
"""Hyphens that do not break and signs that look like one; dashes between words stay what they are."""

_COMMON = tuple(
    (character, unicodedata.normalize("NFKC", character)) for character in "，！？：；（）…～\u3000"
)
"""Signs of Chinese text that keep it from being NFKC already. None joins with what stands beside it."""


_SHORT = 2_000
"""Characters of a text whose form is remembered."""


def nfkc(text: str) -> str:
    """NFKC of `text`, twenty times as fast where only common Chinese punctuation is to be folded."""
    if text.isascii():
        return text
    return _nfkc_again(text) if len(text) <= _SHORT else _nfkc(text)


def _nfkc(text: str) -> str:
    for character, folded in _COMMON:
        text = text.replace(character, folded)
    return unicodedata.normalize("NFKC", text)


_nfkc_again = lru_cache(maxsize=256)(_nfkc)
"""Several filters look at the same turn one after the other."""


def fold(text: str) -> str:
    """NFKC, case-folded, without punctuation, space and invisible characters: what two texts are compared by.

    A text without any letter or digit (emoji, signs) folds to its NFKC form, so that it still differs from others.
    """
    normal = nfkc(text).casefold()
    return "".join(filter(str.isalnum, normal)) or normal.strip()


def fold_joined(texts: Sequence[str], folded: Sequence[str]) -> str:
    """`fold(" ".join(texts))`, from what each folds to: a space joins with nothing."""
    if all(map(str.isalnum, folded)):
        return "".join(folded)
    return fold(" ".join(texts))


@dataclass(frozen=True)
class Folded:
    """NFKC text in which a match can be traced back to the original.

    `starts[i]` is the index in the original of the character that made `text[i]`; None when the text
    needed no folding, so that indices are the same.
    """

    text: str
    starts: list[int] | None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A half-open range of `text` as one of the original, in code points."""
        if self.starts is None:
            return start, end
        return self.starts[start], self.starts[end - 1] + 1


class _Folding(dict[int, str]):
    """NFKC of single characters for `str.translate`, found once each; invisible ones vanish."""

    def __init__(self) -> None:
        self.uneven: set[str] = set()
        """Those met that do not fold to one character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Punctuation of a Chinese sentence ends a password; folded, it could be a part of one.
        keep = character in "，！？；"
        folded = character if keep else unicodedata.normalize("NFKC", character)
        if folded in _HYPHENS:
            folded = "-"
        elif len(folded) == 1 and folded.isdecimal():
            folded = str(unicodedata.decimal(folded))
        folded = "" if INVISIBLE.match(character) else folded
        self[code] = folded
        if len(folded) != 1:
            self.uneven.add(character)
        return folded


_FOLDING = _Folding()
_FOLDED = re.compile(
    "[\x00-\x7f\u3001\u3002\u3005-\u3011\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff，！？；“”‘’—·]*"
)
"""Text that is its own form here: the letters of most Chinese sentences, with their signs."""


def fold_with_map(text: str) -> Folded:
    """NFKC character by character, without invisible characters, keeping where each came from.

    The comma, the semicolon and the marks that end a Chinese sentence stay as they are.
    """
    if text.isascii() or _FOLDED.fullmatch(text):
        return Folded(text, None)
    folded = text.translate(_FOLDING)
    if _FOLDING.uneven.isdisjoint(text):
        return Folded(folded, None)
    starts = [index for index, character in enumerate(text) for _ in _FOLDING[ord(character)]]
    return Folded(folded, starts)
