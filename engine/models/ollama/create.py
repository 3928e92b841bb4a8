"""Creates a model in the local Ollama from GGUF files through its API, and Modelfiles for `ollama create`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, RunFailed
from engine.core.i18n import _
from engine.models.ollama.client import connect, translated_errors
from engine.models.ollama.layout import TAG

TIMEOUT_S = 600.0
"""Timeout until the next status of Ollama, which rewrites the file."""
_HTTP_ERROR = 400
ParameterValue = str | int | float | Sequence[str]


def check_name(name: str) -> str:
    """`name`, if Ollama accepts it: at most 80 letters, digits, `_ . -`. Raises BadInput."""
    if TAG.fullmatch(name) is None:
        raise BadInput(
            _("{name} is not a valid Ollama name: use letters, digits, _ . and -").format(name=name),
            hint="h2q-tui export NAME --to ollama --ollama-name my-model",
        )
    return name


def server_version() -> str:
    """The version of the local Ollama. Raises ServiceUnreachable, or UsageProblem when $OLLAMA_HOST is remote."""
    with connect(timeout_s=TIMEOUT_S) as client, translated_errors():
        answer = client._client.get("/api/version", timeout=5.0)
        version = answer.json().get("version") if answer.status_code < _HTTP_ERROR else None
        return str(version or "?")


def create_model(
    name: str,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    *,
    adapter_of: str = "",
    from_: str = "",
    system: str = "",
    messages: Sequence[ChatMessage] = (),
    parameters: Mapping[str, Any] | None = None,
    step: Callable[[str], None] | None = None,
) -> None:
    """Creates or replaces the model `name`.

    Args:
        files: GGUF files, file name to path.
        digests: hex sha256 of each file.
        adapter_of: tag of the base model, if the file is an adapter.
        from_: tag of the base model, where there is no file.
        messages: turns before every conversation.
        step: called with each new status of Ollama.

    Raises BadInput when Ollama refuses, RunFailed when it reports a failure, ServiceUnreachable.
    """
    with connect(timeout_s=TIMEOUT_S) as client, translated_errors():
        for file, path in files.items():
            _upload(client, path, f"sha256:{digests[file]}")
        blobs = {file: f"sha256:{digests[file]}" for file in files}
        lines = client.create(
            name,
            stream=True,
            system=system or None,
            messages=[{"role": one.role, "content": one.content} for one in messages] or None,
            parameters=dict(parameters or {}),
            **_origin(adapter_of, from_, blobs),
        )
        status = ""
        for line in lines:
            status = line.status or ""
            if step is not None:
                step(status)
        if status != "success":
            raise RunFailed(_("Ollama did not create the model: {status}").format(status=status or "?"))


def _origin(adapter_of: str, from_: str, blobs: dict[str, str]) -> dict[str, Any]:
    if adapter_of:
        return {"from_": adapter_of, "adapters": blobs}
    return {"from_": from_} if from_ else {"files": blobs}


def _upload(client: Any, path: Path, digest: str) -> None:
    """Uploads the file unless Ollama already has it."""
    existing = client._client.head(f"/api/blobs/{digest}")
    if existing.status_code < _HTTP_ERROR:
        return
    with path.open("rb") as file:
        answer = client._client.post(
            f"/api/blobs/{digest}", content=file, headers={"Content-Length": str(path.stat().st_size)}
        )
    if answer.status_code >= _HTTP_ERROR:
        raise RunFailed(_("Ollama refused the file: {reason}").format(reason=_reason(answer)))


def _reason(answer: Any) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"


def modelfile(
    from_: str,
    *,
    adapter: Path | None = None,
    system: str = "",
    parameters: Mapping[str, ParameterValue] | None = None,
    messages: Sequence[ChatMessage] = (),
    note: str = "",
) -> str:
    """The text of a Modelfile. `from_` is the path of a GGUF file, or the base tag of an adapter; `note` stands above it.

    Ollama's parser ends a text at three quotes before a line break and drops characters that it cannot print.
    """
    lines = [f"# {line}" for line in note.splitlines()]
    lines.append(f"FROM {_quoted(from_)}")
    if adapter is not None:
        lines.append(f"ADAPTER {_quoted(str(adapter))}")
    for name, value in (parameters or {}).items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            lines.append(f"PARAMETER {name} {_quoted(one) if isinstance(one, str) else one}")
    if system:
        lines.append(f'SYSTEM """{_sanitised(system)}"""')
    lines += [f'MESSAGE {message.role} """{_sanitised(message.content)}"""' for message in messages]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or text.startswith("<") else text


def _sanitised(text: str) -> str:
    """`text` without triple quotes, exotic blanks, and characters that Go's parser would drop."""
    kept = (" " if unicodedata.category(c) == "Zs" else c for c in text.replace("\t", " "))
    return "".join(c for c in kept if c in " \n" or unicodedata.category(c)[0] not in "CZ").replace(
        '"""', "'''"
    )
