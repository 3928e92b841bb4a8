"""Writes a verdict for people and for programs: Markdown, JSON, and samples of lm-evaluation-harness. Imports nothing heavy."""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import UsageProblem
from engine.core.files import fsync_dir, locked_folder, make_dirs, write_bytes
from engine.core.i18n import _
from engine.core.json_text import encode_json
from engine.core.outputs import check_output_parent
from engine.core.paths import Workspace
from engine.validation.harness_samples import SIDES, ReadConversation, model_folder, results, samples
from engine.validation.report import ValidationReport
from engine.validation.verdict_markdown import markdown

JSON_FILE = "verdict.json"
MARKDOWN_FILE = "verdict.md"
SAMPLE_FILES = ("results_*.json", "samples_*.jsonl")
"""What the folder of each model holds."""


def verdicts_folder(ws: Workspace) -> Path:
    """Where verdicts are exported to by default."""
    return ws.exports / "verdicts"


def verdict_folder(ws: Workspace, report: ValidationReport) -> Path:
    """The default folder of one report."""
    return verdicts_folder(ws) / model_folder(report.run_id or "verdict")


def export_verdict(report: ValidationReport, folder: Path, read: ReadConversation) -> list[Path]:
    """Writes the report into `folder`, in place of an earlier export of it; returns the files.

    Raises UsageProblem when `folder` holds anything else, OSError.
    """
    check_export_folder(folder)
    make_dirs(folder.parent)
    with locked_folder(folder.parent, f".{folder.name}.new.") as temporary:
        written = _write(report, temporary, read)
        temporary.chmod(0o700)
        old = None
        if folder.exists():
            # A name of our own making: what is there under a guessed name could be the user's.
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(old)
        temporary.rename(folder)
        fsync_dir(folder.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    return [folder / path.relative_to(temporary) for path in written]


def exported_files(folder: Path) -> list[Path]:
    """The files of an export in `folder`, not what stands beside them."""
    names = (JSON_FILE, MARKDOWN_FILE, *(f"*/{name}" for name in SAMPLE_FILES))
    return [
        path for name in names for path in sorted(folder.glob(name)) if stat.S_ISREG(path.lstat().st_mode)
    ]


def check_export_folder(folder: Path) -> None:
    """Raises UsageProblem unless `folder` is missing, empty, or holds nothing but an earlier export."""
    if not folder.exists() and not folder.is_symlink():
        check_output_parent(folder.parent)
        return
    entries = list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else None
    if entries is None or (entries and not _is_export(entries)):
        raise UsageProblem(
            _("{path} holds something else; name an empty or a new folder").format(path=folder),
            hint="h2q-tui verdicts export --help",
        )


def _is_export(entries: Sequence[Path]) -> bool:
    """Whether a folder with these entries holds an export and nothing beside it."""
    files = {entry.name for entry in entries if stat.S_ISREG(entry.lstat().st_mode)}
    folders = [entry for entry in entries if stat.S_ISDIR(entry.lstat().st_mode)]
    return (
        files == {JSON_FILE, MARKDOWN_FILE}
        and len(files) + len(folders) == len(entries)
        and all(
            stat.S_ISREG(file.lstat().st_mode) and any(fnmatchcase(file.name, name) for name in SAMPLE_FILES)
            for inner in folders
            for file in inner.iterdir()
        )
    )


def _write(report: ValidationReport, folder: Path, read: ReadConversation) -> list[Path]:
    conversations = {case.conversation: read(case.conversation) for case in report.cases}
    files = {
        folder / MARKDOWN_FILE: markdown(report).encode("utf-8", "replace"),
        folder / JSON_FILE: msgspec.json.format(encode_json(report), indent=2) + b"\n",
    }
    date = time.strftime("%Y-%m-%dT%H-%M-%S", time.localtime(report.created_at))
    names = [model_folder(score.name) for score in (report.verdict.base, report.verdict.new)]
    if names[0] == names[1]:
        names[1] += "__new"
    for side, name in zip(SIDES, names, strict=True):
        rows = samples(report, side, conversations.get)
        files[folder / name / f"results_{date}.json"] = _json(results(report, side, rows), indent=2)
        for task, found in rows.items():
            data = b"".join(_json(row) for row in found)
            files[folder / name / f"samples_{task}_{date}.jsonl"] = data
    for path, data in files.items():
        make_dirs(path.parent)
        write_bytes(path, data, mode=0o600)
    return list(files)


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "replace") + b"\n"
