"""The content filters applied to one turn: low value, PII and prompt injection.

Review, preview and dataset use it too, for turns that the user edited since the last build.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engine.corpus.filters import low_value, pii, prompt_injection
from engine.corpus.filters.folding import fold

LOW_QUALITY = frozenset((low_value.TurnKind.REPETITION.value, low_value.TurnKind.TRUNCATED.value))
"""Mask reasons that are not small talk; `low_value_from` does not apply to them."""

SOURCE_MASKS = frozenset(("omitted_question", "excluded"))
"""Mask reasons that follow from the source, not from a filter: they hold whatever the settings are."""


class FilterSettings(msgspec.Struct, frozen=True):
    """The settings that decide filter results. The defaults mask and redact everything that is found."""

    sensitive: str = "redact"
    """Handling of PII: "redact" or "drop"."""
    sensitive_types: dict[str, str] = {}
    """Handling of single PII types: "redact", "drop" or "keep"."""
    low_value: str = "mask"
    """ "mask" or "keep"."""
    low_value_from: float = 0.0
    """Smallest share of small talk that masks a turn."""
    phrases: frozenset[str] = frozenset()
    """The user's own low-value phrases, folded."""

    def pii_handling(self, type_: str) -> str:
        """ "redact", "drop" or "keep" for PII of one type."""
        return self.sensitive_types.get(type_, self.sensitive)


DEFAULT_SETTINGS = FilterSettings()


class TurnResult(NamedTuple):
    """Spans are (type, start, end), half-open, in code points of the turn."""

    masked: str
    """Reason code for masking the loss of the turn, else ""."""
    score: float
    """Share of small talk, 0 to 1."""
    pii: list[tuple[str, int, int]]
    """PII to redact."""
    markers: list[tuple[str, int, int]]
    """Prompt injection markers."""
    unchecked: bool = False
    """The turn took too long; nothing is known about it."""

    @property
    def pii_types(self) -> str:
        """The PII types found, sorted, as the reason of a ledger row."""
        return ", ".join(sorted({type_ for type_, _start, _end in self.pii}))


def filter_turn(
    role: str, text: str, question: str = "", settings: FilterSettings = DEFAULT_SETTINGS
) -> TurnResult:
    """`question` is the user turn that an answer replies to."""
    masked, score = _low_value(role, text, question, settings)
    spans = [(span.type.value, span.start, span.end) for span in pii.find_pii(text)]
    return TurnResult(
        masked,
        score,
        [span for span in spans if settings.pii_handling(span[0]) != "keep"],
        list(prompt_injection.find_markers(text)),
    )


def _low_value(role: str, text: str, question: str, settings: FilterSettings) -> tuple[str, float]:
    """(reason code or "", score)."""
    if settings.low_value == "keep" or role not in ("user", "assistant"):
        return "", 0.0
    found = low_value.classify_reply(text, question) if role == "assistant" else low_value.classify(text)
    kind = found.kind.value
    if found.low and (found.score >= settings.low_value_from or kind in LOW_QUALITY):
        return kind, found.score
    if settings.phrases and fold(text) in settings.phrases:
        return "phrase", 1.0
    return "", found.score
