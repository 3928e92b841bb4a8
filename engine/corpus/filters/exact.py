"""Exact duplicates: conversations whose words are the same once folded."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from engine.corpus.filters.normalise import fold


def content_key(turns: Iterable[tuple[str, str]]) -> str:
    """A key of (role, text) turns that ignores width, case, punctuation and space."""
    digest = sha256()
    for role, text in turns:
        digest.update(f"{role}\x1f{fold(text)}\x1e".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]
