"""Paths: the user's workspace, and the files that ship with the program."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """A folder that ships with the program: `data` or `styles`, in a checkout and in an installed wheel."""
    packed = _PACKAGE / "_shipped" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


def cache_folder() -> Path:
    """The platform's user cache folder, for files that can be recreated. It may not exist yet."""
    return Path(platformdirs.user_cache_dir("h2q-tui", appauthor=False))


@dataclass(frozen=True)
class Workspace:
    """The folder with a user's data. Creating the object touches no file."""

    root: Path
    models_file: Path | None = None
    """`--config`: a models.json elsewhere, read and updated instead of the workspace's."""

    @property
    def memory_db(self) -> Path:
        return self.root / "memory" / "memory.db"

    @property
    def training_data(self) -> Path:
        """Plain text files for training from scratch."""
        return self.root / "training_data"

    @property
    def training(self) -> Path:
        """Datasets, Modelfiles and reports."""
        return self.root / "training"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def models_json(self) -> Path:
        return self.models_file or self.config / "models.json"

    @property
    def settings_file(self) -> Path:
        return self.config / "h2q.toml"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def ollama(self) -> Path:
        """The models of the built-in server, in the layout of Ollama's own store."""
        return self.root / "ollama"

    @property
    def exports(self) -> Path:
        """Models written for other programs."""
        return self.root / "exports"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def status(self) -> Path:
        return self.root / "status"

    @property
    def machine_history(self) -> Path:
        """A day of figures of the machine, in a file of fixed size."""
        return self.status / "machine.history"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def alerts(self) -> Path:
        """States of the alerts, and messages that wait to be sent."""
        return self.root / "alerts"

    @property
    def schema_file(self) -> Path:
        return self.root / "workspace.json"

    @property
    def runtime(self) -> Path:
        """Folder for sockets, one per workspace, mode 0700; short enough for the 104 bytes of `sun_path`."""
        tag = sha256(os.fsencode(resolve_path(self.root))).hexdigest()[:12]
        base = os.environ.get("XDG_RUNTIME_DIR")
        if base and os.access(base, os.W_OK) and len(base) < 50:
            return Path(base) / f"h2q-{tag}"
        return Path(tempfile.gettempdir()) / f"h2q-{os.getuid()}-{tag}"


def find_workspace(
    data_dir: str | os.PathLike[str] | None = None, *, relative_to: Path | None = None
) -> Workspace:
    """The workspace of `--data-dir`, else `$H2Q_DATA_DIR`, else the platform's user data folder.

    `relative_to` is `--workspace`: the folder that a relative `data_dir` starts from.
    """
    chosen = data_dir or os.environ.get("H2Q_DATA_DIR")
    if not chosen:
        return Workspace(Path(platformdirs.user_data_dir("h2q-tui", appauthor=False)))
    path = Path(chosen).expanduser()
    if not path.is_absolute():
        path = (relative_to or Path.cwd()) / path
    return Workspace(resolve_path(path))


def resolve_path(path: Path) -> Path:
    """`path` absolute and without links; with them when they lead in a circle."""
    try:
        return path.resolve()
    except (RuntimeError, OSError):
        return path.absolute()
