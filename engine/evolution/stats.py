"""The statistics files: `evolution_stats.json` (four fields of H2Q-Evo, then our rows) and `training_log.json`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec

from engine.core import files
from engine.core.paths import Workspace
from engine.evolution.canary import Canary
from engine.evolution.synthetic import SyntheticStats
from engine.evolution.text_metrics import GenerationQuality

FILE = "evolution_stats.json"
LOG = "training_log.json"
KEPT_ROWS = 1000


class CycleRow(msgspec.Struct, frozen=True, kw_only=True, rename={"dataset_stats": "material"}):
    """Result of one cycle. Perplexities are per byte of held-out answers; lower is better."""

    cycle: int
    run_id: str
    finished_at: str
    """Local time, ISO 8601 with its offset."""
    champion: str
    candidate: str
    decision: str
    """Decision of the verdict ("promote", "keep", "inconclusive"), or "collapsed" when the canary overruled it."""
    kept: bool
    """Whether the candidate was promoted."""
    perplexity_before: float | None
    perplexity_after: float | None
    improvement: float
    """Relative fall of the perplexity from champion to candidate; above 0 is better. Clipped at -1, so that one collapse
    does not dominate the mean."""
    p_value: float | None
    alpha: float
    """Significance level of this interim look at the test window."""
    look: int
    window: int
    quality_before: GenerationQuality
    quality_after: GenerationQuality
    canary: Canary
    warnings: list[str] = []
    """Reasons of the canary against the candidate."""
    dataset_stats: SyntheticStats
    train_loss: float | None
    seconds: float
    sentence: str
    """The verdict as a sentence."""


class EvolutionStats(msgspec.Struct, frozen=True, kw_only=True):
    """The file. The first four fields are those of H2Q-Evo, whose counts are continued."""

    total_evolutions: int = 0
    successful_evolutions: int = 0
    failed_evolutions: int = 0
    average_improvement: float = 0.0
    """Mean of `improvement` over all evolutions, kept or not."""
    best_perplexity: float | None = None
    canary_of: str = ""
    """The model that evolution started from; the canary compares its descendants with it."""
    canary: Canary | None = None
    cycles: list[CycleRow] = []
    """The newest `KEPT_ROWS`, oldest first."""


def load_stats(ws: Workspace) -> EvolutionStats:
    """The file; empty when it is missing. A broken one is moved aside and counting starts again."""
    path = ws.root / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=EvolutionStats, strict=False)
    except FileNotFoundError:
        return EvolutionStats()
    except (msgspec.DecodeError, UnicodeDecodeError, OSError):
        with contextlib.suppress(OSError):
            path.replace(path.with_name(f"{FILE}.broken"))
        return EvolutionStats()


def improvement(before: float | None, after: float | None) -> float:
    """`CycleRow.improvement` of two perplexities: -1 for a candidate without one, 0 for a champion without one."""
    if before is None:
        return 0.0
    return -1.0 if after is None else max(-1.0, 1 - after / before)


def with_cycle(stats: EvolutionStats, row: CycleRow) -> EvolutionStats:
    """`stats` with one more cycle; a row of the same run and cycle is counted once."""
    if any((old.run_id, old.cycle) == (row.run_id, row.cycle) for old in stats.cycles):
        return stats
    total = stats.total_evolutions + 1
    perplexities = [stats.best_perplexity, row.perplexity_after if row.kept else row.perplexity_before]
    return msgspec.structs.replace(
        stats,
        total_evolutions=total,
        successful_evolutions=stats.successful_evolutions + row.kept,
        failed_evolutions=stats.failed_evolutions + (not row.kept),
        average_improvement=stats.average_improvement + (row.improvement - stats.average_improvement) / total,
        best_perplexity=min((value for value in perplexities if value is not None), default=None),
        cycles=[*stats.cycles, row][-KEPT_ROWS:],
    )


def save_stats(ws: Workspace, stats: EvolutionStats) -> None:
    """Replaces the file. Raises OSError."""
    data = msgspec.json.format(msgspec.json.encode(stats), indent=2) + b"\n"
    files.write_bytes(ws.root / FILE, data)


def initial_canary(stats: EvolutionStats, champion: str) -> Canary | None:
    """The canary of the model that evolution started from, if `champion` descends from it; else None."""
    lineage = {stats.canary_of, *(row.candidate for row in stats.cycles if row.kept)}
    return stats.canary if champion in lineage else None


def log_rows(ws: Workspace) -> list[dict[str, Any]]:
    """The rows of `training_log.json`; [] for a missing or broken file."""
    try:
        rows = json.loads((ws.root / LOG).read_bytes())
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def write_log(ws: Workspace, rows: list[dict[str, Any]]) -> Path:
    """Replaces `training_log.json`. Raises OSError."""
    files.write_json(ws.root / LOG, rows)
    return ws.root / LOG


def with_cycle_result(rows: list[dict[str, Any]], row: CycleRow) -> list[dict[str, Any]]:
    """The epochs of a cycle with its number; the last one also gets the result of the cycle."""
    epochs: list[dict[str, Any]] = [{**epoch, "cycle": row.cycle} for epoch in rows]
    if epochs:
        epochs[-1] |= {
            "held_out_perplexity": row.perplexity_after,
            "improvement": row.improvement,
            "kept": row.kept,
            "generation_quality": msgspec.to_builtins(row.quality_after),
        }
    return epochs
