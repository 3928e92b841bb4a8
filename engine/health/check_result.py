"""One line of the preflight, and what a look at one thing gives."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from engine.core.paths import Workspace


class Grade(StrEnum):
    PASS = "pass"  # noqa: S105 - a grade
    WARN = "warn"
    FAIL = "fail"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the preflight."""

    id: str
    name: str
    """Its name in the person's language."""
    grade: Grade
    detail: str
    """What was found, with its reference."""
    hint: str = ""
    """The command that mends it, where one does."""


Look = Callable[[Workspace], tuple[Grade, str, str]]
"""The grade, what was found, and the command that mends it or an empty string. May raise."""
