"""Names of speakers and forms of time in other programs' files, as ours, and the end of every importer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from engine.core.chat import Role
from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.memory.records import Conversation, Skipped, Turn

RoleMap = Mapping[str, Role]
"""The person's own names (`--map 客服=assistant`), in lower case."""

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), Role.USER),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), Role.ASSISTANT),
    **dict.fromkeys(("system", "developer"), Role.SYSTEM),
    **dict.fromkeys(("tool", "function", "function_call", "observation"), Role.TOOL),
}
_FRACTION = re.compile(r"(\.\d{6})\d+")
_DIGITS = re.compile(r"[0-9]{10,19}(?:\.[0-9]{1,9})?")
_LATEST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()


def role_map_of(given: Mapping[str, str]) -> dict[str, Role]:
    """Raises UsageProblem for a role that there is not."""
    roles = {}
    for name, role in given.items():
        if role not in list(Role):
            raise UsageProblem(
                _("--map {name}={role}: a role is one of {roles}").format(
                    name=name, role=role, roles=", ".join(Role)
                )
            )
        roles[name.strip().lower()] = Role(role)
    return roles


def role_of(name: object, role_map: RoleMap) -> Role | None:
    """The role that a file calls `name`; None when nobody knows."""
    if not isinstance(name, str):
        return None
    key = name.strip().lower()
    return role_map.get(key) or _ROLES.get(key)


def unknown_role(name: object) -> Skipped:
    """A message of a speaker that is not guessed at; `--map` tells who it is."""
    return Skipped(reason=f"unknown role: {name[:40]}" if isinstance(name, str) else "message without a role")


def time_of(value: Any) -> float | None:
    """Seconds since the epoch from seconds, milliseconds, micro- or nanoseconds, also in digits of a text, or from
    RFC 3339; None for what is no time of our era."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = float(value)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(_FRACTION.sub(r"\1", value.strip()))
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if (isinstance(value, int) and abs(value) > 10**19) or not math.isfinite(value):
        return None
    # A second is told from a thousandth by its size: 10^11 seconds are the year 5138.
    seconds = float(value)
    for _unit in ("milli", "micro", "nano"):
        seconds = seconds / 1000 if seconds > 10**11 else seconds
    return seconds if 0 < seconds < _LATEST else None


def text_or_empty(value: object) -> str:
    """An id or a title: strings as they are, whole numbers in digits, anything else empty."""
    if isinstance(value, str):
        return value[:500]
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18 else ""
    )


def finished(
    made: Iterable[Turn | Skipped],
    *,
    source: str,
    external_id: str = "",
    title: str = "",
    started_at: float | None = None,
    updated_at: float | None = None,
) -> Iterator[Conversation | Skipped]:
    """What was left out of a conversation, then the conversation; one in which nobody speaks is left out."""
    turns = []
    for item in made:
        if isinstance(item, Turn):
            turns.append(item)
        else:
            yield item
    if not any(turn.role in (Role.USER, Role.ASSISTANT) for turn in turns):
        yield Skipped(reason="empty conversation", whole=True)
        return
    yield Conversation.of(
        turns,
        source=source,
        external_id=external_id,
        title=title,
        started_at=started_at,
        updated_at=updated_at,
    )
