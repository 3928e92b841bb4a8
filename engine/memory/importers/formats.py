"""The import formats: which importer reads a file, and the importable files of a folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.readers.badger import is_badger
from engine.memory.importers.readers.files import OnBytes, first_value, ignore_bytes, is_zip, json_values
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import ImportItem, Skipped

FORMATS = (
    "gemini",
    "gemini_workspace",
    "aistudio",
    "gemini_cli",
    "claude_code",
    "codex",
    "cursor",
    "vscode",
    "copilot_cli",
    "deepseek",
    "chatgpt",
    "claude",
    "openwebui",
    "lechat",
    "llamacpp",
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
"""Names of the importer modules, in the order of detection."""

_JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})
_SUFFIXES = _JSON_SUFFIXES | {".zip", ".txt", ".md", ".db", ".sqlite", ".vscdb", ".csv", ".html"}
_MAX_FILES = 10_000


class Importer(Protocol):
    """The interface of each importer module."""

    NAME: str

    def detect(self, path: Path, value: Any) -> bool:
        """Whether the file has this format. `value` is its first JSON value, None when it has none."""
        ...

    def read(
        self, path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
    ) -> Iterator[ImportItem]:
        """The conversations of the file and what is skipped in it. Raises BadInput."""
        ...


class ImportFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to import and its format."""

    path: Path
    format: str
    explicit: bool = True
    """Named by the user; False: found in a folder, where a file may hold no conversations."""


def find_importer(name: str) -> Importer:
    """The importer of a format. Raises UsageProblem for an unknown one."""
    if name not in FORMATS:
        raise UsageProblem(
            _("Unknown --format {name}; choose auto or one of {known}").format(
                name=name, known=_(", ").join(FORMATS)
            )
        )
    module: Importer = import_module(f"engine.memory.importers.{name}")
    return module


def detect_format(path: Path) -> str:
    """The format of a file by its content. Raises BadInput, naming the known formats, when it has none of them."""
    name = _detect(path)
    if name is not None:
        return name
    if is_sqlite(path):
        raise BadInput(
            _("This database belongs to no supported program ({known})").format(known="Open WebUI, llm"),
            path=path,
        )
    if path.suffix.lower() in _JSON_SUFFIXES or is_zip(path):
        for _line, _value in json_values(path):
            break
        raise BadInput(
            _("This file has none of the supported formats ({known})").format(known=_(", ").join(FORMATS)),
            path=path,
            hint=f"h2q-tui memory import --format chatgpt {shlex.quote(str(path))}",
        )
    from engine.memory.importers.text import no_speakers

    raise no_speakers(path)


def find_files(paths: list[Path], format_: str) -> Iterator[ImportFile | Skipped]:
    """The files to import: the named ones, and in folders every file with a supported format.

    Raises BadInput for a missing file, one of no supported format, and a folder without any importable file.
    """
    if format_ != "auto":
        find_importer(format_)
    for path in paths:
        if not path.is_dir():
            yield ImportFile(path=path, format=detect_format(path) if format_ == "auto" else format_)
            continue
        files = 0
        for item in _walk(path, format_):
            files += isinstance(item, ImportFile)
            yield item
        if not files:
            raise no_conversations(path)


def no_conversations(folder: Path) -> BadInput:
    """The error for a folder without conversations."""
    return BadInput(
        _("There are no conversations in this folder ({known})").format(known=_(", ").join(FORMATS)),
        path=folder,
    )


def _detect(path: Path) -> str | None:
    value = first_value(path)
    return next((name for name in FORMATS if find_importer(name).detect(path, value)), None)


def _walk(folder: Path, format_: str) -> Iterator[ImportFile | Skipped]:
    files = 0
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if path.suffix.lower() not in _SUFFIXES and not (path.name == "MANIFEST" and is_badger(path)):
            continue
        if not path.is_file() or path.stat().st_size == 0:
            continue
        files += 1
        if files > _MAX_FILES:
            raise BadInput(
                _("There are more than {n} files in this folder").format(n=_MAX_FILES), path=folder
            )
        try:
            name = _detect(path) if format_ == "auto" else format_
        except BadInput:
            # A user's folder may hold unrelated files in any encoding.
            yield Skipped(reason=f"file that cannot be read: {relative}")
            continue
        if name is None:
            yield Skipped(reason="file of another kind")
        else:
            yield ImportFile(path=path, format=name, explicit=False)
