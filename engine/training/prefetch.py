"""Prepares the next batches in threads while the model computes. A batch still depends on its number alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.training.batches import Batch, BatchSource
from engine.training.recipe import CurriculumStage


@dataclass(frozen=True)
class _BatchKey:
    """Everything that determines a batch of one source: a batch prepared under another key is discarded."""

    number: int
    max_steps: int
    tokens_per_micro_batch: int


class Prefetcher:
    """A source of batches that prepares the next `ahead` ones of `source` in `threads` threads.

    A batch out of sequence (a measurement, a repeated batch) is built by the caller's thread. Close it, or
    use it as a context manager; an error in a thread is raised when its batch is requested.
    """

    def __init__(self, source: BatchSource, *, threads: int, ahead: int) -> None:
        """Without threads every batch is built when it is requested."""
        self.source = source
        self.ahead = ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader") if threads > 0 else None
        self._pending: OrderedDict[_BatchKey, Future[Batch]] = OrderedDict()
        self._next = 0
        """Number after the last batch in sequence."""

    @property
    def tokens_per_micro_batch(self) -> int:
        return self.source.tokens_per_micro_batch

    @tokens_per_micro_batch.setter
    def tokens_per_micro_batch(self, tokens: int) -> None:
        self.source.tokens_per_micro_batch = tokens

    def steps(self) -> int:
        return self.source.steps()

    def epoch_after(self, batches: int, tokens: int) -> float:
        return self.source.epoch_after(batches, tokens)

    def sample_names(self, number: int, max_steps: int) -> list[str]:
        return self.source.sample_names(number, max_steps)

    def batch_at(self, number: int, max_steps: int, stage: CurriculumStage | None = None) -> Batch:
        if self._pool is None or stage is not None or number < self._next:
            return self.source.batch_at(number, max_steps, stage)
        key = _BatchKey(number, max_steps, self.tokens_per_micro_batch)
        if key not in self._pending:
            # The first in sequence, or the key has changed: discards what was prepared.
            self._discard_pending()
        self._next = number + 1
        future = self._pending.pop(key, None)
        for later in range(self._next, min(self._next + self.ahead, max_steps)):
            self._submit(_BatchKey(later, max_steps, self.tokens_per_micro_batch))
        return self.source.batch_at(number, max_steps) if future is None else future.result()

    def _submit(self, key: _BatchKey) -> None:
        if self._pool is not None and key not in self._pending:
            draw: Callable[[int, int], Batch] = self.source.batch_at
            self._pending[key] = self._pool.submit(draw, key.number, key.max_steps)

    def _discard_pending(self) -> None:
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()

    def close(self) -> None:
        """Waits for batches in preparation and ends the threads."""
        self._discard_pending()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()
