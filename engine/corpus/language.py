"""The language of a text by its script: enough to show, to filter and to choose a base by."""

from __future__ import annotations

import re

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]+")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]+")),
    ("zh", re.compile(r"[\u3400-\u9fff\uf900-\ufaff]+")),
    ("ru", re.compile(r"[\u0400-\u04ff]+")),
    ("ar", re.compile(r"[\u0600-\u06ff]+")),
)
_OTHER = re.compile(r"[\u0400-\u04ff\u0600-\u06ff\u1100-\u11ff\u3040-\u30ff\uac00-\ud7af]")
"""A letter that is neither 汉字 nor Latin: most texts have none."""
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")


def language_of(text: str) -> str:
    """ "zh", "en" (any Latin script), "ja", "ko", "ru", "ar", or "" without letters.

    A Latin word weighs as much as a 汉字, so that a Chinese text with English terms stays Chinese.
    """
    sample = text[:4000]
    if sample.isascii():
        return "en" if _LATIN_WORD.search(sample) else ""
    several = _OTHER.search(sample) is not None
    counts = {
        name: sum(map(len, pattern.findall(sample))) if several or name == "zh" else 0
        for name, pattern in _SCRIPTS
    }
    counts["en"] = len(_LATIN_WORD.findall(sample))
    if counts["ja"] * 5 > counts["zh"] > 0 or (counts["ja"] and not counts["zh"]):
        counts["ja"] += counts["zh"]
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""
