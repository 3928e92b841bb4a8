"""What the embedder may do, as the last corpus build measured it: leave conversations out, or only group them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from engine.core.i18n import _
from engine.corpus.embedding.calibration import Calibration, calibration_version
from engine.corpus.embedding.embedder import OFF
from engine.models.ollama.client import MODEL_PREFIX

CALIBRATION_KEY = "calibration "
"""Before the name of an embedder, the key of its calibration in the table `meta`."""


def describe_effect(memory_db: Path, setting: str) -> str:
    """What an embedder does to the corpus, in one sentence; "" when the setting names none.

    It is measured by the first build. The model is not loaded.
    """
    if setting in ("", OFF):
        return ""
    measured = _last_calibration(memory_db, setting)
    if measured is None:
        return _("groups only, until h2q-tui corpus build has measured it")
    languages = _(", ").join(sorted(measured.drops))
    if not languages:
        return _("groups only: no similarity is safe enough to leave conversations out")
    only = _(", ").join(sorted(set(measured.groups) - set(measured.drops)))
    if not only:
        return _("leaves out semantic duplicates in {languages}").format(languages=languages)
    return _("leaves out semantic duplicates in {languages}; groups only in {others}").format(
        languages=languages, others=only
    )


def measured_groups(memory_db: Path, setting: str) -> frozenset[str] | None:
    """The languages in which the embedder groups conversations; None when no build has measured it."""
    measured = _last_calibration(memory_db, setting)
    return None if measured is None else frozenset(measured.groups)


def _last_calibration(memory_db: Path, setting: str) -> Calibration | None:
    """The calibration of the embedder that the last build used, if it is the one that `setting` names and still holds."""
    if not memory_db.exists():
        return None
    connection = sqlite3.connect(f"{memory_db.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        rows = dict(
            connection.execute(
                "SELECT key, value FROM meta WHERE key = 'corpus_semantic' OR key LIKE 'calibration %'"
            )
        )
    except sqlite3.Error:
        return None
    finally:
        connection.close()
    name = rows.get("corpus_semantic", "")
    stem = (
        f"ollama:{setting.removeprefix(MODEL_PREFIX)}"
        if setting.startswith(MODEL_PREFIX)
        else Path(setting).name
    )
    if not name.startswith(f"{stem}-") or CALIBRATION_KEY + name not in rows:
        return None
    try:
        measured = msgspec.json.decode(rows[CALIBRATION_KEY + name], type=Calibration)
    except msgspec.MsgspecError:
        return None
    return measured if measured.pairs == calibration_version() else None
