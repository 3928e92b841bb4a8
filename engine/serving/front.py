"""What all APIs of the server share: the models by name, the inference service behind them, and the queue before it.

The server holds no model. The inference service, which Chat uses too, loads them, runs one generation at a time in the
order of arrival, unloads idle ones, and gives way to a training.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from engine.core.chat import ChatMessage
from engine.core.paths import Workspace
from engine.http.refused import RequestRefused, bad_request
from engine.inference.client import InferenceClient
from engine.inference.language_model import Generated, RenderedPrompt, Sampling, TokenLogProb
from engine.inference.protocol import Embed, Embedded, Generate, Render, TextDelta
from engine.models.tool_calls import ToolCall
from engine.serving.names import ApiModel, ApiModels
from engine.serving.options import sampling_of

MAX_QUEUE = 512
"""Requests that may wait for their turn, as in Ollama."""
ROLES = ("system", "user", "assistant", "tool")


class Front:
    """One server's access to the models of a workspace."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.models = ApiModels(ws)
        self.client = InferenceClient(ws)
        self._pending = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place in the queue. Raises RequestRefused when it is full."""
        if self._pending >= MAX_QUEUE:
            raise RequestRefused(503, "server busy, please try again.  maximum pending requests exceeded")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def answer(self, request: Generate) -> AsyncGenerator[TextDelta | Generated, None]:
        """The text of an answer, then its statistics. Raises H2QError, RequestRefused."""
        async with self.turn(), aclosing(self.client.stream(request)) as stream:
            async for item in stream:
                yield item

    async def load(self, model: ApiModel, keep_s: float | None) -> None:
        """Loads a model ahead of its first use."""
        async with self.turn():
            await self.client.load(model.reference, keep_s=keep_s)

    async def unload(self, model: ApiModel) -> None:
        """Unloads a model that is loaded."""
        await self.client.unload(model.reference)

    async def render(self, request: Generate) -> RenderedPrompt:
        """What an answer would be given to."""
        async with self.turn():
            return await self.client.render(
                Render(
                    model=request.model,
                    messages=request.messages,
                    raw=request.raw,
                    sampling=request.sampling,
                )
            )

    async def render_tools(self, request: Render) -> RenderedPrompt:
        """The prompt of turns with tools."""
        async with self.turn():
            return await self.client.render(request)

    async def embed(self, request: Embed) -> Embedded:
        """Vectors of texts."""
        async with self.turn():
            return await self.client.embed(request)


class CalledTool(msgspec.Struct, frozen=True, kw_only=True):
    """A call with the id that its result names."""

    id: str
    index: int
    call: ToolCall

    @property
    def arguments_json(self) -> str:
        return msgspec.json.encode(self.call.arguments).decode()


class Answer:
    """The collected answer of a stream: its text, log-probabilities and statistics."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.text = ""
        self.logprobs: list[TokenLogProb] = []
        self.calls: list[CalledTool] = []
        self.result: Generated | None = None

    @property
    def generated(self) -> Generated:
        """The statistics. Only after the stream."""
        assert self.result is not None
        return self.result

    async def read(self, stream: AsyncGenerator[TextDelta | CalledTool | Generated, None]) -> Answer:
        """Reads the whole stream."""
        parts = []
        async with aclosing(stream):
            async for item in stream:
                if isinstance(item, Generated):
                    self.result = item
                elif isinstance(item, CalledTool):
                    self.calls.append(item)
                else:
                    parts.append(item.text)
                    self.logprobs += item.logprobs
        self.text = "".join(parts)
        return self


def chat_messages(turns: Sequence[tuple[str, str]]) -> list[ChatMessage]:
    """Messages from (role, content). Raises RequestRefused for a role that no model knows."""
    for role, _content in turns:
        if role not in ROLES:
            raise bad_request(f"invalid role: {role!r}; roles are {', '.join(ROLES)}")
    return [ChatMessage(role=role, content=content) for role, content in turns]


def request_to(
    model: ApiModel,
    prompt: list[ChatMessage] | str,
    sampling: Sampling,
    keep_s: float | None = None,
) -> Generate:
    """The request to the inference service for a conversation, or for one text that is sent as it is.

    What ends an answer of the model by its own options also ends this one, where the request says nothing else.
    """
    own = sampling_of(model.parameters_set) if model.parameters_set else None
    if own is not None:
        sampling = msgspec.structs.replace(
            sampling,
            stop=sampling.stop or own.stop,
            max_tokens=sampling.max_tokens or own.max_tokens,
            context=sampling.context or own.context,
        )
    raw = prompt if isinstance(prompt, str) else None
    messages = [] if isinstance(prompt, str) else prompt
    return Generate(model=model.reference, messages=messages, raw=raw, sampling=sampling, keep_s=keep_s)
