"""Exact duplicates: conversations whose words are the same once folded."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def content_key(turns: Iterable[tuple[str, str]]) -> bytes:
    """A key of turns as (role, folded text), which ignores width, case, punctuation and space."""
    digest = sha256()
    for role, folded in turns:
        digest.update(f"{role}\x1f{folded}\x1e".encode("utf-8", "surrogatepass"))
    return digest.digest()[:16]
