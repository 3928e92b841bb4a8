"""Text folded for comparing: NFKC, one case, no punctuation. What is kept is never folded."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_NOT_WORD = re.compile(r"[\W_]+")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)


def fold(text: str) -> str:
    """NFKC, case-folded, without punctuation, space and invisible characters: what two texts are compared by.

    A text without any letter or digit (emoji, signs) folds to its NFKC form, so that it still differs from others.
    """
    normal = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub("", normal) or normal.strip()


def shingles(folded: str, size: int = 3) -> frozenset[str]:
    """Character n-grams of a folded text; a shorter text is its own only n-gram."""
    if len(folded) <= size:
        return frozenset((folded,)) if folded else frozenset()
    return frozenset(map("".join, zip(*(folded[start:] for start in range(size)), strict=False)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union; two empty sets are equal."""
    if not one or not other:
        return float(one == other)
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


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

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Punctuation of a Chinese sentence ends a password; folded, it could be a part of one.
        keep = character in "，！？；"
        folded = character if keep else unicodedata.normalize("NFKC", character)
        folded = "" if _INVISIBLE.match(character) else folded
        self[code] = folded
        return folded


_FOLDING = _Folding()


def fold_with_map(text: str) -> Folded:
    """NFKC character by character, without invisible characters, keeping where each came from.

    The comma, the semicolon and the marks that end a Chinese sentence stay as they are.
    """
    if text.isascii():
        return Folded(text, None)
    folded = text.translate(_FOLDING)
    if len(folded) == len(text) and all(len(_FOLDING[code]) == 1 for code in set(map(ord, text))):
        return Folded(folded, None)
    starts = [index for index, character in enumerate(text) for _ in _FOLDING[ord(character)]]
    return Folded(folded, starts)
