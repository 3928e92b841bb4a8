"""Exact duplicates: conversations whose words are the same once folded."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def content_key(turns: Iterable[tuple[str, str]]) -> bytes:
    """A key of turns as (role, folded text), which ignores width, case, punctuation and space."""
    words = "".join(f"{role}\x1f{folded}\x1e" for role, folded in turns)
    return sha256(words.encode("utf-8", "surrogatepass")).digest()[:16]
