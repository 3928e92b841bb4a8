"""The report of a validation with its verdict, and the reports in a workspace. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of both models, and their difference with its 95 % confidence interval."""

    name: str
    """"nll" (bits per byte of held-out answers), "general" (of the general set), "general <name>" (of one of its texts),
    "older" (of conversations that the base was trained on), "perplexity" (per byte of held-out answers); of answers
    "length", "repetition", "refusals", "stop", "similarity", "accuracy", "first_token", "tokens_per_s"."""
    unit: str
    base: float | None
    new: float | None
    delta: float | None
    low: float | None = None
    high: float | None = None
    lower_is_better: bool = True


class ModelScore(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of one model."""

    name: str
    nll_per_byte: float | None
    """Nats per byte of held-out answers: the unweighted mean over clusters."""
    bits_per_byte: float | None
    mean: float | None = None
    """Mean over groups of external scores (`validate --scores`); higher is better."""
    general_nll_per_byte: float | None = None
    failed: int = 0
    """Cases without a finite score; any of them rules out a promotion."""
    failed_answers: int = 0
    """Calls for an answer that failed; any of them rules out a promotion."""


class WorstTenth(msgspec.Struct, frozen=True, kw_only=True):
    """The tenth of the clusters that gained least. Losses are relative to the base's mean; below 0 it gained."""

    groups: int
    loss: float
    """Mean over these clusters."""
    limit: float
    passed: bool


class GeneralPart(msgspec.Struct, frozen=True, kw_only=True):
    """The new model on a part of the general set, relative to another model; above 0 it is worse."""

    kind: str
    """"text", "language", or "all" (every text that counts)."""
    name: str
    """The text, or the language as `corpus.features.language_of` names it; "" for "all"."""
    against: str = ""
    """The first model of the new one's line; "" for the base."""
    blocks: int
    counted: bool = True
    """False: the other model is no better than uniform over its vocabulary here, so that nothing can be lost."""
    increase: float | None = None
    lower95: float | None = None
    """One-sided 95 % bounds of `increase`."""
    upper95: float | None = None
    passed: bool | None
    """None: it could not be measured."""


class VerdictReason(msgspec.Struct, frozen=True):
    """A reason as data; `engine.validation.verdict_text` says it in the language of the reader."""

    code: str
    values: dict[str, str | int | float | list[str]] = {}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `validate --json`.

    `delta` is the mean gain over clusters: base minus new in nats per byte, new minus base for external scores.
    Above 0 is better.
    """

    decision: str
    """"promote", "keep" or "inconclusive"."""
    n_cases: int
    n_groups: int
    base: ModelScore
    new: ModelScore
    delta: float | None
    p_value: float | None
    """The larger of the sign-flip test's and of the skewness-corrected t test's, one-sided."""
    alpha: float
    """Significance level of this interim look (`engine.validation.sequential.alpha_for`)."""
    look: int
    """Number of the interim look, from 1."""
    ci95: tuple[float, float] | None
    """t interval of `delta` over clusters."""
    mcnemar_p: float | None = None
    noninferiority: dict[str, float | bool | None] = {}
    """`increase`, `upper95` of the whole general set against the base, relative; `margin`; `passed` of all its parts."""
    general: list[GeneralPart] = []
    """Text by text and language by language."""
    worst_tenth: WorstTenth | None = None
    """None below 10 clusters."""
    needed_cases: int | None = None
    """New conversations until a test set that decides at the observed gain with 80 % power; of external scores, groups."""
    reasons: list[str] = []
    """In the language of the run, as `sentence`; `verdict_text.reasons_of` says them in the reader's."""
    sentence: str = ""
    why: list[VerdictReason] = []
    """`reasons` as data, one each; empty in reports of earlier versions."""


class AnswerSimilarity(msgspec.Struct, frozen=True, kw_only=True):
    """What the measures "similarity" and "accuracy" were taken with, and the cosines that say nothing."""

    embedder: str = ""
    """"" where there is none; the measures are missing then."""
    problem: str = ""
    """Why the embedder could not be used."""
    unrelated: float | None = None
    """Mean cosine of the answers to the original answer of another question: the floor."""
    repeated: float | None = None
    """Mean cosine of two answers of the base to one question: its own spread."""


class AnswerPair(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out question with the answers of both models."""

    question: str
    wanted: str
    """The original answer."""
    base: str
    new: str
    conversation: str = ""
    """Its conversation; "" in reports of earlier versions."""
    shown_as: str = "question"
    """"question" of a spread sample, or the "win" or "loss" that it was chosen for."""


class BlindVote(msgspec.Struct, frozen=True, kw_only=True):
    """Which of two answers a person found better, without knowing whose they were."""

    conversation: str
    """Of the answered question (`engine.validation.votes.case_key`)."""
    choice: str
    """"base", "new" or "equal"."""
    at: float
    """Seconds since the epoch."""


class CaseScore(msgspec.Struct, frozen=True, kw_only=True):
    """NLL of one held-out conversation in nats per byte."""

    conversation: str
    cluster: str
    bytes: int
    base: float
    new: float
    cut: bool = False
    """Whether its answers exceed a window."""


class Forgetting(msgspec.Struct, frozen=True, kw_only=True):
    """Loss on conversations that the base was trained on, before and after, in nats per byte of answers."""

    conversations: int
    """Size of the sample; the conversations were replayed in training."""
    before: float
    after: float

    @property
    def increase(self) -> float:
        """Relative; below 0 nothing was forgotten."""
        return self.after / self.before - 1 if self.before else 0.0


class ServedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The new model as llama.cpp serves it, against the torch model of the verdict."""

    prompts: int = 0
    same_prompts: int = 0
    """Conversations of which llama.cpp makes the same token ids with the file's own template."""
    stops: bool = True
    """Whether the stop token ends an answer there."""
    positions: int = 0
    """Positions whose next tokens were compared."""
    mean_difference: float = 0.0
    """Mean |Δ log p| of the best token, in nats."""
    limit: float = 0.0
    """What `mean_difference` stays below for a file of this kind."""
    clear: int = 0
    """Positions where one token leads by more than rounding can change."""
    same_best: int = 0
    """Of those, the ones with the same best token."""
    problem: str = ""
    """Why nothing was compared."""

    @property
    def passed(self) -> bool:
        return (
            not self.problem
            and self.same_prompts == self.prompts
            and self.stops
            and self.same_best == self.clear
            and self.mean_difference <= self.limit
        )


class ValidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The validation part of `training/report_<id>.json`."""

    run_id: str
    created_at: float
    window_id: int
    verdict: Verdict
    measures: list[Measure]
    answers: list[AnswerPair] = []
    cases: list[CaseScore] = []
    cut_share: float = 0.0
    """Share of held-out bytes beyond the end of a window."""
    split: str = "time"
    """"time", or "hash" where the conversations have no dates."""
    forgetting: Forgetting | None = None
    """None when the base was trained on no conversation."""
    served: ServedCheck | None = None
    """None for a new model that torch itself answers."""
    similarity: AnswerSimilarity | None = None
    """None in reports of earlier versions."""
    votes: list[BlindVote] = []
    """One for each question that was voted on (`engine.validation.votes`)."""

    @property
    def questions(self) -> list[AnswerPair]:
        """The answered questions of the spread sample, without wins and losses."""
        return [answer for answer in self.answers if answer.shown_as == "question"]


def decode_report(data: bytes) -> ValidationReport:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=ValidationReport)


class _File(msgspec.Struct, frozen=True):
    """`training/report_<id>.json`; a run without a validation has none."""

    validation: ValidationReport | None = None


def list_reports(ws: Workspace) -> list[Path]:
    """All report files by modification time, newest first; some have no verdict."""
    files: list[tuple[float, Path]] = []
    for file in ws.training.glob("report_*.json") if ws.training.is_dir() else ():
        try:
            files.append((file.stat().st_mtime, file))
        except OSError:
            continue
    return [file for _time, file in sorted(files, reverse=True)]


def load_report(file: Path) -> ValidationReport | None:
    """The validation in a report file; None without one. Raises BadInput for a broken file."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_File).validation
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BadInput(_("the report is broken"), path=file, hint="h2q-tui validate") from problem
    except OSError as problem:
        raise BadInput(_("the report cannot be read"), path=file, hint="h2q-tui validate") from problem


def newest_report(ws: Workspace) -> ValidationReport | None:
    """The newest report with a verdict, skipping broken files; None without one."""
    for file in list_reports(ws):
        try:
            report = load_report(file)
        except BadInput:
            continue
        if report is not None:
            return report
    return None
