"""Conversations that are kept as a tree: the branch that was last looked at, and what lies beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from engine.core.chat import Role
from engine.memory.records import Skipped, Turn


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a tree."""

    parent: str = ""
    turn: Turn | None = None
    """None for a message that memory does not take."""
    skipped: tuple[Skipped, ...] = ()
    time: float = 0.0


def current_branch(nodes: Mapping[str, Node], current: object) -> Iterator[Turn | Skipped]:
    """The turns from the root to the node `current`, without a usable one to the newest leaf.

    Answers that were regenerated become alternatives of the one that was kept; other messages beside the
    branch are counted. Trees that bite their tail end.
    """
    children: dict[str, list[str]] = {}
    for key, node in nodes.items():
        children.setdefault(node.parent, []).append(key)
    path = _path(nodes, children, current)
    on_path = set(path)
    texts: list[str] = []
    """Answers beside the branch since its last turn: messages that are not taken may stand before the answer."""
    for key in path:
        node = nodes[key]
        yield from node.skipped
        elsewhere = 0
        for sibling in children[node.parent]:
            if sibling in on_path:
                continue
            answer = _answer_below(nodes, children, sibling)
            texts += [answer] if answer else []
            elsewhere += not answer
        if elsewhere:
            yield Skipped(reason="message of another branch", count=elsewhere)
        if node.turn is None:
            continue
        kept = node.turn.role is Role.ASSISTANT
        alternatives = tuple(text for text in dict.fromkeys(texts) if text != node.turn.text)
        if texts and not kept:
            yield Skipped(reason="message of another branch", count=len(texts))
        texts = []
        yield msgspec.structs.replace(node.turn, alternatives=alternatives) if kept else node.turn
    if texts:
        yield Skipped(reason="message of another branch", count=len(texts))


def _path(nodes: Mapping[str, Node], children: Mapping[str, list[str]], current: object) -> list[str]:
    if not isinstance(current, str) or current not in nodes:
        leaves = [key for key in nodes if key not in children]
        # Of the same age, the one that stands last in the file.
        current = max(enumerate(leaves), key=lambda item: (nodes[item[1]].time, item[0]), default=(0, None))[
            1
        ]
    path: list[str] = []
    seen: set[str] = set()
    while isinstance(current, str) and current in nodes and current not in seen:
        seen.add(current)
        path.append(current)
        current = nodes[current].parent
    return path[::-1]


def _answer_below(nodes: Mapping[str, Node], children: Mapping[str, list[str]], key: str) -> str:
    """The first answer that a person saw on a branch: messages that are not taken may come before it."""
    seen: set[str] = set()
    while key not in seen:
        seen.add(key)
        turn = nodes[key].turn
        if turn is not None:
            return turn.text if turn.role is Role.ASSISTANT else ""
        if not children.get(key):
            break
        key = children[key][-1]
    return ""
