"""Metrics of generated text: repetition, diversity, relevance, consistency.

Pure functions on strings. All of them count characters, not words, so that they work for Chinese and English.
Distinct-n follows Li et al. 2016 (arXiv:1510.03055).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from engine.corpus.filters.normalise import letters

GRAM = 3
"""Length in characters of the n-grams that compare two texts."""
REPEATED_GRAM = 4
"""Length in characters of the n-grams for repetition."""


class GenerationQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of one model's answers to the fixed questions. Shares are 0 to 1; None without a question."""

    answers: int
    consistency: float | None
    """Jaccard similarity of the 3-grams of two samples for one question. Higher is more consistent."""
    relevance: float | None
    """Similarity of an answer to the original answer, minus its mean similarity to those of other questions.
    0 is chance, higher is better."""
    repetition: float | None
    """Share of an answer's 4-grams that occurred in it before. Lower is better."""
    length: float | None
    """Mean bytes of an answer."""
    stopped: float | None
    """Share of answers that the model ended."""


def grams(text: str, size: int = GRAM) -> set[str]:
    """Character n-grams of the folded text; a shorter text is its own n-gram."""
    folded = letters(text)
    if len(folded) <= size:
        return {folded} if folded else set()
    return {folded[i : i + size] for i in range(len(folded) - size + 1)}


def jaccard(one: str, other: str) -> float:
    """Jaccard similarity of the 3-grams, 0 to 1; 0 for two empty texts."""
    first, second = grams(one), grams(other)
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def containment(text: str, source: str) -> float:
    """Share of the 3-grams of `text` that occur in `source`, 0 to 1."""
    own = grams(text)
    return len(own & grams(source)) / len(own) if own else 0.0


def repetition(text: str) -> float:
    """Share of the 4-grams of `text` that occurred in it before."""
    ngrams = [text[i : i + REPEATED_GRAM] for i in range(len(text) - REPEATED_GRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_n(texts: Sequence[str], size: int) -> float:
    """Distinct-n: distinct character n-grams over all of them, in all texts together; 0 without any."""
    ngrams = [text[i : i + size] for text in texts for i in range(len(text) - size + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def entropy(texts: Sequence[str]) -> float:
    """Shannon entropy of the characters of all texts together, bits per character."""
    counts = Counter(character for text in texts for character in text)
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values()) if total else 0.0


def generation_quality(
    samples: Sequence[tuple[str, str]],
    references: Sequence[str],
    stopped: Sequence[bool],
    lengths: Sequence[int],
) -> GenerationQuality:
    """Metrics of two samples per question. `stopped` and `lengths` (bytes) have one entry per sample."""
    if not samples:
        return GenerationQuality(
            answers=0, consistency=None, relevance=None, repetition=None, length=None, stopped=None
        )
    texts = [text for pair in samples for text in pair]
    return GenerationQuality(
        answers=len(texts),
        consistency=_mean([jaccard(one, other) for one, other in samples]),
        relevance=_mean([_relevance(index, pair[0], references) for index, pair in enumerate(samples)]),
        repetition=_mean([repetition(text) for text in texts]),
        length=_mean([float(length) for length in lengths]),
        stopped=_mean([float(flag) for flag in stopped]),
    )


def _relevance(index: int, text: str, references: Sequence[str]) -> float:
    others = [jaccard(text, other) for place, other in enumerate(references) if place != index]
    return jaccard(text, references[index]) - (_mean(others) if others else 0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
