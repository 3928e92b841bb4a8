"""Imports files into memory: the import itself, its report, and the run of kind "import"."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.core.errors import BadInput
from engine.core.filenames import printable_name, shell_word, text_to_path
from engine.core.i18n import N_, _, n_
from engine.memory.disk_reserve import check_import_space
from engine.memory.import_texts import taken_text
from engine.memory.importers.fields import ImportOptions, parse_role_map
from engine.memory.importers.formats import ImportFile, find_importer, import_files
from engine.memory.importers.readers.json_stream import tolerating
from engine.memory.importers.readers.temporary import temporary_files_in
from engine.memory.importers.readers.unpack import OtherFile, UnreadableFile, content_size
from engine.memory.importers.unknown import empty_container
from engine.memory.records import AssumedDates, Conversation, ImportItem, LateAnswers, Skipped, SummaryPoint
from engine.memory.store import MemoryStore
from engine.pipeline.import_parts import read_replacing_parts
from engine.pipeline.import_reasons import empty_file_text, empty_text, reason_text
from engine.workspace.leftovers import staging_folder

if TYPE_CHECKING:
    from engine.runs.context import RunContext, RunResult
    from engine.runs.kinds import ImportParams


_UNREAD_REASON = "file that cannot be read: "
_MAX_UNREAD_LINES = 20


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    conversations: int
    """Conversations in the file, new or not."""
    points: int = 0
    """Summary points in the file."""


class UnreadFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that could not be read, or not all of it."""

    path: str
    line: int | None
    reason: str
    """A sentence, in the user's language."""
    hint: str = ""


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
    unread: list[UnreadFile] = []
    late_answers: int = 0
    """More answers of chats between people that a silence of a day would give."""
    assumed_dates: dict[str, str] = {}
    """By path, the order `dmy` or `mdy` of files where nothing tells day and month apart."""


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
    """Imports every conversation that can be read in `paths`: a fault in a file is named, whether the user named the file
    or it was found in a folder or archive, and what is whole beside the fault is imported.

    `on_progress` may raise to cancel the import; nothing is added then. With `again`, forgotten conversations
    are imported too. Raises BadInput for a missing file and when nothing can be read, UsageProblem, Busy.
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
    with staging_folder(store.path.parent, ".unpack.") as scratch, temporary_files_in(scratch):
        reading = _Reading(paths, format_, options, scratch, on_progress, store.path)
        reading.replaces_parts = store.count() > 0
        origin = ", ".join(printable_name(str(path)) for path in paths)
        result = store.add(reading.items(), reading.formats, origin, again=again)
    return ImportReport(
        import_id=result.import_id,
        added=result.added,
        unchanged=result.unchanged,
        superseded=result.superseded,
        skipped=result.skipped,
        points=result.points,
        conversations=store.count(),
        seconds=round(time.monotonic() - began, 3),
        files=reading.reports,
        unread=reading.unread,
        late_answers=reading.late_answers,
        assumed_dates=reading.assumed_dates,
    )


class _Reading:
    """Reads every file of one import."""

    def __init__(
        self,
        paths: list[Path],
        format_: str,
        options: ImportOptions,
        scratch: Path,
        on_progress: OnProgress,
        memory: Path,
    ) -> None:
        self.paths = paths
        self.memory = memory
        self.format = format_
        self.options = options
        self.scratch = scratch
        self.on_progress = on_progress
        self.replaces_parts = False
        """Whether memory may hold parts of conversations that this import takes as a whole."""
        self.reports: list[FileReport] = []
        self.unread: list[UnreadFile] = []
        self.done = 0
        self.total = 0
        self.conversations = 0
        self.points = 0
        self.late_answers = 0
        self.assumed_dates: dict[str, str] = {}
        self.first_error: BadInput | None = None
        """The first fault of a file."""
        self.left_out: dict[str, int] = {}

    def formats(self) -> str:
        """The formats of the files that were read."""
        return "+".join(sorted({report.format for report in self.reports}))

    def items(self) -> Iterator[ImportItem]:
        """What the files hold. Raises BadInput for a missing file, and when nothing is found."""
        self.total = sum(content_size(path) for path in self.paths)
        check_import_space(self.memory, self.total)
        for path in self.paths:
            try:
                yield from self._read_path(path)
            except BadInput as error:
                if len(self.paths) == 1 or not path.exists():
                    raise
                yield self._unread_file(path.name, error)
        if not self.conversations and not self.points:
            empty = BadInput(empty_text(self.left_out), path=self.paths[0]) if self.left_out else None
            raise self.first_error or self._with_late_hint(empty or empty_container(self.paths[0], ()))

    def _read_path(self, path: Path) -> Iterator[ImportItem]:
        files = 0
        others: list[OtherFile] = []
        first_error: BadInput | None = None
        for entry in import_files(
            path, self.format, self.scratch, lambda: self._on_bytes(0), roles=self.options.roles
        ):
            if isinstance(entry, OtherFile):
                others.append(entry)
                yield Skipped(reason=entry.reason)
                continue
            error = None
            if isinstance(entry, UnreadableFile):
                name, error = entry.name, entry.error
            else:
                name, files = entry.file.name, files + 1
                try:
                    yield from self._despite_broken_lines(entry)
                except BadInput as fault:
                    error = entry.file.relocate(fault)
            if error is not None:
                first_error = first_error or error
                yield self._unread_file(name, error)
        if not files:
            raise first_error or _only_error(others) or empty_container(path, [file.name for file in others])

    def _read_file(self, entry: ImportFile) -> Iterator[ImportItem]:
        before, points = self.conversations, 0
        skipped: dict[str, int] = {}
        try:
            for item in self._file_items(entry):
                if isinstance(item, LateAnswers):
                    self.late_answers += item.count
                    continue
                if isinstance(item, AssumedDates):
                    self.assumed_dates[printable_name(entry.file.place)] = item.order
                    continue
                if isinstance(item, Skipped):
                    skipped[item.reason] = skipped.get(item.reason, 0) + item.count
                    self.left_out[item.reason] = self.left_out.get(item.reason, 0) + item.count
                points += isinstance(item, SummaryPoint)
                self.conversations += isinstance(item, Conversation)
                yield item
        finally:
            self.points += points
            self.reports.append(
                FileReport(
                    path=printable_name(entry.file.place),
                    format=entry.format,
                    conversations=self.conversations - before,
                    points=points,
                )
            )
        if self.conversations == before and not points and entry.file.explicit:
            raise self._with_late_hint(BadInput(empty_file_text(skipped), path=entry.file.path))

    def _with_late_hint(self, error: BadInput) -> BadInput:
        """The error; the hint is how to take the answers that came late, if there are any."""
        if self.late_answers:
            paths = [str(path) for path in self.paths]
            error.hint = _wider_command(paths, self.options.me, self.options.roles, self.format)
        return error

    def _despite_broken_lines(self, entry: ImportFile) -> Iterator[ImportItem]:
        """The items of a file. Broken lines are named, as many as a person reads."""
        broken: list[BadInput] = []
        with tolerating(broken.append):
            for item in self._read_file(entry):
                yield item
                yield from self._broken_lines(entry, broken)
        yield from self._broken_lines(entry, broken)

    def _broken_lines(self, entry: ImportFile, broken: list[BadInput]) -> Iterator[Skipped]:
        for error in broken:
            if len(self.unread) < _MAX_UNREAD_LINES:
                yield self._unread_file(entry.file.name, entry.file.relocate(error))
            else:
                yield Skipped(reason="row of another shape", is_conversation=True)
        broken.clear()

    def _file_items(self, entry: ImportFile) -> Iterator[ImportItem]:
        importer, path = find_importer(entry.format), entry.file.path
        items = importer.read(path, self.options, self._on_bytes)
        if self.options.roles and self.replaces_parts:
            items = read_replacing_parts(importer, path, self.options, items)
        return items

    def _unread_file(self, name: str, error: BadInput) -> Skipped:
        """Notes a file that could not be read; what was read of it before the fault stays."""
        self.first_error = self.first_error or error
        self.unread.append(
            UnreadFile(path=error.place, line=error.line, reason=error.reason, hint=error.hint)
        )
        line = f":{error.line}" if error.line is not None else ""
        return Skipped(reason=f"{_UNREAD_REASON}{printable_name(name)}{line}")

    def _on_bytes(self, count: int) -> None:
        self.done += count
        self.total = max(self.total, self.done)
        self.on_progress(self.done, self.total, self.conversations)


def _only_error(others: list[OtherFile]) -> BadInput | None:
    """Why the only file that may hold conversations has no format; None when there are several or none."""
    usual = [file for file in others if file.is_usual]
    return usual[0].error if len(usual) == 1 else None


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
            [text_to_path(path) for path in params.paths],
            format_=params.format,
            options=ImportOptions(
                roles=parse_role_map(params.role_map), me=params.me, silence_s=params.silence_s
            ),
            again=params.again,
            on_progress=on_progress,
        )
        stage.detail = summary_text(report)
    skipped = {
        reason: count for reason, count in report.skipped.items() if not reason.startswith(_UNREAD_REASON)
    }
    lines = (
        taken_text([(file.path, file.conversations) for file in report.files]),
        points_text(report),
        *skipped_lines(skipped),
        late_answers_text(report, params),
        *assumed_dates_lines(report),
        *unread_lines(report.unread),
    )
    for line in lines:
        if line:
            ctx.log(line)
    weekly_backup(ctx.workspace)
    return RunResult(status=RunStatus.DONE, result=report)


"""Translatable texts of the `Skipped.reason` values, which are stored and printed by `--json`."""


def summary_text(report: ImportReport) -> str:
    """One line about the result."""
    text = n_(
        "{added} new, {unchanged} unchanged, {total} conversation in memory",
        "{added} new, {unchanged} unchanged, {total} conversations in memory",
        report.conversations,
    ).format(added=report.added, unchanged=report.unchanged, total=report.conversations)
    if report.points:
        text += " · " + n_("{n} memory point", "{n} memory points", report.points).format(n=report.points)
    if report.superseded:
        text += " · " + _("{n} replaced by a longer version").format(n=report.superseded)
    return text


def skipped_lines(skipped: dict[str, int]) -> list[str]:
    """One line for each reason of skipped content, the most frequent first."""
    return [
        _("skipped: {n} × {reason}").format(n=count, reason=reason_text(reason))
        for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    ]


def unread_lines(files: list[UnreadFile]) -> list[str]:
    """One line for each file that could not be read, or not to its end: where, why, and what helps."""
    lines = []
    for file in files[:_MAX_UNREAD_LINES]:
        error = BadInput(file.reason, line=file.line, hint=file.hint)
        error.set_place(file.path)
        lines.append(_("not read: {error}").format(error=error))
    if more := len(files) - len(lines):
        lines.append(n_("{n} more file was not read", "{n} more files were not read", more).format(n=more))
    return lines


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


def late_answers_text(report: ImportReport, params: ImportParams) -> str:
    """How many more answers a wider window gives, and the command for it; "" when there are none."""
    if not report.late_answers:
        return ""
    text = n_(
        "{n} more answer came after the silence that ends a dialogue",
        "{n} more answers came after the silence that ends a dialogue",
        report.late_answers,
    )
    paths = [str(text_to_path(path)) for path in params.paths]
    command = _wider_command(paths, params.me, params.role_map, params.format)
    return text.format(n=report.late_answers) + " → " + command


_ORDER_TEXTS = {"dmy": N_("day/month/year"), "mdy": N_("month/day/year")}


def assumed_dates_lines(report: ImportReport) -> Iterator[str]:
    """How dates were read that may be read in two ways, a line a file."""
    for path, order in report.assumed_dates.items():
        text = _("{file}: nothing tells day and month apart; read as {order}")
        yield text.format(file=Path(path).name, order=_(_ORDER_TEXTS[order]))


def _wider_command(paths: list[str], me: str, roles: Mapping[str, str], format_: str) -> str:
    """The import again, with dialogues that only a day of silence ends."""
    words = ["h2q-tui", "memory", "import", "--silence", "24h", *(["--me", me] if me else [])]
    for name, role in roles.items():
        words += ["--map", f"{name}={role}"]
    words += [] if format_ == "auto" else ["--format", format_]
    return " ".join(map(shell_word, [*words, *paths]))
