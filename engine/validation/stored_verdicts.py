"""The verdicts of a workspace: its reports, and the conversations that they are about. Imports nothing heavy."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import BadInput, H2QError
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.validation.report import ValidationReport, list_reports, load_report


@dataclass(frozen=True)
class StoredVerdict:
    """A report with a verdict and its file."""

    file: Path
    report: ValidationReport

    @property
    def id(self) -> str:
        return self.file.stem

    @property
    def pair(self) -> tuple[str, str]:
        """Names of base and new model."""
        return self.report.verdict.base.name, self.report.verdict.new.name


class VerdictFiles:
    """The reports of a workspace; a file is read again only when it has changed."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int, int], ValidationReport | None]] = {}

    def read(self, workspace: Workspace) -> tuple[StoredVerdict, ...]:
        """All verdicts, newest first; broken files are skipped."""
        found: list[StoredVerdict] = []
        known, self._read = self._read, {}
        for file in list_reports(workspace):
            try:
                status = file.stat()
                version = (status.st_mtime_ns, status.st_size, status.st_ino)
                before = known.get(file)
                report = before[1] if before is not None and before[0] == version else load_report(file)
            except (BadInput, OSError):
                continue
            self._read[file] = (version, report)
            if report is not None:
                found.append(StoredVerdict(file, report))
        return tuple(sorted(found, key=lambda verdict: verdict.report.created_at, reverse=True))


def find_verdict(workspace: Workspace, id_: str = "") -> StoredVerdict:
    """The verdict of a run, by its id or the beginning of it; the newest for "". Raises BadInput."""
    verdicts = VerdictFiles().read(workspace)
    if not verdicts:
        raise BadInput(_("there is no verdict yet"), hint="h2q-tui validate --help")
    found = [verdict for verdict in verdicts if verdict.report.run_id.startswith(id_)]
    if not found:
        raise BadInput(_("there is no verdict {id}").format(id=id_), hint="h2q-tui verdicts list")
    return found[0]


def read_conversation(workspace: Workspace, id_: str) -> Conversation | None:
    """A conversation as it is trained on; None when memory has it no more, or cannot be read."""
    try:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            conversation = store.get(id_)
        if conversation is None:
            return None
        with ReviewStore(workspace.memory_db, readonly=True) as review:
            return review.as_trained(conversation)
    except (H2QError, sqlite3.Error):
        return None
