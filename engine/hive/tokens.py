"""Who may use a hive: a token for each user. Stored are hashes; a token itself is shown once, when it is made."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.hive.lora_file import BadAdapter
from engine.hive.names import user_name
from engine.hive.registry import Registry

_PREFIX = "h2qh_"
_RANDOM_BYTES = 32


class HiveToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret; an element of `hive token list --json`."""

    name: str
    """Of the user."""
    may_aggregate: bool
    """Whether it may start an aggregation and roll back."""
    created_at: float
    revoked_at: float | None


@dataclass(frozen=True)
class Caller:
    """Who sent a request."""

    name: str
    """"" for a request without a token, on a server that needs none."""
    may_aggregate: bool


ANYONE = Caller("", True)
"""Who uses a server on loopback for which no token was made: the person at this machine."""


def create_token(registry: Registry, name: str, *, may_aggregate: bool = False) -> str:
    """A new token for a user. Raises BadInput for a name that is none, UsageProblem for one that has a token."""
    user = checked_name(name)
    # 256 random bits need no slow hash: nobody tries them all.
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    with registry.transaction() as db:
        found = db.execute("SELECT revoked_at FROM tokens WHERE name = ?", (user,)).fetchone()
        if found is not None and found[0] is None:
            raise UsageProblem(
                _("{name} has a token already").format(name=user), hint=f"h2q-tui hive token revoke {user}"
            )
        db.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, NULL)",
            (user, _hash(token), int(may_aggregate), time.time()),
        )
    return token


def list_tokens(registry: Registry) -> list[HiveToken]:
    """All tokens by name, those that were revoked too."""
    return [
        HiveToken(
            name=row["name"],
            may_aggregate=bool(row["may_aggregate"]),
            created_at=row["created_at"],
            revoked_at=row["revoked_at"],
        )
        for row in registry.rows("SELECT * FROM tokens ORDER BY name")
    ]


def revoke_token(registry: Registry, name: str) -> int:
    """Ends a token, and withdraws the adapters of its user that wait; returns how many. Raises BadInput."""
    user = checked_name(name)
    with registry.transaction() as db:
        ended = db.execute(
            "UPDATE tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (time.time(), user)
        ).rowcount
        if not ended:
            raise BadInput(_("{name} has no token").format(name=user), hint="h2q-tui hive token list")
        return db.execute(
            "UPDATE adapters SET withdrawn = 1 WHERE user_id = ? AND used_in = ''", (user,)
        ).rowcount


class TokenBook:
    """The valid tokens as a server checks them; a change by another process is seen with the next request."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._seen = -1
        self._valid: list[tuple[bytes, Caller]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no token is valid."""
        self._refresh()
        return not self._valid

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; None for a wrong one. Compares with every token, each in the same time."""
        self._refresh()
        given, found = _hash(token).encode(), None
        for stored, caller in self._valid:
            if hmac.compare_digest(given, stored):
                found = caller
        return found

    def _refresh(self) -> None:
        seen = self._registry.changes()
        if seen != self._seen:
            rows = self._registry.rows("SELECT * FROM tokens WHERE revoked_at IS NULL")
            self._valid = [
                (row["hash"].encode(), Caller(row["name"], bool(row["may_aggregate"]))) for row in rows
            ]
            self._seen = seen


def checked_name(name: str) -> str:
    """A user's name from the command line. Raises BadInput."""
    try:
        return user_name(name)
    except BadAdapter as problem:
        raise BadInput(problem.message) from None


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
