"""What changed for the person, in plain sentences from a report. Imports nothing heavy."""

from __future__ import annotations

from statistics import fmean

from engine.core.i18n import _, colon, n_, p_
from engine.validation.report import AnswerPair, AnswerSimilarity, Measure, ValidationReport
from engine.validation.verdict_text import percent
from engine.validation.votes import count_votes

SAME_LENGTH = 0.1
"""Answers whose mean length differs by less than this share are as long."""
SAME_LOSS = 0.0005
"""General text that changed by less than this share is as good as before."""


def plain_sentences(report: ValidationReport) -> list[str]:
    """How many conversations it predicts better, how long its answers are, general text, blind votes."""
    return [text for text in (_predicts(report), _length(report), _general(report), _votes(report)) if text]


def shown_as(answer: AnswerPair) -> str:
    """ "win" or "loss" for an answer that was chosen for it; "" for a question of the spread sample."""
    return {"win": p_("case", "win"), "loss": p_("case", "loss")}.get(answer.shown_as, "")


def similarity_lines(similarity: AnswerSimilarity | None) -> list[str]:
    """What similarity was measured with and its floors, or why it was not; [] for a report of an earlier version."""
    if similarity is None:
        return []
    if similarity.problem:
        return [_("similarity was not measured: {reason}").format(reason=similarity.problem)]
    if not similarity.embedder:
        return [_("similarity was not measured: no embedder is set (S, semantic duplicates)")]
    floors = []
    if similarity.unrelated is not None:
        floors.append(
            _("{figure} to the answer of another question").format(figure=f"{similarity.unrelated:.2f}")
        )
    if similarity.repeated is not None:
        floors.append(_("{figure} between answers of the base").format(figure=f"{similarity.repeated:.2f}"))
    head = _("similarity by {embedder}").format(embedder=similarity.embedder)
    return [colon(head, _(", ").join(floors)) if floors else head]


def _predicts(report: ValidationReport) -> str:
    total = len(report.cases)
    if not total:
        return ""
    better = sum(case.new < case.base for case in report.cases)
    worse = sum(case.new > case.base for case in report.cases)
    return n_(
        "Of {n} held-out conversation it predicts {better} better and {worse} worse.",
        "Of {n} held-out conversations it predicts {better} better and {worse} worse.",
        total,
    ).format(n=total, better=better, worse=worse)


def _length(report: ValidationReport) -> str:
    measure = _measure(report, "length")
    if measure is None or measure.base is None or measure.new is None:
        return ""
    base, new = measure.base, measure.new
    if abs(new - base) <= SAME_LENGTH * max(base, new, 1.0):
        text = _("Its answers are as long as before ({new} bytes).").format(new=f"{new:.0f}")
    elif new < base:
        text = _("Its answers are shorter: {new} bytes instead of {base}.").format(
            new=f"{new:.0f}", base=f"{base:.0f}"
        )
    else:
        text = _("Its answers are longer: {new} bytes instead of {base}.").format(
            new=f"{new:.0f}", base=f"{base:.0f}"
        )
    wanted = [len(answer.wanted.encode("utf-8", "replace")) for answer in report.answers if answer.wanted]
    if not wanted:
        return text
    own = _("Those in your conversations have {wanted}.").format(wanted=f"{fmean(wanted):.0f}")
    return f"{text} {own}"


def _general(report: ValidationReport) -> str:
    increase = report.verdict.noninferiority.get("increase")
    if not isinstance(increase, float):
        return ""
    if abs(increase) < SAME_LOSS:
        return _("General text: as good as before.")
    if increase < 0:
        return _("General text: {amount} better.").format(amount=percent(increase))
    return _("General text: {amount} worse.").format(amount=percent(increase))


def _votes(report: ValidationReport) -> str:
    if not report.votes:
        return ""
    return _("Blind votes: {new} for the new model, {base} for the base, {equal} equal.").format(
        **count_votes(report)
    )


def _measure(report: ValidationReport, name: str) -> Measure | None:
    return next((measure for measure in report.measures if measure.name == name), None)
