"""The report of a training run: `training/report_<id>.json`, and what `train --json` prints.

The first fields are those of DESIGN 5; the second group keeps the names of MindX's report (its readers
find `base_score` and `validation_score` as bits per byte, where lower is better).
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from engine.core import files
from engine.core.paths import Workspace
from engine.models.card import Lineage
from engine.validation.report import Forgetting, ValidationReport, Verdict


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """A pair is a question with its answer: one trained turn of the assistant."""

    collected: int = 0
    filtered: int = 0
    """What is left after the filters and the review."""
    train: int = 0
    test: int = 0


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    mode: str
    mode_reason: str = ""
    base_model: str
    new_model: str
    status: str
    """"promoted", "kept_base", "inconclusive", "trained" (scratch: nothing to compare), "skipped", "failed"."""
    pairs: Pairs
    verdict: Verdict | None = None
    dataset: str = ""
    training_time_s: float = 0.0
    """Seconds of the training stages alone."""
    peak_memory_mb: float = 0.0
    tokens_per_s: float = 0.0
    error: str = ""
    replayed: int = 0
    """Conversations trained on again that the base had learnt."""
    forgetting: Forgetting | None = None
    """Loss on a sample of those, before and after. None when there were none."""
    held_out: Forgetting | None = None
    """Loss on the part of `--data` files that was held out, before and after; they allow no verdict."""

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


def iso(seconds: float) -> str:
    """Local time with offset, as MindX writes it."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return f"{text[:-2]}:{text[-2:]}"


def make_report(
    *,
    run_id: str,
    started: float,
    ended: float,
    mode: str,
    mode_reason: str,
    base: str,
    new: str,
    status: str,
    pairs: Pairs,
    dataset: str = "",
    lineage: Lineage,
    training_time_s: float = 0.0,
    peak_memory_mb: float = 0.0,
    tokens_per_s: float = 0.0,
    validation: ValidationReport | None = None,
    error: str = "",
    replayed: int = 0,
    held_out: Forgetting | None = None,
) -> TrainReport:
    """Fills both groups of fields from one set of facts."""
    verdict = validation.verdict if validation else None
    return TrainReport(
        run_id=run_id,
        mode=mode,
        mode_reason=mode_reason,
        base_model=base,
        new_model=new,
        status=status,
        pairs=pairs,
        verdict=verdict,
        dataset=dataset,
        training_time_s=round(training_time_s, 1),
        peak_memory_mb=round(peak_memory_mb, 1),
        tokens_per_s=round(tokens_per_s, 1),
        error=error,
        replayed=replayed,
        forgetting=validation.forgetting if validation else None,
        held_out=held_out,
        training_id=f"train_{int(started)}",
        start_time=iso(started),
        end_time=iso(ended),
        total_pairs=pairs.collected,
        filtered_pairs=pairs.filtered,
        training_pairs=pairs.train,
        training_time=f"{int(training_time_s // 60)}m{training_time_s % 60:.1f}s",
        base_score=verdict.base.bits_per_byte if verdict else None,
        validation_score=verdict.new.bits_per_byte if verdict else None,
        improved=status == "promoted",
        validation=validation,
        lineage={
            "dataset_sha256": lineage.dataset_sha256,
            "settings_sha256": lineage.settings_sha256,
            "conversations": len(lineage.conversations),
            "texts": len(lineage.texts),
        },
    )


def write_validation(ws: Workspace, report: ValidationReport) -> Path:
    """Writes the report of a validation alone under the same name; returns its path. Raises OSError."""
    path = ws.training / f"report_{report.run_id}.json"
    files.write_bytes(
        path, msgspec.json.format(msgspec.json.encode({"validation": report}), indent=2) + b"\n"
    )
    return path


def write_report(ws: Workspace, report: TrainReport) -> Path:
    """Writes `training/report_<run_id>.json`; returns its path. Raises OSError."""
    path = ws.training / f"report_{report.run_id}.json"
    files.write_bytes(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return path
