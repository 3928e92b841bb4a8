"""One filter tried on a file of `{id, text}` rows: what `corpus scan` prints. Touches no store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _


class ScanStage(StrEnum):
    LOW_VALUE = "low_value"
    SENSITIVE = "sensitive"
    NEAR = "near"


class ScanSpan(msgspec.Struct, frozen=True):
    """In code points of the text as given."""

    type: str
    start: int
    end: int


class ScanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row's fate (DESIGN 5): `action` is keep, drop, redact or hold."""

    id: str | int
    action: str
    reason: str = ""
    score: float | None = None
    """Low value: 1.0 is courtesy alone. Near: the Jaccard index with the twin."""
    spans: list[ScanSpan] = []
    twin: str | int | None = None


class Input(msgspec.Struct, frozen=True):
    id: str | int
    text: str


def read_rows(path: Path) -> Iterator[Input]:
    """Rows of a JSONL file. Raises BadInput naming the file and the line."""
    decoder = msgspec.json.Decoder(Input)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                except (msgspec.DecodeError, UnicodeDecodeError) as problem:
                    raise BadInput(
                        _("a row is not {{id, text}} in JSON ({reason})").format(reason=problem),
                        path=path,
                        line=number,
                    ) from None
    except OSError as problem:
        raise BadInput(
            _("the file cannot be read: {reason}").format(reason=problem.strerror), path=path
        ) from None


def scan(rows: Sequence[Input], stage: ScanStage, *, threshold: float = 0.8) -> list[ScanRow]:
    """What the stage would do with each row, in the order of the rows."""
    if stage is ScanStage.NEAR:
        return _near(rows, threshold)
    judge: Callable[[Input], ScanRow] = _low_value if stage is ScanStage.LOW_VALUE else _sensitive
    return [judge(row) for row in rows]


def _low_value(row: Input) -> ScanRow:
    from engine.corpus.filters.low_value import judge

    verdict = judge(row.text)
    if verdict.low:
        return ScanRow(id=row.id, action="drop", reason=verdict.kind.value, score=verdict.score)
    return ScanRow(id=row.id, action="keep", score=0.0)


def _sensitive(row: Input) -> ScanRow:
    from engine.corpus.filters.pii import find

    spans = [ScanSpan(span.type.value, span.start, span.end) for span in find(row.text)]
    if not spans:
        return ScanRow(id=row.id, action="keep")
    return ScanRow(
        id=row.id, action="redact", reason=", ".join(sorted({span.type for span in spans})), spans=spans
    )


def _near(rows: Sequence[Input], threshold: float) -> list[ScanRow]:
    """The longest of twins is kept, the first of equally long ones; the others name the kept one most like them."""
    from engine.corpus.dedup.near import near_pairs
    from engine.corpus.filters.normalise import fold

    folded = [fold(row.text) for row in rows]
    distinct = list(dict.fromkeys(folded))
    twins: dict[str, list[tuple[str, float]]] = {text: [(text, 1.0)] for text in distinct}
    for pair in near_pairs(distinct, threshold):
        one, other = distinct[pair.first], distinct[pair.second]
        twins[one].append((other, pair.similarity))
        twins[other].append((one, pair.similarity))
    kept: dict[str, int] = {}
    fates: dict[int, ScanRow] = {}
    for index in sorted(range(len(rows)), key=lambda index: (-len(rows[index].text), index)):
        found = [(similarity, -kept[text]) for text, similarity in twins[folded[index]] if text in kept]
        if found and folded[index]:
            similarity, place = max(found)
            fates[index] = ScanRow(
                id=rows[index].id,
                action="drop",
                reason="duplicate"
                if similarity == 1.0 and folded[-place] == folded[index]
                else "near_duplicate",
                score=round(similarity, 4),
                twin=rows[-place].id,
            )
        else:
            kept.setdefault(folded[index], index)
            fates[index] = ScanRow(id=rows[index].id, action="keep")
    return [fates[index] for index in range(len(rows))]
