"""Models of an Ollama on this machine as files: its manifests and blobs are read, never written.

Where the store cannot be found, Ollama itself is asked where the file of a model lies (`/api/show`).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput, ServiceUnreachable
from engine.core.files import file_sha256
from engine.core.i18n import _
from engine.models.ollama.client import connect, no_such_model

MODEL = "application/vnd.ollama.image.model"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
TAG = re.compile(
    rf"(?:(?:(?P<host>[A-Za-z0-9_.:-]+)/)?(?P<space>{_PART})/)?(?P<name>{_PART})(?::(?P<tag>{_PART}))?"
)
"""How Ollama names a model: `[[host/]namespace/]name[:tag]`; no Chinese."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FROM = re.compile(r'^FROM\s+"?(?P<path>/.*?)"?\s*$', re.MULTILINE)
_LARGEST = 1 << 20


@dataclass(frozen=True)
class StoredModel:
    """One tag. `digest` is `sha256:` and 64 hex digits; `adapters` are GGUF files that Ollama puts on top."""

    tag: str
    gguf: Path
    digest: str
    adapters: tuple[Path, ...] = ()
    system: str = ""
    parameters: dict[str, Any] | None = None

    def verify(self) -> None:
        """Raises BadInput when the file is not the one that its name says (every byte is read)."""
        if f"sha256:{file_sha256(self.gguf)}" != self.digest:
            raise BadInput(
                _("the file of {tag} in Ollama's store is damaged").format(tag=self.tag),
                path=self.gguf,
                hint=f"ollama pull {self.tag}",
            )


def store_folders() -> list[Path]:
    """Where Ollama keeps models on this machine, the likeliest first; those that exist."""
    given = os.environ.get("OLLAMA_MODELS")
    usual = [
        Path("~/.ollama/models").expanduser(),
        Path("/usr/share/ollama/.ollama/models"),
        Path("/var/lib/ollama/.ollama/models"),
        Path("/var/lib/ollama/models"),
    ]
    return [folder for folder in ([Path(given).expanduser()] if given else usual) if _is_dir(folder)]


def find_in_ollama(tag: str, *, ask: bool = True) -> StoredModel:
    """The files behind `tag`, from the stores here, else (with `ask`) from the answer of a running Ollama.

    Raises BadInput: no such model, a broken manifest, weights that are not one GGUF file, no permission;
    ServiceUnreachable when no store has it and no Ollama answers.
    """
    found = TAG.fullmatch(tag)
    if found is None:
        raise BadInput(_("{tag} is not a valid Ollama model name").format(tag=tag), hint="ollama list")
    for folder in store_folders():
        manifest = folder / _manifest(found)
        if _is_file(manifest):
            return _read(tag, folder, manifest)
    if not ask:
        raise no_such_model(tag)
    return _ask(tag)


def installed_tags() -> list[str]:
    """Tags in the stores of this machine, as `ollama list` writes them."""
    tags = set()
    for folder in store_folders():
        root = folder / "manifests"
        for path in root.glob("*/*/*/*"):
            host, space, name, tag = path.relative_to(root).parts
            head = "" if (host, space) == ("registry.ollama.ai", "library") else f"{space}/"
            tags.add((head if host == "registry.ollama.ai" else f"{host}/{space}/") + f"{name}:{tag}")
    return sorted(tags)


def _manifest(tag: re.Match[str]) -> Path:
    return Path(
        "manifests",
        tag["host"] or "registry.ollama.ai",
        tag["space"] or "library",
        tag["name"],
        tag["tag"] or "latest",
    )


def _read(tag: str, folder: Path, manifest: Path) -> StoredModel:
    try:
        content = json.loads(manifest.read_bytes()[:_LARGEST])
        layers = [(str(layer["mediaType"]), str(layer["digest"])) for layer in content["layers"]]
    except PermissionError as problem:
        raise _forbidden(manifest, folder) from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise BadInput(
            _("Ollama's manifest of {tag} is broken").format(tag=tag),
            path=manifest,
            hint=f"ollama pull {tag}",
        ) from problem

    def blobs(kind: str) -> list[tuple[Path, str]]:
        digests = [digest for media, digest in layers if media == f"application/vnd.ollama.image.{kind}"]
        if not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise BadInput(
                _("Ollama's manifest of {tag} is broken").format(tag=tag),
                path=manifest,
                hint=f"ollama pull {tag}",
            )
        return [(folder / "blobs" / digest.replace(":", "-"), digest) for digest in digests]

    models = blobs("model")
    if len(models) != 1 or blobs("projector"):
        raise BadInput(
            _("{tag} is not a single GGUF file of a text-only model").format(tag=tag),
            path=manifest,
        )
    file, digest = models[0]
    if not _is_file(file):
        raise BadInput(
            _("the file of {tag} is missing from Ollama's store").format(tag=tag),
            path=file,
            hint=f"ollama pull {tag}",
        )
    if not os.access(file, os.R_OK):
        raise _forbidden(file, folder)
    system = "\n".join(_text(path) for path, _digest in blobs("system"))
    parameters = None
    for path, _digest in blobs("params"):
        try:
            parameters = json.loads(_text(path))
        except ValueError:
            continue
    return StoredModel(
        tag=tag,
        gguf=file,
        digest=digest,
        adapters=tuple(path for path, _digest in blobs("adapter")),
        system=system,
        parameters=parameters if isinstance(parameters, dict) else None,
    )


def _ask(tag: str) -> StoredModel:
    """Asks a running Ollama for the Modelfile, whose FROM line names the blob."""
    import httpx

    try:
        with connect(timeout_s=10) as client:
            # The client's own `show` drops unknown fields and replies without `model_info`.
            reply = client._client.post("/api/show", json={"model": tag})
        answer = reply.json()
    except (ConnectionError, httpx.HTTPError) as problem:
        known = installed_tags()[:5]
        text = (
            _("{tag} is not in Ollama's store on this machine ({known}), and Ollama does not answer")
            if known
            else _("{tag} is not in Ollama's store on this machine, and Ollama does not answer")
        )
        raise ServiceUnreachable(
            text.format(tag=tag, known=", ".join(known)), hint="ollama serve"
        ) from problem
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"error": _("the answer is not a JSON object")}
    if reply.status_code == httpx.codes.NOT_FOUND:
        raise no_such_model(tag)
    if "error" in answer:
        raise ServiceUnreachable(
            _("Ollama refused: {reason}").format(reason=answer["error"]), hint="ollama serve"
        )
    found = _FROM.search(str(answer.get("modelfile") or ""))
    file = Path(found["path"]) if found else None
    if file is None or not _is_file(file):
        raise BadInput(
            _("Ollama does not report the path of the file of {tag}").format(tag=tag),
            hint=f"ollama show {tag} --modelfile",
        )
    if not os.access(file, os.R_OK):
        raise _forbidden(file, file.parent.parent)
    digest = file.name.replace("-", ":", 1)
    return StoredModel(
        tag=tag,
        gguf=file,
        digest=digest if _DIGEST.fullmatch(digest) else "",
        system=str(answer.get("system") or ""),
    )


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:_LARGEST].decode("utf-8", "replace")
    except OSError:
        return ""


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _forbidden(file: Path, folder: Path) -> BadInput:
    return BadInput(
        _("no permission to read Ollama's model store"), path=file, hint=f"sudo chmod -R a+rX {folder}"
    )
