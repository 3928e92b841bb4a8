"""Reads logs of JSON lines, to which a program may be writing.

A program that is killed leaves half a line behind, and one that runs may be in the middle of a line: such a line is
one damaged entry, where the same in an export makes the file unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values, text_lines


def log_values(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, Any]]:
    """The values of the lines with their numbers, None for a damaged line; of other JSON files as `json_values`.

    Raises BadInput as `json_values` does, but not for a line that is no JSON.
    """
    if not _is_log(path):
        yield from json_values(path, on_bytes)
        return
    for number, line in text_lines(path, on_bytes):
        text = line.strip("\ufeff \t")
        if text:
            yield number, _parsed(text)


def _is_log(path: Path) -> bool:
    """Whether the first line is a JSON object of its own."""
    first = next((text for _number, line in text_lines(path) if (text := line.strip("\ufeff \t"))), "")
    return first.startswith("{") and isinstance(_parsed(first), dict)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
