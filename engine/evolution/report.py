"""The report of an evolution (`evolve --json`), its events, and the summaries of its stages."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core import files
from engine.core.i18n import N_, _, bracketed, n_
from engine.core.json_text import encode_json
from engine.core.paths import Workspace
from engine.evolution.bookkeeping import OpenCycle
from engine.evolution.evaluation import ModelMeasurement, perplexity_at
from engine.evolution.stats import CycleRow, improvement
from engine.evolution.synthetic import RejectReason, SyntheticMethod, SyntheticStats
from engine.runs.events import EvolutionCycle
from engine.validation.report import ValidationReport
from engine.validation.sequential import alpha_for

_METHODS = {
    SyntheticMethod.RECOMBINED: N_("{n} recombined"),
    SyntheticMethod.RETRIEVED: N_("{n} retrieved"),
    SyntheticMethod.ANSWERED: N_("{n} answered by the champion"),
}

_REASONS = {
    RejectReason.SOURCE: N_("{n} off topic"),
    RejectReason.LENGTH: N_("{n} too short or too long"),
    RejectReason.REPETITION: N_("{n} repetitive"),
    RejectReason.CUT: N_("{n} cut off"),
    RejectReason.UNLIKELY: N_("{n} unlikely"),
    RejectReason.COPY: N_("{n} copied"),
    RejectReason.LUCK: N_("{n} no better than chance"),
}


def cycle_row(
    cycle: OpenCycle,
    report: ValidationReport,
    champion: ModelMeasurement,
    candidate: ModelMeasurement,
    *,
    run_id: str,
    finished_at: str,
    train_loss: float | None,
    warnings: list[str],
    seconds: float,
) -> CycleRow:
    """The result of a validated cycle. Only a warning of the canary overrules a verdict for the candidate."""
    verdict = report.verdict
    nll = verdict.base.nll_per_byte
    before = champion.perplexity if nll is None else perplexity_at(nll)
    after = candidate.perplexity
    return CycleRow(
        cycle=cycle.cycle,
        run_id=run_id,
        finished_at=finished_at,
        champion=cycle.champion,
        candidate=cycle.candidate,
        decision="collapsed" if warnings else verdict.decision,
        kept=verdict.decision == "promote" and not warnings,
        perplexity_before=before,
        perplexity_after=after,
        improvement=improvement(before, after),
        p_value=verdict.p_value,
        alpha=verdict.alpha,
        look=verdict.look,
        window=report.window_id,
        quality_before=champion.quality,
        quality_after=candidate.quality,
        canary=candidate.canary,
        warnings=warnings,
        dataset_stats=cycle.dataset_stats or SyntheticStats(real=0),
        train_loss=train_loss,
        seconds=round(seconds, 1),
        sentence=verdict.sentence,
    )


def cycle_event(
    cycle: OpenCycle, cycles: int, state: str, row: CycleRow | None, reason: str
) -> EvolutionCycle:
    """The event of a cycle that starts (`row` is None) or ends."""
    return EvolutionCycle(
        cycle=cycle.cycle,
        cycles=cycles,
        state=state,
        champion=cycle.champion,
        candidate=cycle.candidate,
        before=row.perplexity_before if row else None,
        after=row.perplexity_after if row else None,
        p_value=row.p_value if row else None,
        alpha=row.alpha if row else None,
        look=row.look if row else 0,
        reason=reason or (_("; ").join(row.warnings) if row else ""),
    )


class EvolutionReport(msgspec.Struct, frozen=True, kw_only=True):
    """`training/report_<run>.json` of an evolution, and its `--json`."""

    run_id: str
    mode: str = "evolve"
    base_model: str
    """The model in use before the first cycle."""
    new_model: str
    """The model in use after the last cycle."""
    status: str
    """"promoted" (a candidate was kept), "kept_base", "collapsed" (stopped by the canary), "out_of_time"."""
    cycles: list[CycleRow]
    improvement: float
    """Relative fall of the held-out perplexity over all kept cycles."""
    stopped: str
    """Why there were fewer cycles than requested; "" when there were not."""
    correction: str
    """How the significance levels correct for repeated interim looks."""
    seconds: float
    peak_memory_mb: float
    stats: str
    """Path of `evolution_stats.json`."""
    error: str = ""


def status_of(rows: list[CycleRow], stopped: str) -> str:
    """`EvolutionReport.status`."""
    if any(row.decision == "collapsed" for row in rows):
        return "collapsed"
    if any(row.kept for row in rows):
        return "promoted"
    return "out_of_time" if stopped and not rows else "kept_base"


def improvement_of(rows: list[CycleRow]) -> float:
    """The improvement of all kept cycles together."""
    remaining = 1.0
    for row in rows:
        remaining *= 1 - row.improvement if row.kept else 1.0
    return 1 - remaining


def correction(looks: int, cycles: int) -> str:
    """The correction for repeated interim looks, logged before the first cycle."""
    first, last = looks + 1, looks + cycles
    text = (
        _(
            "corrected for repeated interim looks at one test set: the first look requires p < 0.0425, look k p < 0.0075 / (k (k - 1)), so that at most one"
            " test set in 20 leads to a promotion by chance; this run makes looks {first} to {last},"
            " which require p < {most} to {least}"
        )
        if last > first
        else _(
            "corrected for repeated interim looks at one test set: the first look requires p < 0.0425, look k p < 0.0075 / (k (k - 1)), so that at most one"
            " test set in 20 leads to a promotion by chance; this run makes look {first}, which requires p < {most}"
        )
    )
    return text.format(first=first, last=last, most=f"{alpha_for(first):.3g}", least=f"{alpha_for(last):.3g}")


def dataset_summary(stats: SyntheticStats) -> str:
    """`256 real conversations, 30 synthetic rows (…), 71 % real`."""
    parts = [
        _(_METHODS[SyntheticMethod(method)]).format(n=count) for method, count in stats.synthetic.items()
    ]
    rows = sum(stats.synthetic.values())
    text = n_("{n} real conversation", "{n} real conversations", stats.real).format(n=stats.real)
    text += _(", ") + n_("{n} synthetic row", "{n} synthetic rows", rows).format(n=rows)
    if parts:
        text = bracketed(text, _(", ").join(parts))
    text += _(", {share} % real").format(share=round(100 * stats.real_share))
    if stats.overlapping:
        text += _(", {n} dropped for an overlap with held-out text").format(n=stats.overlapping)
    return text


def self_answer_summary(stats: SyntheticStats) -> str:
    """`65 answers of the champion to 24 questions: 50 off topic, 9 cut off, 6 accepted`; "" without questions."""
    if not stats.questions:
        return ""
    parts = [
        _(text).format(n=stats.rejected[reason])
        for reason, text in _REASONS.items()
        if reason in stats.rejected
    ]
    text = n_(
        "{answers} answers of the champion to {n} question: {counts}",
        "{answers} answers of the champion to {n} questions: {counts}",
        stats.questions,
    ).format(
        n=stats.questions,
        answers=stats.answers,
        counts=_(", ").join([*parts, _("{n} accepted").format(n=stats.accepted)]),
    )
    if not stats.accepted:
        text += _("; none was accepted, so this cycle uses retrieval and recombination only")
    return text


def write_report(ws: Workspace, report: EvolutionReport) -> Path:
    """Writes the report; returns its path. Raises OSError."""
    path = ws.training / f"report_{report.run_id}.json"
    files.write_bytes(path, msgspec.json.format(encode_json(report), indent=2) + b"\n")
    return path
