"""Reads list rows and conversations for the Corpus tab, in two threads, and caches them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import msgspec

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.corpus.review.filter_counts import FilterCounts
from engine.corpus.review.filter_query import ListOrder
from engine.corpus.review.rule_suggestions import RuleSuggestion, suggest_rules
from engine.corpus.review.store import ReviewStore
from engine.corpus.review.types import ReviewDetail, ReviewItem
from engine.memory.store import MemoryStore
from engine.runs.events import Funnel

T = TypeVar("T")
MAX_DETAILS = 64


class CorpusReader:
    """All methods run on the app's loop; only the SQL runs in threads: one for rows and conversations, the other for queries
    over the whole corpus, so that the next conversation never waits for a figure."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.memory_db
        self._interactive = _ReaderThread(workspace, "corpus-rows")
        self._scanning = _ReaderThread(workspace, "corpus-scan")
        self.items: dict[str, ReviewItem] = {}
        """Rows that were read, with the decisions that are not written yet applied."""
        self.details: OrderedDict[str, ReviewDetail] = OrderedDict()
        """Conversations that were read, the last used one last."""
        self._expired_items: set[str] = set()
        self._expired_details: set[str] = set()
        self._pending: list[_PendingFields] = []
        """Decisions that are not in the database yet, the newest last."""

    def close(self) -> None:
        self._interactive.close()
        self._scanning.close()

    def expire(self) -> None:
        """Everything is read again before it is shown next; until then it is shown as it was."""
        self._expired_items.update(self.items)
        self._expired_details.update(self.details)

    def expire_details(self, ids: Iterable[str]) -> None:
        """These conversations are read again when they are shown next."""
        self._expired_details.update(self.details.keys() & set(ids))

    def needs_detail(self, id_: str) -> bool:
        """Whether a conversation has to be read before it is shown."""
        return id_ not in self.details or id_ in self._expired_details

    async def changed_since(self, version: tuple[int, int]) -> tuple[int, int] | None:
        """The version of the data when it is not `version`, else None. Raises as `ids` does."""
        now = await self._scanning.read(ReviewStore.version)
        return None if now == version else now

    async def ids(self, filter_: str, order: ListOrder) -> list[str]:
        """All ids under a filter. Raises H2QError and sqlite3.Error, as do all methods that follow."""
        return await self._scanning.read(lambda store: store.ids(filter_, order))

    async def funnel(self) -> Funnel:
        return await self._scanning.read(ReviewStore.funnel)

    async def reviewed(self) -> set[str]:
        """The conversations that the user accepted or rejected."""
        return await self._scanning.read(ReviewStore.reviewed)

    async def filter_counts(self, line: str) -> FilterCounts:
        """Conversations under a filter line by field and value."""
        return await self._scanning.read(lambda store: store.filter_counts(line))

    async def in_memory(self) -> int:
        """Conversations in memory, whether the corpus has them or not."""

        def count(_store: ReviewStore) -> int:
            with MemoryStore(self.path, readonly=True) as store:
                return store.count()

        return await self._scanning.read(count)

    async def suggest_rules(self) -> list[RuleSuggestion]:
        """Patterns of the rejections."""
        return await self._scanning.read(suggest_rules)

    async def pii_counts(self) -> dict[str, int]:
        """Number of occurrences of each PII type in the corpus."""
        return await self._interactive.read(ReviewStore.pii_counts)

    async def read_items(self, ids: Sequence[str], *, fresh: bool = False) -> list[ReviewItem]:
        """Rows by id, without those that are gone; `fresh` replaces cached rows by those of the database."""

        def read(store: ReviewStore) -> list[ReviewItem]:
            return store.items(ids)

        for item in await self._interactive.read(read):
            if fresh or item.id not in self.items or item.id in self._expired_items:
                for pending in self._pending:
                    if item.id in pending.ids:
                        item = msgspec.structs.replace(item, **pending.fields)
                self.items[item.id] = item
                self._expired_items.discard(item.id)
        return [self.items[id_] for id_ in ids if id_ in self.items]

    async def read_detail(self, id_: str) -> bool:
        """Reads one conversation into `details`; False when the corpus does not have it any more."""
        try:
            detail = await self._interactive.read(lambda store: store.detail(id_))
        except BadInput:
            return False
        self.details[id_] = detail
        self.details.move_to_end(id_)
        self._expired_details.discard(id_)
        while len(self.details) > MAX_DETAILS:
            self._expired_details.discard(self.details.popitem(last=False)[0])
        return True

    def detail(self, id_: str) -> ReviewDetail | None:
        """A conversation that has been read, with its newest state."""
        detail = self.details.get(id_)
        if detail is None:
            return None
        return msgspec.structs.replace(detail, item=self.items.get(id_, detail.item))

    def apply_optimistic(self, token: object, ids: Sequence[str], **fields: object) -> list[ReviewItem]:
        """Sets fields of rows before the database has them; returns the cached rows. The fields hold, also when the list is
        read again, until `confirm` with the same token or a later decision."""
        pending = _PendingFields(token, frozenset(ids), fields)
        self._pending.append(pending)
        changed = []
        for id_ in self.items.keys() & pending.ids:
            self.items[id_] = item = msgspec.structs.replace(self.items[id_], **fields)
            changed.append(item)
        return changed

    def confirm(self, token: object) -> None:
        """The fields set with this token are in the database, or never will be."""
        self._pending = [pending for pending in self._pending if pending.token is not token]


class _PendingFields(NamedTuple):
    token: object
    ids: frozenset[str]
    fields: dict[str, object]


class _ReaderThread:
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
    duplicates = [
        detail.item.duplicate_of or "",
        *(row.duplicate_of or "" for row in detail.reasons),
        *detail.cluster_members,
    ]
    return next(filter(None, duplicates), "")
