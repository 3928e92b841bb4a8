"""Model files in the stores on this machine, read only: the workspace's own store, and those of a local Ollama.

For a model outside the known stores, a running Ollama reports the path of its file (`/api/show`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, ServiceUnreachable
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.models.ollama.client import connect, no_such_model
from engine.models.ollama.layout import (
    MANIFEST_DEPTH,
    MAX_BYTES,
    TAG,
    blob_path,
    decode_manifest,
    manifest_path,
    manifests_in,
    tag_of,
)

_FROM, _ADAPTER = (re.compile(rf'^{word}\s+"?(/.*?)"?\s*$', re.MULTILINE) for word in ("FROM", "ADAPTER"))

_CONTEXT = re.compile(r"^num_ctx\s+([0-9]{1,9})\s*$", re.MULTILINE)
_QUOTED = re.compile(r'""".*?"""', re.DOTALL)


def store_folders(ws: Workspace) -> list[Path]:
    """The existing model stores: the workspace's own, then those of Ollama on this machine, likeliest first."""
    configured = os.environ.get("OLLAMA_MODELS")
    defaults = [
        Path("~/.ollama/models").expanduser(),
        Path("/usr/share/ollama/.ollama/models"),
        Path("/var/lib/ollama/.ollama/models"),
        Path("/var/lib/ollama/models"),
    ]
    ollama = [Path(configured).expanduser()] if configured else defaults
    return [folder for folder in [ws.ollama, *ollama] if _is_dir(folder)]


@dataclass(frozen=True)
class OllamaLayers:
    """What a tag is made of."""

    model: Path
    """The GGUF file."""
    adapter: Path | None = None
    """The LoRA adapter (ADAPTER of its Modelfile), a GGUF file too."""
    system: str = ""
    """The system prompt (SYSTEM of its Modelfile)."""
    messages: tuple[ChatMessage, ...] = ()
    """The turns before every conversation (MESSAGE of its Modelfile)."""
    context: int = 0
    """Tokens of prompt and answer together (`num_ctx` of its Modelfile); 0: the program's own."""


def find_gguf(ws: Workspace, tag: str) -> Path:
    """The GGUF file behind `tag`. Raises as `find_layers`."""
    return find_layers(ws, tag).model


def find_layers(ws: Workspace, tag: str) -> OllamaLayers:
    """The files behind `tag`, from the local stores, else from a running Ollama.

    Raises BadInput for an unknown model, a broken manifest, weights other than one GGUF file with at most one adapter,
    or no permission; ServiceUnreachable when no store has it and Ollama does not answer.
    """
    if TAG.fullmatch(tag) is None:
        raise BadInput(_("{tag} is not a valid Ollama model name").format(tag=tag), hint="ollama list")
    manifest = find_manifest(ws, tag)
    return (
        _query(ws, tag) if manifest is None else read_layers(tag, manifest.parents[MANIFEST_DEPTH], manifest)
    )


def find_manifest(ws: Workspace, tag: str) -> Path | None:
    """The manifest of `tag` in a local store; None when none has it."""
    manifests = (manifest_path(folder, tag) for folder in store_folders(ws))
    return next((manifest for manifest in manifests if manifest is not None and _is_file(manifest)), None)


def is_own(ws: Workspace, tag: str) -> bool:
    """Whether the workspace's own store has `tag`."""
    manifest = manifest_path(ws.ollama, tag)
    return manifest is not None and _is_file(manifest)


def installed_tags(ws: Workspace) -> list[str]:
    """Tags in the local stores, as `ollama list` prints them."""
    return sorted({tag_of(folder, path) for folder in store_folders(ws) for path in manifests_in(folder)})


def tag_of_manifest(ws: Workspace, path: Path) -> str:
    """The tag whose manifest the file at `path` is; "" when it is none of a local store."""
    return next(filter(None, (tag_of(folder, path) for folder in store_folders(ws))), "")


def read_layers(tag: str, folder: Path, manifest: Path) -> OllamaLayers:
    """The layers that the manifest of `tag` names in the store `folder`. Raises BadInput as `find_layers`."""
    try:
        content = decode_manifest(manifest.read_bytes()[:MAX_BYTES])
    except PermissionError as problem:
        raise _no_permission(manifest, folder) from problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _broken_manifest(tag, manifest) from problem
    models, adapters = content.of_kind("model"), content.of_kind("adapter")
    if len(models) != 1 or content.of_kind("projector"):
        raise BadInput(
            _("{tag} is not a single GGUF file of a text-only model").format(tag=tag), path=manifest
        )
    _check_adapters(tag, adapters)

    def text(kind: str) -> str:
        found = content.of_kind(kind)
        if not found:
            return ""
        file = _readable(tag, blob_path(folder, found[-1].digest), folder)
        return file.read_bytes()[:MAX_BYTES].decode("utf-8", "replace").strip()

    try:
        messages = decode_messages(text("messages"))
        context = context_in(text("params"))
    except ValueError as problem:
        raise _broken_manifest(tag, manifest) from problem
    model, *others = (
        _readable(tag, blob_path(folder, layer.digest), folder) for layer in [*models, *adapters]
    )
    return OllamaLayers(model, others[0] if others else None, text("system"), messages, context)


def decode_messages(text: str) -> tuple[ChatMessage, ...]:
    """The turns of a `messages` layer. Raises ValueError."""
    rows = json.loads(text) if text else []
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("role"), str) and isinstance(row.get("content", ""), str)
        for row in rows
    ):
        raise ValueError("messages")
    return tuple(ChatMessage(role=row["role"], content=row.get("content", ""), train=False) for row in rows)


def context_in(text: str) -> int:
    """`num_ctx` of a `params` layer; 0 without one. Raises ValueError."""
    values = json.loads(text) if text else {}
    value = values.get("num_ctx") if isinstance(values, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


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


def _query(ws: Workspace, tag: str) -> OllamaLayers:
    """The files of a model in a running Ollama: the lines FROM and ADAPTER of its Modelfile name the blobs."""
    import httpx

    try:
        with connect(timeout_s=10) as client:
            # The client's own `show` drops unknown fields and replies without `model_info`.
            reply = client._client.post("/api/show", json={"model": tag})
        answer = reply.json()
    except (ConnectionError, httpx.HTTPError) as problem:
        known = installed_tags(ws)[:5]
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
    # What stands between three quotes is text: a line of it may look like one of these.
    modelfile = _QUOTED.sub("", str(answer.get("modelfile") or ""))
    files, adapters = ([Path(path) for path in pattern.findall(modelfile)] for pattern in (_FROM, _ADAPTER))
    if len(files) != 1 or not all(map(_is_file, [*files, *adapters])):
        raise BadInput(
            _("Ollama does not report the path of the file of {tag}").format(tag=tag),
            hint=f"ollama show {tag} --modelfile",
        )
    _check_adapters(tag, adapters)
    model, *others = (_readable(tag, file, file.parent.parent) for file in [*files, *adapters])
    try:
        messages = decode_messages(json.dumps(answer.get("messages") or []))
    except ValueError:
        messages = ()
    found = _CONTEXT.search(str(answer.get("parameters") or ""))
    return OllamaLayers(
        model,
        others[0] if others else None,
        str(answer.get("system") or "").strip(),
        messages,
        int(found[1]) if found else 0,
    )


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
