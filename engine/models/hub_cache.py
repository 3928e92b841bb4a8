"""The local cache of the Hugging Face hub: what other programs have fetched. Read only, nothing is fetched here.

Layout: `models--ORG--NAME/refs/main` holds the commit of `snapshots/COMMIT/`, whose files link to `blobs`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PREFIX = "models--"
HUB_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*")
"""`org/name`; a few old models have no organisation."""
_COMMIT = re.compile(r"[0-9a-f]{6,64}")


def hub_folder() -> Path:
    """The folder of the cache, which may not exist: `$HF_HUB_CACHE`, `$HF_HOME/hub`, or the default."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def find_in_hub(name: str) -> Path | None:
    """The snapshot of `org/name`, or one GGUF file of it for `org/name/FILE.gguf`; None when it is not there.

    A repository that holds one GGUF file and no config.json stands for that file.
    """
    identity, file = name, ""
    if name.endswith(".gguf") and name.count("/") == 2:
        identity, _slash, file = name.rpartition("/")
    if HUB_ID.fullmatch(identity) is None:
        return None
    snapshot = _snapshot(hub_folder() / (_PREFIX + identity.replace("/", "--")))
    if snapshot is None:
        return None
    if file:
        return snapshot / file if (snapshot / file).is_file() else None
    if (snapshot / "config.json").is_file():
        return snapshot
    files = _gguf_files(snapshot)
    return files[0] if len(files) == 1 else None


def list_hub() -> list[tuple[str, Path]]:
    """(name for `find_in_hub`, path) of every model with safetensors or GGUF files in the cache, by name."""
    found = []
    for repository in _folders(hub_folder()):
        snapshot = _snapshot(repository)
        if snapshot is None:
            continue
        identity = repository.name.removeprefix(_PREFIX).replace("--", "/")
        if (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")):
            found.append((identity, snapshot))
        found += [(f"{identity}/{file.name}", file) for file in _gguf_files(snapshot)]
    return sorted(found)


def _gguf_files(snapshot: Path) -> list[Path]:
    """The GGUF files of a snapshot. A projector of pictures (`mmproj`) is no model, and neither is a part of one."""
    with suppress(OSError):
        return sorted(
            file
            for file in snapshot.glob("*.gguf")
            if file.is_file() and "mmproj" not in file.name and "-of-0" not in file.name
        )
    return []


def _folders(parent: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (path for path in parent.iterdir() if path.name.startswith(_PREFIX))


def _snapshot(repository: Path) -> Path | None:
    """The snapshot of the branch main, else the newest."""
    with suppress(OSError, UnicodeDecodeError):
        commit = (repository / "refs" / "main").read_text(encoding="ascii").strip()
        if _COMMIT.fullmatch(commit) and (repository / "snapshots" / commit).is_dir():
            return repository / "snapshots" / commit
    with suppress(OSError):
        snapshots = [path for path in (repository / "snapshots").iterdir() if path.is_dir()]
        return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)
    return None
