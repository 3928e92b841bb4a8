"""What the Corpus tab reads, in threads of its own, and remembers: lines of the list and whole conversations."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import msgspec

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.corpus.review.filter_query import ListOrder
from engine.corpus.review.rule_suggestions import RuleSuggestion, suggest_rules
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewDetail, ReviewItem
from engine.memory.store import MemoryStore
from engine.runs.events import Funnel

T = TypeVar("T")
KEPT_DETAILS = 64


class CorpusReader:
    """All methods belong to the app's loop; only the SQL runs in threads: one for what the person looks at,
    the other for what goes through the whole corpus, so that the next conversation never waits for a figure."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.memory_db
        self._near = _Connected(workspace, "corpus-near")
        self._far = _Connected(workspace, "corpus-far")
        self.items: dict[str, ReviewItem] = {}
        """CellLines that were read, with verdicts that are still on their way laid over them."""
        self.details: OrderedDict[str, ReviewDetail] = OrderedDict()
        """Conversations that were read, the last used last."""
        self._layers: list[_Layer] = []
        """What was decided and is not on the disk yet, the newest last."""

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def clear_cache(self) -> None:
        """Everything is read again from now on."""
        self.items.clear()
        self.details.clear()

    def drop_details(self, ids: Iterable[str]) -> None:
        """These conversations are read again when they are shown next."""
        for id_ in self.details.keys() & set(ids):
            del self.details[id_]

    async def ids(self, filter_: str, order: ListOrder) -> list[str]:
        """All ids under a filter. Raises H2QError and sqlite3.Error, like all that follow."""
        return await self._far.read(lambda store: store.ids(filter_, order))

    async def funnel(self) -> Funnel:
        return await self._far.read(ReviewStore.funnel)

    async def in_memory(self) -> int:
        """Conversations in memory, whether the corpus has them or not."""

        def count(_store: ReviewStore) -> int:
            with MemoryStore(self.path, readonly=True) as store:
                return store.count()

        return await self._far.read(count)

    async def suggest_rules(self) -> list[RuleSuggestion]:
        """What the rejections share."""
        return await self._far.read(suggest_rules)

    async def pii_counts(self) -> dict[str, int]:
        """Types of private data in the corpus, with how often."""
        return await self._near.read(ReviewStore.pii_counts)

    async def read_items(self, ids: Sequence[str], *, fresh: bool = False) -> list[ReviewItem]:
        """CellLines by id, those that are gone left out; `fresh` takes the database's word over what is known."""

        def read(store: ReviewStore) -> list[ReviewItem]:
            return store.items(ids)

        for item in await self._near.read(read):
            if fresh or item.id not in self.items:
                for layer in self._layers:
                    if item.id in layer.ids:
                        item = msgspec.structs.replace(item, **layer.fields)
                self.items[item.id] = item
        return [self.items[id_] for id_ in ids if id_ in self.items]

    async def read_detail(self, id_: str) -> bool:
        """Reads one conversation into `details`; False when the corpus has it no more."""
        try:
            detail = await self._near.read(lambda store: store.detail(id_))
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

    def apply_optimistic(self, token: object, ids: Sequence[str], **fields: object) -> list[ReviewItem]:
        """Gives lines other fields before the database has them; returns those that are known. They hold, also
        when the list is read again, until `confirm` with the same token or a later decision."""
        layer = _Layer(token, frozenset(ids), fields)
        self._layers.append(layer)
        changed = []
        for id_ in self.items.keys() & layer.ids:
            self.items[id_] = item = msgspec.structs.replace(self.items[id_], **fields)
            changed.append(item)
        return changed

    def confirm(self, token: object) -> None:
        """What was laid over is on the disk, or never will be."""
        self._layers = [layer for layer in self._layers if layer.token is not token]


class _Layer(NamedTuple):
    token: object
    ids: frozenset[str]
    fields: dict[str, object]


class _Connected:
    """A thread with its own connection."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._store = ReviewStore(workspace.memory_db, readonly=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def read(self, work: Callable[[ReviewStore], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)

    def close(self) -> None:
        self._store.interrupt()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._store.close()


def duplicate_of(detail: ReviewDetail) -> str:
    """The conversation that this one duplicates, else the first of its group, else ""."""
    twins = [detail.item.twin or "", *(row.twin or "" for row in detail.reasons), *detail.cluster_members]
    return next((twin for twin in twins if twin), "")
