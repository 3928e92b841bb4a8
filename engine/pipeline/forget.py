"""Forgetting: a conversation leaves the store, the datasets, the reports, the runs and the backups.

Models that were trained on it cannot unlearn it; they are named with the command that removes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import Busy
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.export.report import exports_of
from engine.memory.store import MemoryStore
from engine.models.registry import list_models
from engine.workspace.backup import without_conversations


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What `memory forget --json` prints."""

    ids: list[str]
    """Ids that were erased, shorter forms included."""
    files: list[str]
    """Datasets, reports and journals that were rewritten without them."""
    backups: int
    """Backups that were rewritten without them."""
    removed_backups: int
    """Backups that were removed: they are damaged and may hold them."""
    models: list[str]
    """Models that were trained on one of them."""
    exports: list[str] = []
    """Files and folders that such a model was exported to."""


def forget(workspace: Workspace, ids: list[str]) -> Forgotten:
    """Erases the conversations everywhere in the workspace.

    The store goes last, so that an interruption leaves the ids there to forget again. Raises Busy when a
    run is alive, for it may hold them; OSError.
    """
    _refuse_while_running(workspace)
    with MemoryStore(workspace.memory_db) as store:
        family = _with_shorter_forms(store, ids)
        files = [str(path) for path in _texts(workspace) if _rewrite(path, set(family))]
        rewritten, removed = without_conversations(workspace, family)
        gone = store.forget(family)
    return Forgotten(
        ids=gone,
        files=files,
        backups=rewritten,
        removed_backups=removed,
        models=trained_on(workspace, family),
        exports=exports_of(workspace, family),
    )


def trained_on(workspace: Workspace, ids: list[str]) -> list[str]:
    """Names of the models in whose lineage one of the conversations stands."""
    wanted = set(ids)
    return [card.name for card in list_models(workspace) if wanted.intersection(card.lineage.conversations)]


def _refuse_while_running(workspace: Workspace) -> None:
    from engine.runs.rundir import list_runs

    for run in list_runs(workspace):
        if run.alive():
            raise Busy(
                _("Run {run} is going on and may hold what is to be forgotten").format(run=run.run_id),
                hint=f"h2q-tui runs stop {run.run_id}",
            )


def _with_shorter_forms(store: MemoryStore, ids: list[str]) -> list[str]:
    found: list[str] = []
    waiting = list(ids)
    while waiting:
        id_ = waiting.pop(0)
        if id_ not in found:
            found.append(id_)
            waiting += [
                row[0]
                for row in store.connection.execute(
                    "SELECT id FROM conversations WHERE superseded_by = ?", (id_,)
                )
            ]
    return found


def _texts(workspace: Workspace) -> Iterator[Path]:
    """Files with JSON in which conversations may stand."""
    for folder, pattern in (
        (workspace.training, "*.jsonl"),
        (workspace.training, "*.json"),
        (workspace.runs, "*/*.json"),
        (workspace.runs, "*/*.jsonl"),
    ):
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _rewrite(path: Path, ids: set[str]) -> bool:
    """Takes the conversations out of a JSON or JSONL file; whether anything was in it."""
    data = path.read_bytes()
    if not any(id_.encode() in data for id_ in ids):
        return False
    rows = data.split(b"\n") if path.suffix == ".jsonl" else [data]
    kept = [
        row for row in (_row_without(row, ids, path.suffix == ".json") for row in rows) if row is not None
    ]
    new = b"\n".join(kept)
    if new == data:
        return False
    write_bytes(path, new, mode=path.stat().st_mode & 0o777)
    return True


def _row_without(row: bytes, ids: set[str], pretty: bool) -> bytes | None:
    if not any(id_.encode() in row for id_ in ids):
        return row
    try:
        value = json.loads(row)
    except ValueError:
        # Nothing reads a broken row, and it names what is to be forgotten.
        return None
    cleaned = _without(value, ids)
    if cleaned is None:
        return None
    return json.dumps(cleaned, ensure_ascii=False, indent=2 if pretty else None).encode() + (
        b"\n" if pretty else b""
    )


def _without(value: Any, ids: set[str]) -> Any:
    """`value` without the rows of the conversations; None when it is such a row itself.

    Answers in a verdict carry no id: where one of its cases goes, they all go.
    """
    if isinstance(value, dict):
        if value.get("id") in ids or value.get("conversation") in ids or value.get("conversation_id") in ids:
            return None
        made_from = value.get("made_from")
        if isinstance(made_from, list) and any(source in made_from for source in ids):
            return None  # new material of an evolution, made of such a conversation
        cleaned = {key: _without(item, ids) for key, item in value.items()}
        cases = value.get("cases")
        if isinstance(cases, list) and len(cleaned["cases"]) < len(cases) and "answers" in cleaned:
            cleaned["answers"] = []
        return cleaned
    if isinstance(value, list):
        kept = (_without(item, ids) for item in value)
        return [new for new, old in zip(kept, value, strict=True) if new is not None or old is None]
    return value
