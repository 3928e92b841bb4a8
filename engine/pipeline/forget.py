"""Forgets conversations: deletes them from memory, datasets, reports, runs and backups.

Models trained on them cannot unlearn them; the report names these models and their exports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.files import write_bytes
from engine.core.paths import Workspace
from engine.export.report import exports_of
from engine.memory.store import MemoryStore
from engine.models.registry import list_models
from engine.workspace.backup import remove_from_backups
from engine.workspace.leftovers import backup_lock, sweep_leftovers
from engine.workspace.reset import require_no_run


class ForgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `memory forget --json`."""

    ids: list[str]
    """Deleted ids, shorter forms included."""
    files: list[str]
    """Rewritten datasets, reports and journals."""
    backups: int
    """Number of rewritten backups."""
    removed_backups: int
    """Number of deleted backups and renamed memories: damaged ones may contain the conversations."""
    models: list[str]
    """Models trained on one of them."""
    exports: list[str] = []
    """Exports of these models."""


def forget(workspace: Workspace, ids: list[str]) -> ForgetReport:
    """Deletes the conversations everywhere in the workspace.

    The store comes last, so that an interrupted call can be repeated. Raises Busy when a run is alive or a
    backup is made or restored, because it may hold them; OSError.
    """
    require_no_run(workspace)
    with backup_lock(workspace), MemoryStore(workspace.memory_db) as store:
        sweep_leftovers(workspace, everywhere=True)
        all_ids = _with_shorter_forms(store, ids)
        files = [str(path) for path in _json_files(workspace) if _rewrite(path, set(all_ids))]
        rewritten, removed = remove_from_backups(workspace, all_ids)
        deleted = store.forget(all_ids)
    return ForgetReport(
        ids=deleted,
        files=files,
        backups=rewritten,
        removed_backups=removed,
        models=trained_on(workspace, all_ids),
        exports=exports_of(workspace, all_ids),
    )


def trained_on(workspace: Workspace, ids: list[str]) -> list[str]:
    """Names of the models whose lineage contains one of the conversations."""
    wanted = set(ids)
    return [card.name for card in list_models(workspace) if wanted.intersection(card.lineage.conversations)]


def _with_shorter_forms(store: MemoryStore, ids: list[str]) -> list[str]:
    all_ids: list[str] = []
    pending = list(ids)
    while pending:
        id_ = pending.pop(0)
        if id_ not in all_ids:
            all_ids.append(id_)
            pending += [
                row[0]
                for row in store.connection.execute(
                    "SELECT id FROM conversations WHERE superseded_by = ?", (id_,)
                )
            ]
    return all_ids


def _json_files(workspace: Workspace) -> Iterator[Path]:
    """JSON files that may contain conversations."""
    for folder, pattern in (
        (workspace.training, "*.jsonl"),
        (workspace.training, "*.json"),
        (workspace.runs, "*/*.json"),
        (workspace.runs, "*/*.jsonl"),
    ):
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _rewrite(path: Path, ids: set[str]) -> bool:
    """Removes the conversations from a JSON or JSONL file; True when it contained any."""
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
        # A malformed row is never read, and it contains a forgotten id.
        return None
    cleaned = _without(value, ids)
    if cleaned is None:
        return None
    return json.dumps(cleaned, ensure_ascii=False, indent=2 if pretty else None).encode() + (
        b"\n" if pretty else b""
    )


def _without(value: Any, ids: set[str]) -> Any:
    """`value` without the rows of the conversations; None when it is such a row itself.

    The answers of a verdict carry no id: they are all removed with any of its cases.
    """
    if isinstance(value, dict):
        if value.get("id") in ids or value.get("conversation") in ids or value.get("conversation_id") in ids:
            return None
        made_from = value.get("made_from")
        if isinstance(made_from, list) and any(source in made_from for source in ids):
            return None  # synthetic data derived from such a conversation
        cleaned = {key: _without(item, ids) for key, item in value.items()}
        cases = value.get("cases")
        if isinstance(cases, list) and len(cleaned["cases"]) < len(cases) and "answers" in cleaned:
            cleaned["answers"] = []
        return cleaned
    if isinstance(value, list):
        kept = (_without(item, ids) for item in value)
        return [new for new, old in zip(kept, value, strict=True) if new is not None or old is None]
    return value
