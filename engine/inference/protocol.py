"""The wire protocol of the inference service. Imports nothing heavy.

Line-delimited JSON over a Unix socket, one request per connection: the reply is any number of text deltas
and one final line. Closing the connection cancels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.paths import Workspace
from engine.inference.language_model import Sampling, TokenLogProb

MAX_LINE = 8 << 20
"""Upper limit of one line in bytes: a conversation of several megabytes fits."""


class ServiceRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    """Base of all requests."""

    language: str = "en"
    """Language of error messages in the reply."""


class Load(ServiceRequest, frozen=True, kw_only=True, tag="load"):
    """Loads a model ahead of its first use; result: `LoadedModel`."""

    model: str
    keep_s: float | None = None
    """Seconds without a request after which the model is unloaded; negative: never, None: as before."""


class Generate(ServiceRequest, frozen=True, kw_only=True, tag="generate"):
    """Generates an answer; result: `Generated`."""

    model: str
    messages: list[ChatMessage] = []
    sampling: Sampling = Sampling()
    raw: str | None = None
    """A text that is sent to the model as it is, instead of `messages`."""
    keep_s: float | None = None
    """As in `Load`; 0: the model is unloaded after this answer."""


class Render(ServiceRequest, frozen=True, kw_only=True, tag="render"):
    """What `Generate` with the same fields would send; result: `RenderedPrompt`."""

    model: str
    messages: list[ChatMessage] = []
    sampling: Sampling = Sampling()
    raw: str | None = None
    turns: list[dict[str, Any]] = []
    """In place of `messages`: turns that may call tools, for `ToolModel.tool_prompt`."""
    tools: list[dict[str, Any]] = []


class Embed(ServiceRequest, frozen=True, kw_only=True, tag="embed"):
    """Embeds texts; result: `Embedded`."""

    model: str
    texts: list[str]
    truncate: bool = True
    """Texts that are longer than the context lose their ends; False: BadInput."""
    keep_s: float | None = None


class GetLogLikelihood(ServiceRequest, frozen=True, kw_only=True, tag="loglikelihood"):
    """Scores the assistant turns of `messages`; result: `LogLikelihood`."""

    model: str
    messages: list[ChatMessage]


class Unload(ServiceRequest, frozen=True, kw_only=True, tag="unload"):
    """Unloads a model; None: all."""

    model: str | None = None


class FreeMemory(ServiceRequest, frozen=True, kw_only=True, tag="make_room"):
    """Unloads every model unless the service and a run of `needed_mb` fit into `budget_mb`; result: whether it did."""

    needed_mb: float
    budget_mb: float


class GetStatus(ServiceRequest, frozen=True, kw_only=True, tag="status"):
    """Result: `ServiceStatus`."""


class Shutdown(ServiceRequest, frozen=True, kw_only=True, tag="shutdown"):
    """Ends the service."""


Request = Load | Generate | Render | Embed | GetLogLikelihood | Unload | FreeMemory | GetStatus | Shutdown


class TextDelta(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="piece", omit_defaults=True):
    """The next characters of an answer."""

    text: str
    logprobs: list[TokenLogProb] = []
    """Of its tokens, where `Sampling.logprobs` asks for them."""
    tokens: int = 0
    """Sampled up to its end; 0 when unknown."""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="done"):
    """Final line; `result` is the struct that the request names."""

    result: msgspec.Raw = msgspec.Raw(b"null")


class Failure(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    tag="error",
    rename={"message": "what", "hint": "mend"},
):
    """Final line after an error: the fields of an `H2QError`."""

    message: str
    hint: str = ""
    exit_code: int = 5


Reply = TextDelta | Done | Failure


class LogLikelihood(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `GetLogLikelihood`."""

    loglikelihood: float | None
    """Nats; None when the model gives no finite value."""
    bytes: int
    """Scored bytes, each stop token counted as one."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `Embed`."""

    vectors: list[list[float]]
    """One for each text, not normalised."""
    tokens: int
    """Of all texts, as far as they fit."""
    load_s: float = 0.0
    """As `Generated.load_s`."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    memory_mb: float
    idle_s: float
    keep_s: float = 600.0
    """Idle seconds after which it is unloaded; negative: never."""
    context: int = 0
    """Tokens of prompt and answer together; 0 when unknown."""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `GetStatus`."""

    pid: int
    memory_mb: float
    """Resident set size of the service and its processes of llama.cpp."""
    models: list[LoadedModel]
    generating: str = ""
    """The model that is generating, or ""."""
    waiting: int = 0
    """Queued requests."""
    uptime_s: float = 0.0


def socket_path(ws: Workspace) -> Path:
    """The socket of the workspace's service, in a folder with mode 0700."""
    return ws.runtime / "inference.sock"


def log_path(ws: Workspace) -> Path:
    return ws.runs / ".service.log"
