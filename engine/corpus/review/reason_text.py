"""Two texts word by word: what an edit took away and what it put in. Light: the app imports it."""

from __future__ import annotations

import difflib
import re
from enum import StrEnum

_WORDS = re.compile(r"[A-Za-z0-9_'’À-ɏЀ-ӿ]+|\s+|.", re.DOTALL)
LONGEST = 4_000
"""Words that are compared; beyond them the texts stand one after the other."""


class Change(StrEnum):
    SAME = "same"
    GONE = "gone"
    NEW = "new"


def changes(before: str, after: str) -> list[tuple[Change, str]]:
    """Pieces of both texts in reading order; words of Latin or Cyrillic script, single characters else.

    The pieces that are SAME or GONE make `before`, those that are SAME or NEW `after`.
    """
    left, right = _WORDS.findall(before), _WORDS.findall(after)
    if len(left) > LONGEST or len(right) > LONGEST:
        return [piece for piece in ((Change.GONE, before), (Change.NEW, after)) if piece[1]]
    codes = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    pieces: list[tuple[Change, str]] = []
    gone = new = ""
    for place, (kind, a, b, c, d) in enumerate(codes):
        same = "".join(left[a:b])
        # A space alone between two changes belongs to both: they read as one.
        if kind != "equal" or (same.isspace() and 0 < place < len(codes) - 1):
            gone, new = gone + same, new + "".join(right[c:d])
            continue
        pieces += [(Change.GONE, gone), (Change.NEW, new), (Change.SAME, same)]
        gone = new = ""
    return [piece for piece in (*pieces, (Change.GONE, gone), (Change.NEW, new)) if piece[1]]


def marked(piece: tuple[Change, str]) -> str:
    """A piece with signs that need no colour: `[-gone-]`, `{+new+}`."""
    change, text = piece
    return {Change.GONE: f"[-{text}-]", Change.NEW: f"{{+{text}+}}"}.get(change, text)
