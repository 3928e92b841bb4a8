"""The Ollama on this machine: its address, clients that use no proxy and follow no redirection, and its errors as
sentences.

The only other module that imports the `ollama` package is the chat backend.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.core.errors import BadInput, ServiceUnreachable, UsageProblem
from engine.core.i18n import _
from engine.runs.network_guard import is_loopback

if TYPE_CHECKING:
    import ollama

MODEL_PREFIX = "ollama:"
"""Prefix of Ollama tags in model names: `ollama:TAG`."""
DEFAULT_HOST = "http://127.0.0.1:11434"
CHAT_TIMEOUT_S = 120.0
"""Timeout until the next text delta: a large model takes long to load."""


def local_host(host: str | None = None) -> str:
    """URL of the Ollama on this machine: `host`, else `$OLLAMA_HOST`, else the default port.

    Raises UsageProblem for another machine (nothing leaves this one) or a malformed address.
    """
    text = (host or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST).strip()
    parts = urlsplit(text if "//" in text else f"http://{text}")
    try:
        port = parts.port
    except ValueError as problem:
        raise UsageProblem(
            _("OLLAMA_HOST is not a valid address: {host}").format(host=text), hint="unset OLLAMA_HOST"
        ) from problem
    name = parts.hostname or "127.0.0.1"
    if not is_loopback(name):
        raise UsageProblem(
            _("OLLAMA_HOST is another machine ({host}); nothing is sent there").format(host=name),
            hint="unset OLLAMA_HOST",
        )
    # A server listens on 0.0.0.0 and ::; a client connects to loopback.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
    netloc = f"[{name}]" if ":" in name else name
    return f"{parts.scheme or 'http'}://{netloc}:{port or 11434}"


def make_client(host: str | None = None, *, timeout_s: float) -> ollama.Client:
    """A blocking client of the Ollama here. Raises UsageProblem when `host` is another machine."""
    import ollama

    return ollama.Client(host=local_host(host), timeout=timeout_s, trust_env=False, follow_redirects=False)


@contextmanager
def connect(host: str | None = None, *, timeout_s: float) -> Iterator[ollama.Client]:
    """`make_client`, closed at the end of the block."""
    client = make_client(host, timeout_s=timeout_s)
    try:
        yield client
    finally:
        client._client.close()


def make_async_client(host: str | None = None, *, timeout_s: float = CHAT_TIMEOUT_S) -> ollama.AsyncClient:
    """An asynchronous client of the Ollama here. Raises UsageProblem when `host` is another machine."""
    import ollama

    return ollama.AsyncClient(
        host=local_host(host), timeout=timeout_s, trust_env=False, follow_redirects=False
    )


@contextmanager
def translated_errors(
    tag: str = "", *, refusal: type[BadInput | ServiceUnreachable] = BadInput, hint: str = "ollama list"
) -> Iterator[None]:
    """Turns the client's exceptions into errors of the app.

    Raises BadInput when Ollama has no model `tag`, `refusal` with `hint` for any other error that Ollama
    returns, and ServiceUnreachable when it does not answer.
    """
    import httpx
    import ollama

    try:
        yield
    except ollama.ResponseError as problem:
        if tag and problem.status_code == httpx.codes.NOT_FOUND:
            raise no_such_model(tag) from problem
        raise refusal(_("Ollama refused: {reason}").format(reason=problem.error), hint=hint) from problem
    # With stream=True the client lets httpx's own errors through.
    except (ConnectionError, httpx.HTTPError) as problem:
        raise ServiceUnreachable(
            _("Ollama does not answer: {reason}").format(reason=type(problem).__name__), hint="ollama serve"
        ) from problem
    # No JSON, or not Ollama's: another program, or another version.
    except ValueError as problem:
        raise ServiceUnreachable(
            _("what answers at Ollama's address is not understood"), hint="ollama --version"
        ) from problem


def no_such_model(tag: str) -> BadInput:
    """The error for a tag that Ollama does not have."""
    return BadInput(_("Ollama has no model {name}").format(name=tag), hint=f"ollama pull {tag}")
