"""Blind votes on the answers of a report: which side stands where, and the vote in the report's file. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import BadInput
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.validation.report import BlindVote, ValidationReport

LEFT, RIGHT, EQUAL = "left", "right", "equal"


def case_key(report: ValidationReport, number: int) -> str:
    """The name of the `number`-th answered question, from 1, in votes: its conversation, else its number."""
    return report.answers[number - 1].conversation or f"#{number}"


def new_is_left(run_id: str, key: str) -> bool:
    """Whether the new model's answer stands at the left; the same each time for a case, and even over cases."""
    return sha256(f"{run_id}/{key}".encode()).digest()[0] % 2 == 0


def choice_of(run_id: str, key: str, side: str) -> str:
    """What a vote for `side` means: "base", "new" or "equal"."""
    if side == EQUAL:
        return EQUAL
    return "new" if (side == LEFT) == new_is_left(run_id, key) else "base"


def vote_on(report: ValidationReport, key: str) -> BlindVote | None:
    """The vote on a case; None before it."""
    return next((vote for vote in report.votes if vote.conversation == key), None)


def count_votes(report: ValidationReport) -> dict[str, int]:
    """Votes for "base", "new" and "equal"."""
    counted = Counter(vote.choice for vote in report.votes)
    return {choice: counted[choice] for choice in ("base", "new", "equal")}


def save_vote(file: Path, vote: BlindVote) -> None:
    """Writes the vote into the report's file, in place of an earlier one on the case. Raises BadInput and OSError."""
    _change(file, vote.conversation, vote)


def remove_vote(file: Path, case: str) -> None:
    """Takes the vote on a case out of the report's file. Raises BadInput and OSError."""
    _change(file, case, None)


def _change(file: Path, case: str, vote: BlindVote | None) -> None:
    with _locked(file.parent):
        try:
            # As plain JSON: a report of another version keeps the fields that this one does not know.
            content: dict[str, Any] = json.loads(file.read_bytes())
            report: dict[str, Any] = content["validation"]
            others = [other for other in report.get("votes") or [] if other["conversation"] != case]
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise BadInput(_("the report is broken"), path=file, hint="h2q-tui validate --help") from problem
        report["votes"] = others if vote is None else [*others, msgspec.to_builtins(vote)]
        data = json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"
        write_bytes(file, data, mode=file.stat().st_mode & 0o777)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One change at a time, across processes."""
    fd = os.open(folder / ".votes.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
