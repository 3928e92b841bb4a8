"""The two READMEs as data: code blocks and rows of the "coming from" table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
NOT_YET = {"not yet", "尚未"}


@dataclass(frozen=True)
class Row:
    """One line of a table: what it was called there, what it is here, and whether it is built."""

    there: str
    here: str
    built: bool

    @property
    def code(self) -> list[str]:
        """What stands in backticks on our side."""
        return re.findall(r"`([^`]+)`", self.here)


def blocks(file: Path, kind: str | None = None) -> list[list[str]]:
    """Lines of the fenced blocks; `kind` narrows them to one info string ("sh run")."""
    found = re.findall(
        r"^```(\S[^\n]*)\n(.*?)^```", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [body.strip().splitlines() for info, body in found if kind is None or info == kind]


def rows(file: Path) -> list[Row]:
    """The rows of every table of the file. Raises ValueError for a mark that is neither empty nor known."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if len(cells) != 3 or cells[0] in ("there", "原来") or set(cells[0]) <= {"-"}:
            continue
        there, here, mark = cells
        if mark and mark not in NOT_YET:
            raise ValueError(f"{file.name}: {line}")
        found.append(Row(there, here, not mark))
    return found
