"""The reports of past validations, as the app lists them. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.validation.report import ValidationReport


class _File(msgspec.Struct, frozen=True):
    """The part of `training/report_<id>.json` about the verdict; a run that was not judged has none."""

    validation: ValidationReport | None = None


def list_reports(ws: Workspace) -> list[Path]:
    """Files of reports, newest first by the time of writing; they may lack a verdict."""
    found: list[tuple[float, Path]] = []
    for file in ws.training.glob("report_*.json") if ws.training.is_dir() else ():
        try:
            found.append((file.stat().st_mtime, file))
        except OSError:
            continue
    return [file for _time, file in sorted(found, reverse=True)]


def load_report(file: Path) -> ValidationReport | None:
    """The validation of a report; None when the run was not judged. Raises BadInput for a broken file."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_File).validation
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BadInput(_("the report is broken"), path=file, hint="h2q-tui validate") from problem
    except OSError as problem:
        raise BadInput(_("the report cannot be read"), path=file, hint="h2q-tui validate") from problem


def newest_report(ws: Workspace) -> ValidationReport | None:
    """The newest report with a verdict, broken ones left out; None when no model was judged yet."""
    for file in list_reports(ws):
        try:
            report = load_report(file)
        except BadInput:
            continue
        if report is not None:
            return report
    return None
