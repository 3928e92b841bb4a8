"""Checks of what is in the workspace: conversations, backups, text, models and runs."""

from __future__ import annotations

import os
import sqlite3
import time
from typing import NamedTuple

from engine.core.config import load_settings
from engine.core.errors import H2QError
from engine.core.filenames import shell_word
from engine.core.i18n import _, n_
from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.health.disk import ELSEWHERE
from engine.health.grades import (
    Fix,
    Grade,
    Judgement,
    as_root,
    existing_folder,
    fails,
    fixable,
    passes,
    warns,
)
from engine.runs.events import RunStatus

_DAY_S = 86400.0


class WorkspaceReading(NamedTuple):
    path: str
    exists: bool
    blocked: str = ""
    """The first of its folders that cannot be written; "" without one."""
    owner: int = 0
    """User id of `blocked`."""
    user: int = 0
    """User id of this process."""
    read_only: bool = False
    """Whether `blocked` is on a file system that is mounted for reading."""


def read_workspace(ws: Workspace) -> WorkspaceReading:
    """Raises H2QError for a folder that cannot be a workspace."""
    from engine.workspace.open import open_workspace

    open_workspace(ws, create=False)
    # Where others have left a folder of the workspace (`sudo h2q-tui …`), only that part cannot be written.
    for folder in (ws.root, ws.memory_db.parent, ws.config, ws.runs, ws.models, ws.training, ws.backups):
        nearest = existing_folder(folder)
        if not os.access(nearest, os.W_OK | os.X_OK):
            found, mount = nearest.stat(), os.statvfs(nearest)
            return WorkspaceReading(
                str(ws.root),
                ws.root.exists(),
                str(nearest),
                found.st_uid,
                os.getuid(),
                bool(mount.f_flag & os.ST_RDONLY),
            )
    return WorkspaceReading(str(ws.root), ws.root.exists())


def judge_workspace(reading: WorkspaceReading) -> Judgement:
    if reading.blocked:
        return _blocked(reading)
    if not reading.exists:
        return passes(_("{path} is created on first use").format(path=reading.path))
    return passes(reading.path)


def _blocked(reading: WorkspaceReading) -> Judgement:
    path = reading.blocked
    text = _("{path} cannot be written").format(path=path)
    if reading.read_only:
        return fails(_("{detail}: its disk is mounted for reading alone").format(detail=text), ELSEWHERE)
    if not reading.exists:
        return fails(text, ELSEWHERE)
    if reading.owner != reading.user:
        # `sudo h2q-tui …` once leaves folders that belong to root.
        text = _("{detail}: it belongs to another user ({user})").format(detail=text, user=reading.owner)
        return fails(text, as_root(f"chown -R {reading.user} {shell_word(path)}"))
    fix = Fix(
        change=_("Let you write {path} and what is in it").format(path=path),
        command=("chmod", "-R", "u+rwX", path),
    )
    return fixable(Grade.FAIL, text, fix)


# The conversations

STORE_S = 5.0
"""Time limit for the check of a large memory; a backup checks all of it."""
_LOCK_S = 1.0


class StoreReading(NamedTuple):
    path: str
    conversations: int = 0
    damage: str = ""
    """The first damage found."""
    exists: bool = True


def read_store(ws: Workspace, limit_s: float = STORE_S) -> StoreReading:
    if not ws.memory_db.exists():
        return StoreReading(str(ws.memory_db), exists=False)
    from engine.memory.integrity import find_damage, is_damage, reason_of

    connection = sqlite3.connect(f"{ws.memory_db.resolve().as_uri()}?mode=ro", uri=True, timeout=_LOCK_S)
    count = 0
    try:
        damage = find_damage(connection, limit_s=limit_s)
        if not damage:
            (count,) = connection.execute("SELECT COUNT(*) FROM current_conversations").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        damage = reason_of(error)
    finally:
        connection.close()
    return StoreReading(str(ws.memory_db), count, damage or "")


def judge_store(reading: StoreReading) -> Judgement:
    if not reading.exists:
        return passes(_("empty"), "h2q-tui sample")
    if reading.damage:
        text = _("{path} is damaged: {why}").format(path=reading.path, why=reading.damage)
        return fails(text, "h2q-tui backup restore")
    n = reading.conversations
    text = n_("{n} conversation", "{n} conversations", n).format(n=n)
    return passes(text, "" if n else "h2q-tui sample")


class BackupsReading(NamedTuple):
    """Dates in seconds since the epoch."""

    now: float
    conversations: bool
    """Whether there is a memory to back up."""
    weekly: bool
    """The setting `backup_weekly`."""
    sound: tuple[float, ...] = ()
    """Dates of the backups of a sound memory, newest first."""
    damaged: int = 0


def read_backups(ws: Workspace) -> BackupsReading:
    from engine.workspace.backup import list_backups

    backups = list_backups(ws)
    try:
        weekly = load_settings(ws).backup_weekly
    except H2QError:
        weekly = True
    return BackupsReading(
        time.time(),
        ws.memory_db.exists(),
        weekly,
        tuple(backup.created_at for backup in backups if not backup.damage),
        sum(bool(backup.damage) for backup in backups),
    )


OLD_BACKUP_S = 14 * _DAY_S


def judge_backups(reading: BackupsReading) -> Judgement:
    fix = Fix(
        change=_("Back up memory, decisions and configuration; the newest eight backups are kept"),
        command=("h2q-tui", "backup", "create"),
    )
    if not reading.conversations:
        return passes(_("nothing to back up"))
    ahead = [date for date in reading.sound if date > reading.now + _DAY_S]
    past = [date for date in reading.sound if date <= reading.now + _DAY_S]
    if ahead:
        text = _("a backup is dated {date}, ahead of now: the clock was or is wrong").format(
            date=local_time("%Y-%m-%d", max(ahead))
        )
        return warns(text, "h2q-tui backup list") if past else fixable(Grade.WARN, text, fix)
    if not past:
        if reading.damaged:
            return fixable(Grade.WARN, _("all backups are of a damaged memory"), fix)
        return fixable(Grade.WARN, _("there is none"), fix)
    days = (reading.now - max(past)) / _DAY_S
    n = len(past)
    count = n_("{n} backup", "{n} backups", n).format(n=n)
    text = _("{count}, the newest {days:.0f} days old").format(count=count, days=max(0.0, days))
    if reading.now - max(past) > OLD_BACKUP_S:
        return fixable(Grade.WARN, text, fix)
    if not reading.weekly:
        return passes(_("{detail}; weekly backups are off").format(detail=text))
    return passes(text)


# Text, models, runs


class TextReading(NamedTuple):
    files: int
    size: int
    """Bytes."""


def read_texts(ws: Workspace) -> TextReading:
    folder = ws.training_data
    sizes = (
        [path.stat().st_size for path in folder.rglob("*.txt") if path.is_file()] if folder.is_dir() else []
    )
    return TextReading(len(sizes), sum(sizes))


def judge_texts(reading: TextReading) -> Judgement:
    if not reading.files:
        return passes(_("none; training from scratch uses the sample text"))
    text = n_("{n} file, {mb:.1f} MB", "{n} files, {mb:.1f} MB", reading.files)
    return passes(text.format(n=reading.files, mb=reading.size / 1e6))


class ModelsReading(NamedTuple):
    total: int
    used: str
    """The model in use; "" when none is."""


def read_models(ws: Workspace) -> ModelsReading:
    """Raises BadInput for a model in use that is missing or broken."""
    from engine.models.registry import find_model, in_use, list_models

    cards, used = list_models(ws), in_use(ws)
    if used is not None:
        find_model(ws, used)
    return ModelsReading(len(cards), used or "")


def judge_models(reading: ModelsReading) -> Judgement:
    if not reading.used:
        return passes(_("{n} in the workspace, none in use").format(n=reading.total))
    return passes(_("{n} in the workspace, {name} in use").format(n=reading.total, name=reading.used))


class RunsReading(NamedTuple):
    alive: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()


def read_runs(ws: Workspace) -> RunsReading:
    from engine.runs.rundir import list_runs, summarise

    newest = list_runs(ws)[:50]
    return RunsReading(
        tuple(run.run_id for run in newest if run.alive()),
        tuple(run.run_id for run in newest if summarise(run).status is RunStatus.DEAD),
    )


def judge_runs(reading: RunsReading) -> Judgement:
    if reading.dead:
        text = _("{id} died without a final event").format(id=_(", ").join(reading.dead[:3]))
        return warns(text, f"h2q-tui runs show {reading.dead[0]}")
    if reading.alive:
        text = _("{id} is running").format(id=_(", ").join(reading.alive[:3]))
        return passes(text, f"h2q-tui runs attach {reading.alive[0]}")
    return passes(_("no run is active"))
