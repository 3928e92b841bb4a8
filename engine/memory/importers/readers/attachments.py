"""Which files of a program's export or backup are attachments: a person gave them to a model, or a model made them.

A program keeps them in a folder of its own, beside its conversations: Le Chat in `chat-<id>-files/` beside
`chat-<id>.json`, Cherry Studio in `Data/Files/` beside `data.json`, Chatbox in `resources/` beside its sessions.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

_CHERRY = ("data.json", "metadata.json", "cache.json", "Data/cherrystudio.sqlite", "cherrystudio.sqlite")


def attached_files(names: Collection[str]) -> set[str]:
    """Of the names in one folder or archive, those of attachments."""
    known = {str(PurePosixPath(name)) for name in names}
    sessions = {
        str(PurePosixPath(name).parent) for name in known if PurePosixPath(name).name == "session.json"
    }
    roots = {
        str(parent)
        for folder in sessions
        for parent in (PurePosixPath(folder), *PurePosixPath(folder).parents)
    }
    folders: dict[PurePosixPath, bool] = {}
    return {
        name
        for name in names
        if any(_holds(one, known, roots, folders) for one in PurePosixPath(name).parents)
    }


def _holds(folder: PurePosixPath, known: set[str], roots: set[str], seen: dict[PurePosixPath, bool]) -> bool:
    """Whether a folder is one of attachments."""
    if folder not in seen:
        outer = folder.parent
        seen[folder] = (
            (
                folder.name.endswith("-files")
                and str(outer / f"{folder.name.removesuffix('-files')}.json") in known
            )
            or (
                folder.parts[-2:] == ("Data", "Files")
                and any(str(outer.parent / name) in known for name in _CHERRY)
            )
            or (folder.name == "resources" and str(outer) in roots)
        )
    return seen[folder]
