"""Rows of CSV, TSV and Parquet files, each as a dict like a row of JSONL."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.i18n import _

SUFFIXES = frozenset((".csv", ".tsv"))
PARQUET_MAGIC = b"PAR1"
_DELIMITERS = (",", "\t", ";", "|")
_BATCH_ROWS = 256


def csv_rows(lines: Iterable[str], path: Path, max_field: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with their line numbers; `lines` keep their ends. The first row names the columns.

    The delimiter is the one that occurs most in the first line. Raises BadInput for a field over `max_field`
    characters.
    """
    csv.field_size_limit(min(max_field, sys.maxsize))
    iterator = iter(lines)
    header = next(iterator, "")
    delimiter = max(_DELIMITERS, key=lambda mark: _outside_quotes(header).count(mark))
    reader = csv.reader(_chained(header, iterator), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        line = reader.line_num + 1
        for row in reader:
            if any(row):
                yield line, dict(zip(names, row, strict=False))
            line = reader.line_num + 1
    except csv.Error:
        raise BadInput(
            _("One conversation or line is longer than {n} MB").format(n=max_field // 2**20),
            path=path,
            line=reader.line_num,
        ) from None


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with their numbers, a batch at a time. Raises BadInput, also when `pyarrow` is not installed."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadInput(
            _("Parquet files need the package pyarrow"),
            path=path,
            hint=f"{sys.executable} -m pip install pyarrow",
        ) from None
    number = 0
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(
            _("The Parquet file is damaged ({reason})").format(reason=type(error).__name__),
            path=path,
            line=number + 1 if number else None,
        ) from None
