"""Conversations stored as a tree of messages: finds the branch that the person saw, and what stands beside it.

Real trees are incomplete: parents stand after their children, links are missing or name messages that the file lacks,
the current node has no role. `current_branch` repairs the links first (`_repaired`) and then reads one branch.
Every message is taken, an alternative of a taken answer, or counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import groupby, pairwise

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import omitted_question
from engine.memory.records import Skipped, Turn

_OTHER_BRANCH = "message of another branch"


class MessageNode(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a tree. A node without turn and without `skipped` is no message, only a link."""

    parent: str | None = ""
    """Id of the message before; "" for a message that its program calls the first, None where the file says nothing."""
    children: tuple[str, ...] = ()
    """Ids of the messages after, as far as the file lists them."""
    turn: Turn | None = None
    """None for a message that is not imported."""
    role: Role | None = None
    """Of a message without a turn, as far as it is known."""
    skipped: tuple[Skipped, ...] = ()
    time: float = 0.0
    """Seconds since the epoch; 0 when unknown."""

    @property
    def speaker(self) -> Role | None:
        return self.turn.role if self.turn is not None else self.role

    @property
    def is_message(self) -> bool:
        return bool(self.skipped) or (self.turn is not None and bool(self.turn.text))


Nodes = Mapping[str, MessageNode]
"""The messages by id, in the order of the file."""


class NodesById:
    """The messages of a tree as a file names them. An id that several messages have means, in a link, the last of them so far."""

    def __init__(self) -> None:
        self.nodes: dict[str, MessageNode] = {}
        self._last: dict[str, str] = {}

    def add(self, id_: str, node: MessageNode) -> None:
        """Adds the next message. Without an id it is known by its place. A repeated id lists no children of its own."""
        is_repeated = id_ in self._last
        key = f"#{len(self.nodes)}" if is_repeated or not id_ else id_
        parent = self._last.get(node.parent, node.parent) if node.parent else node.parent
        if is_repeated:
            node = msgspec.structs.replace(node, children=())
            before = self.nodes[self._last[id_]]
            self.nodes[self._last[id_]] = msgspec.structs.replace(before, children=())
        self.nodes[key] = msgspec.structs.replace(node, parent=parent)
        if id_:
            self._last[id_] = key

    def key_of(self, id_: object) -> object:
        """The key of the message that a link names."""
        return self._last.get(id_, id_) if isinstance(id_, str) else id_


def child_ids(listed: object) -> tuple[str, ...]:
    """The `children` of a node from a JSON value."""
    return tuple(key for key in listed if isinstance(key, str)) if isinstance(listed, list) else ()


def current_branch(
    nodes: Nodes, current: object = None, *, to_leaf: bool = False
) -> Iterator[Turn | Skipped]:
    """The turns from the first message to the node `current`.

    When `current` is no node, or one without a turn, the branch ends at the newest message with a turn below it,
    else near it, else of all. Regenerated answers become alternatives of the answer on the branch; each other message
    off the branch is counted. `to_leaf`: the program shows what follows `current`, too.
    """
    # "" stands for no message.
    tree = _repaired({key or "\0": node for key, node in nodes.items()})
    return _read(tree, tree.path_to(tree.leaf_for(current, to_leaf)))


def reading_order(nodes: Nodes) -> list[str]:
    """The ids by time; where times are equal or unknown, as they stand in the file.

    A file that runs backwards is turned round. A message without a time stays behind the one before it. An answer
    stands behind the only question of its time: some programs date both alike.
    """
    keys = list(nodes)
    times = [nodes[key].time for key in keys if nodes[key].time]
    if any(a > b for a, b in pairwise(times)) and all(a >= b for a, b in pairwise(times)):
        keys.reverse()
    moments: dict[str, float] = {}
    moment = 0.0
    for key in keys:
        moment = nodes[key].time or moment
        moments[key] = moment
    keys.sort(key=moments.__getitem__)
    ordered: list[str] = []
    for _moment, group in groupby(keys, key=moments.__getitem__):
        same = list(group)
        questions = sum(nodes[key].speaker is Role.USER for key in same)
        if questions == 1 and all(nodes[key].time for key in same):
            same.sort(key=lambda key: nodes[key].speaker is Role.ASSISTANT)
        ordered += same
    return ordered


class _Tree:
    """The repaired tree: links in both directions, and the newest message with a turn below each node."""

    def __init__(
        self, nodes: Nodes, parents: Mapping[str, str], order: Sequence[str], guessed: Set[str]
    ) -> None:
        self.nodes = nodes
        self.guessed = guessed
        """Answers that may belong to another question."""
        self.parents = parents
        self.rank = {key: place for place, key in enumerate(order)}
        self.children: dict[str, list[str]] = {}
        for key in order:
            self.children.setdefault(parents[key], []).append(key)
        self._newest = self._newest_leaves()

    def _newest_leaves(self) -> dict[str, str]:
        """For each node with a turn at or below it, the newest leaf there; a leaf has no turn below it."""
        newest: dict[str, str] = {}
        for key in reversed(self.downwards()):
            below = [newest[child] for child in self.children.get(key, ()) if child in newest]
            if below:
                newest[key] = max(below, key=self.rank.__getitem__)
            elif self.nodes[key].turn is not None:
                newest[key] = key
        return newest

    def downwards(self, start: str = "") -> list[str]:
        """The ids at and below `start`, parents before children; of the whole tree by default."""
        found = [start] if start else list(self.children.get("", ()))
        for key in found:
            found += self.children.get(key, ())
        return found

    def leaf_for(self, current: object, to_leaf: bool) -> str:
        """Where the branch ends; "" in a tree without messages."""
        if isinstance(current, str) and current in self.nodes:
            if self.nodes[current].turn is not None and not to_leaf:
                return current
            place = current
            while place and place not in self._newest:
                place = self.parents[place]
            if place:
                leaf = self._newest[place]
                if leaf == current:
                    return self._extended(current)
                # A failed or hidden last message stays on the branch, so that its own reason is counted.
                return current if leaf == place else self._extended(leaf)
        leaves = [self._newest[root] for root in self.children.get("", ()) if root in self._newest]
        if leaves:
            return self._extended(max(leaves, key=self.rank.__getitem__))
        return max(self.nodes, key=self.rank.__getitem__, default="")

    def _extended(self, key: str) -> str:
        """`key`, or the newest message below it: messages that are not imported may follow the last turn."""
        while below := self.children.get(key):
            key = below[-1]
        return key

    def path_to(self, key: str) -> list[str]:
        path = []
        while key:
            path.append(key)
            key = self.parents[key]
        return path[::-1]


def _repaired(nodes: dict[str, MessageNode]) -> _Tree:
    """The tree with every link that can be inferred.

    A message without a usable upward link gets the node that lists it among its children, else the message that it
    follows in reading order: an answer the question before it, any other message the message before it. A question
    that claims to be the first stays so where another one comes first too: it is an edit of it.
    """
    repair = _Repair(nodes)
    before = question = ""
    for key in repair.order:
        repair.place(key, before, question)
        if nodes[key].is_message or key in repair.lost:
            before = key
            question = key if nodes[key].speaker is Role.USER else question
    return _Tree(nodes, repair.parents, repair.order, repair.guessed)


class _Repair:
    """The links of a tree while messages without one find their place, in reading order."""

    def __init__(self, nodes: dict[str, MessageNode]) -> None:
        self.nodes = nodes
        self.order = reading_order(nodes)
        self.parents = _known_parents(nodes)
        _cut_cycles(self.parents, self.order)
        first = next((key for key in self.order if nodes[key].is_message), "")
        self._has_root = bool(first and self.parents[first])
        """Whether first messages hang below a node without words: then a message without a parent lost it."""
        self._first_claim = nodes[first].parent if first and not self._has_root else ""
        """What the first message names as its parent: the program's word for "none"."""
        orphans = [key for key in self.order if not self.parents[key] and nodes[key].is_message]
        self.lost = _add_lost(nodes, self.parents, orphans, self._first_claim)
        if self.lost:
            self.order = _with_lost(self.order, self.parents, self.lost)
        self.guessed: set[str] = set()
        """Answers without a link behind a question that has an answer: possibly to another question."""
        self._followed = set(self.parents.values())
        """Messages with another one behind them, so far."""
        self._tops = {key: parent or key for key, parent in self.parents.items()}
        """Pointers towards the first message of each part of the tree (union-find)."""

    def place(self, key: str, before: str, question: str) -> None:
        """Links a message that has no parent; `before` and `question` are the last message and question before it."""
        node = self.nodes[key]
        if not self.parents[key] and before and (node.is_message or key in self.lost):
            parent = before
            # Tool calls and reasoning may stand between a question and its answer.
            if node.speaker is Role.ASSISTANT and question and self.nodes[before].turn is not None:
                parent = question
                if question in self._followed:
                    self.guessed.add(key)
            if not (question and self._is_edit(node)) and self._top(parent) != key:
                self.parents[key] = self._tops[key] = parent
        parent = self.parents[key]
        if self.lost.get(key):
            is_open = parent and self.nodes[parent].speaker is Role.USER and parent not in self._followed
            # After an open question the link was wrong; elsewhere the question is missing.
            self.nodes[key] = node if is_open else _LOST_QUESTION
        self._followed.add(parent)

    def _is_edit(self, node: MessageNode) -> bool:
        """Whether a message without a parent claims to be the first, as another one does."""
        return (
            not self._has_root
            and node.speaker in (Role.USER, Role.SYSTEM)
            and node.parent is not None
            and node.parent in ("", self._first_claim)
        )

    def _top(self, key: str) -> str:
        tops = self._tops
        while tops[key] != key:
            tops[key] = tops[tops[key]]
            key = tops[key]
        return key


_LOST_QUESTION = MessageNode(parent=None, turn=omitted_question())


def _known_parents(nodes: Nodes) -> dict[str, str]:
    """The parent that each node names, else the one that lists it; "" for none."""
    listed: dict[str, str] = {}
    for key, node in nodes.items():
        for child in node.children:
            if child in nodes and child != key:
                listed.setdefault(child, key)
    parents = {}
    for key, node in nodes.items():
        named = node.parent or ""
        parents[key] = named if named in nodes and named != key else listed.get(key, "")
    return parents


def _add_lost(
    nodes: dict[str, MessageNode], parents: dict[str, str], orphans: Sequence[str], first_claim: str | None
) -> dict[str, bool]:
    """Adds a node for each message that orphans name and the file lacks; True: an answer follows it."""
    lost: dict[str, bool] = {}
    for key in orphans:
        claim = nodes[key].parent
        if not claim or claim == first_claim or claim in parents:
            continue
        lost[claim] = lost.get(claim, False) or nodes[key].speaker is Role.ASSISTANT
    for key in orphans:
        claim = nodes[key].parent
        if claim and claim in lost:
            parents[key] = claim
    for claim in lost:
        nodes[claim] = MessageNode(parent=None)
        parents[claim] = ""
    return lost


def _with_lost(order: Sequence[str], parents: Mapping[str, str], lost: Mapping[str, bool]) -> list[str]:
    """The order with each lost message before the first that follows it."""
    ordered: dict[str, None] = {}
    for key in order:
        if parents[key] in lost:
            ordered.setdefault(parents[key])
        ordered[key] = None
    return list(ordered)


def _cut_cycles(parents: dict[str, str], order: Sequence[str]) -> None:
    """Makes the first message of each cycle, in reading order, a first message."""
    done: set[str] = set()
    rank = {key: place for place, key in enumerate(order)}
    for start in order:
        walk: list[str] = []
        seen: set[str] = set()
        key = start
        while key and key not in done and key not in seen:
            seen.add(key)
            walk.append(key)
            key = parents[key]
        if key in seen:
            parents[min(walk[walk.index(key) :], key=rank.__getitem__)] = ""
        done |= seen


def _read(tree: _Tree, path: list[str]) -> Iterator[Turn | Skipped]:
    """The turns of the path, each answer with its alternatives, and what is skipped."""
    on_path = set(path)
    texts: list[str] = []
    """Answers off the branch since its last turn: skipped messages may precede the answer on the branch."""
    for place, key in enumerate(path):
        node = tree.nodes[key]
        yield from node.skipped
        others = 0
        for sibling in tree.children.get(tree.parents[key], ()):
            if sibling in on_path:
                continue
            answer = _first_answer(tree, sibling) if place else None
            texts += [answer.text] if answer is not None else []
            others += _count(tree, sibling) - (answer is not None)
        turn = node.turn
        if turn is not None and turn.role is Role.ASSISTANT:
            distinct = tuple(text for text in dict.fromkeys(texts) if text != turn.text)
            others += len(texts) - len(distinct)
            turn = msgspec.structs.replace(turn, alternatives=distinct)
            texts = []
        elif turn is not None:
            others += len(texts)
            texts = []
        if others:
            yield Skipped(reason=_OTHER_BRANCH, count=others)
        if turn is not None:
            yield turn
    rest = len(texts) + sum(_count(tree, child) for child in tree.children.get(path[-1] if path else "", ()))
    if rest:
        yield Skipped(reason=_OTHER_BRANCH, count=rest)


def _count(tree: _Tree, start: str) -> int:
    return sum(tree.nodes[key].is_message for key in tree.downwards(start))


def _first_answer(tree: _Tree, key: str) -> Turn | None:
    """The first answer of the branch that begins at `key`: skipped messages may precede it."""
    if key in tree.guessed:
        return None
    while (turn := tree.nodes[key].turn) is None:
        below = tree.children.get(key)
        if not below:
            return None
        key = below[-1]
    return turn if turn.role is Role.ASSISTANT else None
