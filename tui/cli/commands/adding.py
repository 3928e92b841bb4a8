"""`h2q-tui memory add`: one conversation from the command line, or any known format from a pipe."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.i18n import _

if TYPE_CHECKING:
    from engine.core.paths import Workspace


def add_pairs(
    ws: Workspace, user: list[str], assistant: list[str], system: str | None, title: str
) -> dict[str, object]:
    """Takes one conversation in, an answer to each question. Raises UsageProblem when one is without the other."""
    from engine.core.chat import Role
    from engine.core.errors import UsageProblem
    from engine.memory.records import Conversation, Turn
    from engine.memory.store import MemoryStore

    if len(user) != len(assistant):
        raise UsageProblem(
            _("{a} --user and {b} --assistant: each needs the other").format(a=len(user), b=len(assistant)),
            hint="h2q-tui memory add --user TEXT --assistant TEXT",
        )
    now = time.time()
    turns = [Turn(role=Role.SYSTEM, text=system, time=now)] if system else []
    for question, answer in zip(user, assistant, strict=True):
        turns += [
            Turn(role=Role.USER, text=question, time=now),
            Turn(role=Role.ASSISTANT, text=answer, time=now),
        ]
    conversation = Conversation.of(turns, source="added", title=title)
    with MemoryStore(ws.memory_db) as store:
        result = store.add([conversation], "added", again=True)
    return {"id": conversation.id, "taken": result.added, "unchanged": result.unchanged}


def add_from_stdin(ws: Workspace) -> dict[str, object]:
    """Takes in what any importer knows from standard input. Raises UsageProblem when nothing comes, BadInput."""
    import tempfile

    from engine.core.errors import UsageProblem
    from engine.memory.store import MemoryStore
    from engine.pipeline.import_run import import_paths

    nothing = UsageProblem(
        _("Nothing to add is given: texts, or JSON on standard input"),
        hint="h2q-tui memory add --user TEXT --assistant TEXT",
    )
    if sys.stdin.isatty():
        raise nothing
    with tempfile.TemporaryDirectory(prefix=".add.", dir=ws.memory_db.parent) as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            while piece := sys.stdin.buffer.read(2**20):
                file.write(piece)
        if not path.stat().st_size:
            raise nothing
        with MemoryStore(ws.memory_db) as store:
            report = import_paths(store, [path], again=True)
    return {"taken": report.added, "unchanged": report.unchanged, "skipped": report.skipped}
