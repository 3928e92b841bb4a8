"""External scores: a JSONL file of rows {group, base, new}; higher is better."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _


class ExternalScore(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of both models for one case. Other fields of a row are ignored."""

    group: str | int
    """Shared by cases that are not independent (of one conversation, one author)."""
    base: float | None
    new: float | None

    @property
    def cluster(self) -> str:
        return str(self.group)

    @property
    def base_value(self) -> float | None:
        """None for a failed case: null, NaN or infinite."""
        return self.base if self.base is not None and math.isfinite(self.base) else None

    @property
    def new_value(self) -> float | None:
        """`base_value` of the new model."""
        return self.new if self.new is not None and math.isfinite(self.new) else None


def read_external_scores(path: Path) -> list[ExternalScore]:
    """The rows of a file in order; empty lines are skipped.

    Raises BadInput with file and line for the first invalid row, and for an empty file.
    """
    hint = "h2q-tui validate --help"
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as problem:
        raise BadInput(_("the scores cannot be read"), path=path, hint=hint) from problem
    except UnicodeDecodeError as problem:
        raise BadInput(_("the scores are not UTF-8 text"), path=path, hint=hint) from problem
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            # Python writes NaN and Infinity, which msgspec rejects; here they are failed cases.
            rows.append(msgspec.convert(json.loads(line), ExternalScore))
        except (ValueError, RecursionError, msgspec.ValidationError) as problem:
            raise BadInput(
                _("a row of the scores is not {{group, base, new}}").format(),
                path=path,
                line=number,
                hint=hint,
            ) from problem
    if not rows:
        raise BadInput(_("the file of scores is empty"), path=path, hint=hint)
    return rows
