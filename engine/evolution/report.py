"""What an evolution came to: the report that `evolve --json` prints, and the sentences of its stages."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core import files
from engine.core.i18n import N_, _, n_
from engine.core.paths import Workspace
from engine.evolution.evaluation import Measured, perplexity_at
from engine.evolution.state import OpenCycle
from engine.evolution.stats import CycleRow, improvement
from engine.evolution.synthetic import Fault, MaterialFigures, Way
from engine.pipeline.report import iso_local_time
from engine.runs.events import EvolutionCycle
from engine.validation.report import ValidationReport
from engine.validation.sequential import alpha_for

_WAYS = {
    Way.RECOMBINED: N_("{n} recombined"),
    Way.RETRIEVED: N_("{n} retrieved"),
    Way.ANSWERED: N_("{n} answered by the champion"),
}

_FAULTS = {
    Fault.SOURCE: N_("{n} off topic"),
    Fault.LENGTH: N_("{n} too short or too long"),
    Fault.REPETITION: N_("{n} repeated"),
    Fault.CUT: N_("{n} cut off"),
    Fault.UNLIKELY: N_("{n} unlikely"),
    Fault.COPY: N_("{n} copied"),
    Fault.LUCK: N_("{n} right by luck alone"),
}


def row_of(
    open_: OpenCycle,
    report: ValidationReport,
    champion: Measured,
    candidate: Measured,
    *,
    run_id: str,
    train_loss: float | None,
    warnings: list[str],
    seconds: float,
) -> CycleRow:
    """What a judged cycle came to. A canary's warning overrules a verdict for the candidate, nothing else does."""
    verdict = report.verdict
    nll = verdict.base.nll_per_byte
    before = champion.perplexity if nll is None else perplexity_at(nll)
    after = candidate.perplexity
    return CycleRow(
        cycle=open_.cycle,
        run_id=run_id,
        finished_at=iso_local_time(report.created_at),
        champion=open_.champion,
        candidate=open_.candidate,
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
        material=open_.material or MaterialFigures(real=0),
        train_loss=train_loss,
        seconds=round(seconds, 1),
        sentence=verdict.sentence,
    )


def cycle_event(
    open_: OpenCycle, cycles: int, state: str, row: CycleRow | None, reason: str
) -> EvolutionCycle:
    """The record of a cycle that begins (`row` is None) or ends."""
    return EvolutionCycle(
        cycle=open_.cycle,
        cycles=cycles,
        state=state,
        champion=open_.champion,
        candidate=open_.candidate,
        before=row.perplexity_before if row else None,
        after=row.perplexity_after if row else None,
        p_value=row.p_value if row else None,
        alpha=row.alpha if row else None,
        look=row.look if row else 0,
        reason=reason or ("; ".join(row.warnings) if row else ""),
    )


class EvolutionReport(msgspec.Struct, frozen=True, kw_only=True):
    """`training/report_<run>.json` of an evolution, and its `--json`."""

    run_id: str
    mode: str = "evolve"
    base_model: str
    """The model in use before the first cycle."""
    new_model: str
    """The model in use after the last one."""
    status: str
    """"promoted" (a cycle was kept), "kept_base", "collapsed" (the canary stopped it), "out_of_time"."""
    cycles: list[CycleRow]
    improvement: float
    """Relative fall of the held-out perplexity over all kept cycles together."""
    stopped: str
    """Why there were fewer cycles than asked for, "" when all were done."""
    correction: str
    """How the verdicts allow for many looks at one window."""
    seconds: float
    peak_memory_mb: float
    stats: str
    """Path of `evolution_stats.json`."""
    error: str = ""


def status_of(rows: list[CycleRow], stopped: str) -> str:
    """The status of a report."""
    if any(row.decision == "collapsed" for row in rows):
        return "collapsed"
    if any(row.kept for row in rows):
        return "promoted"
    return "out_of_time" if stopped and not rows else "kept_base"


def improvement_of(rows: list[CycleRow]) -> float:
    """The kept cycles one after the other."""
    left = 1.0
    for row in rows:
        left *= 1 - row.improvement if row.kept else 1.0
    return 1 - left


def correction(looks: int, cycles: int) -> str:
    """Said before the first cycle: every look at the window makes the next one harder to win by luck."""
    first, last = looks + 1, looks + cycles
    text = (
        _(
            "many looks at one window are allowed for: look k needs p < 0.05 / (k (k + 1)), so that all looks together"
            " promote by luck at most once in 20 windows; this run takes looks {first} to {last},"
            " which need p < {most} to {least}"
        )
        if last > first
        else _(
            "many looks at one window are allowed for: look k needs p < 0.05 / (k (k + 1)), so that all looks together"
            " promote by luck at most once in 20 windows; this run takes look {first}, which needs p < {most}"
        )
    )
    return text.format(first=first, last=last, most=f"{alpha_for(first):.2g}", least=f"{alpha_for(last):.2g}")


def material_words(figures: MaterialFigures) -> str:
    """`256 real conversations, 30 new rows (…), 71 % real, no overlap with what is kept back`."""
    parts = [_(_WAYS[Way(way)]).format(n=count) for way, count in figures.made.items()]
    rows = sum(figures.made.values())
    text = n_("{n} real conversation", "{n} real conversations", figures.real).format(n=figures.real)
    text += ", " + n_("{n} new row", "{n} new rows", rows).format(n=rows)
    if parts:
        text += " (" + ", ".join(parts) + ")"
    text += _(", {share} % real").format(share=round(100 * figures.real_share))
    if figures.overlapping:
        text += _(", {n} left out for words of what is kept back").format(n=figures.overlapping)
    return text


def answers_words(figures: MaterialFigures) -> str:
    """`the champion was asked 24 questions and gave 65 answers: 50 off topic, 9 cut off, 6 kept`; "" unasked."""
    if not figures.questions:
        return ""
    parts = [
        _(words).format(n=figures.refused[fault])
        for fault, words in _FAULTS.items()
        if fault in figures.refused
    ]
    text = n_(
        "the champion was asked {n} question and gave {answers} answers: {what}",
        "the champion was asked {n} questions and gave {answers} answers: {what}",
        figures.questions,
    ).format(
        n=figures.questions,
        answers=figures.asked,
        what=", ".join([*parts, _("{n} kept").format(n=figures.sound)]),
    )
    if not figures.sound:
        text += _(
            "; it writes nothing worth learning yet, so this cycle learns from retrieval and recombination alone"
        )
    return text


def write_report(ws: Workspace, report: EvolutionReport) -> Path:
    """Writes it; returns its path. Raises OSError."""
    path = ws.training / f"report_{report.run_id}.json"
    files.write_bytes(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return path
