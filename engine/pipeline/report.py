"""The report of a training: `training/report_<run_id>.json`, also printed by `train --json`.

The second group of fields keeps the names of MindX's report; its readers take `base_score` and
`validation_score` as bits per byte, where lower is better.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.core import files
from engine.core.errors import NotEnoughData
from engine.core.i18n import n_
from engine.core.json_text import encode_json
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.models.card import Lineage
from engine.pipeline.served import ServedTag
from engine.pipeline.stages import TrainRequest
from engine.runs.context import RunContext, RunResult
from engine.runs.events import RunStatus
from engine.validation.report import Forgetting, ValidationReport, Verdict
from engine.workspace.backup import weekly_backup


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of pairs. A pair is a question with its answer: one trained turn of the assistant."""

    collected: int = 0
    filtered: int = 0
    """Pairs left after the filters and the review."""
    train: int = 0
    test: int = 0


class MessageBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The conversations that stand before every chat of a model of `--mode message`."""

    conversations: int
    of: int
    """Conversations that could have been chosen."""
    tokens: int
    """Of a prompt with them and a shortest question."""
    context: int
    """Tokens of prompt and answer together (`num_ctx`)."""
    reserve: int
    """Tokens of `context` that are kept for question and answer."""
    tag: str
    """In the built-in server."""
    modelfile: str
    """Path of the Modelfile for people."""
    ollama: str = ""
    """Its name in an Ollama that answered; "" where it was not created there."""

    @property
    def text(self) -> str:
        return n_(
            "{n} of {of} conversation, {tokens} of {context} tokens; {reserve} are kept for question and answer",
            "{n} of {of} conversations, {tokens} of {context} tokens; {reserve} are kept for question and answer",
            self.of,
        ).format(
            n=f"{self.conversations:,}",
            of=f"{self.of:,}",
            tokens=f"{self.tokens:,}",
            context=f"{self.context:,}",
            reserve=f"{self.reserve:,}",
        )


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one training."""

    run_id: str
    mode: str
    mode_reason: str = ""
    base_model: str
    new_model: str
    status: str
    """"promoted", "kept_base", "inconclusive", "trained" (nothing to compare with) or "skipped"."""
    pairs: Pairs
    verdict: Verdict | None = None
    dataset: str = ""
    training_time_s: float = 0.0
    """Seconds of the training stages alone."""
    peak_memory_mb: float = 0.0
    tokens_per_s: float = 0.0
    error: str = ""
    replayed: int = 0
    """Conversations of the dataset that the base was trained on already."""
    forgetting: Forgetting | None = None
    """Loss on a sample of those, before and after. None when there were none."""
    held_out: Forgetting | None = None
    """Loss on the held-out part of `--data` files, before and after; files allow no verdict."""
    budget: MessageBudget | None = None
    """None for a mode that trains."""
    served: ServedTag | None = None
    """The model in the built-in server; None where none was created."""

    training_id: str
    start_time: str
    """Local time, ISO 8601 with its offset."""
    end_time: str
    total_pairs: int = 0
    filtered_pairs: int = 0
    training_pairs: int = 0
    training_time: str = ""
    base_score: float | None = None
    validation_score: float | None = None
    improved: bool = False

    validation: ValidationReport | None = None
    lineage: dict[str, str | int] = {}
    """Hashes of dataset and settings, and how many conversations the model has seen."""


@dataclass(frozen=True)
class TrainResult:
    """What a training produced. The defaults are those of a training that was skipped."""

    status: str
    base: str = ""
    """Name of the base; "" for a model from scratch."""
    new: str = ""
    pairs: Pairs = field(default_factory=Pairs)
    dataset: str = ""
    lineage: Lineage = field(default_factory=Lineage)
    training_time_s: float = 0.0
    replayed: int = 0
    validation: ValidationReport | None = None
    held_out: Forgetting | None = None
    budget: MessageBudget | None = None
    served: ServedTag | None = None
    error: str = ""


def status_of(report: ValidationReport, *, promoted: bool) -> str:
    """The status of a training that was validated."""
    if promoted:
        return "promoted"
    return "inconclusive" if report.verdict.decision == "inconclusive" else "kept_base"


def finish(ctx: RunContext, request: TrainRequest, result: TrainResult) -> RunResult:
    """Write the report, make the weekly backup, and end the run."""
    report = _make_report(ctx, request, result)
    path = write_report(ctx.workspace, report)
    weekly_backup(ctx.workspace)
    skipped = result.status == "skipped"
    return RunResult(
        RunStatus.SKIPPED if skipped else RunStatus.DONE,
        exit_code=NotEnoughData.exit_code if skipped else 0,
        result=msgspec.structs.replace(report, validation=None),
        report=path,
        error=result.error,
    )


def _make_report(ctx: RunContext, request: TrainRequest, result: TrainResult) -> TrainReport:
    validation, pairs, lineage = result.validation, result.pairs, result.lineage
    verdict = validation.verdict if validation else None
    seconds = result.training_time_s
    return TrainReport(
        run_id=ctx.spec.run_id,
        mode=request.mode,
        mode_reason=request.mode_reason,
        base_model=result.base,
        new_model=result.new,
        status=result.status,
        pairs=pairs,
        verdict=verdict,
        dataset=result.dataset,
        training_time_s=round(seconds, 1),
        peak_memory_mb=round(ctx.view.peak_memory_mb or 0.0, 1),
        tokens_per_s=round(_median_tokens_per_s(ctx), 1),
        error=result.error,
        replayed=result.replayed,
        forgetting=validation.forgetting if validation else None,
        held_out=result.held_out,
        budget=result.budget,
        served=result.served,
        training_id=f"train_{int(request.started)}",
        start_time=iso_local_time(request.started),
        end_time=iso_local_time(time.time()),
        total_pairs=pairs.collected,
        filtered_pairs=pairs.filtered,
        training_pairs=pairs.train,
        training_time=f"{int(seconds // 60)}m{seconds % 60:.1f}s",
        base_score=verdict.base.bits_per_byte if verdict else None,
        validation_score=verdict.new.bits_per_byte if verdict else None,
        improved=result.status == "promoted",
        validation=validation,
        lineage={
            "dataset_sha256": lineage.dataset_sha256,
            "settings_sha256": lineage.settings_sha256,
            "conversations": len(lineage.conversations),
            "texts": len(lineage.texts),
        },
    )


def _median_tokens_per_s(ctx: RunContext) -> float:
    """Over all steps of all phases; 0 without any."""
    rates = sorted(
        rate for phase in ctx.view.phases for _step, rate in ctx.view.series(phase, "tokens_per_s").points()
    )
    return rates[len(rates) // 2] if rates else 0.0


def iso_local_time(seconds: float) -> str:
    """Local time with offset as MindX writes it, e.g. `2026-01-02T03:04:05+01:00`."""
    text = local_time("%Y-%m-%dT%H:%M:%S%z", seconds)
    return f"{text[:-2]}:{text[-2:]}"


def write_validation(ws: Workspace, report: ValidationReport) -> Path:
    """Write the report of a validation alone under the same name; returns its path. Raises OSError."""
    return _write_json(ws, report.run_id, encode_json({"validation": report}))


def write_report(ws: Workspace, report: TrainReport) -> Path:
    """Write `training/report_<run_id>.json`; returns its path. Raises OSError."""
    return _write_json(ws, report.run_id, encode_json(report))


def _write_json(ws: Workspace, run_id: str, data: bytes) -> Path:
    path = ws.training / f"report_{run_id}.json"
    files.write_bytes(path, msgspec.json.format(data, indent=2) + b"\n")
    return path
