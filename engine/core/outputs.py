"""The guard of every output: what a command may write to, and what it may replace.

A folder is replaced as a whole, so anything in it that the program did not write would be lost. Files are never
written over a device, a FIFO or a link. Commands with `--output` check before work begins; `new_folder` checks
again when it writes.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from engine.core.errors import UsageProblem
from engine.core.files import fsync_dir, is_in_use, locked_folder, make_dirs, sync_file
from engine.core.i18n import _


@dataclass(frozen=True)
class OwnedFolder:
    """How a folder that the program wrote is recognised."""

    markers: tuple[str, ...]
    """Files of which every such folder holds one."""
    names: tuple[str, ...]
    """Patterns (fnmatch) of everything that it may hold."""


MODEL_FOLDER = OwnedFolder(
    ("h2q.json", "export.json"),
    (
        "h2q.json", "export.json", "config.json", "generation_config.json", "model*.safetensors",
        "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*",
        "merges.txt", "chat_template.jinja", "preprocessor_config.json",
    ),
)  # fmt: skip
"""A native model or a merged Hugging Face directory."""
ADAPTER_FOLDER = OwnedFolder(
    ("adapter_config.json",),
    ("h2q.json", "adapter_config.json", "adapter_model.safetensors", "adapter*.gguf", "adapter*.json"),
)
"""A LoRA adapter in PEFT's layout."""


def check_output_folder(folder: Path, owned: OwnedFolder, *, hint: str = "") -> None:
    """Raises UsageProblem unless `folder` is missing, empty, or holds nothing but what an earlier run wrote."""
    mode = _mode_of(folder, hint)
    if mode is not None:
        if not stat.S_ISDIR(mode):
            raise UsageProblem(
                _("{path} is {kind}, not a folder; it stays as it is").format(path=folder, kind=_kind(mode)),
                hint=hint,
            )
        names = sorted(entry.name for entry in folder.iterdir())
        foreign = [name for name in names if not _is_owned(folder / name, owned)]
        if not set(owned.markers) & set(names):
            foreign = names
        if foreign:
            raise UsageProblem(
                _(
                    "{path} holds something else ({name}) and would be replaced; name an empty or a new folder"
                ).format(path=folder, name=foreign[0]),
                hint=hint,
            )
    _check_parents(folder, hint)


def check_model_output(folder: Path, mode: str, *, hint: str = "") -> None:
    """`check_output_folder` for what a training of `mode` writes; "auto" may write a model or an adapter."""
    kinds = {"lora": (ADAPTER_FOLDER,), "auto": (MODEL_FOLDER, ADAPTER_FOLDER)}.get(mode, (MODEL_FOLDER,))
    for owned in kinds[:-1]:
        with contextlib.suppress(UsageProblem):
            return check_output_folder(folder, owned, hint=hint)
    return check_output_folder(folder, kinds[-1], hint=hint)


def check_output_file(path: Path, *, hint: str = "") -> None:
    """Raises UsageProblem when `path` is a device, a FIFO, a socket, a link or a folder."""
    _check_regular(path, _mode_of(path, hint), hint)
    _check_parents(path, hint)


def check_replaced_file(path: Path, *, hint: str = "") -> None:
    """Raises UsageProblem when `path`, or what it links to, is a device, a FIFO, a socket or a folder.

    For files that are written through links, such as a `models.json` among other configuration files.
    """
    mode = _mode_of(path, hint)
    if mode is not None and stat.S_ISLNK(mode):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = None
        except OSError:
            pass  # a link to itself is refused as a link
    _check_regular(path, mode, hint)
    _check_parents(path, hint)


def check_output_parent(folder: Path, *, hint: str = "") -> None:
    """Raises UsageProblem unless new files can be put into `folder`, which may be a link to a folder, or missing."""
    _check_parents(folder / "new", hint)


def _mode_of(path: Path, hint: str) -> int | None:
    """What stands at `path`, links not followed; None when nothing does. Raises UsageProblem for a parent that is no
    folder."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError:
        _check_parents(path, hint)
        raise


def _check_regular(path: Path, mode: int | None, hint: str) -> None:
    if mode is not None and not stat.S_ISREG(mode):
        raise UsageProblem(
            _("{path} is {kind}, not a file; it stays as it is").format(path=path, kind=_kind(mode)),
            hint=hint,
        )


def _check_parents(path: Path, hint: str) -> None:
    """Raises UsageProblem when the nearest parent of `path` that is there is not a folder, or cannot be written."""
    nearest = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise UsageProblem(_("{path} is not a folder").format(path=nearest), hint=hint)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageProblem(_("{path} cannot be written").format(path=nearest), hint=hint)


def _is_owned(entry: Path, owned: OwnedFolder) -> bool:
    return stat.S_ISREG(entry.lstat().st_mode) and any(fnmatchcase(entry.name, name) for name in owned.names)


def _kind(mode: int) -> str:
    """What a file is, in words."""
    if stat.S_ISLNK(mode):
        return _("a link")
    if stat.S_ISDIR(mode):
        return _("a folder")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return _("a device")
    if stat.S_ISFIFO(mode):
        return _("a FIFO")
    return _("a socket") if stat.S_ISSOCK(mode) else _("a file")


@contextlib.contextmanager
def new_folder(folder: Path, owned: OwnedFolder) -> Iterator[Path]:
    """A temporary folder next to `folder`; its files are synced, then it takes the name and an old one is removed.

    Raises UsageProblem when the old one is not `owned`, OSError. When the block raises, `folder` is as before; when
    the process is killed, `recover_replaced` gives an old one its name back.
    """
    check_output_folder(folder, owned)
    make_dirs(folder.parent)
    with locked_folder(folder.parent, f".{folder.name}.new.") as temporary:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)
            sync_file(file)
        fsync_dir(temporary)
        # Work may have taken hours: what was put there meanwhile is not ours either.
        check_output_folder(folder, owned)
        old = None
        if folder.exists():
            # A name of our own making: what is there under a guessed name could be the user's.
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_OLD}", dir=folder.parent))
            folder.rename(old)
        temporary.rename(folder)
        fsync_dir(folder.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


_OLD = ".old."


def recover_replaced(parent: Path, name: str = "") -> None:
    """Renames folders back that `new_folder` moved away before its process was killed: the one called `name`, else all.

    Raises OSError.
    """
    for old in parent.glob(f".{glob.escape(name) or '*'}{_OLD}*"):
        folder = old.with_name(old.name[1:].rpartition(_OLD)[0])
        in_use = any(map(is_in_use, parent.glob(f".{folder.name}.new.*")))
        if old.is_dir() and not folder.exists() and not in_use and any(old.iterdir()):
            old.rename(folder)
