"""English words, and slips of the pen in them: one letter wrong, and no word any more."""

from __future__ import annotations

import lzma
from functools import cache

from engine.core.paths import shipped

MIN_WORD = 5
"""Letters of a word in which a slip is recognised, unless it is one of the commonest."""
_COMMON = frozenset(
    [
        "the",
        "and",
        "that",
        "with",
        "from",
        "this",
        "have",
        "they",
        "were",
        "which",
        "when",
        "what",
        "your",
        "would",
        "could",
        "about",
        "there",
        "their",
        "will",
        "been",
        "for",
        "was",
        "are",
        "you",
        "because",
        "people",
        "should",
        "please",
    ]
)
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = frozenset(
    frozenset(pair)
    for above, row in zip((" " * 10, *_KEYBOARD), _KEYBOARD, strict=False)
    for place, letter in enumerate(row)
    for pair in ((letter, row[place - 1] if place else letter), (letter, above[place]))
)
"""Pairs of letters that lie beside or above each other."""
_VOWELS = frozenset("aeiou")


@cache
def english_words() -> frozenset[str]:
    """82,000 words of two letters and more, in small letters, inflected forms among them."""
    packed = (shipped("data") / "words" / "english.txt.xz").read_bytes()
    return frozenset(lzma.decompress(packed).decode("ascii").split())


def is_word(word: str) -> bool:
    """Whether a word in small letters is English."""
    return word in english_words()


def is_misspelt(here: str, there: str) -> bool:
    """Whether one of two words is the other with a letter left out, put in, hit beside or changed with its neighbour, and
    no word itself. Words with a capital are names, which are never misspelt, and so are words that are not known."""
    if not (here.isascii() and there.isascii() and here.isalpha() and there.isalpha()):
        return False
    if (here.casefold() in _COMMON) != (there.casefold() in _COMMON):
        here, there = here.casefold(), there.casefold()
    if not (here.islower() and there.islower()) or not _is_one_edit(here, there):
        return False
    if is_word(here) == is_word(there):
        return False
    known = here if is_word(here) else there
    return len(known) >= MIN_WORD or known in _COMMON


def _is_one_edit(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    place = next((i for i, letter in enumerate(short) if long[i] != letter), len(short))
    if len(long) == len(short) + 1:
        # A letter more at an end makes another word (prints, amoral, printf, umount), unless it is doubled.
        at_end = place == len(short) and long[-1] != long[-2]
        return short[place:] == long[place + 1 :] and not at_end and place > 0
    if len(long) != len(short) or place == 0:
        return False
    if short[place + 2 :] == long[place + 2 :] and short[place : place + 2] == long[place : place + 2][::-1]:
        return True
    changed = frozenset((short[place], long[place]))
    same_rest = short[place + 1 :] == long[place + 1 :] and place + 1 < len(short)
    return same_rest and changed in _BESIDE and not changed & _VOWELS
