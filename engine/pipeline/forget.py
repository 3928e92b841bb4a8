"""Forgets conversations: deletes them from memory, datasets, exports, reports, runs and backups.

Models trained on them cannot unlearn them; the report names these models and their exports.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from engine.core.filenames import printable_name, text_to_path
from engine.core.paths import Workspace
from engine.export.report import exports_of
from engine.inference.client import free_service_memory
from engine.memory.deletion import imports_without, texts_of, with_shorter_forms
from engine.memory.erased_notes import quoting_paths
from engine.memory.search import fold
from engine.memory.store import MemoryStore
from engine.models.ollama.running import installed_models
from engine.models.registry import list_models
from engine.pipeline.erase_files import blank_file_names, erase_files, files_with, remove_runs
from engine.pipeline.erase_served import erase_served
from engine.pipeline.erased_text import ErasedText
from engine.runs.kinds import ImportParams, RunKind
from engine.runs.rundir import RunDir, list_runs
from engine.runs.spec import params_of
from engine.workspace.backup import remove_from_backups
from engine.workspace.leftovers import backup_lock, sweep_leftovers
from engine.workspace.reset import require_no_run

_ANY_MB = 1e9
"""More memory than there is."""


class ForgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `memory forget --json`."""

    ids: list[str]
    """Deleted ids, shorter forms included."""
    files: list[str]
    """Rewritten or deleted datasets, exports, reports, journals and logs."""
    backups: int
    """Number of rewritten backups."""
    removed_backups: int
    """Number of deleted backups and renamed memories: damaged ones may contain the conversations."""
    models: list[str]
    """Models trained on one of them."""
    exports: list[str] = []
    """Exports of these models, and copies in Ollama of served models that held one of the conversations."""
    runs: list[str] = []
    """Deleted runs: imports of which no conversation is left, or whose path quotes what is erased."""
    rules: int = 0
    """Number of ended rules: they had a word that stands in nothing else that is left."""
    notes: int = 0
    """Number of rules, reasons, former edits and import paths that were blanked."""
    left: list[str] = []
    """Other files of the workspace that contain the searched text, such as the user's own texts."""

    @property
    def erased_anything(self) -> bool:
        """Whether anything was deleted or rewritten."""
        return bool(self.ids or self.files or self.backups or self.removed_backups or self.runs or self.notes)


def forget(workspace: Workspace, ids: list[str], *, text: str = "") -> ForgetReport:
    """Deletes the conversations everywhere in the workspace; with `text`, from backups all that contain it.

    The store comes last, so that an interrupted call can be repeated. Raises Busy when a run is alive or a
    backup is made or restored, because it may hold them; OSError.
    """
    require_no_run(workspace)
    with backup_lock(workspace), MemoryStore(workspace.memory_db) as store:
        sweep_leftovers(workspace, everywhere=True)
        all_ids = with_shorter_forms(store.connection, ids)
        texts = list(texts_of(store.connection, all_ids))
        erased = ErasedText(all_ids, texts, match=text)
        quoting = quoting_paths(store.connection, texts, all_ids, fold(text))
        gone, touched = _import_runs(workspace, store, all_ids, quoting)
        rewritten_models, tags = erase_served(workspace, erased)
        if tags:
            # A loaded model still has the conversations before every chat.
            free_service_memory(workspace, needed_mb=_ANY_MB, budget_mb=0.0)
        files = {str(path): None for path in (*erase_files(workspace, erased), *rewritten_models)}
        files |= {str(path): None for run in touched for path in blank_file_names(run)}
        remove_runs(workspace, gone)
        rewritten, removed = remove_from_backups(workspace, all_ids, text=text, quoted=texts)
        deleted = store.forget(all_ids, text=text)
    names = {run.run_id for run in gone}
    return ForgetReport(
        ids=deleted.ids,
        files=[path for path in files if not names.intersection(Path(path).parts)],
        backups=rewritten,
        removed_backups=removed,
        models=trained_on(workspace, all_ids),
        exports=[*exports_of(workspace, all_ids), *_copies_in_ollama(tags)],
        runs=sorted(names),
        rules=deleted.rules,
        notes=deleted.notes,
        left=[str(path) for path in files_with(workspace, text)] if text else [],
    )


def _copies_in_ollama(tags: list[str]) -> list[str]:
    """Models of these names in an Ollama that answers, which is outside the workspace."""
    return [f"ollama:{tag}" for tag in sorted(set(tags) & set(installed_models()))] if tags else []


def trained_on(workspace: Workspace, ids: list[str]) -> list[str]:
    """Names of the models whose lineage contains one of the conversations; served models can lose it again."""
    wanted = set(ids)
    return [
        card.name
        for card in list_models(workspace)
        if not card.served and wanted.intersection(card.lineage.conversations)
    ]


def _import_runs(
    workspace: Workspace, store: MemoryStore, ids: list[str], quoting: set[str]
) -> tuple[list[RunDir], list[RunDir]]:
    """The runs of imports of which no row is left without `ids` or whose path is among `quoting`, and those of other
    imports that keep some.

    A run that failed on the same file belongs to the first.
    """
    empty = imports_without(store.connection, ids)
    imports = store.connection.execute("SELECT id, path FROM imports").fetchall()
    kept = {path for id_, path in imports if id_ not in empty} - quoting
    origins = (set(empty.values()) | quoting) - kept
    runs = []
    for run in list_runs(workspace):
        if run.spec.kind is RunKind.IMPORT:
            try:
                texts = params_of(run.spec, ImportParams).paths
                paths = [printable_name(str(text_to_path(text))) for text in texts]
                runs.append((run, paths))
            except msgspec.MsgspecError:
                continue
    names = {name for _run, paths in runs if ", ".join(paths) in origins for name in paths}
    gone = [run for run, paths in runs if ", ".join(paths) not in kept and names.intersection(paths)]
    touched = {
        path
        for (path,) in store.connection.execute(
            "SELECT path FROM imports WHERE id IN (SELECT import_id FROM conversations WHERE id IN "
            "(SELECT value FROM json_each(?)))",
            (json.dumps(ids),),
        )
    }
    return gone, [run for run, paths in runs if ", ".join(paths) in kept & touched]
