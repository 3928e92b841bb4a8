"""Reports of exports: printed by `--json` and stored with each export. Light commands read them, so nothing heavy is
imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.core.paths import Workspace
from engine.models.card import Lineage


class NllMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """NLL per byte on one set of texts, nats: `nll` of the written weights, `nll_base` of the source."""

    on: str
    """"held_out" or "general"."""
    bytes: int
    nll: float
    nll_base: float

    @property
    def cost(self) -> float:
        return self.nll - self.nll_base


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of llama.cpp with torch on the same file."""

    conversations: int
    same_ids: int
    """Conversations with the same prompt ids in llama.cpp (template and tokenizer of the file) and in torch."""
    positions: int
    max_logit_difference: float
    """Largest difference of a log-probability at those positions, over the whole vocabulary."""
    same_best: int
    """Positions with the same likeliest token."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """One export. `nll`, `nll_base` and `cost` are of the held-out conversations, else of the general text; None where
    nothing was measured, for the reason in `notes`."""

    name: str
    path: str
    format: str
    """"hf", "gguf" or "gguf-adapter"."""
    quant: str
    bytes: int
    """Size of the file, or of the weights in a directory."""
    sha256: str
    parameters: int
    pruned: float = 0.0
    """Share of the weights inside the layers that were set to zero."""
    nll: float | None = None
    nll_base: float | None = None
    cost: float | None = None
    measured: list[NllMeasurement] = []
    parity: Parity | None = None
    notes: list[str] = []
    modelfile: str = ""
    ollama: str = ""
    """Name in Ollama; "" for an export elsewhere."""
    seconds: float = 0.0
    card: dict[str, Any] | None = None
    """The card of the model with its lineage."""


def with_measurements(report: ExportReport, measured: list[NllMeasurement]) -> ExportReport:
    """The report with `measured`; its headline figures are those of the first."""
    if not measured:
        return report
    first = measured[0]
    return msgspec.structs.replace(
        report, measured=measured, nll=first.nll, nll_base=first.nll_base, cost=first.cost
    )


def report_path(path: Path, format_: str) -> Path:
    """Path of the report of an export at `path`: in a directory ("hf"), next to a file."""
    return path / "export.json" if format_ == "hf" else path.with_suffix(".json")


def is_foreign(path: Path, format_: str) -> bool:
    """Whether `path` or its report path exists and was not written by an export."""
    report = report_path(path, format_)
    if not path.exists() and not report.exists():
        return False
    try:
        msgspec.json.decode(report.read_bytes(), type=ExportReport)
    except (OSError, msgspec.MsgspecError):
        return True
    return False


class _Card(msgspec.Struct):
    lineage: Lineage = Lineage()


class ExportRecord(msgspec.Struct):
    """The part of a report that identifies an export and its training data."""

    name: str
    path: str
    card: _Card | None = None


def list_exports(ws: Workspace) -> list[ExportRecord]:
    """The exports in the workspace whose files still exist; broken reports are skipped."""
    records = []
    for file in sorted([*ws.exports.glob("*.json"), *ws.exports.glob("*/export.json")]):
        try:
            one = msgspec.json.decode(file.read_bytes(), type=ExportRecord)
        except (OSError, msgspec.DecodeError):
            continue
        if Path(one.path).exists():
            records.append(one)
    return records


def exports_of(ws: Workspace, conversations: list[str]) -> list[str]:
    """Paths of the exports of models that were trained on one of the conversations."""
    ids = set(conversations)
    return [
        one.path
        for one in list_exports(ws)
        if one.card is not None and ids.intersection(one.card.lineage.conversations)
    ]
