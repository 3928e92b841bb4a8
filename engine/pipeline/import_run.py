"""Files into memory: which importer reads which file, and the run of kind "import"."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.memory.importers.fields import RoleMap, parse_role_map
from engine.memory.importers.readers.badger import is_badger
from engine.memory.importers.readers.files import (
    OnBytes,
    first_value,
    ignore_bytes,
    import_size,
    is_zip,
    json_values,
)
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import Conversation, ImportItem, Skipped, SummaryPoint
from engine.memory.store import MemoryStore
from engine.pipeline.import_report import (
    FileReport,
    ImportReport,
    nothing_in,
    points_line,
    skipped_lines,
    summary,
)

if TYPE_CHECKING:
    from engine.runs.context import Outcome, RunContext

FORMATS = (
    "deepseek",
    "chatgpt",
    "claude",
    "openwebui",
    "lmstudio",
    "cherry",
    "chatbox",
    "nextchat",
    "crosswoz",
    "llm",
    "mindx",
    "alpaca",
    "completion",
    "sharegpt",
    "openai",
    "chatml",
    "text",
)
"""Importers, in the order in which they are asked whether a file is theirs."""

_JSON = frozenset({".json", ".jsonl", ".ndjson"})
_KNOWN = _JSON | {".zip", ".txt", ".md", ".db"}
_MAX_FILES = 10_000


class Importer(Protocol):
    """What each module in `importers` has."""

    NAME: str

    def recognise(self, path: Path, value: Any) -> bool:
        """`value` is the first JSON value of the file, None when it holds none."""
        ...

    def read(
        self, path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes
    ) -> Iterator[ImportItem]: ...


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file to read, and the importer that reads it."""

    path: Path
    format: str
    named: bool = True
    """By the person; False: found in a folder, where some files may hold nothing."""


def importer(name: str) -> Importer:
    """Raises UsageProblem for a format that there is not."""
    if name not in FORMATS:
        raise UsageProblem(
            _("--format {name} is not known; there are auto, {known}").format(
                name=name, known=", ".join(FORMATS)
            )
        )
    module: Importer = import_module(f"engine.memory.importers.{name}")
    return module


def detect(path: Path) -> str:
    """The format of a file by what is in it. Raises BadInput when it is none, naming those there are."""
    name = _recognised(path)
    if name is not None:
        return name
    if is_sqlite(path):
        raise BadInput(
            _("This is a database of none of the programs that are known ({known})").format(
                known="Open WebUI, llm"
            ),
            path=path,
        )
    if path.suffix.lower() in _JSON or is_zip(path):
        for _line, _value in json_values(path):
            break
        raise BadInput(
            _("This is none of the formats that are known ({known})").format(known=", ".join(FORMATS)),
            path=path,
            hint=f"h2q-tui memory import --format chatgpt {shlex.quote(str(path))}",
        )
    from engine.memory.importers.text import no_speakers

    raise no_speakers(path)


def sources(paths: list[Path], format_: str) -> Iterator[Source | Skipped]:
    """The files to read: those named, and in folders every file that an importer knows.

    Raises BadInput: a missing file, one of no known format, a folder in which there is none.
    """
    if format_ != "auto":
        importer(format_)
    for path in paths:
        if not path.is_dir():
            yield Source(path=path, format=detect(path) if format_ == "auto" else format_)
            continue
        found = 0
        for item in _walk(path, format_):
            found += isinstance(item, Source)
            yield item
        if not found:
            raise BadInput(
                _("There are no conversations in this folder ({known})").format(known=", ".join(FORMATS)),
                path=path,
            )


def import_path(
    store: MemoryStore,
    paths: list[Path],
    *,
    format_: str = "auto",
    role_map: dict[str, str] | None = None,
    again: bool = False,
    on_progress: Callable[[int, int, int], None] = lambda done, total, conversations: None,
) -> ImportReport:
    """Takes every conversation of `paths` into `store`, or none when a file is broken.

    `on_progress(bytes done, bytes in all, conversations read)` may raise to give up; nothing is kept then.
    Raises BadInput, UsageProblem, Busy.
    """
    with _mended():
        return _import(store, paths, format_, parse_role_map(role_map or {}), again, on_progress)


@contextmanager
def _mended() -> Iterator[None]:
    """A bad file whose error names no remedy: the help lists the formats and how to name one."""
    try:
        yield
    except BadInput as problem:
        problem.hint = problem.hint or "h2q-tui memory import --help"
        raise


def _import(
    store: MemoryStore,
    paths: list[Path],
    format_: str,
    roles: RoleMap,
    again: bool,
    on_progress: Callable[[int, int, int], None],
) -> ImportReport:
    began = time.monotonic()
    wanted = list(sources(paths, format_))
    files = [item for item in wanted if isinstance(item, Source)]
    total = sum(import_size(file.path) for file in files)
    reports: list[FileReport] = []
    done = read = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_progress(min(done, total), total, read)

    def everything() -> Iterator[ImportItem]:
        nonlocal read
        remembered = 0
        for item in wanted:
            if isinstance(item, Skipped):
                yield item
                continue
            before, points = read, 0
            reasons: dict[str, int] = {}
            for made in importer(item.format).read(item.path, roles, on_bytes):
                if isinstance(made, Skipped):
                    reasons[made.reason] = reasons.get(made.reason, 0) + made.count
                points += isinstance(made, SummaryPoint)
                read += isinstance(made, Conversation)
                yield made
            if read == before and not points and item.named:
                raise BadInput(nothing_in(reasons), path=item.path)
            remembered += points
            reports.append(
                FileReport(
                    path=str(item.path), format=item.format, conversations=read - before, points=points
                )
            )
        if not read and not remembered:
            raise BadInput(
                _("There are no conversations in this folder ({known})").format(known=", ".join(FORMATS)),
                path=paths[0],
            )

    origin = ", ".join(str(path) for path in paths)
    result = store.add(everything(), "+".join(sorted({f.format for f in files})), origin, again=again)
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


def run(ctx: RunContext) -> Outcome:
    """The run of kind "import". A stop drops what was read: an import is whole or not there."""
    from engine.runs.context import Outcome
    from engine.runs.events import RunStatus
    from engine.runs.spec import ImportParams
    from engine.workspace.backup import weekly_backup

    params = ctx.params(ImportParams)

    def on_progress(done: int, total: int, conversations: int) -> None:
        ctx.check_stop()
        ctx.progress("import", done / 1e3, total / 1e3, unit="kB")

    with ctx.stage("import", index=1, total=1) as stage, MemoryStore(ctx.workspace.memory_db) as store:
        report = import_path(
            store,
            [Path(path) for path in params.paths],
            format_=params.format,
            role_map=params.role_map,
            again=params.again,
            on_progress=on_progress,
        )
        stage.detail = summary(report)
    for line in (points_line(report), *skipped_lines(report.skipped)):
        if line:
            ctx.log(line)
    weekly_backup(ctx.workspace)
    return Outcome(status=RunStatus.DONE, result=report)


def _recognised(path: Path) -> str | None:
    value = first_value(path)
    return next((name for name in FORMATS if importer(name).recognise(path, value)), None)


def _walk(folder: Path, format_: str) -> Iterator[Source | Skipped]:
    seen = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if path.suffix.lower() not in _KNOWN and not (path.name == "MANIFEST" and is_badger(path)):
            continue
        if not path.is_file() or path.stat().st_size == 0:
            continue
        seen += 1
        if seen > _MAX_FILES:
            raise BadInput(
                _("There are more than {n} files in this folder").format(n=_MAX_FILES), path=folder
            )
        try:
            name = _recognised(path) if format_ == "auto" else format_
        except BadInput:
            # A person's folder holds more than conversations, in any encoding.
            yield Skipped(reason=f"file that cannot be read: {inside}")
            continue
        if name is None:
            yield Skipped(reason="file of another kind")
        else:
            yield Source(path=path, format=name, named=False)
