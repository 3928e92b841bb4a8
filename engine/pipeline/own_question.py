"""A question of the person's own for the samples of a training: from the test set, so that no model has learnt its answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from engine.core.chat import Role
from engine.core.errors import H2QError
from engine.corpus.clusters import HoldoutWindow
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore

LONGEST, SHORTEST = 160, 8
"""Characters of a question."""
_GOOD = 40
"""Characters of the question that is preferred."""
_READ = 40
"""Conversations that are looked at."""


def own_question(store: MemoryStore, window: HoldoutWindow | None) -> str:
    """A short first question of a held-out conversation, as it would be trained; "" where there is none."""
    if window is None:
        return ""
    found = []
    try:
        with ReviewStore(store.path, readonly=True) as review:
            for id_ in sorted(window.conversations)[:_READ]:
                conversation = store.get(id_)
                if conversation is not None:
                    turns = review.as_trained(conversation).turns
                    found.append(next((turn.text for turn in turns if turn.role is Role.USER), ""))
    except (H2QError, sqlite3.Error):
        return ""
    return best_question(found)


def best_question(texts: Iterable[str]) -> str:
    """The text of one line whose length is nearest to a good one; "" where none is of a fitting length."""
    lines = [line for text in texts if (line := text.strip()) and "\n" not in line]
    fitting = [line for line in lines if SHORTEST <= len(line) <= LONGEST]
    return min(fitting, key=lambda line: (abs(len(line) - _GOOD), line), default="")
