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


def fold_with_map(text: str) -> Folded:
    """NFKC character by character, without invisible characters, keeping where each came from."""
    if unicodedata.is_normalized("NFKC", text) and not _INVISIBLE.search(text):
        return Folded(text, None)
    pieces: list[str] = []
    starts: list[int] = []
    for index, character in enumerate(text):
        if _INVISIBLE.match(character):
            continue
        for part in unicodedata.normalize("NFKC", character):
            pieces.append(part)
            starts.append(index)
    return Folded("".join(pieces), starts)
