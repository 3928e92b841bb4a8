"""Imports files into memory: the import itself, its report, and the run of kind "import"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import N_, _, colon, n_
from engine.memory.importers.fields import ImportOptions, parse_role_map
from engine.memory.importers.formats import ImportFile, find_files, find_importer, no_conversations
from engine.memory.importers.readers.files import import_size
from engine.memory.records import Conversation, ImportItem, Skipped, SummaryPoint
from engine.memory.store import MemoryStore

if TYPE_CHECKING:
    from engine.runs.context import RunContext, RunResult


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    conversations: int
    """Conversations in the file, new or not."""
    points: int = 0
    """Summary points in the file."""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an import; the JSON of `memory import --json`."""

    import_id: str
    added: int = msgspec.field(name="taken")
    unchanged: int
    superseded: int
    skipped: dict[str, int]
    conversations: int
    """Total in memory after the import."""
    points: int = 0
    """Summary points added."""
    seconds: float
    files: list[FileReport]


OnProgress = Callable[[int, int, int], None]
"""Called with the bytes read, the bytes in all files, and the conversations read."""


def _ignore_progress(done: int, total: int, conversations: int) -> None:
    """The default: no progress."""


def import_paths(
    store: MemoryStore,
    paths: list[Path],
    *,
    format_: str = "auto",
    options: ImportOptions | None = None,
    again: bool = False,
    on_progress: OnProgress = _ignore_progress,
) -> ImportReport:
    """Imports every conversation in `paths`, or none when a file is malformed.

    `on_progress` may raise to cancel the import; nothing is added then. With `again`, forgotten conversations
    are imported too. Raises BadInput, UsageProblem, Busy.
    """
    with _import_hint():
        return _import(store, paths, format_, options or ImportOptions(), again, on_progress)


@contextmanager
def _import_hint() -> Iterator[None]:
    """Adds a hint to errors without one: the help lists the formats and how to choose one."""
    try:
        yield
    except BadInput as error:
        error.hint = error.hint or "h2q-tui memory import --help"
        raise


def _import(
    store: MemoryStore,
    paths: list[Path],
    format_: str,
    options: ImportOptions,
    again: bool,
    on_progress: OnProgress,
) -> ImportReport:
    began = time.monotonic()
    entries = list(find_files(paths, format_))
    files = [entry for entry in entries if isinstance(entry, ImportFile)]
    total = sum(import_size(file.path) for file in files)
    reports: list[FileReport] = []
    done = conversations = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_progress(min(done, total), total, conversations)

    def read_all() -> Iterator[ImportItem]:
        nonlocal conversations
        total_points = 0
        for entry in entries:
            if isinstance(entry, Skipped):
                yield entry
                continue
            before, points = conversations, 0
            skipped: dict[str, int] = {}
            for item in find_importer(entry.format).read(entry.path, options, on_bytes):
                if isinstance(item, Skipped):
                    skipped[item.reason] = skipped.get(item.reason, 0) + item.count
                points += isinstance(item, SummaryPoint)
                conversations += isinstance(item, Conversation)
                yield item
            if conversations == before and not points and entry.explicit:
                raise BadInput(_empty_file_text(skipped), path=entry.path)
            total_points += points
            reports.append(
                FileReport(
                    path=str(entry.path),
                    format=entry.format,
                    conversations=conversations - before,
                    points=points,
                )
            )
        if not conversations and not total_points:
            raise no_conversations(paths[0])

    origin = ", ".join(str(path) for path in paths)
    result = store.add(read_all(), "+".join(sorted({f.format for f in files})), origin, again=again)
    return ImportReport(
        import_id=result.import_id,
        added=result.added,
        unchanged=result.unchanged,
        superseded=result.superseded,
        skipped=result.skipped,
        points=result.points,
        conversations=store.count(),
        seconds=round(time.monotonic() - began, 3),
        files=reports,
    )


def run(ctx: RunContext) -> RunResult:
    """The run of kind "import". A stop discards everything read so far: an import is complete or absent."""
    from engine.runs.context import RunResult
    from engine.runs.events import RunStatus
    from engine.runs.kinds import ImportParams
    from engine.workspace.backup import weekly_backup

    params = ctx.params(ImportParams)

    def on_progress(done: int, total: int, conversations: int) -> None:
        ctx.check_stop()
        ctx.progress("import", done / 1e3, total / 1e3, unit="kB")

    with ctx.stage("import", index=1, total=1) as stage, MemoryStore(ctx.workspace.memory_db) as store:
        report = import_paths(
            store,
            [Path(path) for path in params.paths],
            format_=params.format,
            options=ImportOptions(roles=parse_role_map(params.role_map)),
            again=params.again,
            on_progress=on_progress,
        )
        stage.detail = summary_text(report)
    for line in (points_text(report), *skipped_lines(report.skipped)):
        if line:
            ctx.log(line)
    weekly_backup(ctx.workspace)
    return RunResult(status=RunStatus.DONE, result=report)


_REASON_TEXTS = {
    "activity of another product": N_("activity of another product"),
    "activity without a message": N_("activity without a message"),
    "another key": N_("unrelated key"),
    "citation": N_("citation mark"),
    "attachment": N_("attachment"),
    "deleted message": N_("deleted message"),
    "empty conversation": N_("empty conversation"),
    "empty memory point": N_("empty memory point"),
    "empty message": N_("empty message"),
    "entry of another shape": N_("malformed entry"),
    "failed answer": N_("failed answer"),
    "file of another kind": N_("file of an unsupported format"),
    "file that cannot be read": N_("unreadable file"),
    "forgotten earlier": N_("forgotten earlier"),
    "hidden message": N_("hidden message"),
    "history of another shape": N_("malformed history"),
    "image": N_("image"),
    "index of a skill": N_("skill index"),
    "line before the first speaker": N_("line before the first speaker"),
    "message of a sub-agent": N_("message of a sub-agent"),
    "message of another branch": N_("message on another branch"),
    "message of another shape": N_("malformed message"),
    "message without a role": N_("message without a role"),
    "notice of the program": N_("notice of the program"),
    "reasoning": N_("reasoning"),
    "record without a message": N_("record without a message"),
    "repeated message": N_("repeated message"),
    "row of another shape": N_("malformed row"),
    "row without an answer": N_("row without an answer"),
    "text added by the program": N_("text added by the program"),
    "tool description": N_("tool description"),
    "tool message": N_("tool message"),
    "unknown role": N_("unknown role, see --map"),
}
"""Translatable texts of the `Skipped.reason` values, which are stored and printed by `--json`."""


def summary_text(report: ImportReport) -> str:
    """One line about the result."""
    text = _("{added} new, {unchanged} unchanged, {total} conversations in memory").format(
        added=report.added, unchanged=report.unchanged, total=report.conversations
    )
    if report.points:
        text += " · " + _("{n} memory points").format(n=report.points)
    if report.superseded:
        text += " · " + _("{n} replaced by a longer version").format(n=report.superseded)
    return text


def skipped_lines(skipped: dict[str, int]) -> list[str]:
    """One line for each reason of skipped content, the most frequent first."""
    return [
        _("skipped: {n} × {reason}").format(n=count, reason=_reason_text(reason))
        for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    ]


def points_text(report: ImportReport) -> str:
    """How imported summary points are used; "" when there are none."""
    if not report.points:
        return ""
    text = n_(
        "{n} memory point is a summary: searchable, but not trained on",
        "{n} memory points are summaries: searchable, but not trained on",
        report.points,
    )
    return text.format(n=report.points) + " → h2q-tui memory list --points"


def _reason_text(reason: str) -> str:
    """A `Skipped.reason` in the user's language; a name from the file may follow a colon."""
    cause, separator, name = reason.partition(": ")
    text = _(_REASON_TEXTS.get(cause, cause))
    return colon(text, name) if separator else text


def _empty_file_text(skipped: dict[str, int]) -> str:
    """Why a file yielded no conversation."""
    if not skipped:
        return _("There are no conversations in this file")
    reasons = _(", ").join(f"{count} × {_reason_text(reason)}" for reason, count in skipped.items())
    return _("There are no conversations in this file, only {reasons}").format(reasons=reasons)
