"""What the Corpus tab reads, in a thread of its own, and remembers: lines of the list and whole conversations."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec

from engine.corpus.patterns import Pattern, patterns
from engine.corpus.review import Order, ReviewDetail, ReviewItem, ReviewStore
from engine.errors import BadInput
from engine.memory.store import MemoryStore
from engine.paths import Workspace
from engine.runs.events import Funnel

T = TypeVar("T")
KEPT_DETAILS = 64


class CorpusReader:
    """All methods belong to the app's loop; only the SQL runs in the thread."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.memory_db
        self._store = ReviewStore(workspace.memory_db, readonly=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="corpus-read")
        self.items: dict[str, ReviewItem] = {}
        """Lines that were read, with verdicts that are still on their way laid over them."""
        self.details: OrderedDict[str, ReviewDetail] = OrderedDict()
        """Conversations that were read, the last used last."""

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    def forget(self) -> None:
        """Everything is read again from now on."""
        self.items.clear()
        self.details.clear()

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def ids(self, filter_: str, order: Order) -> list[str]:
        """All ids under a filter. Raises H2QError and sqlite3.Error, like all that follow."""
        return await self._read(partial(self._store.ids, filter_, order))

    async def funnel(self) -> Funnel:
        return await self._read(self._store.funnel)

    async def in_memory(self) -> int:
        """Conversations in memory, whether the corpus has them or not."""

        def count() -> int:
            with MemoryStore(self._path, readonly=True) as store:
                return store.count()

        return await self._read(count)

    async def patterns(self) -> list[Pattern]:
        """What the rejections share."""
        return await self._read(partial(patterns, self._store))

    async def read_items(self, ids: Sequence[str], *, fresh: bool = False) -> list[ReviewItem]:
        """Lines by id, those that are gone left out; `fresh` takes the database's word over what is known."""

        def read() -> list[ReviewItem]:
            found = []
            for id_ in ids:
                try:
                    found.append(self._store.item(id_))
                except BadInput:
                    continue
            return found

        for item in await self._read(read):
            if fresh:
                self.items[item.id] = item
            else:
                self.items.setdefault(item.id, item)
        return [self.items[id_] for id_ in ids if id_ in self.items]

    async def read_detail(self, id_: str) -> bool:
        """Reads one conversation into `details`; False when the corpus has it no more."""
        try:
            detail = await self._read(partial(self._store.detail, id_))
        except BadInput:
            return False
        self.details[id_] = detail
        self.details.move_to_end(id_)
        while len(self.details) > KEPT_DETAILS:
            self.details.popitem(last=False)
        return True

    def detail(self, id_: str) -> ReviewDetail | None:
        """A conversation that has been read, in the state that the person last gave it."""
        detail = self.details.get(id_)
        if detail is None:
            return None
        return msgspec.structs.replace(detail, item=self.items.get(id_, detail.item))

    def lay_over(self, ids: Sequence[str], **fields: object) -> list[ReviewItem]:
        """Gives lines other fields before the database has them; returns those that are known."""
        changed = []
        for id_ in ids:
            item = self.items.get(id_)
            if item is not None:
                self.items[id_] = item = msgspec.structs.replace(item, **fields)
                changed.append(item)
        return changed


def twin_of(detail: ReviewDetail) -> str:
    """The conversation that this one duplicates, else the first of its group, else ""."""
    twins = [detail.item.twin or "", *(row.twin or "" for row in detail.why), *detail.kin]
    return next((twin for twin in twins if twin), "")
