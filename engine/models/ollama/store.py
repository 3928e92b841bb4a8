"""Model files in the store of a local Ollama: manifests and blobs, read only.

For a model outside the known stores, a running Ollama reports the path of its file (`/api/show`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import BadInput, ServiceUnreachable
from engine.core.i18n import _
from engine.models.ollama.client import connect, no_such_model

_MEDIA_TYPE = "application/vnd.ollama.image"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
TAG = re.compile(
    rf"(?:(?:(?P<host>[A-Za-z0-9_.:-]+)/)?(?P<space>{_PART})/)?(?P<name>{_PART})(?::(?P<tag>{_PART}))?"
)
"""Ollama's model names: `[[host/]namespace/]name[:tag]`, ASCII only."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FROM, _ADAPTER = (re.compile(rf'^{word}\s+"?(/.*?)"?\s*$', re.MULTILINE) for word in ("FROM", "ADAPTER"))
_MAX_BYTES = 1 << 20
_REGISTRY, _LIBRARY = "registry.ollama.ai", "library"
_MANIFEST_DEPTH = 4
"""Parts of a manifest's path below `manifests`."""


def store_folders() -> list[Path]:
    """The existing folders of Ollama models on this machine, likeliest first."""
    configured = os.environ.get("OLLAMA_MODELS")
    defaults = [
        Path("~/.ollama/models").expanduser(),
        Path("/usr/share/ollama/.ollama/models"),
        Path("/var/lib/ollama/.ollama/models"),
        Path("/var/lib/ollama/models"),
    ]
    return [
        folder for folder in ([Path(configured).expanduser()] if configured else defaults) if _is_dir(folder)
    ]


@dataclass(frozen=True)
class OllamaLayers:
    """What a tag is made of."""

    model: Path
    """The GGUF file."""
    adapter: Path | None = None
    """The LoRA adapter (ADAPTER of its Modelfile), a GGUF file too."""
    system: str = ""
    """The system prompt (SYSTEM of its Modelfile)."""


def find_gguf(tag: str) -> Path:
    """The GGUF file behind `tag`. Raises as `find_layers`."""
    return find_layers(tag).model


def find_layers(tag: str) -> OllamaLayers:
    """The files behind `tag`, from the local stores, else from a running Ollama.

    Raises BadInput for an unknown model, a broken manifest, weights other than one GGUF file with at most one adapter,
    or no permission; ServiceUnreachable when no store has it and Ollama does not answer.
    """
    if TAG.fullmatch(tag) is None:
        raise BadInput(_("{tag} is not a valid Ollama model name").format(tag=tag), hint="ollama list")
    manifest = find_manifest(tag)
    return _query(tag) if manifest is None else _read(tag, manifest.parents[_MANIFEST_DEPTH], manifest)


def find_manifest(tag: str) -> Path | None:
    """The manifest of `tag` in a local store; None when none has it."""
    parts = TAG.fullmatch(tag)
    if parts is None:
        return None
    manifests = (folder / _manifest(parts) for folder in store_folders())
    return next((manifest for manifest in manifests if _is_file(manifest)), None)


def installed_tags() -> list[str]:
    """Tags in the local stores, as `ollama list` prints them."""
    roots = (folder / "manifests" for folder in store_folders())
    return sorted({_tag(path.relative_to(root).parts) for root in roots for path in root.glob("*/*/*/*")})


def tag_of_manifest(path: Path) -> str:
    """The tag whose manifest the file at `path` is; "" when it is none of a local store."""
    for folder in store_folders():
        root = folder / "manifests"
        if path.is_relative_to(root) and len(path.relative_to(root).parts) == _MANIFEST_DEPTH:
            return _tag(path.relative_to(root).parts)
    return ""


def _tag(parts: tuple[str, ...]) -> str:
    """The tag of a manifest from its path below `manifests`, as `ollama list` prints it."""
    host, space, name, tag = parts
    head = "" if (host, space) == (_REGISTRY, _LIBRARY) else f"{space}/"
    return (head if host == _REGISTRY else f"{host}/{space}/") + f"{name}:{tag}"


def _manifest(tag: re.Match[str]) -> Path:
    return Path(
        "manifests",
        tag["host"] or _REGISTRY,
        tag["space"] or _LIBRARY,
        tag["name"],
        tag["tag"] or "latest",
    )


def _read(tag: str, folder: Path, manifest: Path) -> OllamaLayers:
    """The layers of a manifest that are used. Raises BadInput."""
    try:
        content = json.loads(manifest.read_bytes()[:_MAX_BYTES])
        layers = [(str(layer["mediaType"]), str(layer["digest"])) for layer in content["layers"]]
    except PermissionError as problem:
        raise _no_permission(manifest, folder) from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise _broken_manifest(tag, manifest) from problem
    by_kind: dict[str, list[str]] = {}
    for kind, digest in layers:
        by_kind.setdefault(kind.removeprefix(f"{_MEDIA_TYPE}."), []).append(digest)
    models, adapters = by_kind.get("model", []), by_kind.get("adapter", [])
    if len(models) != 1 or "projector" in by_kind:
        raise BadInput(
            _("{tag} is not a single GGUF file of a text-only model").format(tag=tag), path=manifest
        )
    _check_adapters(tag, adapters)

    def blob(digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise _broken_manifest(tag, manifest)
        return _readable(tag, folder / "blobs" / digest.replace(":", "-"), folder)

    system = ""
    if by_kind.get("system"):
        file = blob(by_kind["system"][-1])
        system = file.read_bytes()[:_MAX_BYTES].decode("utf-8", "replace").strip()
    return OllamaLayers(blob(models[0]), blob(adapters[0]) if adapters else None, system)


def _check_adapters(tag: str, adapters: Sequence[object]) -> None:
    if len(adapters) > 1:
        raise BadInput(
            _("{tag} has several adapters; a base has one at most").format(tag=tag),
            hint=f"ollama show {tag} --modelfile",
        )


def _readable(tag: str, file: Path, folder: Path) -> Path:
    if not _is_file(file):
        raise BadInput(
            _("the file of {tag} is missing from Ollama's store").format(tag=tag),
            path=file,
            hint=f"ollama pull {tag}",
        )
    if not os.access(file, os.R_OK):
        raise _no_permission(file, folder)
    return file


def _query(tag: str) -> OllamaLayers:
    """The files of a model in a running Ollama: the lines FROM and ADAPTER of its Modelfile name the blobs."""
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
            text.format(tag=tag, known=_(", ").join(known)), hint="ollama serve"
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
    modelfile = str(answer.get("modelfile") or "")
    files, adapters = ([Path(path) for path in pattern.findall(modelfile)] for pattern in (_FROM, _ADAPTER))
    if len(files) != 1 or not all(map(_is_file, [*files, *adapters])):
        raise BadInput(
            _("Ollama does not report the path of the file of {tag}").format(tag=tag),
            hint=f"ollama show {tag} --modelfile",
        )
    _check_adapters(tag, adapters)
    model, *others = (_readable(tag, file, file.parent.parent) for file in [*files, *adapters])
    return OllamaLayers(model, others[0] if others else None, str(answer.get("system") or "").strip())


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


def _no_permission(file: Path, folder: Path) -> BadInput:
    return BadInput(
        _("no permission to read Ollama's model store"), path=file, hint=f"sudo chmod -R a+rX {folder}"
    )


def _broken_manifest(tag: str, manifest: Path) -> BadInput:
    return BadInput(
        _("Ollama's manifest of {tag} is broken").format(tag=tag), path=manifest, hint=f"ollama pull {tag}"
    )
