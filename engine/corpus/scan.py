"""Runs one filter on a file of `{id, text}` rows for `corpus scan`. Touches no store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _


class ScanStage(StrEnum):
    """The stages that a file can be scanned with."""

    LOW_VALUE = "low_value"
    SENSITIVE = "sensitive"
    NEAR = "near"


class ScanSpan(msgspec.Struct, frozen=True):
    """A half-open range in code points of the text."""

    type: str
    start: int
    end: int


class ScanRow(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one row; `action` is keep, drop or redact."""

    id: str | int
    action: str
    reason: str = ""
    score: float | None = None
    """Low value: share of small talk, 0 to 1. Near: Jaccard index with the duplicate."""
    spans: list[ScanSpan] = []
    duplicate_of: str | int | None = msgspec.field(default=None, name="twin")
    """The row that this one duplicates."""


class ScanInput(msgspec.Struct, frozen=True):
    """One row of the file."""

    id: str | int
    text: str


def read_rows(path: Path) -> Iterator[ScanInput]:
    """Rows of a JSONL file. Raises BadInput with the file and line."""
    decoder = msgspec.json.Decoder(ScanInput)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                except (msgspec.DecodeError, UnicodeDecodeError) as problem:
                    raise BadInput(
                        _("the row is not a JSON object {{id, text}} ({reason})").format(reason=problem),
                        path=path,
                        line=number,
                    ) from None
    except OSError as problem:
        raise BadInput(
            _("the file cannot be read: {reason}").format(reason=problem.strerror), path=path
        ) from None


def scan(rows: Sequence[ScanInput], stage: ScanStage, *, threshold: float = 0.8) -> list[ScanRow]:
    """The result of the stage for each row, in the order of the rows."""
    if stage is ScanStage.NEAR:
        return _near(rows, threshold)
    scan_row: Callable[[ScanInput], ScanRow] = _low_value if stage is ScanStage.LOW_VALUE else _pii
    return [scan_row(row) for row in rows]


def _low_value(row: ScanInput) -> ScanRow:
    from engine.corpus.filters.low_value import classify

    found = classify(row.text)
    if found.low:
        return ScanRow(id=row.id, action="drop", reason=found.kind.value, score=found.score)
    return ScanRow(id=row.id, action="keep", score=0.0)


def _pii(row: ScanInput) -> ScanRow:
    from engine.corpus.filters.pii import find_pii

    spans = [ScanSpan(span.type.value, span.start, span.end) for span in find_pii(row.text)]
    if not spans:
        return ScanRow(id=row.id, action="keep")
    return ScanRow(
        id=row.id, action="redact", reason=", ".join(sorted({span.type for span in spans})), spans=spans
    )


def _near(rows: Sequence[ScanInput], threshold: float) -> list[ScanRow]:
    """Keeps the longest of near duplicates, the first of equally long ones; the others name the most similar kept one."""
    from engine.corpus.dedup.near import near_pairs
    from engine.corpus.filters.folding import fold

    folded = [fold(row.text) for row in rows]
    first_texts: dict[str, str] = {}
    for text, row in zip(folded, rows, strict=True):
        first_texts.setdefault(text, row.text)
    distinct = list(first_texts)
    duplicates: dict[str, list[tuple[str, float]]] = {text: [(text, 1.0)] for text in distinct}
    for pair in near_pairs(list(first_texts.values()), threshold):
        one, other = distinct[pair.first], distinct[pair.second]
        duplicates[one].append((other, pair.similarity))
        duplicates[other].append((one, pair.similarity))
    kept: dict[str, int] = {}
    results: dict[int, ScanRow] = {}
    for index in sorted(range(len(rows)), key=lambda index: (-len(rows[index].text), index)):
        found = [(similarity, -kept[text]) for text, similarity in duplicates[folded[index]] if text in kept]
        if found and folded[index]:
            similarity, position = max(found)
            results[index] = ScanRow(
                id=rows[index].id,
                action="drop",
                reason="duplicate"
                if similarity == 1.0 and folded[-position] == folded[index]
                else "near_duplicate",
                score=round(similarity, 4),
                duplicate_of=rows[-position].id,
            )
        else:
            kept.setdefault(folded[index], index)
            results[index] = ScanRow(id=rows[index].id, action="keep")
    return [results[index] for index in range(len(rows))]
