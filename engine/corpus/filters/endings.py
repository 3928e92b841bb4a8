"""Answers that went wrong at their end: a model that fell into a loop, and a text that was cut off.

Both are told from signs that a finished text does not show; an answer without a full stop is not one of them.
"""

from __future__ import annotations

import re

_TAIL = 1_000
_SEED = 12
"""Characters at the end whose earlier places give the period of a loop."""
_TIMES = 4
"""Rounds of a loop; a refrain or a table comes back less often in a row."""
_LOOP_LEAST = 40
_LOOP_SHARE = 0.25
_CUT_LEAST = 80
"""Code points from which an answer that stops in the middle was cut: a shorter one may be a form to fill in."""

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_HANGING = re.compile(
    r"(?:[，、,;；（(「『“《\[{]|\n[ \t]*(?:[-*•]|\d{1,3}[.)、．])"
    r"|(?:以及|并且|而且|但是|因为|所以|如果|例如|比如|包括|或者)"
    r"|(?<![A-Za-z])(?:and|or|but|because|the|an?|of|to|with|for|is|are|that|which|if|such as|including))$"
)


def loop_share(text: str) -> float:
    """Share of `text` that is one phrase over and over up to its end; 0.0 when it does not end in a loop."""
    tail = text.rstrip()
    size = len(tail)
    if size < _LOOP_LEAST:
        return 0.0
    before = tail.rfind(tail[-_SEED:], max(0, size - _TAIL), size - 1)
    if before < 0:
        return 0.0
    period = size - _SEED - before
    unit = tail[-period:]
    if sum(map(str.isalpha, unit)) < 2 or len(set(unit)) < 3:
        return 0.0
    start = size - period
    while start >= period and tail[start - period : start] == unit:
        start -= period
    while start > 0 and tail[start - 1] == tail[start - 1 + period]:
        start -= 1
    looped = size - start
    if looped < _TIMES * period or looped < _LOOP_LEAST or looped < _LOOP_SHARE * size:
        return 0.0
    return looped / size


def is_cut(text: str) -> bool:
    """Whether a long answer stops in the middle: within a block of code, a list, a bracket or a sentence."""
    if len(text) < _CUT_LEAST:
        return False
    end = text.rstrip()
    if len(_FENCE.findall(end)) % 2:
        return True
    return _HANGING.search(end, max(0, len(end) - 40)) is not None
