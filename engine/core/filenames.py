"""File names as text that JSON, SQLite and a terminal can hold: names on Unix are bytes, and may be no UTF-8.

A Chinese zip that was unpacked on Linux has names in GBK. Python keeps such bytes as lone surrogates, which no
UTF-8 text can hold.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote_to_bytes

_URI = "file://"
_FOREIGN = re.compile("[\udc80-\udcff]")


def path_to_text(path: Path) -> str:
    """An absolute path as text that `text_to_path` reads: the path itself, or a file URI when it is not UTF-8."""
    text = str(path)
    return path.as_uri() if _FOREIGN.search(text) else text


def text_to_path(text: str) -> Path:
    """The path that `path_to_text` wrote."""
    return Path(os.fsdecode(unquote_to_bytes(text[len(_URI) :]))) if text.startswith(_URI) else Path(text)


def printable_name(name: str) -> str:
    """A name or path to show: bytes that are not UTF-8 as `\\xb6`."""
    return _FOREIGN.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name)


def shell_word(name: str | Path) -> str:
    """A name or path as one word of a command; one that is not UTF-8 as bash, zsh and ksh read it: `$'\\xb6'`."""
    text = str(name)
    if not _FOREIGN.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return "$'" + printable_name(escaped) + "'"


def shell_command(*words: str | Path) -> str:
    """A command of these words that works when typed."""
    return " ".join(map(shell_word, words))
