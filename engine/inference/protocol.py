"""What is said between the inference service and its clients, and what a backend must do.

Line-delimited JSON over a Unix socket, one request for each connection: the answer is any number of pieces
and one last line. Closing the connection cancels. Imports nothing heavy: the app reads this module.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from engine.core.chat import ChatMessage
from engine.core.paths import Workspace

MAX_LINE = 8 << 20
"""Bytes of one line at most: a conversation of some megabytes still fits."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is drawn."""

    temperature: float = 0.7
    """0 takes the likeliest byte every time."""
    top_p: float = 0.9
    """Smallest set of bytes with this probability together; 1 takes all."""
    max_bytes: int = 512
    """UTF-8 bytes of the answer at most (a 汉字 is three)."""
    seed: int | None = None
    """The same seed gives the same text; None draws one."""
    stop: list[str] = []
    """The answer ends before any of these."""


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended its turn."""
    STOP_STRING = "stop_string"
    LENGTH = "length"
    """`max_bytes` or the end of the context."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    """Base of all requests."""

    language: str = "en"
    """Of the sentences that come back."""


class Load(Asked, frozen=True, kw_only=True, tag="load"):
    """Loads a model, so that the first answer comes at once."""

    model: str


class Generate(Asked, frozen=True, kw_only=True, tag="generate"):
    model: str
    messages: list[ChatMessage]
    sampling: Sampling = Sampling()


class Likelihood(Asked, frozen=True, kw_only=True, tag="loglikelihood"):
    """Log-likelihood of the assistant turns of `messages`."""

    model: str
    messages: list[ChatMessage]


class Unload(Asked, frozen=True, kw_only=True, tag="unload"):
    """Frees one model, or all."""

    model: str | None = None


class MakeRoom(Asked, frozen=True, kw_only=True, tag="make_room"):
    """Frees every model unless the service and a run of `needed_mb` fit into `budget_mb` together."""

    needed_mb: float
    budget_mb: float


class GetStatus(Asked, frozen=True, kw_only=True, tag="status"):
    pass


class Shutdown(Asked, frozen=True, kw_only=True, tag="shutdown"):
    pass


Request = Load | Generate | Likelihood | Unload | MakeRoom | GetStatus | Shutdown


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="piece"):
    """More text of the answer: whole characters, never half of one."""

    text: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="done"):
    """Last line of an answer; `result` is the Struct that belongs to the request."""

    result: msgspec.Raw = msgspec.Raw(b"null")


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="error"):
    """Last line when it went wrong: an `H2QError` in parts."""

    message: str
    hint: str = ""
    exit_code: int = 5


Reply = Piece | Done | Failure


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """How a generation went; result of `Generate`."""

    finish: Finish
    bytes: int
    seconds: float
    dropped_turns: int = 0
    """Oldest turns that did not fit the context."""
    seed: int | None = None

    @property
    def bytes_per_s(self) -> float:
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


def whole(stream: Generator[str, None, Generated]) -> tuple[str, Generated]:
    """All pieces of an answer as one text, and how it went."""
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return "".join(pieces), end.value


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `Likelihood`: nats over `bytes` bytes, stop tokens among them."""

    loglikelihood: float | None
    """None when the model gives no finite one."""
    bytes: int


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    memory_mb: float
    idle_s: float


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `GetStatus`."""

    pid: int
    memory_mb: float
    """Resident memory of the service."""
    models: list[LoadedModel]
    generating: str = ""
    """The model that is answering now, or ""."""
    waiting: int = 0
    """Requests in the queue behind it."""
    uptime_s: float = 0.0


class Backend(Protocol):
    """A loaded model. The service calls it from its event loop."""

    @property
    def memory_mb(self) -> float:
        """What it holds in this process."""
        ...

    def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None]:
        """Pieces of valid text, at last how it went. Closing the iterator ends the work promptly."""
        ...

    async def loglikelihood(self, messages: Sequence[ChatMessage]) -> Scored:
        """Raises UsageProblem where no likelihood can be read."""
        ...

    async def close(self) -> None: ...


def socket_path(ws: Workspace) -> Path:
    """The socket of the workspace's service, in a folder that only the person may enter."""
    return ws.runtime / "inference.sock"


def lock_path(ws: Workspace) -> Path:
    """Held by the service for as long as it lives."""
    return ws.runtime / "inference.lock"


def log_path(ws: Workspace) -> Path:
    return ws.runs / ".service.log"
