"""The verdict and the report of a validation, as plain values that the app and the command line show."""

from __future__ import annotations

import msgspec


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: a measure of both models and their difference with its 95 % interval."""

    name: str
    """"nll" (bits per byte of held-out answers), "general" (the same on the general set), "general <name>"
    (one of its texts), "older" (conversations that the base had learnt), "length", "repetition", "stop"; intervals are t over clusters, blocks or answers."""
    unit: str
    base: float | None
    new: float | None
    delta: float | None
    low: float | None = None
    high: float | None = None
    lower_is_better: bool = True


class ModelScore(msgspec.Struct, frozen=True, kw_only=True):
    """What one model scored."""

    name: str
    nll_per_byte: float | None
    """Nats per byte of held-out answers: the mean over clusters, each of which counts alike."""
    bits_per_byte: float | None
    mean: float | None = None
    """Mean over groups of scores that came from elsewhere (`validate --scores`); higher is better."""
    general_nll_per_byte: float | None = None
    failed: int = 0
    """Cases that gave no score; any forbids a promotion."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Prints as `validate --json` (DESIGN 5).

    `delta` is the mean gain over clusters: base minus new in nats per byte, new minus base for scores from
    elsewhere. Above 0 is better.
    """

    decision: str
    """"promote", "keep" or "inconclusive"."""
    n_cases: int
    n_groups: int
    base: ModelScore
    new: ModelScore
    delta: float | None
    p_value: float | None
    alpha: float
    """The p that this look needs: 0.05 / (k (k + 1)) for the k-th candidate on this window."""
    look: int
    ci95: tuple[float, float] | None
    """Of `delta`: t interval over clusters."""
    mcnemar_p: float | None = None
    noninferiority: dict[str, float | bool | None] = {}
    """`increase`, `upper95`, `margin`, `passed` of the general set, relative."""
    needed_cases: int | None = None
    """More groups that would decide it, at the gain seen."""
    reasons: list[str] = []
    sentence: str = ""


class AnswerPair(msgspec.Struct, frozen=True, kw_only=True):
    """One of the person's own questions, answered by both."""

    question: str
    wanted: str
    base: str
    new: str


class CaseScore(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out conversation. NLL in nats per byte."""

    conversation: str
    cluster: str
    bytes: int
    base: float
    new: float
    cut: bool = False


class Forgetting(msgspec.Struct, frozen=True, kw_only=True):
    """What training did to what the base had learnt: the loss on older conversations, nats per byte of answers."""

    conversations: int
    """A sample of those that the base was trained on; they were replayed."""
    before: float
    after: float

    @property
    def increase(self) -> float:
        """Relative; below 0 nothing was forgotten."""
        return self.after / self.before - 1 if self.before else 0.0


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """`training/report_<id>.json`, the part about the verdict."""

    run_id: str
    created_at: float
    window_id: int
    verdict: Verdict
    measures: list[Measure]
    answers: list[AnswerPair] = []
    cases: list[CaseScore] = []
    cut_share: float = 0.0
    """Share of held-out bytes that stood beyond a window's end."""
    split: str = "time"
    """"time", or "hash" where the conversations carry no dates."""
    forgetting: Forgetting | None = None
    """None when the base had learnt no conversation."""


def decode_report(data: bytes) -> ValidationReport:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=ValidationReport)
