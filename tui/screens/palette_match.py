"""Which entries of the palette a query means, the best first: pure functions.

A query matches where each of its words stands in the label, or in the words beside it (id, command line, help). Only
where no entry has them all, the letters of the query in order are enough: `lgsc` finds "log scale".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LABEL, COMMAND, HELP = 4.0, 2.0, 1.0
"""What a word counts in the label, in id or command line, and in the help."""
PHRASE = 2.0
"""What several words count where they stand together as they were typed."""
AT_START = 1.5
"""A word at the start of a word counts so much more."""


class PaletteMatch(NamedTuple):
    """How well an entry matches, and the places of the label that do."""

    score: float
    places: tuple[int, ...] = ()


def match(query: str, label: str, commands: Sequence[str] = (), help_text: str = "") -> PaletteMatch:
    """Score 0 where a word of `query` is nowhere."""
    score, places = 0.0, set[int]()
    for word in query.casefold().split():
        at = _place(word, label)
        if at >= 0:
            score += LABEL * _start_bonus(label, at) + len(word) / (1 + len(label))
            places.update(range(at, at + len(word)))
            continue
        text = next((text for text in commands if _place(word, text) >= 0), "")
        if text:
            score += COMMAND * _start_bonus(text, _place(word, text))
        elif _place(word, help_text) >= 0:
            score += HELP * _start_bonus(help_text, _place(word, help_text))
        else:
            return PaletteMatch(0.0)
    phrase = query.casefold().strip()
    together = " " in phrase and any(phrase in _folded(text) for text in (label, *commands, help_text))
    return PaletteMatch(score + PHRASE * together, tuple(sorted(places)))


def match_letters(query: str, label: str) -> PaletteMatch:
    """The letters of `query` in their order in `label`, the first one at the start of a word, the closer the better;
    score 0 otherwise."""
    wanted, text = "".join(query.casefold().split()), _folded(label)
    best = PaletteMatch(0.0)
    for start in (at for at in range(len(text)) if wanted[:1] == text[at] and _starts_word(text, at)):
        places = [start]
        for letter in wanted[1:]:
            places.append(text.find(letter, places[-1] + 1))
            if places[-1] < 0:
                break
        else:
            score = len(wanted) / (1 + places[-1] - start)
            best = max(best, PaletteMatch(score, tuple(places)))
    return best


def _folded(text: str) -> str:
    """`text` without case, letter for letter: the places in it are those in `text`."""
    return "".join(folded if len(folded := letter.casefold()) == 1 else letter for letter in text)


def _place(word: str, text: str) -> int:
    """Where `word` stands in `text`: at the start of a word where it can; -1 for nowhere."""
    folded = _folded(text)
    first = at = folded.find(word)
    while at >= 0 and not _starts_word(folded, at):
        at = folded.find(word, at + 1)
    return at if at >= 0 else first


def _starts_word(text: str, at: int) -> bool:
    return at == 0 or not text[at - 1].isalnum() or not text[at].isascii()


def _start_bonus(text: str, at: int) -> float:
    return AT_START if _starts_word(_folded(text), at) else 1.0
