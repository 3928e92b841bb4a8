"""What came of an export: `--json` prints it, and it lies beside the files with the card of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.core.paths import Workspace
from engine.models.card import Lineage


class NllMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """NLL per byte on one set of texts, nats: of the written weights and of those they were made from."""

    on: str
    """"held_out" or "general"."""
    bytes: int
    nll: float
    nll_base: float

    @property
    def cost(self) -> float:
        return self.nll - self.nll_base


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How llama.cpp and torch compare on the same file."""

    conversations: int
    same_ids: int
    """Conversations whose prompt, made by the file's own template and tokenizer, has the ids of ours."""
    positions: int
    max_logit_difference: float
    """Largest difference of a log-probability at those places, over the whole vocabulary."""
    same_best: int
    """Places in which the likeliest token is the same."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one export. `nll`, `nll_base` and `cost` are those of the held-out conversations where there
    are any, else of the general text; None where nothing was measured, and `notes` say why."""

    name: str
    path: str
    format: str
    """"hf", "gguf" or "gguf-adapter"."""
    quant: str
    bytes: int
    """Of the file, or of the weights in a directory."""
    sha256: str
    parameters: int
    pruned: float = 0.0
    """Share of the weights inside the layers that were set to zero; they are stored all the same."""
    nll: float | None = None
    nll_base: float | None = None
    cost: float | None = None
    measured: list[NllMeasurement] = []
    parity: Parity | None = None
    notes: list[str] = []
    modelfile: str = ""
    ollama: str = ""
    """Name in Ollama; "" when it was not sent there."""
    seconds: float = 0.0
    card: dict[str, Any] | None = None
    """The card of the model: what it was trained on."""


def with_measures(report: ExportReport, measured: list[NllMeasurement]) -> ExportReport:
    """The first of `measured` is the one that counts."""
    if not measured:
        return report
    first = measured[0]
    return msgspec.structs.replace(
        report, measured=measured, nll=first.nll, nll_base=first.nll_base, cost=first.cost
    )


def report_beside(path: Path, format_: str) -> Path:
    """Where the report of an export at `path` lies: in a directory ("hf"), beside a file."""
    return path / "export.json" if format_ == "hf" else path.with_suffix(".json")


def is_foreign(path: Path, format_: str) -> bool:
    """Whether something stands at `path`, or in the place of its report, that no export has written."""
    report = report_beside(path, format_)
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
    """The part of an export's report that lasts."""

    name: str
    path: str
    card: _Card | None = None


def list_exports(ws: Workspace) -> list[ExportRecord]:
    """Those whose report lies beside them and whose files are still there; broken reports are left out."""
    found = []
    for file in sorted([*ws.exports.glob("*.json"), *ws.exports.glob("*/export.json")]):
        try:
            one = msgspec.json.decode(file.read_bytes(), type=ExportRecord)
        except (OSError, msgspec.DecodeError):
            continue
        if Path(one.path).exists():
            found.append(one)
    return found


def exports_of(ws: Workspace, conversations: list[str]) -> list[str]:
    """Paths of the exports whose model was trained on one of the conversations."""
    wanted = set(conversations)
    return [
        one.path
        for one in list_exports(ws)
        if one.card is not None and wanted.intersection(one.card.lineage.conversations)
    ]
