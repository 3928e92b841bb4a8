"""Slips of the pen: differences that a hurried hand makes and that make no other word."""

from __future__ import annotations

from collections.abc import Sequence

from engine.corpus.dedup.alignment import Difference
from engine.corpus.dedup.vocabulary import (
    BROKEN,
    MODIFIERS_ZH,
    NAME_LEADS,
    PARTICLES_ZH,
    SURNAMES,
    is_weighty,
)

MIN_WORD = 5
"""Letters of a word in which a slip is recognised; a shorter one is another word too often."""
_OTHER_WORDS = frozenset(
    frozenset(pair.split("/"))
    for pair in [
        "angel/angle",
        "casual/causal",
        "trail/trial",
        "united/untied",
        "quiet/quite",
        "sacred/scared",
        "martial/marital",
        "unclear/nuclear",
        "desert/dessert",
        "diner/dinner",
        "later/latter",
        "loose/lose",
        "coma/comma",
        "country/county",
        "friend/fiend",
        "though/through",
        "through/thorough",
        "thought/though",
        "bread/bead",
        "breath/breathe",
        "bears/beards",
        "abroad/aboard",
        "immorality/immortality",
        "public/pubic",
        "staring/starring",
        "staring/starting",
        "stating/starting",
        "hoping/hopping",
        "planing/planning",
        "planed/planned",
        "taping/tapping",
        "caning/canning",
        "baring/barring",
        "write/writer",
        "corps/corpse",
        "except/expect",
        "bored/board",
        "model/modal",
        "moral/morale",
        "human/humane",
        "local/locale",
        "rational/rationale",
        "personal/personnel",
        "costume/custom",
        "stationary/stationery",
    ]
)
"""Words one letter apart of which both are words."""


def is_slip(found: Difference, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a difference of two token sequences is a slip in a word or in a Chinese character."""
    here = one[found.start : found.end]
    there = other[found.other_start : found.other_end]
    if len(here) == 1 and len(there) == 1 and len(here[0]) > 1 and len(there[0]) > 1:
        return _is_misspelt(here[0], there[0])
    if len(here) + len(there) == 1:
        text, place = (one, found.start) if here else (other, found.other_start)
        return _may_be_missing(text, place)
    if len(here) == len(there) == 1:
        return (there[0] in PARTICLES_ZH and _may_be_missing(one, found.start)) or (
            here[0] in PARTICLES_ZH and _may_be_missing(other, found.other_start)
        )
    return False


def is_chinese(token: str) -> bool:
    """Whether a token is a Chinese character."""
    return len(token) == 1 and "\u3400" <= token <= "\u9fff"


def _may_be_missing(text: Sequence[str], place: int) -> bool:
    """Whether a text says the same without the Chinese character at `place`."""
    character = text[place]
    if not is_chinese(character):
        return False
    if place and text[place - 1] == character:
        return True
    if character in MODIFIERS_ZH or is_weighty(character) or place + 1 >= len(text):
        return False
    return not _is_in_name(text, place)


def _is_in_name(text: Sequence[str], place: int) -> bool:
    """Whether a character may belong to the name of a person: a surname at the start of a word, and two more."""
    for start in range(max(0, place - 2), place + 1):
        if text[start] in SURNAMES and (
            start == 0 or text[start - 1] in NAME_LEADS or len(text[start - 1]) > 1
        ):
            return True
    return False


def _is_misspelt(here: str, there: str) -> bool:
    """Whether one word is the other with a letter doubled, left out, put in, or changed with its neighbour, and no other
    word. Words with a capital are names."""
    if BROKEN in here or BROKEN in there:
        return _matches_broken(here, there)
    if min(len(here), len(there)) < MIN_WORD or not (here.isalpha() and there.isalpha()):
        return False
    if not (here.islower() and there.islower()) or frozenset((here, there)) in _OTHER_WORDS:
        return False
    short, long = sorted((here, there), key=len)
    if len(long) - len(short) == 1:
        place = next((i for i, letter in enumerate(short) if long[i] != letter), len(short))
        return 0 < place < len(short) and short[place:] == long[place + 1 :]
    if len(short) != len(long):
        return False
    apart = [i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b]
    return (
        len(apart) == 2
        and apart[1] == apart[0] + 1
        and apart[0] > 0
        and here[apart[0]] == there[apart[1]]
        and here[apart[1]] == there[apart[0]]
    )


def _matches_broken(here: str, there: str) -> bool:
    """Whether two words agree but for one letter that was overwritten or pushed in."""
    for broken, whole in ((here, there), (there, here)):
        before, mark, after = broken.partition(BROKEN)
        if (
            mark
            and whole.startswith(before)
            and whole.endswith(after)
            and 0 <= len(whole) - len(before) - len(after) <= 1
        ):
            return True
    return False
