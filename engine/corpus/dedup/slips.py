"""Slips of the pen: differences that a hurried hand makes and that make no other word."""

from __future__ import annotations

from collections.abc import Sequence

from engine.corpus.dedup.alignment import Difference
from engine.corpus.dedup.english import is_misspelt, is_word
from engine.corpus.dedup.vocabulary import (
    BOUND_ZH,
    BROKEN,
    COMPLEMENTS_ZH,
    FREE_ZH,
    MODIFIERS_ZH,
    NAME_LEADS,
    PARTICLES_ZH,
    SURNAMES,
    is_weighty,
)

_WORD_ZH = 2
"""Characters between two changed ones that belong to one word with them."""


def is_slip(found: Difference, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a difference of two token sequences is a slip in a word or in a Chinese character."""
    here = one[found.start : found.end]
    there = other[found.other_start : found.other_end]
    if len(here) == 1 and len(there) == 1 and len(here[0]) > 1 and len(there[0]) > 1:
        return is_misspelt(here[0], there[0]) or _is_overwritten(here[0], there[0])
    if {len(here), len(there)} == {1, 2}:
        return _is_run_together(*sorted((here, there), key=len))
    if len(here) + len(there) == 1:
        text, place = (one, found.start) if here else (other, found.other_start)
        return _may_be_missing(text, place)
    if len(here) == len(there) == 1:
        return (there[0] in PARTICLES_ZH and _is_overwritten_zh(one, found.start)) or (
            here[0] in PARTICLES_ZH and _is_overwritten_zh(other, found.other_start)
        )
    return False


def is_moved(before: Difference, after: Difference, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two differences change the word between them: a Chinese character left out and one put in on its other side.
    A country of kings is no king of a country."""
    apart = after.start - before.end
    left_out = (before.end - before.start) - (before.other_end - before.other_start)
    put_in = (after.other_end - after.other_start) - (after.end - after.start)
    if apart > _WORD_ZH or left_out * put_in <= 0:
        return False
    between = one[before.end : after.start]
    edges = [*one[before.start : before.end], *other[before.other_start : before.other_end]]
    return all(map(is_chinese, (*between, *edges)))


def is_chinese(token: str) -> bool:
    """Whether a token is a Chinese character."""
    return len(token) == 1 and "\u3400" <= token <= "\u9fff"


def _may_be_missing(text: Sequence[str], place: int) -> bool:
    """Whether a text says the same without the Chinese character at `place`."""
    if not is_chinese(text[place]):
        return False
    if place and text[place - 1] == text[place]:
        return True
    if _is_beside_weighty(text, place):
        return False
    if text[place] in PARTICLES_ZH:
        return True
    is_free = text[place] in FREE_ZH or place + 1 == len(text)
    return not is_free and _may_be_overwritten(text, place) and not _is_in_name(text, place)


def _is_beside_weighty(text: Sequence[str], place: int) -> bool:
    """Whether a figure or a negation stands beside a place: five months are not May, and "会不会" asks. 一 stands in too many words."""
    beside = (*text[max(0, place - 1) : place], *text[place + 1 : place + 2])
    return any(sign != "一" and is_weighty(sign) for sign in beside)


def _may_be_overwritten(text: Sequence[str], place: int) -> bool:
    """Whether a text with a particle in place of the Chinese character at `place` is the same text with a slip."""
    character = text[place]
    return is_chinese(character) and not (
        character in MODIFIERS_ZH
        or is_weighty(character)
        or (place + 1 < len(text) and character + text[place + 1] in BOUND_ZH)
    )


def _is_overwritten_zh(text: Sequence[str], place: int) -> bool:
    after_question = place > 0 and text[place - 1] == "么"
    return _may_be_overwritten(text, place) and text[place] not in COMPLEMENTS_ZH and not after_question


def _is_in_name(text: Sequence[str], place: int) -> bool:
    """Whether a character may belong to the name of a person: a surname at the start of a word, and two more."""
    for start in range(max(0, place - 2), place + 1):
        if text[start] in SURNAMES and (
            start == 0 or text[start - 1] in NAME_LEADS or len(text[start - 1]) > 1
        ):
            return True
    return False


def _is_overwritten(here: str, there: str) -> bool:
    """Whether two words agree but for a letter that a slip overwrote or pushed in."""
    for broken, whole in ((here, there), (there, here)):
        before, mark, after = broken.partition(BROKEN)
        extra = len(whole) - len(before) - len(after)
        if mark and whole.startswith(before) and whole.endswith(after) and extra in (0, 1):
            return True
    return False


def _is_run_together(joined: Sequence[str], apart: Sequence[str]) -> bool:
    """Whether two words stand without their space on one side, and what stands there is no word: not "nowhere"."""
    word = joined[0].replace(BROKEN, "").casefold()
    first, second = (part.casefold() for part in apart)
    return word == first + second and is_word(first) and is_word(second) and not is_word(word)
