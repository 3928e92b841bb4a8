"""The plain files in a file, folder or archive: importers read them one at a time and know nothing of archives.

A member of an archive is unpacked into a private folder and deleted when the next file is asked for.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import msgspec

from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.i18n import _, colon
from engine.memory.importers.readers import archives, compressed, encodings
from engine.memory.importers.readers.attachments import attached_files
from engine.memory.importers.readers.badger import is_badger
from engine.memory.importers.readers.files import WrongEncoding, file_start
from engine.memory.importers.readers.sqlite import MAGIC as SQLITE_MAGIC

_ARCHIVES = frozenset((".zip", ".tar", *compressed.SUFFIXES))
_KNOWN = frozenset(
    [
        ".json",
        ".jsonl",
        ".ndjson",
        ".txt",
        ".md",
        ".markdown",
        ".html",
        ".htm",
        ".csv",
        ".tsv",
        ".parquet",
        ".db",
        ".sqlite",
        ".sqlite3",
        ".vscdb",
    ]
)
"""Suffixes of files that are looked at whatever they begin with."""
_USUAL = frozenset((".json", ".jsonl", ".ndjson", ".txt", ".md", ".db"))
_COMPANIONS = {
    "MANIFEST": ("*.sst", "*.vlog", "*.mem", "KEYREGISTRY", "DISCARD", "LOCK"),
    "messages.jsonl": ("thread.json",),
    "chunk_*.jsonl": ("../manifest.json",),
    "*.db": ("{name}-wal", "{name}-shm", "{name}-journal"),
    "*.sqlite*": ("{name}-wal", "{name}-shm", "{name}-journal"),
    "*.vscdb": ("{name}-wal", "{name}-shm", "{name}-journal"),
}
"""Files that are read together with another one of their folder, or of a folder below theirs."""
MAX_FILES = 10_000
_MAX_ARCHIVES = 2
"""Archives in one another: an archive, and one inside it."""
_START = 512
_SUFFIX_LENGTH = 12


class PlainFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an importer can read, until the next one is asked for."""

    path: Path
    """Where it can be read: the user's file or a temporary one."""
    name: str
    """Its name inside the folder or archive, or of the named file."""
    place: str
    """How errors name it: "export.zip: conversations.json"."""
    origin: Path
    """The user's file that it is or is part of."""
    command: str = "iconv {options} {path}"
    """Shell command that converts it with `iconv`; "" when no single command does."""
    explicit: bool = False
    """Named by the user, not found in a folder or archive."""
    known: bool = True
    """Its suffix is one of a supported kind."""
    size: int = 0

    def relocate(self, error: BadInput) -> BadInput:
        """The same error about the place that the user knows, with a hint for it."""
        if error.path != self.path:
            return error
        if isinstance(error, WrongEncoding):
            error.hint = ""
            command = self.command.replace("{path}", shell_word(self.origin))
            if command:
                error.set_command(command, PurePosixPath(self.name).name)
        elif self.path != self.origin:
            error.hint = error.hint.replace(shell_word(self.path), shell_word(self.origin))
        error.set_place(self.place)
        return error


class OtherFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a kind that is not imported."""

    name: str
    error: BadInput | None = None
    """Why no format fits; only of the first file that was looked at in vain."""
    is_attached: bool = False
    """Whether a person gave it to a model: what it holds is no conversation."""

    @property
    def is_usual(self) -> bool:
        """Whether files of its suffix hold conversations as a rule."""
        return not self.is_attached and PurePosixPath(self.name).suffix.lower() in _USUAL

    @property
    def reason(self) -> str:
        """The `Skipped.reason` that counts it: by its suffix, unless that is a usual one."""
        if self.is_attached:
            return "attachment"
        suffix = PurePosixPath(self.name).suffix.lower()
        is_short = len(suffix) <= _SUFFIX_LENGTH and re.fullmatch(r"\.\w+", suffix)
        return f"file of another kind: {suffix}" if is_short and not self.is_usual else "file of another kind"


class UnreadableFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a folder or archive that cannot be read."""

    name: str
    error: BadInput


FoundFile: TypeAlias = PlainFile | OtherFile | UnreadableFile


def _no_tick() -> None:
    """The default: the walk is not stopped."""


def plain_files(path: Path, scratch: Path, tick: Callable[[], None] = _no_tick) -> Iterator[FoundFile]:
    """The files that `path` is or holds; members of archives are unpacked into `scratch`, one at a time.

    `tick` is called while the walk goes on and may raise to stop it.
    Raises BadInput for a missing file, an archive that cannot be opened, and a folder of too many files.
    """
    if path.is_dir():
        yield from _Walk(scratch, tick).folder(path)
        return
    file = PlainFile(path=path, name=path.name, place=str(path), origin=path, explicit=True)
    yield from _Walk(scratch, tick).file(file, 0)


def content_size(path: Path) -> int:
    """Bytes that reading `path` takes, for the progress: of a folder its files, of a zip its members; a compressed
    file counts as it is. 0 for what cannot be looked at."""
    try:
        if path.is_dir():
            names = {file: os.fspath(file.relative_to(path)) for file in _listed(path)[0]}
            return sum(content_size(file) for file, name in names.items() if _is_known(name))
        if archives.is_zip_archive(file_start(path, 4)):
            with archives.open_zip(path) as archive:
                infos = [info for info in archive.infolist() if _is_known(info.filename)]
                return sum(info.file_size for info in infos if not archives.is_hidden(info.filename))
        companions = (
            sum(part.stat().st_size for part in path.parent.glob("*.sst")) if path.name == "MANIFEST" else 0
        )
        return path.stat().st_size + companions
    except (BadInput, OSError):
        return 0


class _Walk:
    """One walk through a folder or file."""

    def __init__(self, scratch: Path, tick: Callable[[], None]) -> None:
        self.scratch = scratch
        self.tick = tick
        self.files = 0

    def folder(self, folder: Path) -> Iterator[FoundFile]:
        paths, unreadable = _listed(folder)
        names = {path: os.fspath(path.relative_to(folder)) for path in paths}
        companions = _companions(list(names.values()))
        attached = attached_files(list(names.values()))
        for path, error in unreadable:
            problem = BadInput(
                _("The folder cannot be read ({reason})").format(reason=error.strerror), path=path
            )
            yield UnreadableFile(name=os.fspath(path.relative_to(folder)), error=problem)
        for path, name in names.items():
            if name in companions:
                continue
            try:
                self.tick()
                if not path.is_file() or path.stat().st_size == 0:
                    continue
                if name in attached:
                    yield OtherFile(name=name, is_attached=True)
                    continue
                known = _is_known(name)
                if not known and not _is_wanted(path.name, file_start(path, _START), path):
                    yield OtherFile(name=name)
                    continue
            except BadInput as error:
                yield UnreadableFile(name=name, error=error)
                continue
            except OSError as error:
                reason = _("The file cannot be read ({reason})").format(reason=error.strerror)
                yield UnreadableFile(name=name, error=BadInput(reason, path=path))
                continue
            file = PlainFile(path=path, name=name, place=str(path), origin=path, known=known)
            yield from self._guarded(file, 0, folder)

    def file(self, file: PlainFile, depth: int) -> Iterator[FoundFile]:
        """The plain files of a file: itself, or what it holds as an archive. Raises BadInput."""
        start = file_start(file.path, _START)
        suffix = PurePosixPath(file.name).suffix.lower()
        asked = file.explicit or suffix in _ARCHIVES
        if asked and (kind := compressed.compression(start)):
            yield from self._decompressed(file, kind, depth)
        elif asked and archives.is_zip_archive(start):
            yield from self._members(file, depth, self._zip_members)
        elif asked and archives.is_tar(start):
            yield from self._members(file, depth, self._tar_members)
        elif suffix in (".zip", ".tar"):
            raise BadInput(
                _("The archive cannot be unpacked ({reason})").format(reason=_("no archive")), path=file.path
            )
        else:
            yield msgspec.structs.replace(file, size=file.path.stat().st_size)

    def _guarded(self, file: PlainFile, depth: int, container: Path) -> Iterator[FoundFile]:
        """The plain files of a found file, whose faults do not end the walk."""
        self.files += 1
        if self.files > MAX_FILES:
            raise BadInput(
                _("There are more than {n} files in this folder").format(n=MAX_FILES), path=container
            )
        try:
            yield from self.file(file, depth)
        except BadInput as error:
            if error.path == container:
                raise
            yield UnreadableFile(name=file.name, error=file.relocate(error))

    def _decompressed(self, file: PlainFile, kind: str, depth: int) -> Iterator[FoundFile]:
        suffix = PurePosixPath(file.name).suffix
        name = file.name.removesuffix(suffix) if suffix.lower() in compressed.SUFFIXES else file.name
        with self._room() as room:
            target = room / archives.safe_name(name)
            packed = file.path.stat().st_size
            cut_off: BadInput | None = None
            try:
                with compressed.open_compressed(file.path, kind) as source:
                    size = archives.unpack(source, target, packed=packed, path=file.path, tick=self.tick)
            except compressed.CutOff as error:
                cut_off, size = file.relocate(error), target.stat().st_size if target.exists() else 0
                if not size:
                    raise cut_off from None
            except BadInput as error:
                raise file.relocate(error) from None
            plain = file.path == file.origin
            inner = msgspec.structs.replace(
                file,
                path=target,
                name=name,
                command=f"{compressed.COMMANDS[kind]} {{path}} | iconv {{options}}" if plain else "",
                known=_is_known(name) or file.explicit,
                size=size,
            )
            start = target.open("rb").read(_START) if size else b""
            if not size:
                return
            if depth < _MAX_ARCHIVES and (archives.is_tar(start) or archives.is_zip_archive(start)):
                read = self._tar_members if archives.is_tar(start) else self._zip_members
                yield from self._members(inner, depth, read)
            elif compressed.compression(start):
                yield OtherFile(name=file.name)
            elif not file.explicit and not inner.known and not _is_wanted(name, start, None):
                yield OtherFile(name=name)
            else:
                yield inner
            if cut_off is not None:
                yield UnreadableFile(name=file.name, error=cut_off)

    def _members(
        self, file: PlainFile, depth: int, read: Callable[[PlainFile, int], Iterator[FoundFile]]
    ) -> Iterator[FoundFile]:
        if depth >= _MAX_ARCHIVES:
            yield OtherFile(name=file.name)
            return
        try:
            yield from read(file, depth)
        except BadInput as error:
            raise file.relocate(error) from None

    def _zip_members(self, file: PlainFile, depth: int) -> Iterator[FoundFile]:
        with archives.open_zip(file.path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir() and info.file_size]
            members = {archives.member_name(info): info for info in infos}
            companions, attached = _companions(list(members)), attached_files(list(members))
            for name in sorted(members):
                if archives.is_hidden(name) or name in companions:
                    continue
                if name in attached:
                    yield OtherFile(name=name, is_attached=True)
                    continue
                with self._room() as room:
                    command = f"unzip -p {{path}} {_unzip_pattern(name)}"
                    inner = _member(file, name, room, command if file.path == file.origin else "")
                    try:
                        if not inner.known:
                            with archives.open_member(archive, members[name], file.path) as source:
                                start = source.read(_START)
                            if not _is_wanted(PurePosixPath(name).name, start, None):
                                yield OtherFile(name=name)
                                continue
                        for each in (name, *_companions_of(name, list(members))):
                            with archives.open_member(archive, members[each], file.path) as source:
                                archives.unpack(
                                    source,
                                    room / archives.safe_name(each),
                                    packed=members[each].compress_size,
                                    size=members[each].file_size,
                                    path=file.path,
                                    tick=self.tick,
                                )
                    except BadInput as error:
                        error.set_place(inner.place)
                        yield UnreadableFile(name=inner.name, error=error)
                        continue
                    yield from self._guarded(inner, depth + 1, file.path)

    def _tar_members(self, file: PlainFile, depth: int) -> Iterator[FoundFile]:
        with archives.open_tar(file.path) as archive:
            names = archive.getnames()
        attached = attached_files(names)
        with archives.open_tar(file.path) as archive:
            for info in archive:
                if not info.isfile() or not info.size or archives.is_hidden(info.name):
                    continue
                if info.name in attached:
                    yield OtherFile(name=info.name, is_attached=True)
                    continue
                source = archive.extractfile(info)
                if source is None:
                    continue
                with self._room() as room, source:
                    command = f"tar -xOf {{path}} {shell_word(info.name)}"
                    inner = _member(file, info.name, room, command if file.command else "")
                    start = source.read(_START)
                    if not inner.known and not _is_wanted(PurePosixPath(info.name).name, start, None):
                        yield OtherFile(name=info.name)
                        continue
                    source.seek(0)
                    archives.unpack(
                        source, inner.path, packed=info.size, size=info.size, path=file.path, tick=self.tick
                    )
                    yield from self._guarded(inner, depth + 1, file.path)

    @contextmanager
    def _room(self) -> Iterator[Path]:
        """A private folder for one member."""
        room = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _member(file: PlainFile, name: str, room: Path, command: str) -> PlainFile:
    return PlainFile(
        path=room / archives.safe_name(name),
        name=name if file.explicit else f"{file.name}/{name}",
        place=colon(file.place, name),
        origin=file.origin,
        command=f"{command} | iconv {{options}}" if command else "",
        known=_is_known(name),
    )


def _is_known(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _KNOWN | _ARCHIVES


def _is_wanted(name: str, start: bytes, path: Path | None) -> bool:
    """Whether a file of an unknown suffix is looked at: it begins like JSON or a database."""
    if name == "MANIFEST":
        return path is None or is_badger(path)
    text = encodings.sample_text(start).lstrip("\ufeff \t\r\n")
    return start.startswith(SQLITE_MAGIC) or bool(re.match(r"\{\s*[\"}]|\[\s*[\[{]", text))


def _listed(folder: Path) -> tuple[list[Path], list[tuple[Path, OSError]]]:
    """The files below `folder` in the order of their paths, and the folders that cannot be read."""
    paths: list[Path] = []
    unreadable: list[tuple[Path, OSError]] = []

    def failed(error: OSError) -> None:
        unreadable.append((Path(error.filename), error))

    for root, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not archives.is_hidden(name)]
        paths += [Path(root, name) for name in names if not archives.is_hidden(name)]
    return sorted(paths), unreadable


def _companions(names: list[str]) -> set[str]:
    """The files that are read together with another one, and not on their own."""
    return {companion for name in names for companion in _companions_of(name, names)}


def _companions_of(name: str, names: list[str]) -> list[str]:
    path = PurePosixPath(name)
    patterns = [
        (path.parent.parent if pattern.startswith("../") else path.parent, pattern.removeprefix("../"))
        for main, others in _COMPANIONS.items()
        if fnmatch.fnmatchcase(path.name, main)
        for pattern in others
    ]
    if not patterns:
        return []
    wanted = [(folder, pattern.format(name=glob.escape(path.name))) for folder, pattern in patterns]
    return [
        other
        for other in names
        if any(
            PurePosixPath(other).parent == folder and fnmatch.fnmatchcase(PurePosixPath(other).name, pattern)
            for folder, pattern in wanted
        )
    ]


def _unzip_pattern(name: str) -> str:
    """The name for `unzip`, which takes it as a pattern."""
    return shell_word(re.sub(r"([\[\]*?\\])", r"\\\1", name))
