"""Expected failures: a message, a hint (the command that fixes it) and an exit code."""

from __future__ import annotations

import errno
from pathlib import Path

from engine.core.filenames import printable_name
from engine.core.i18n import _, colon

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""What torch's allocators write into a RuntimeError."""


class H2QError(Exception):
    """Base of every expected failure.

    Attributes:
        message: one sentence without a full stop: what is wrong and where (file, row).
        hint: the command or key that fixes it; empty without one.
        exit_code: exit code of a process that ends with this error.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} → {self.hint}" if self.hint else self.message


def error_text(problem: Exception) -> str:
    """Any exception as a sentence; for an OSError its text and file, without the number."""
    if isinstance(problem, OSError) and problem.strerror:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            full = _("the disk is full")
            return colon(full, str(problem.filename)) if problem.filename else full
        return colon(problem.strerror, str(problem.filename)) if problem.filename else problem.strerror
    return str(problem)


def first_line(problem: BaseException) -> str:
    """First line of an exception's text, and the next one where it ends with a colon; without text its class."""
    lines = [line.strip() for line in str(problem).strip().splitlines()]
    if not lines:
        return type(problem).__name__
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0].rstrip(':')}: {lines[1]}"[:200]
    return lines[0][:200]


class UsageProblem(H2QError):
    """The command line or a setting is invalid."""

    exit_code = 2


class BadInput(H2QError):
    """A file or directory that the user named is missing, invalid or of the wrong kind."""

    exit_code = 2

    def __init__(
        self, message: str, *, path: Path | None = None, line: int | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = message
        """The message without the place."""
        self.path = path
        self.line = line
        self.place = ""
        """The path, or where in it the fault is."""
        if path is not None:
            self.set_place(str(path))

    def set_place(self, place: str) -> None:
        """Names where the fault is in other words than the path, as for a file inside an archive."""
        self.place = printable_name(place)
        self.message = colon(self.reason, self.place)
        if self.line is not None:
            self.message += _(", line {line}").format(line=self.line)
        self.args = (self.message,)


class NotEnoughData(H2QError):
    """There is too little data for the request; nothing was changed."""

    exit_code = 3


class ServiceUnreachable(H2QError):
    """A local service (inference, Ollama, another run) does not answer."""

    exit_code = 4


class RunFailed(H2QError):
    """A run ended without a result; `engine.log` in its folder has the traceback."""

    exit_code = 5


class Busy(RunFailed):
    """Another run or process, named in the message, holds a required resource."""


class Interrupted(H2QError):
    """The user stopped the work; finished work is kept."""

    exit_code = 130


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on the CPU or on a device."""
    if isinstance(problem, MemoryError):
        return True
    text = str(problem).lower()
    return isinstance(problem, RuntimeError) and (
        type(problem).__name__ == "OutOfMemoryError" or any(words in text for words in _OUT_OF_MEMORY)
    )
