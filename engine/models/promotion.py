"""Which model is in use: `config/models.json` in MindX's schema, replaced by rename after a backup.

Imports nothing heavy. An empty backup stands for "there was no file", so that the first promotion can be
rolled back too. A rollback takes a backup itself: rolling back twice is where one was.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from engine.core.errors import BadInput
from engine.core.files import fsync_dir, make_dirs, write_bytes
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import read_card
from engine.models.registry import find_model

STAMP = re.compile(r"\d{8}_\d{6}")
STAMP_FORMAT = "%Y%m%d_%H%M%S"
WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter_model.safetensors"


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What a promotion or a rollback did. Empty names mean that no model was in use."""

    name: str
    """The model in use now."""
    previous: str
    """The model in use before."""
    backup: str
    """Path of the backup that this change took; restoring it undoes the change."""
    restored: str = ""
    """Stamp of the backup that a rollback restored."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """One `models.json.backup.<stamp>`."""

    stamp: str
    path: str
    model: str
    """The model that was in use; "" for none."""
    size: int
    readable: bool = True
    """False when its content is not a model configuration; it can still be restored."""


def promote(ws: Workspace, name: str, description: str = "", *, now: float | None = None) -> Promotion:
    """Puts a model to use; everything else in models.json stays as it was.

    Raises BadInput when there is no such model, when its weights changed since they were written, or when
    models.json is broken (naming its line); nothing is changed then. Raises OSError when the disk is full.
    """
    folder = find_model(ws, name)
    _check_weights(folder)
    # A model outside the workspace is known by its folder: its name alone would not find it again.
    inside = folder.parent.resolve() in (ws.models.resolve(), ws.adapters.resolve())
    known = folder.name if inside else str(folder)
    file = ws.models_json
    with _locked(file):
        old = _read(file)
        config = _parse(old, file)
        previous = _name_in(config)
        entry = {
            "name": known,
            "domain": "subconscious",
            "description": description or _("trained on your conversations with h2q-tui"),
            "provider": "h2q-tui",
            "path": str(folder),
        }
        models = config.setdefault("models", [])
        found = next((item for item in models if isinstance(item, dict) and item.get("name") == known), None)
        if found is None:
            models.append(entry)
        else:
            found.update(entry)
        brain = config.get("brain_models") or {}
        config["brain_models"] = brain | {"leftbrain": known}
        config["default_model"] = known
        data = _encode(config)
        backup = _back_up(file, old, now)
        write_bytes(file, data, mode=_mode(file))
    return Promotion(name=known, previous=previous, backup=str(backup))


def rollback(ws: Workspace, to: str | None = None, *, now: float | None = None) -> Promotion:
    """Restores the newest backup, or the one with the stamp `to`, byte for byte; backs up what it replaces.

    Raises BadInput when there is none.
    """
    file = ws.models_json
    with _locked(file):
        there = _stamps(file)
        if not there:
            raise BadInput(
                _("there is no backup to roll back to"), path=file.parent, hint="h2q-tui models list"
            )
        if to is not None and to not in there:
            raise BadInput(_("there is no backup {stamp}").format(stamp=to), hint="h2q-tui rollback --list")
        stamp = to or there[0]
        wanted = _backup_path(file, stamp).read_bytes()
        old = _read(file)
        mode = _mode(file)
        backup = _back_up(file, old, now)
        if wanted:
            write_bytes(file, wanted, mode=mode)
        else:
            file.unlink(missing_ok=True)
            fsync_dir(file.parent)
    return Promotion(
        name=_name_of(wanted) or "", previous=_name_of(old) or "", backup=str(backup), restored=stamp
    )


def backups(ws: Workspace) -> list[Backup]:
    """The backups, newest first."""
    found = []
    for stamp in _stamps(ws.models_json):
        path = _backup_path(ws.models_json, stamp)
        try:
            data = path.read_bytes()
        except OSError:
            continue
        name = _name_of(data)
        found.append(
            Backup(stamp=stamp, path=str(path), model=name or "", size=len(data), readable=name is not None)
        )
    return found


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One change at a time, also between processes."""
    make_dirs(file.parent)
    fd = os.open(file.parent / f".{file.name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _read(file: Path) -> bytes:
    """The bytes of models.json; b"" when there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _mode(file: Path) -> int:
    """Permissions to keep: models.json of MindX holds API keys."""
    try:
        return file.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o600


def _parse(data: bytes, file: Path) -> dict[str, Any]:
    """The configuration in `data`. Raises BadInput naming the line."""
    if not data:
        return {}
    hint = "h2q-tui rollback"
    try:
        config = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as problem:
        raise BadInput(
            _("the model configuration is not JSON"), path=file, line=problem.lineno, hint=hint
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise BadInput(_("the model configuration is broken"), path=file, hint=hint) from problem
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("models", []), list)
        or not isinstance(config.get("brain_models") or {}, dict)
    ):
        raise BadInput(_("the model configuration is broken"), path=file, hint=hint)
    return config


def _encode(config: dict[str, Any]) -> bytes:
    """Readable JSON; escaped where the strings hold what UTF-8 cannot (a lone surrogate from `\\ud800`)."""
    try:
        return (json.dumps(config, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _name_in(config: dict[str, Any]) -> str:
    name = (config.get("brain_models") or {}).get("leftbrain") or config.get("default_model")
    return name if isinstance(name, str) else ""


def _name_of(data: bytes) -> str | None:
    """The model in use in a configuration; "" for none, None when it cannot be read."""
    try:
        return _name_in(_parse(data, Path()))
    except BadInput:
        return None


def _check_weights(folder: Path) -> None:
    """Raises BadInput when the weights are not those that the card tells of."""
    card = read_card(folder)
    file = folder / (ADAPTER_WEIGHTS if card.base_path else WEIGHTS)
    try:
        with file.open("rb") as stream:
            digest = sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as problem:
        raise BadInput(_("the model has no weights"), path=file, hint="h2q-tui models list") from problem
    if digest.hexdigest() != card.weights_sha256:
        raise BadInput(
            _("the weights have changed since they were written (their hash differs)"),
            path=file,
            hint="h2q-tui models list",
        )


def _backup_path(file: Path, stamp: str) -> Path:
    return file.with_name(f"{file.name}.backup.{stamp}")


def _stamps(file: Path) -> list[str]:
    """Stamps of the backups beside `file`, newest first."""
    prefix = f"{file.name}.backup."
    names = (path.name for path in file.parent.iterdir()) if file.parent.is_dir() else iter(())
    stamps = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted((stamp for stamp in stamps if STAMP.fullmatch(stamp)), reverse=True)


def _back_up(file: Path, data: bytes, now: float | None) -> Path:
    """Writes `data` as the newest backup; a stamp that is taken, or older than one there, is moved on."""
    at = time.time() if now is None else now
    newest = (_stamps(file) or [""])[0]
    if _stamp(at) <= newest:
        # The clock was set back, or this is the second change in one second: the newest stays the highest.
        with suppress(ValueError, OverflowError):
            at = time.mktime(time.strptime(newest, STAMP_FORMAT)) + 1
    while (path := _backup_path(file, _stamp(at))).exists():
        at += 1
    write_bytes(path, data, mode=_mode(file))
    return path


def _stamp(at: float) -> str:
    return time.strftime(STAMP_FORMAT, time.localtime(at))
