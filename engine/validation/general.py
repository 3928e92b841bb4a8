"""The general set: each text and each language alone, against the base and against the first model of its line.

docs/adr/0007 says why, and what each bound asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.validation.report import GeneralPart
from engine.validation.statistics import Floats, relative_increase

MARGIN = 0.03
"""Non-inferiority margin: upper limit of the 95 % bound of the relative increase in NLL."""
MIN_BLOCKS = 8
"""Blocks from which a text or a language has to be shown not to be worse; fewer must only not be shown to be worse."""


@dataclass(frozen=True)
class ModelOnBlocks:
    """One model on the blocks of the general set."""

    nll: Floats
    """NLL per byte. Shape (blocks,)."""
    uniform: Floats | None = None
    """NLL per byte of a uniform distribution over its vocabulary. Shape (blocks,). None: every text counts."""

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.nll).all())

    def knows(self, chosen: NDArray[np.bool_]) -> bool:
        """Whether it is better than uniform on the `chosen` blocks; NaN, an unknown bound, counts as better."""
        return self.uniform is None or not self.nll[chosen].sum() >= self.uniform[chosen].sum()


@dataclass(frozen=True)
class GeneralScores:
    """The models on the same blocks of general text."""

    base: ModelOnBlocks
    new: ModelOnBlocks
    texts: Sequence[str] = ()
    """The text of each block; (): one text."""
    languages: Sequence[str] = ()
    """The language of each block; (): one language."""
    first: ModelOnBlocks | None = None
    """The first model of the new one's line, where that is not the base."""
    first_name: str = ""
    """Its name, also where it could not be measured."""

    @property
    def finite(self) -> bool:
        """Whether base and new model have a score for every block."""
        return self.base.finite and self.new.finite


def judge_general(scores: GeneralScores) -> list[GeneralPart]:
    """Every part of the general set: the texts, the languages, all of it; against the base, then the first model."""
    references = [("", scores.base)]
    if scores.first is not None and scores.first.finite:
        references.append((scores.first_name, scores.first))
    parts = [
        part
        for name, reference in references
        for part in _against(reference, scores, np.asarray(scores.new.nll), name)
    ]
    if scores.first_name and len(references) == 1:
        name = scores.first_name
        parts.append(GeneralPart(kind="all", name="", against=name, blocks=0, counted=False, passed=True))
    return parts


def passes_general(parts: Sequence[GeneralPart]) -> bool | None:
    """Whether no part is lost; None where nothing is lost and the whole could not be measured."""
    if any(part.passed is False for part in parts):
        return False
    return True if parts and all(part.passed is not None for part in parts) else None


def _against(reference: ModelOnBlocks, scores: GeneralScores, new: Floats, against: str) -> list[GeneralPart]:
    everything = np.ones(new.size, dtype=np.bool_)
    known = everything.copy()
    parts, seen = [], [everything]
    for kind, labels in (("text", scores.texts), ("language", scores.languages)):
        names = np.array(labels)
        for name in dict.fromkeys(labels):
            chosen = names == name
            if kind == "text" and not reference.knows(chosen):
                known &= ~chosen
            # A text that is all of its language, or the only one, is judged once.
            if not any(np.array_equal(chosen, other) for other in seen):
                seen.append(chosen)
                parts.append(_judge(reference, new, chosen, kind, name, against))
    if not scores.texts and not reference.knows(everything):
        known &= False
    parts.append(_judge(reference, new, known, "all", "", against))
    return parts


def _judge(
    reference: ModelOnBlocks, new: Floats, chosen: NDArray[np.bool_], kind: str, name: str, against: str
) -> GeneralPart:
    """The relative increase on the `chosen` blocks. A part that the reference does not know is passed."""
    blocks = int(chosen.sum())
    if blocks == 0 or not reference.knows(chosen):
        return GeneralPart(kind=kind, name=name, against=against, blocks=blocks, counted=False, passed=True)
    if blocks < 2:
        # One block has no spread: it counts with its language and with the whole.
        passed = None if kind == "all" else True
        return GeneralPart(kind=kind, name=name, against=against, blocks=blocks, passed=passed)
    increase, lower, upper = relative_increase(reference.nll[chosen], new[chosen])
    enough = kind == "all" or blocks >= MIN_BLOCKS
    return GeneralPart(
        kind=kind,
        name=name,
        against=against,
        blocks=blocks,
        increase=increase,
        lower95=lower,
        upper95=upper,
        passed=(upper if enough else lower) <= MARGIN,
    )
