"""Features of a conversation for the review list: language, quality score and title."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import add

MAX_TITLE = 160
"""Characters of a title."""

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]+")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]+")),
    ("ru", re.compile(r"[\u0400-\u04ff]+")),
    ("ar", re.compile(r"[\u0600-\u06ff]+")),
)
_OTHER_SCRIPT = re.compile(r"[\u0400-\u04ff\u0600-\u06ff\u1100-\u11ff\u3040-\u30ff\uac00-\ud7af]")
"""Letters that are neither Chinese characters nor Latin; most texts have none."""
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_HAN = bytes((*range(0x34, 0xA0), 0xF9, 0xFA))
"""High bytes of Chinese characters in UTF-16."""


def language_of(text: str) -> str:
    """The language by script: "zh", "en" (any Latin script), "ja", "ko", "ru", "ar", or "" without letters.

    A Latin word counts as much as a Chinese character, so that a Chinese text with English terms stays Chinese.
    """
    sample = text[:4000]
    if sample.isascii():
        return "en" if _LATIN_WORD.search(sample) else ""
    counts = {
        "ja": 0,
        "ko": 0,
        "zh": _count_han(sample),
        "ru": 0,
        "ar": 0,
        "en": len(_LATIN_WORD.findall(sample)),
    }
    if _OTHER_SCRIPT.search(sample):
        counts |= {name: sum(map(len, pattern.findall(sample))) for name, pattern in _SCRIPTS}
    if counts["ja"] * 5 > counts["zh"] > 0 or (counts["ja"] and not counts["zh"]):
        counts["ja"] += counts["zh"]
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""


def _count_han(sample: str) -> int:
    """Chinese characters of the basic plane, counted by their high bytes: ten times as fast as a regular expression."""
    high = sample.encode("utf-16-le", "surrogatepass")[1::2]
    return len(high) - len(high.translate(None, _HAN))


def title_of(text: str) -> str:
    """The text as one line, truncated."""
    return " ".join(text.split())[:MAX_TITLE]


def quality_score(answers: Sequence[str], *, masked: int) -> float:
    """A score from 0 to 1 from the answers with content and the number of masked turns.

    Half is length (saturating at about 400 code points per answer), a third variety (distinct character bigrams
    over all), the rest the share of turns with content. It sorts the list and ranks duplicates; nothing is dropped
    by it.
    """
    if not answers:
        return 0.0
    mean = sum(map(len, answers)) / len(answers)
    length = 1.0 - math.exp(-mean / 150.0)
    text = "".join(answers)[:4000]
    bigrams = max(1, len(text) - 1)
    distinct = max(1, _distinct_bigrams(text))
    variety = min(1.0, 2.0 * distinct / (bigrams**0.9 + 1))
    content = len(answers) / (len(answers) + masked)
    return float(round(0.5 * length + 0.33 * variety + 0.17 * content, 4))


def _distinct_bigrams(text: str) -> int:
    """Number of distinct pairs of neighbouring characters."""
    data = text.encode("utf-16-le", "surrogatepass")
    if len(data) != 2 * len(text):
        return len(set(map(add, text, text[1:])))
    # Two 16-bit characters form one 32-bit number: twice as fast as pairs of strings.
    pairs = memoryview(data)
    even, odd = len(data) // 4 * 4, (len(data) - 2) // 4 * 4
    return len({*pairs[:even].cast("I"), *pairs[2 : 2 + odd].cast("I")}) if data else 0
