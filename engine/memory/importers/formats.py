"""The import formats: which importer reads a file, and the importable files of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.core.errors import BadInput, H2QError, UsageProblem
from engine.core.i18n import _
from engine.memory.importers.fields import ImportOptions, RoleMap
from engine.memory.importers.readers.files import NotText, OnBytes, WebPage, first_values, ignore_bytes
from engine.memory.importers.readers.unpack import (
    OtherFile,
    PlainFile,
    UnreadableFile,
    plain_files,
)
from engine.memory.importers.transcripts import text
from engine.memory.importers.unknown import unknown_shape
from engine.memory.records import Conversation, ImportItem

_PACKAGES = {
    "gemini": "programs",
    "gemini_workspace": "programs",
    "gemini_api": "programs",
    "aistudio": "programs",
    "gemini_cli": "agents",
    "claude_code": "agents",
    "codex": "agents",
    "cursor": "agents",
    "vscode": "agents",
    "copilot_cli": "agents",
    "ollama": "programs",
    "grok": "programs",
    "copilot": "programs",
    "qwen": "programs",
    "kimi": "programs",
    "doubao": "programs",
    "yuanbao": "programs",
    "librechat": "programs",
    "jan": "programs",
    "lobechat": "programs",
    "anythingllm": "programs",
    "sillytavern": "programs",
    "textgen": "programs",
    "telegram": "chats",
    "wechat": "chats",
    "chatlab": "chats",
    "qq": "chats",
    "whatsapp": "chats",
    "chat_text": "chats",
    "imessage": "chats",
    "deepseek": "programs",
    "chatgpt": "programs",
    "claude": "programs",
    "openwebui": "programs",
    "lechat": "programs",
    "llamacpp": "programs",
    "lmstudio": "programs",
    "cherry": "programs",
    "chatbox": "programs",
    "nextchat": "programs",
    "crosswoz": "datasets",
    "llm": "programs",
    "mindx": "programs",
    "preference": "datasets",
    "oasst": "datasets",
    "alpaca": "datasets",
    "completion": "datasets",
    "sharegpt": "datasets",
    "openai": "datasets",
    "chatml": "datasets",
    "text": "transcripts",
}
"""The package of each importer module, in the order of detection."""
FORMATS = tuple(_PACKAGES)
"""Names of the importer modules, in the order of detection."""

_ITEMS_TO_TRY = 200
_BYTES_TO_TRY = 64 * 2**20
"""How far `_readable_format` looks."""


class Importer(Protocol):
    """The interface of each importer module."""

    NAME: str

    def detect(self, path: Path, value: Any) -> bool:
        """Whether the file has this format, by one of its first entries.

        `value` is an entry (see `files.first_values`), or the object that wraps the entries; None for a file that
        is neither JSON nor a table.
        """
        ...

    def read(
        self, path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
    ) -> Iterator[ImportItem]:
        """The conversations of the file and what is skipped in it. Raises BadInput."""
        ...


class ImportFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to import and its format."""

    file: PlainFile
    format: str


def find_importer(name: str) -> Importer:
    """The importer of a format. Raises UsageProblem for an unknown one."""
    if name not in FORMATS:
        raise UsageProblem(
            _("Unknown --format {name}; choose auto or one of {known}").format(
                name=name, known=_(", ").join(FORMATS)
            )
        )
    module: Importer = import_module(f"engine.memory.importers.{_PACKAGES[name]}.{name}")
    return module


def detect_format(path: Path, roles: RoleMap = {}) -> str:  # noqa: B006
    """The format of a plain file by its content. Raises BadInput, which says what it holds, when it has none."""
    name = _detect(path, roles)
    if name is not None:
        return name
    raise unknown_shape(path, _readable_format)


def import_files(
    path: Path,
    format_: str,
    scratch: Path,
    tick: Callable[[], None] = lambda: None,
    *,
    roles: RoleMap = {},  # noqa: B006
) -> Iterator[ImportFile | UnreadableFile | OtherFile]:
    """The files to import that `path` is or holds: each can be read until the next one is asked for.

    Members of archives are unpacked into the folder `scratch`; `tick` is called meanwhile and may raise. A text whose
    speakers only `roles` knows is a transcript. Raises BadInput for a missing file, and for one that the user named
    and that has no supported format.
    """
    if format_ != "auto":
        find_importer(format_)
    explained = False
    for found in plain_files(path, scratch, tick):
        if not isinstance(found, PlainFile):
            yield found
        elif found.explicit and format_ != "auto":
            yield ImportFile(file=found, format=format_)
        else:
            entry = _recognised(found, format_, roles, explain=not explained)
            explained = explained or isinstance(entry, OtherFile)
            yield entry


def _recognised(
    file: PlainFile, format_: str, roles: RoleMap, *, explain: bool
) -> ImportFile | UnreadableFile | OtherFile:
    """What `file` is. With `explain`, a file without a format has the reason as its error."""
    try:
        name: str | None
        if file.explicit:
            name = detect_format(file.path, roles)
        else:
            name = _detect(file.path, roles) if format_ == "auto" else _asked(file.path, format_)
    except BadInput as error:
        if file.explicit:
            raise file.relocate(error) from None
        # A folder may hold any files: those of a kind that is never read are no fault.
        if isinstance(error, WebPage | NotText) or not file.known:
            return OtherFile(name=file.name)
        return UnreadableFile(name=file.name, error=file.relocate(error))
    if name is not None:
        return ImportFile(file=file, format=name)
    reason = unknown_shape(file.path, _readable_format) if explain else None
    return OtherFile(name=file.name, error=file.relocate(reason) if reason else None)


def _detect(path: Path, roles: RoleMap = {}) -> str | None:  # noqa: B006
    value = None
    for value in _evidence(path):
        for name in FORMATS:
            if find_importer(name).detect(path, value):
                return name
    return text.NAME if roles and value is None and text.is_transcript(path, roles) else None


def _evidence(path: Path) -> Iterator[Any]:
    """The values that `Importer.detect` takes: the first entries of a file, or None."""
    count = 0
    for value in first_values(path):
        count += 1
        yield value
    if not count:
        yield None


def _asked(path: Path, format_: str) -> str | None:
    """The format that the user asked for, also for a file of unknown shape; None for one of another format."""
    importer = find_importer(format_)
    if any(importer.detect(path, value) for value in _evidence(path)) or _detect(path) is None:
        return format_
    return None


def _readable_format(path: Path) -> str:
    """A format that reads a conversation out of the beginning of the file; "" when none does."""
    if path.stat().st_size > _BYTES_TO_TRY:
        return ""
    for name in FORMATS:
        try:
            items = islice(find_importer(name).read(path, ImportOptions()), _ITEMS_TO_TRY)
            if any(isinstance(item, Conversation) and len(item.turns) > 1 for item in items):
                return name
        except H2QError:
            continue
    return ""
