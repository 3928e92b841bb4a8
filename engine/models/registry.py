"""The models of a workspace and the one in use: list, find, promote, roll back, remove. Imports nothing heavy.

The model in use stands in `config/models.json` in MindX's schema, which is replaced by rename after a backup.
An empty backup means that there was no file, so the first promotion can be rolled back too. A rollback takes a
backup as well: a second rollback undoes the first.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from engine.core.errors import BadInput, UsageProblem
from engine.core.files import file_sha256, fsync_dir, make_dirs, remove_stale, write_bytes
from engine.core.i18n import _, bracketed
from engine.core.paths import Workspace, resolve_path
from engine.models.card import ADAPTER_WEIGHTS, CARD_FILE, WEIGHTS_FILE, ModelCard, read_card, weights_changed
from engine.models.ollama.layout import full_tag
from engine.models.ollama.model_store import ModelStore, UnknownModel

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
"""Model names, which are valid names for Ollama too."""
GGUF_SUFFIX = ".gguf"
STAMP = re.compile(r"\d{8}_\d{6}")
STAMP_FORMAT = "%Y%m%d_%H%M%S"
BACKUPS_KEPT = 50
"""Newest backups of models.json that stay; a change deletes older ones."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a promotion or a rollback. An empty name means no model in use."""

    name: str
    """The model in use now."""
    previous: str
    """The model in use before."""
    backup: str
    """Path of the backup that this change took; restoring it undoes the change."""
    restored: str = ""
    """Stamp of the backup that a rollback restored."""


class PromotionBackup(msgspec.Struct, frozen=True, kw_only=True):
    """One `models.json.backup.<stamp>`."""

    stamp: str
    path: str
    model: str
    """The model that was in use; "" for none."""
    size: int
    readable: bool = True
    """False when its content is not a model configuration; it can still be restored."""


def list_models(ws: Workspace) -> list[ModelCard]:
    """Models and adapters of the workspace, newest first; a folder without a readable card is skipped."""
    cards = []
    folders = [folder for root in (ws.models, ws.adapters) if root.is_dir() for folder in root.iterdir()]
    for folder in folders:
        if folder.name.startswith(".") or not (folder / CARD_FILE).is_file():
            continue
        try:
            # A model that was added under another name, or renamed, is found by the name of its folder.
            cards.append(msgspec.structs.replace(read_card(folder), name=folder.name))
        except (OSError, msgspec.DecodeError):
            continue
    return sorted(cards, key=lambda card: card.created_at, reverse=True)


def find_model(ws: Workspace, name: str) -> Path:
    """The folder of a model or adapter, by its name in the registry or by its path. Raises BadInput."""
    if NAME.fullmatch(name):
        for root in (ws.models, ws.adapters):
            if (root / name / CARD_FILE).is_file():
                return root / name
    folder = Path(name).expanduser()
    if (folder / CARD_FILE).is_file():
        return folder.resolve()
    if folder.is_dir():
        raise BadInput(_("there is no model in this directory"), path=folder, hint="h2q-tui models list")
    raise unknown_model(name)


def list_outside(ws: Workspace, folder: Path) -> str:
    """Links a model that was written outside the workspace into it, so that it is listed; returns its name here.

    A model inside keeps its name, and one that is linked already its link. Nothing is linked where that is impossible.
    """
    root = ws.adapters if (folder / ADAPTER_WEIGHTS).is_file() else ws.models
    if resolve_path(folder.parent) in (resolve_path(ws.models), resolve_path(ws.adapters)):
        return folder.name
    linked = _link_to(ws, folder)
    if linked:
        return linked
    stem = folder.name if NAME.fullmatch(folder.name) else "model"
    name = stem
    for number in range(2, 10_000):
        if workspace_entry(ws, name) is None:
            break
        name = f"{stem}-{number}"
    with suppress(OSError):
        make_dirs(root)
        (root / name).symlink_to(resolve_path(folder), target_is_directory=True)
        fsync_dir(root)
    return name


def _link_to(ws: Workspace, folder: Path) -> str:
    """The name under which a model outside is linked into the workspace; "" for none."""
    target = resolve_path(folder)
    entries = (entry for root in (ws.models, ws.adapters) for entry in sorted(root.glob("*")))
    return next((one.name for one in entries if one.is_symlink() and resolve_path(one) == target), "")


def unknown_model(name: str, known: str = "") -> BadInput:
    """The error for a name that no model has; `known` lists models that exist."""
    text = _("there is no model named {name}").format(name=name)
    return BadInput(bracketed(text, known) if known else text, hint="h2q-tui models list")


def new_name(ws: Workspace, mode: str, now: float | None = None) -> str:
    """A free name: `native-YYYYMMDD`, then `native-YYYYMMDD-2` …"""
    stem = f"{mode}-{time.strftime('%Y%m%d', time.localtime(now))}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 10_000))
    return next(
        name for name in names if not any((root / name).exists() for root in (ws.models, ws.adapters))
    )


def in_use(ws: Workspace) -> str | None:
    """Name of the model in use according to `config/models.json`; None for none.

    Raises BadInput when the file is broken.
    """
    file = ws.models_json
    data = _read(file)
    if not data:
        return None
    name = _model_in(_checked(_decode(data, file), file))
    # A model outside is registered by its path, and listed under its link.
    return (_link_to(ws, Path(name)) if name.startswith("/") else "") or name or None


def promote(ws: Workspace, name: str, description: str = "", *, now: float | None = None) -> Promotion:
    """Makes `name` the model in use; every other entry of models.json stays as it is.

    Raises BadInput when there is no such model, when its weights changed since they were written, or when
    models.json is broken (with the line); nothing is changed then. Raises OSError when the disk is full.
    """
    folder = find_model(ws, name)
    _check_weights(ws, folder)
    # A model outside the workspace is registered by its path: its name alone would not find it again.
    inside = folder.parent.resolve() in (ws.models.resolve(), ws.adapters.resolve())
    registered = folder.name if inside else str(folder)
    file = ws.models_json
    with _locked(file):
        old = _read(file)
        config = _parse(old, file)
        previous = _model_in(config)
        entry = {
            "name": registered,
            "domain": "subconscious",
            "description": description or _("trained on your conversations with h2q-tui"),
            "provider": "h2q-tui",
            "path": str(folder),
        }
        models = config.setdefault("models", [])
        present = next(
            (item for item in models if isinstance(item, dict) and item.get("name") == registered), None
        )
        if present is None:
            models.append(entry)
        else:
            present.update(entry)
        brain = config.get("brain_models") or {}
        config["brain_models"] = brain | {"leftbrain": registered}
        config["default_model"] = registered
        data = _encode(config)
        backup = _back_up(file, old, now)
        write_bytes(file, data, mode=_mode(file))
        _drop_old_backups(file)
    return Promotion(name=registered, previous=previous, backup=str(backup))


def rollback(ws: Workspace, to: str | None = None, *, now: float | None = None) -> Promotion:
    """Restores the newest backup that differs from models.json, or the one with the stamp `to`, byte for byte, after a
    backup of its own.

    A backup that is the same was taken by a change that was killed before it was made. Raises BadInput when there is none.
    """
    file = ws.models_json
    with _locked(file):
        stamps = _stamps(file)
        if not stamps:
            raise BadInput(
                _("there is no backup to roll back to"), path=file.parent, hint="h2q-tui models list"
            )
        if to is not None and to not in stamps:
            raise BadInput(_("there is no backup {stamp}").format(stamp=to), hint="h2q-tui rollback --list")
        old = _read(file)
        saved = {
            stamp: _backup_path(file, stamp).read_bytes() for stamp in ([to] if to else stamps[:BACKUPS_KEPT])
        }
        stamp = to or next((one for one, data in saved.items() if data != old), stamps[0])
        restored = saved[stamp]
        mode = _mode(file)
        backup = _back_up(file, old, now)
        if restored:
            write_bytes(file, restored, mode=mode)
        else:
            file.unlink(missing_ok=True)
            fsync_dir(file.parent)
        _drop_old_backups(file)
    return Promotion(
        name=_model_in_bytes(restored) or "",
        previous=_model_in_bytes(old) or "",
        backup=str(backup),
        restored=stamp,
    )


def backups(ws: Workspace) -> list[PromotionBackup]:
    """The backups of models.json, newest first."""
    entries = []
    for stamp in _stamps(ws.models_json):
        path = _backup_path(ws.models_json, stamp)
        try:
            data = path.read_bytes()
        except OSError:
            continue
        name = _model_in_bytes(data)
        entries.append(
            PromotionBackup(
                stamp=stamp, path=str(path), model=name or "", size=len(data), readable=name is not None
            )
        )
    return entries


def check_removable(ws: Workspace, name: str) -> None:
    """Raises BadInput when the workspace has no model `name`, UsageProblem when it or an adapter on it is needed."""
    entry = workspace_entry(ws, name)
    if entry is None:
        raise unknown_model(name)
    places = {str(entry), str(resolve_path(entry)), str(resolve_path(entry.parent) / entry.name)}
    adapters = [card.name for card in list_models(ws) if card.base_path in places]
    if adapters:
        raise UsageProblem(
            _("{name} is the base of {adapters}").format(name=name, adapters=_(", ").join(adapters[:5])),
            hint="h2q-tui models list",
        )
    if in_use(ws) == name:
        raise UsageProblem(
            _("{name} is in use; promote another model first").format(name=name),
            hint=_replacement_command(ws, name),
        )


def remove_model(ws: Workspace, name: str) -> None:
    """Deletes the file or the folder of a model, a folder hidden in one rename first; of a linked one only the link.

    Raises as `check_removable`, and OSError.
    """
    check_removable(ws, name)
    folder = workspace_entry(ws, name) or ws.models / name
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        fsync_dir(folder.parent)
        return
    hidden = folder.with_name(f".{name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    served = _served_tag(folder)
    folder.rename(hidden)
    fsync_dir(folder.parent)
    shutil.rmtree(hidden)
    if served:
        with suppress(UnknownModel):
            ModelStore(ws).delete(served)
        (ws.training / f"Modelfile_{served}").unlink(missing_ok=True)


def _served_tag(folder: Path) -> str:
    """The tag of the model that the card in `folder` describes; "" for a model with weights of its own."""
    try:
        return read_card(folder).served
    except (OSError, msgspec.DecodeError):
        return ""


def card_of_tag(ws: Workspace, tag: str) -> ModelCard | None:
    """The card whose model is `tag` of the workspace's own store; None for a tag of which nothing else depends."""
    wanted = full_tag(tag)
    return next((card for card in list_models(ws) if card.served and full_tag(card.served) == wanted), None)


def remove_served(ws: Workspace, tag: str) -> None:
    """Deletes a tag of the workspace's own store, with the card of the model that it is.

    Raises UnknownModel, UsageProblem when it is the model in use or the base of an adapter, OSError.
    """
    card = card_of_tag(ws, tag)
    if card is None:
        ModelStore(ws).delete(tag)
    else:
        remove_model(ws, card.name)


def workspace_entry(ws: Workspace, name: str) -> Path | None:
    """The folder, GGUF file or link of the model `name` in the workspace; None without one."""
    if not NAME.fullmatch(name):
        return None
    for path in (ws.models / name, ws.adapters / name, ws.models / f"{name}{GGUF_SUFFIX}"):
        if path.is_dir() or path.is_symlink() or (path.suffix == GGUF_SUFFIX and path.is_file()):
            return path
    return None


def _replacement_command(ws: Workspace, name: str) -> str:
    """The command that puts another model, or none, in use; it also works when `name` is damaged."""
    for backup in backups(ws):
        if (
            backup.readable
            and backup.model != name
            and (not backup.model or workspace_entry(ws, backup.model))
        ):
            return f"h2q-tui rollback --to {backup.stamp}"
    other = next((card.name for card in list_models(ws) if card.name != name), None)
    return f"h2q-tui promote {other}" if other else "h2q-tui train"


def _check_weights(ws: Workspace, folder: Path) -> None:
    """Raises BadInput when the weights are not those that the card describes."""
    card = read_card(folder)
    if card.served:
        stored = ModelStore(ws).find(card.served)
        if stored.digest != card.weights_sha256:
            raise weights_changed(stored.path)
        return
    file = folder / (ADAPTER_WEIGHTS if card.base_path else WEIGHTS_FILE)
    try:
        digest = file_sha256(file)
    except OSError as problem:
        raise BadInput(_("the model has no weights"), path=file, hint="h2q-tui models list") from problem
    if digest != card.weights_sha256:
        raise weights_changed(file)


# models.json


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One change at a time, across processes."""
    make_dirs(file.parent)
    fd = os.open(file.parent / f".{file.name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        # What a killed change left.
        for temporary in file.parent.glob(f".{file.name}.*.tmp"):
            remove_stale(temporary)
        yield
    finally:
        os.close(fd)


def _read(file: Path) -> bytes:
    """The bytes of models.json; b"" when there is none. Raises BadInput for what is no file or cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise _broken_config(file)
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as problem:
        raise BadInput(
            _("the model configuration cannot be read"), path=file, hint="h2q-tui paths"
        ) from problem


def _mode(file: Path) -> int:
    """Permissions to keep: MindX's models.json holds API keys."""
    try:
        return file.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o600


def _decode(data: bytes, file: Path, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The JSON in `data`. Raises BadInput with the line."""
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=parse_constant)
    except json.JSONDecodeError as problem:
        raise BadInput(
            _("the model configuration is not JSON"),
            path=file,
            line=problem.lineno,
            hint="h2q-tui rollback",
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise _broken_config(file) from problem


def _parse(data: bytes, file: Path) -> dict[str, Any]:
    """The configuration in `data` with the schema that `promote` relies on. Raises BadInput."""
    if not data:
        return {}
    return _checked(_decode(data, file, _refuse_constant), file)


def _checked(config: Any, file: Path) -> dict[str, Any]:
    """A decoded configuration whose parts have the types that are relied on. Raises BadInput."""
    brain = config.get("brain_models") or {} if isinstance(config, dict) else None
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("models", []), list)
        or not isinstance(brain, dict)
        or not isinstance(brain.get("leftbrain") or "", str)
        or not isinstance(config.get("default_model") or "", str)
    ):
        raise _broken_config(file)
    return config


def _broken_config(file: Path) -> BadInput:
    return BadInput(_("the model configuration is broken"), path=file, hint="h2q-tui rollback")


def _encode(config: dict[str, Any]) -> bytes:
    """Indented JSON; ASCII-escaped where a string cannot be UTF-8 (a lone surrogate from `\\ud800`)."""
    try:
        return (json.dumps(config, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _model_in(config: dict[str, Any]) -> str:
    """The model in use in a configuration; "" for none."""
    return (config.get("brain_models") or {}).get("leftbrain") or config.get("default_model") or ""


def _model_in_bytes(data: bytes) -> str | None:
    """`_model_in` of an encoded configuration; None when it is broken."""
    try:
        return _model_in(_parse(data, Path()))
    except BadInput:
        return None


def _backup_path(file: Path, stamp: str) -> Path:
    return file.with_name(f"{file.name}.backup.{stamp}")


def _stamps(file: Path) -> list[str]:
    """Stamps of the backups next to `file`, newest first."""
    prefix = f"{file.name}.backup."
    names = (path.name for path in file.parent.iterdir()) if file.parent.is_dir() else iter(())
    stamps = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted((stamp for stamp in stamps if STAMP.fullmatch(stamp)), reverse=True)


def _back_up(file: Path, data: bytes, now: float | None) -> Path:
    """Writes `data` as the newest backup; a stamp that exists, or precedes an existing one, is moved forward."""
    at = time.time() if now is None else now
    newest = (_stamps(file) or [""])[0]
    if _stamp(at) <= newest:
        # The clock was set back, or this is the second change in one second.
        with suppress(ValueError, OverflowError):
            at = time.mktime(time.strptime(newest, STAMP_FORMAT)) + 1
    while (path := _backup_path(file, _stamp(at))).exists():
        at += 1
    write_bytes(path, data, mode=_mode(file))
    return path


def _drop_old_backups(file: Path) -> None:
    for stamp in _stamps(file)[BACKUPS_KEPT:]:
        with suppress(OSError):
            _backup_path(file, stamp).unlink()


def _stamp(at: float) -> str:
    return time.strftime(STAMP_FORMAT, time.localtime(at))
