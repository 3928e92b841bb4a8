"""Answers that another process streams, as the event loop of the service hands them on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.inference.language_model import Finish, Generated, Prompt, Sampling
from engine.inference.model_cache import AsyncLanguageModel

QUESTION = [ChatMessage(role="user", content="a")]


class Fast:
    """A model that has its answer ready, as another process gives it."""

    def __init__(self, deltas: list[str]) -> None:
        self.deltas, self.closed = deltas, False

    def open_stream(self, messages: Prompt, sampling: Sampling) -> AsyncGenerator[str | Generated, None]:
        async def stream() -> AsyncGenerator[str | Generated, None]:
            try:
                for delta in self.deltas:
                    await asyncio.sleep(0)
                    yield delta
                yield Generated(finish=Finish.STOP, bytes=1, seconds=1.0)
            finally:
                self.closed = True

        return stream()


async def test_a_fast_stream_goes_out_in_few_whole_pieces() -> None:
    fast = Fast([str(number % 10) for number in range(500)])
    *texts, done = [item async for item in AsyncLanguageModel(fast).generate(QUESTION, Sampling())]  # type: ignore[arg-type]
    assert "".join(map(str, texts)) == "".join(fast.deltas) and isinstance(done, Generated)
    assert len(texts) < 50 and fast.closed


async def test_leaving_an_answer_closes_its_stream() -> None:
    fast = Fast(["a"] * 1000)
    async with aclosing(AsyncLanguageModel(fast).generate(QUESTION, Sampling())) as stream:  # type: ignore[arg-type]
        async for _item in stream:
            break
    assert fast.closed


async def test_an_error_within_the_answer_comes_after_its_text() -> None:
    class Failing(Fast):
        def open_stream(self, messages: Prompt, sampling: Sampling) -> AsyncGenerator[str | Generated, None]:
            async def stream() -> AsyncGenerator[str | Generated, None]:
                yield "half"
                raise RunFailed("it ended")

            return stream()

    texts = []
    with pytest.raises(RunFailed, match="it ended"):
        async for item in AsyncLanguageModel(Failing([])).generate(QUESTION, Sampling()):  # type: ignore[arg-type]
            texts.append(item)
    assert texts == ["half"]
