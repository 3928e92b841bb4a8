"""Finds exports of chat programs in the downloads folder."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHAT_NAMES = ("conversation", "chat", "sharegpt", "alpaca", "openai", "messages", "dialog", "对话", "聊天")
"""Parts of file names that suggest conversations."""
ARCHIVED_NAMES = (*CHAT_NAMES, "myactivity", "prod-grok-backend", ".jsonl")
"""The same for members of an archive."""
CHAT_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".txt", ".md"})
MAX_SUGGESTIONS = 50


@dataclass(frozen=True)
class ExportFile:
    """A file that looks like an export."""

    path: Path
    bytes: int


def downloads() -> Path:
    """The folder where a browser puts an export."""
    return Path(os.environ.get("XDG_DOWNLOAD_DIR") or "~/Downloads").expanduser()


def find_exports(folder: Path) -> list[ExportFile]:
    """Files of `folder` that look like exports of conversations, newest first; none if it cannot be read. Reads names,
    and the table of contents of a zip."""
    found: list[tuple[float, ExportFile]] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        try:
            if entry.is_file() and _looks_like_chat(Path(entry.path)):
                info = entry.stat()
                found.append((info.st_mtime, ExportFile(Path(entry.path), info.st_size)))
        except OSError:
            continue
    return [file for _time, file in sorted(found, key=lambda pair: pair[0], reverse=True)][:MAX_SUGGESTIONS]


def _looks_like_chat(path: Path) -> bool:
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(_may_hold_chats(member.lower()) for member in archive.namelist())
        except (OSError, zipfile.BadZipFile, NotImplementedError):
            return False
    return suffix in CHAT_SUFFIXES and any(word in name for word in CHAT_NAMES)


def _may_hold_chats(member: str) -> bool:
    """Whether the member of an archive, in lower case, is named like an export."""
    path = Path(member)
    return path.suffix in CHAT_SUFFIXES and any(word in path.name for word in ARCHIVED_NAMES)


def format_size(count: int) -> str:
    """ "12 MB" for a number of bytes, in powers of 1,000."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def format_path(path: Path) -> str:
    """A path with `~` for the home folder."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except ValueError:
        return str(path)
