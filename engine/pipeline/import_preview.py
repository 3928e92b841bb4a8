"""What a file or folder would give, without importing it: the files in it, their formats, and how many conversations each holds.

Each file is read once, in the same way as the import reads it. Within a time limit, what is left is named and not counted.
"""

from __future__ import annotations

import time
from pathlib import Path

from engine.core.errors import BadInput
from engine.core.filenames import printable_name
from engine.core.i18n import _
from engine.memory.import_texts import ImportPreview, PreviewFile
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import ImportFile, find_importer, import_files
from engine.memory.importers.readers.json_stream import tolerating
from engine.memory.importers.readers.temporary import temporary_files_in
from engine.memory.importers.readers.unpack import OtherFile, UnreadableFile
from engine.memory.importers.unknown import empty_container
from engine.memory.records import Conversation
from engine.workspace.leftovers import staging_folder


class _OutOfTime(Exception):
    """The time limit is over."""


class _Clock:
    """Half of the time is for counting; for the rest, files are only recognised."""

    def __init__(self, within_s: float | None) -> None:
        began = time.monotonic()
        self._count_until = None if within_s is None else began + within_s / 2
        self._look_until = None if within_s is None else began + within_s

    def may_count(self) -> bool:
        return self._count_until is None or time.monotonic() < self._count_until

    def check_count(self, _bytes: int = 0) -> None:
        if not self.may_count():
            raise _OutOfTime

    def check_look(self) -> None:
        if self._look_until is not None and time.monotonic() >= self._look_until:
            raise _OutOfTime


def preview_import(
    path: Path,
    memory_folder: Path,
    *,
    format_: str = "auto",
    options: ImportOptions | None = None,
    within_s: float | None = None,
) -> ImportPreview:
    """Reads what `path` is or holds. Archives are unpacked below `memory_folder`, where private copies are swept.

    Raises BadInput as an import would: for a missing file, for a named file of no known format, for a folder without any.
    """
    clock = _Clock(within_s)
    files: list[PreviewFile] = []
    unread: list[str] = []
    others: list[OtherFile] = []
    complete = True
    memory_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with staging_folder(memory_folder, ".unpack.") as scratch, temporary_files_in(scratch):
        try:
            for entry in import_files(
                path, format_, scratch, clock.check_look, roles=options.roles if options else {}
            ):
                if isinstance(entry, OtherFile):
                    others.append(entry)
                elif isinstance(entry, UnreadableFile):
                    unread.append(f"{printable_name(entry.name)}: {entry.error.reason}")
                else:
                    files.append(_count(entry, options or ImportOptions(), clock))
                clock.check_look()
        except _OutOfTime:
            complete = False
    if complete and not files and not unread:
        raise empty_container(path, [file.name for file in others])
    return ImportPreview(files=files, unread=unread, others=len(others), complete=complete)


def _count(entry: ImportFile, options: ImportOptions, clock: _Clock) -> PreviewFile:
    conversations = turns = 0
    complete, problem = True, ""
    broken: list[BadInput] = []
    try:
        with tolerating(broken.append):
            clock.check_count()
            for item in find_importer(entry.format).read(entry.file.path, options, clock.check_count):
                if isinstance(item, Conversation):
                    conversations, turns = conversations + 1, turns + len(item.turns)
                clock.check_count()
    except _OutOfTime:
        complete = False
    except BadInput as error:
        complete = False
        broken.append(entry.file.relocate(error))
    if broken:
        problem = broken[0].reason
        if broken[0].line is not None:
            problem += _(", line {line}").format(line=broken[0].line)
    return PreviewFile(
        name=printable_name(entry.file.name),
        format=entry.format,
        bytes=entry.file.size,
        conversations=conversations,
        turns=turns,
        complete=complete,
        problem=problem,
    )
