"""Completes a path as a shell does: the entries of its folder, and the part that all of them share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_ENTRIES = 500


@dataclass(frozen=True)
class FolderEntry:
    """An entry of a folder."""

    name: str
    is_folder: bool
    bytes: int


def split_typed(text: str) -> tuple[str, str]:
    """The folder as it was typed, with its slash, and the beginning of a name in it: `~/Do` is ("~/", "Do")."""
    if text == "~":
        return "~/", ""
    head, slash, tail = text.rpartition("/")
    return head + slash, tail


def typed_path(text: str) -> Path:
    """The path that was typed, `~` for the home folder and `~name` for that of another user, if there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def folder_entries(text: str) -> list[FolderEntry]:
    """The entries of the folder of `text` whose names begin with its last part in any case, folders first; hidden ones only when it begins with a dot.
    None where the folder cannot be read."""
    typed_folder, begun = split_typed(text)
    found: list[FolderEntry] = []
    try:
        with os.scandir(typed_path(typed_folder or ".")) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not begun.startswith(".")
                if hidden or not entry.name.casefold().startswith(begun.casefold()):
                    continue
                try:
                    is_folder = entry.is_dir()
                    found.append(FolderEntry(entry.name, is_folder, 0 if is_folder else entry.stat().st_size))
                except OSError:
                    continue
    except (OSError, ValueError):
        return []
    found.sort(key=lambda entry: (not entry.is_folder, entry.name.casefold(), entry.name))
    return found[:MAX_ENTRIES]


def completed(text: str, entries: Sequence[FolderEntry]) -> str:
    """`text` as far as all `entries` agree; with a slash behind the only one when it is a folder."""
    folder, begun = split_typed(text)
    if not entries:
        return text
    if len(entries) == 1:
        return folder + entries[0].name + ("/" if entries[0].is_folder else "")
    exact = [entry.name for entry in entries if entry.name.startswith(begun)]
    first, *others = exact or [entry.name for entry in entries]
    common = first
    while not all(name.startswith(common) for name in others):
        common = common[:-1]
    return folder + (common if len(common) > len(begun) else begun)
