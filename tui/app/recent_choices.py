"""The actions and settings that were chosen in the palette, newest first; `config/recent.json` holds their ids.

Only ids of the program's own tables are kept: no name of a run or a model, and nothing of a conversation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.files import write_json
from engine.core.paths import Workspace

FILE = "recent.json"
KEPT = 8


def read_recent(workspace: Workspace) -> list[str]:
    """Ids, newest first; [] when there are none or the file cannot be read."""
    try:
        stored: Any = msgspec.json.decode((workspace.config / FILE).read_bytes())
        return [id_ for id_ in stored["palette"] if isinstance(id_, str)][:KEPT]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return []


def with_newest(recent: Sequence[str], id_: str) -> list[str]:
    """`recent` after `id_` was chosen."""
    return [id_, *(other for other in recent if other != id_)][:KEPT]


def save_recent(workspace: Workspace, recent: Sequence[str]) -> None:
    """Keeps the ids where the workspace exists; a disk that refuses is no problem of the person who chose."""
    if workspace.config.is_dir():
        with contextlib.suppress(OSError):
            write_json(workspace.config / FILE, {"palette": list(recent)})
