"""What a check finds: a grade, the reason with its figures, and a command that helps; some commands `--fix` may run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from engine.core.errors import H2QError, error_text
from engine.core.filenames import shell_command
from engine.core.i18n import N_, _
from engine.core.paths import Workspace

R = TypeVar("R")
GB = 1 << 30


class Grade(StrEnum):
    PASS = "pass"  # noqa: S105 - a grade
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It could not be read here; the detail says why."""


GRADE_NAMES = {"pass": N_("pass"), "warn": N_("warn"), "fail": N_("FAIL"), "unknown": N_("not known")}
"""What is shown of each grade, marked for the catalogs."""


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """A change that `check --fix` makes after asking."""

    change: str
    """What it changes, as a sentence without a full stop."""
    command: tuple[str, ...]
    """The words of its command line; the first is "h2q-tui" for a command of this program."""
    outside: bool = False
    """Whether it changes something outside the workspace."""

    @property
    def hint(self) -> str:
        """The command as it is typed."""
        return shell_command(*self.command)


class Judgement(NamedTuple):
    """The result of a judgement."""

    grade: Grade
    detail: str
    hint: str = ""
    """A command that helps; empty when there is none."""
    fix: Fix | None = None


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the preflight."""

    id: str
    name: str
    """Translated name."""
    grade: Grade
    detail: str
    """The finding, with the value it is based on."""
    hint: str = ""
    """The command that helps; empty when there is none."""
    fix: Fix | None = None
    """The change that `--fix` offers; its command is the hint."""


class NotKnown(Exception):
    """A reading that this machine does not give, with the reason as a translated text."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


@dataclass(frozen=True)
class Check(Generic[R]):
    """A row of the table of checks.

    Attributes:
        id: its name in JSON and for `--only`.
        name: what is shown, marked for the catalogs.
        read: takes the reading; touches files, processes or sockets, changes nothing, and may raise.
        judge: the finding of a reading; a pure function.
        limit_s: seconds after which the reading is not known.
    """

    id: str
    name: str
    read: Callable[[Workspace], R]
    judge: Callable[[R], Judgement]
    limit_s: float = 4.0

    def run(self, ws: Workspace) -> CheckResult:
        """Reads and judges in this thread, without the time limit. Never raises."""
        try:
            return self.result(self.judge(self.read(ws)))
        except Exception as problem:
            return self.result(judgement_of(problem))

    def result(self, finding: Judgement) -> CheckResult:
        """The line of `finding`."""
        grade, detail, hint, fix = finding
        return CheckResult(id=self.id, name=_(self.name), grade=grade, detail=detail, hint=hint, fix=fix)


AnyCheck = Check[Any]


def passes(detail: str, hint: str = "") -> Judgement:
    return Judgement(Grade.PASS, detail, hint)


def warns(detail: str, hint: str = "") -> Judgement:
    return Judgement(Grade.WARN, detail, hint)


def fails(detail: str, hint: str = "") -> Judgement:
    return Judgement(Grade.FAIL, detail, hint)


def fixable(grade: Grade, detail: str, fix: Fix) -> Judgement:
    """A finding whose hint is the command of its fix."""
    return Judgement(grade, detail, fix.hint, fix)


def judgement_of(problem: Exception) -> Judgement:
    """The finding for an exception of a check: what is broken fails, what cannot be read is not known."""
    if isinstance(problem, NotKnown):
        return Judgement(Grade.UNKNOWN, problem.reason, problem.hint)
    if isinstance(problem, H2QError):
        return fails(problem.message, problem.hint)
    if isinstance(problem, sqlite3.OperationalError):
        # It is locked, or cannot be opened: a full disk, no permission.
        return Judgement(Grade.UNKNOWN, str(problem))
    if isinstance(problem, sqlite3.Error):
        return fails(f"{type(problem).__name__}: {problem}")
    text = error_text(problem)
    return Judgement(
        Grade.UNKNOWN, text if isinstance(problem, OSError) else f"{type(problem).__name__}: {text}"
    )


def as_root(command: str) -> str:
    """A command that needs the rights of the administrator: with sudo, unless this user is one (containers have none)."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def existing_folder(path: Path) -> Path:
    """The path or its nearest existing parent."""
    for folder in (path, *path.parents):
        try:
            if folder.exists():
                return folder
        except OSError:
            continue
    return Path(path.anchor or ".")
