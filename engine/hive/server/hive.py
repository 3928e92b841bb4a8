"""What the routes of one hive share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from engine.core.i18n import _
from engine.hive.intake import HiveLimits, Intake
from engine.hive.lora_file import BadAdapter
from engine.hive.names import user_name
from engine.hive.protocol import Rule
from engine.hive.rounds import RoundOptions, Rounds
from engine.hive.server.access import Traffic
from engine.hive.store import AdapterStore
from engine.hive.tokens import Caller
from engine.hive.uploads import Uploads

P = ParamSpec("P")
T = TypeVar("T")

OWNER = "me"
"""Who sends an adapter without a name and without a token: the person at this machine."""
ADMITTED_TOGETHER = 2
"""Adapters whose values are read at the same time: more would need more memory and no less time."""


class Hive:
    """One store, and what goes in and out of it."""

    def __init__(self, store: AdapterStore, limits: HiveLimits, options: RoundOptions) -> None:
        self.store = store
        self.limits = limits
        self.intake = Intake(store, limits)
        self.uploads = Uploads(self.intake)
        self.rounds = Rounds(self.intake, options)
        self.traffic = Traffic()
        self._admitting = asyncio.Semaphore(ADMITTED_TOGETHER)
        self._work: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that continues when the client that asked for it leaves."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def admit(self, user: str, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of work that reads the values of an adapter, as `counted`, few together."""
        async with self._admitting:
            return await self.counted(user, size, work, *args, **kwargs)

    async def counted(
        self, user: str, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of work in a thread; `size` bytes, or a refusal, are counted for the user."""
        try:
            result = await asyncio.to_thread(work, *args, **kwargs)
        except BadAdapter:
            await asyncio.to_thread(self.store.count_traffic, user, size, refused=True)
            raise
        await asyncio.to_thread(self.store.count_traffic, user, size)
        return result


def sender(caller: Caller, given: str) -> str:
    """Whose adapter it is: the user of the token, else the name that was given. Raises BadAdapter (`USER`)."""
    if not caller.name:
        return user_name(given) if given else OWNER
    if given and user_name(given) != caller.name:
        raise BadAdapter(Rule.USER, _("the token is that of {name}").format(name=caller.name))
    return caller.name
