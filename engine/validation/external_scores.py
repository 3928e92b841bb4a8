"""Scores from elsewhere: a JSONL file of rows {group, base, new}, higher is better."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _


class ScoreRow(msgspec.Struct, frozen=True, kw_only=True):
    """One case, scored for both models. Other fields of a row are ignored."""

    group: str | int
    """Cases that are not independent (one conversation, one author) share it."""
    base: float | None
    new: float | None

    @property
    def cluster(self) -> str:
        return str(self.group)

    @property
    def base_value(self) -> float | None:
        """None when the call failed: null, NaN or infinite."""
        return self.base if self.base is not None and math.isfinite(self.base) else None

    @property
    def new_value(self) -> float | None:
        """As `base_value`, of the new model."""
        return self.new if self.new is not None and math.isfinite(self.new) else None


def read_rows(path: Path) -> list[ScoreRow]:
    """The rows of a file, in order; empty lines are skipped.

    Raises BadInput naming the file and the line of the first row that is not one, or an empty file.
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
            # Python writes NaN and Infinity, which msgspec refuses: they are failed scores here.
            rows.append(msgspec.convert(json.loads(line), ScoreRow))
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
