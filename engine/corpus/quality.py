"""A quality score for a conversation, 0 to 1: for sorting and for choosing among twins, never for dropping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import add


def quality_of(answers: Sequence[str], *, masked: int) -> float:
    """From the answers with content and the number of turns that lost their loss.

    Half is length (saturating at about 400 code points an answer), a third variety of words (distinct
    character bigrams over all), the rest the share of turns with content.
    """
    if not answers:
        return 0.0
    mean = sum(map(len, answers)) / len(answers)
    length = 1.0 - math.exp(-mean / 150.0)
    text = "".join(answers)[:4000]
    bigrams = max(1, len(text) - 1)
    distinct = max(1, _bigrams(text))
    variety = min(1.0, 2.0 * distinct / (bigrams**0.9 + 1))
    content = len(answers) / (len(answers) + masked)
    return float(round(0.5 * length + 0.33 * variety + 0.17 * content, 4))


def _bigrams(text: str) -> int:
    """Distinct pairs of characters that stand side by side."""
    data = text.encode("utf-16-le", "surrogatepass")
    if len(data) != 2 * len(text):
        return len(set(map(add, text, text[1:])))
    # Two characters of 16 bits are one number of 32: half the time of pairs as texts.
    pairs = memoryview(data)
    even, odd = len(data) // 4 * 4, (len(data) - 2) // 4 * 4
    return len({*pairs[:even].cast("I"), *pairs[2 : 2 + odd].cast("I")}) if data else 0
