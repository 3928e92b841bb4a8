"""Conversations stored as a tree of messages: reads the current branch and collects the alternatives next to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from engine.core.chat import Role
from engine.memory.records import Skipped, Turn


class MessageNode(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a tree."""

    parent: str = ""
    turn: Turn | None = None
    """None for a message that is not imported."""
    skipped: tuple[Skipped, ...] = ()
    time: float = 0.0


def current_branch(nodes: Mapping[str, MessageNode], current: object) -> Iterator[Turn | Skipped]:
    """The turns from the root to the node `current`; without a valid one, to the newest leaf.

    Regenerated answers become alternatives of the answer on the branch; other messages off the branch are
    counted as skipped. Cycles in the tree are cut.
    """
    children: dict[str, list[str]] = {}
    for key, node in nodes.items():
        children.setdefault(node.parent, []).append(key)
    path = _path(nodes, children, current)
    on_path = set(path)
    texts: list[str] = []
    """Answers off the branch since its last turn: skipped messages may precede the answer on the branch."""
    for key in path:
        node = nodes[key]
        yield from node.skipped
        others = 0
        for sibling in children[node.parent]:
            if sibling in on_path:
                continue
            answer = _first_answer(nodes, children, sibling)
            texts += [answer] if answer else []
            others += not answer
        if others:
            yield Skipped(reason="message of another branch", count=others)
        if node.turn is None:
            continue
        is_answer = node.turn.role is Role.ASSISTANT
        alternatives = tuple(text for text in dict.fromkeys(texts) if text != node.turn.text)
        if texts and not is_answer:
            yield Skipped(reason="message of another branch", count=len(texts))
        texts = []
        yield msgspec.structs.replace(node.turn, alternatives=alternatives) if is_answer else node.turn
    if texts:
        yield Skipped(reason="message of another branch", count=len(texts))


def _path(nodes: Mapping[str, MessageNode], children: Mapping[str, list[str]], current: object) -> list[str]:
    if not isinstance(current, str) or current not in nodes:
        leaves = [key for key in nodes if key not in children]
        # Of leaves with equal times, the last one in the file.
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


def _first_answer(nodes: Mapping[str, MessageNode], children: Mapping[str, list[str]], key: str) -> str:
    """The first visible answer of the branch that begins at `key`: skipped messages may precede it."""
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
