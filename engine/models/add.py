"""Puts a base model into the workspace's `models/`: copied from anywhere, linked, or fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from engine.core.errors import BadInput, UsageProblem
from engine.core.filenames import shell_command
from engine.core.files import atomic_file, check_free_space, fsync_dir, locked_folder, make_dirs, sync_file
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.card import ADAPTER_CONFIG, CARD_FILE
from engine.models.catalog import check_usable
from engine.models.fetch import FetchableModel, Progress, fetch
from engine.models.hf_directory import read_config
from engine.models.registry import GGUF_SUFFIX, NAME
from engine.models.resolve import ModelOrigin, ModelPlace, find_place, kind_of

_CHUNK = 16 << 20
_NOT_COPIED = (
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.gguf",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "*.py",
    "consolidated*",
)
"""Files of a Hugging Face directory that no command of the program reads."""


def add_model(
    ws: Workspace, source: Path, name: str = "", *, link: bool = False, progress: Progress | None = None
) -> ModelPlace:
    """Registers the GGUF file, the Hugging Face directory or the model of this program in `source` under `name`, else
    under its own name.

    It is copied, so that it stays when `source` goes; with `link` a link to it is made. The place of the model is
    returned.

    Raises BadInput when `source` is no model or of a kind that no command can load, UsageProblem for a name that is taken
    or invalid, RunFailed when the disk is too full, OSError.
    """
    source = source.absolute()
    is_file = source.is_file()
    if not is_file:
        _check_directory(source)
    check_usable(ModelPlace(str(source), kind_of(source), ModelOrigin.PATH, source))
    name = name or (source.stem if source.suffix == GGUF_SUFFIX else source.name)
    _check_name(ws, name)
    root = ws.adapters if (source / ADAPTER_CONFIG).is_file() else ws.models
    target = root / (f"{name}{GGUF_SUFFIX}" if is_file else name)
    make_dirs(root)
    if link:
        target.symlink_to(source, target_is_directory=not is_file)
        fsync_dir(root)
    elif is_file:
        check_free_space(root, source.stat().st_size)
        with atomic_file(target) as temporary:
            _copy(source, temporary, progress or (lambda _done: None), 0)
    else:
        _copy_directory(source, target, progress or (lambda _done: None))
    return find_place(ws, name)


def fetch_model(ws: Workspace, model: FetchableModel, progress: Progress | None = None) -> ModelPlace:
    """Fetches `model` into the workspace. Raises as `fetch`."""
    make_dirs(ws.models)
    fetch(model, fetched_file(ws, model), progress)
    return find_place(ws, model.name)


def fetched_file(ws: Workspace, model: FetchableModel) -> Path:
    """Where `fetch_model` puts the file."""
    return ws.models / f"{model.name}{GGUF_SUFFIX}"


def _check_directory(folder: Path) -> None:
    if not folder.is_dir():
        raise BadInput(_("the file does not exist"), path=folder, hint="h2q-tui models add PATH")
    if (folder / CARD_FILE).is_file():
        return
    if (folder / ADAPTER_CONFIG).is_file():
        raise BadInput(
            _("adapters of other programs are not added; name the folder"),
            path=folder,
            hint=shell_command("h2q-tui", "chat", "--adapter", folder),
        )
    if read_config(folder) is None:
        raise BadInput(
            _("this is neither a GGUF file nor a Hugging Face directory (config.json)"), path=folder
        )


def _check_name(ws: Workspace, name: str) -> None:
    """Raises UsageProblem when the workspace has a model of this name, or the name is not valid."""
    if not NAME.fullmatch(name):
        raise UsageProblem(
            _("{name} is not a valid name: use letters, digits, _ . and -").format(name=name),
            hint="h2q-tui models add PATH --name my-model",
        )
    taken = (ws.models / name, ws.models / f"{name}{GGUF_SUFFIX}", ws.adapters / name)
    if any(path.exists() or path.is_symlink() for path in taken):
        raise UsageProblem(
            _("there is a model named {name} already").format(name=name),
            hint="h2q-tui models add PATH --name OTHER",
        )


def _copy_directory(source: Path, target: Path, progress: Callable[[int], None]) -> None:
    """Copies the files of `source` that are read, without folders below it, under a temporary name first."""
    ignored = shutil.ignore_patterns(*_NOT_COPIED)
    names = [path.name for path in source.iterdir() if path.is_file() and not path.name.startswith(".")]
    kept = sorted(set(names) - set(ignored(str(source), names)))
    check_free_space(target.parent, sum((source / name).stat().st_size for name in kept))
    done = 0
    with locked_folder(target.parent, f".{target.name}.new.") as temporary:
        for name in kept:
            done = _copy(source / name, temporary / name, progress, done)
            sync_file(temporary / name)
        temporary.chmod(0o755)
        fsync_dir(temporary)
        temporary.rename(target)
    fsync_dir(target.parent)


def _copy(source: Path, target: Path, progress: Callable[[int], None], done: int) -> int:
    """Copies a file; returns `done` and its size."""
    with source.open("rb") as stored, target.open("wb") as out:
        while chunk := stored.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            progress(done)
    return done
