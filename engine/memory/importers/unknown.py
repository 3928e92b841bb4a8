"""The errors for files that no importer recognises: what they hold, and what may help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.memory.importers.readers import encodings, tables
from engine.memory.importers.readers.files import file_start, first_values, json_values, not_text
from engine.memory.importers.readers.sqlite import is_sqlite, table_columns
from engine.memory.importers.transcripts.text import no_speakers

_JSON_SUFFIXES = frozenset((".json", ".jsonl", ".ndjson"))
_NAMES = 8
_NAME_LENGTH = 40


def unknown_shape(path: Path, readable_format: Callable[[Path], str]) -> BadInput:
    """The error for a file of no supported format. It names keys, columns and tables, never what they hold.

    `readable_format` names a format that reads the file nevertheless; "" when there is none.
    """
    if is_sqlite(path):
        names = _listed(list(table_columns(path)))
        if not names:
            return BadInput(_("This database belongs to no supported program; it has no tables"), path=path)
        return BadInput(
            _("This database belongs to no supported program; its tables are {tables}").format(tables=names),
            path=path,
        )
    values = list(first_values(path, limit=1))
    if not values and path.suffix.lower() in tables.SUFFIXES:
        return BadInput(_("This table has no rows below the names of its columns"), path=path)
    if not values and path.suffix.lower() not in _JSON_SUFFIXES:
        return not_text(path) if encodings.is_binary(file_start(path)) else no_speakers(path)
    try:
        first = [value for _line, value in islice(json_values(path), 1)]
    except BadInput as error:
        # Malformed text, or an entry over the limit, is the better reason.
        return error
    if not values and first in ([], [None]):
        return BadInput(_("The file holds nothing"), path=path)
    hint = ""
    if name := readable_format(path):
        hint = f"h2q-tui memory import --format {name} {shell_word(path)}"
    return BadInput(_shape_text(next(iter(values or first), None)), path=path, hint=hint)


def empty_container(path: Path, names: Iterable[str]) -> BadInput:
    """The error for a folder or archive in which no file of these names has a supported format."""
    if any(PurePosixPath(name).parts[:1] == ("IndexedDB",) for name in names):
        return BadInput(
            _("This Cherry Studio backup contains its database instead of data.json; it is not supported"),
            path=path,
        )
    return BadInput(_("There are no conversations here in a supported format"), path=path)


def _shape_text(value: Any) -> str:
    if isinstance(value, dict) and value:
        return _("This file has none of the supported formats; its first entry has the keys {keys}").format(
            keys=_listed([key for key in value if isinstance(key, str)])
        )
    if isinstance(value, list):
        return _("This file has none of the supported formats; its first entry is a list")
    return _("This file has none of the supported formats; its first entry has no keys")


def _listed(names: list[str]) -> str:
    shown = [name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}…" for name in names[:_NAMES]]
    return _(", ").join((*shown, "…") if len(names) > _NAMES else shown)
