"""The tree of messages: repaired links, the branch that is read, and the count of all others."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.core.chat import Role
from engine.memory.importers.message_tree import MessageNode, current_branch
from engine.memory.records import Skipped, Turn

USER, ASSISTANT = Role.USER, Role.ASSISTANT


def node(role: Role, text: str, parent: str | None, *children: str, time: float = 0.0) -> MessageNode:
    return MessageNode(parent=parent, children=children, turn=Turn(role=role, text=text), time=time)


def branch(nodes: Mapping[str, MessageNode], current: object = None) -> tuple[list[str], list[str], int]:
    """The texts of the branch, its alternatives, and the number of other messages."""
    texts, alternatives, others = list[str](), list[str](), 0
    for item in current_branch(nodes, current):
        if isinstance(item, Turn):
            texts.append(item.text)
            alternatives += item.alternatives
        else:
            others += item.count
    return texts, alternatives, others


TALK = {
    "1": node(USER, "Q1", "", "2", time=1),
    "2": node(ASSISTANT, "A1", "1", "3", time=2),
    "3": node(USER, "Q2", "2", "4", time=3),
    "4": node(ASSISTANT, "A2", "3", time=4),
}
WHOLE = ["Q1", "A1", "Q2", "A2"]


def without(nodes: Mapping[str, MessageNode], *names: str, **keys: object) -> dict[str, MessageNode]:
    """The nodes, with changes of fields: `parent_2=None` or `children=()` of all."""
    changed = {}
    for key, one in nodes.items():
        fields = {name.partition("_")[0]: value for name, value in keys.items() if name.endswith(f"_{key}")}
        fields |= {name: value for name, value in keys.items() if "_" not in name}
        changed[key] = replace(one, **fields)
    return {key: one for key, one in changed.items() if key not in names}


@pytest.mark.parametrize("parent", [None, ""])
@pytest.mark.parametrize("broken", ["2", "3", "4", "234"])
def test_a_missing_upward_link_is_repaired_by_the_children_lists(parent: str | None, broken: str) -> None:
    nodes = without(TALK, **{f"parent_{key}": parent for key in broken})
    assert branch(nodes, "4") == (WHOLE, [], 0)


@pytest.mark.parametrize("time", [None, 0.0, 5.0])
@pytest.mark.parametrize("broken", ["2", "4", "24"])
def test_an_answer_without_any_link_belongs_to_the_question_before_it(
    time: float | None, broken: str
) -> None:
    nodes = without(TALK, children=(), **{f"parent_{key}": "" for key in broken})
    nodes = nodes if time is None else {key: replace(one, time=time) for key, one in nodes.items()}
    assert branch(nodes, "4") == (WHOLE, [], 0)


def test_messages_without_any_link_are_read_in_order() -> None:
    nodes = without(TALK, children=(), parent=None)
    assert branch(nodes) == (WHOLE, [], 0)
    backwards = {key: nodes[key] for key in reversed(nodes)}
    assert branch(backwards) == (WHOLE, [], 0)


def test_an_edited_first_question_is_another_branch() -> None:
    nodes = {**TALK, "5": node(USER, "Q1 again", "", "6", time=5), "6": node(ASSISTANT, "A1b", "5", time=6)}
    assert branch(nodes, "6") == (["Q1 again", "A1b"], [], 4)
    assert branch(nodes, "4") == (WHOLE, [], 2)
    assert branch(nodes) == (["Q1 again", "A1b"], [], 4)


def test_an_unlinked_answer_to_an_answered_question_is_no_alternative() -> None:
    nodes = without({**TALK, "4b": node(ASSISTANT, "A?", "", time=5)}, children=())
    assert branch(nodes, "4") == (WHOLE, [], 1)
    assert branch(nodes, "4b") == ([*WHOLE[:3], "A?"], ["A2"], 0)


def test_an_unlinked_answer_follows_the_reasoning_before_it() -> None:
    thought = MessageNode(parent="3", skipped=(Skipped(reason="reasoning"),), time=3.5)
    nodes = without({**TALK, "t": thought}, children=(), parent_4="")
    assert list(current_branch(nodes, "4"))[-2:] == [
        Skipped(reason="reasoning"),
        Turn(role=ASSISTANT, text="A2"),
    ]


@pytest.mark.parametrize("current", ["4", "4x", None, 7, ["4"]])
def test_a_role_less_or_unknown_current_node_ends_at_the_newest_message(current: object) -> None:
    gone = MessageNode(parent="3", skipped=(Skipped(reason="message without a role"),))
    nodes = {**TALK, "4x": gone}
    assert branch(nodes, current) == (WHOLE, [], 1)


def test_a_role_less_current_node_without_a_link_loses_nothing() -> None:
    lonely = MessageNode(parent=None, skipped=(Skipped(reason="message without a role"),))
    assert branch({**TALK, "9": lonely}, "9") == (WHOLE, [], 1)
    assert branch({"9": lonely, **TALK}, "9") == (WHOLE, [], 1)


def test_a_failed_retry_gives_way_to_the_answer_beside_it() -> None:
    retry = MessageNode(parent="3", skipped=(Skipped(reason="failed answer"),), time=9)
    assert branch({**TALK, "4x": retry}, "4x") == (WHOLE, [], 1)


def test_a_failed_last_answer_is_counted_by_its_own_reason() -> None:
    nodes = {
        **without(TALK, "4"),
        "4": MessageNode(parent="3", skipped=(Skipped(reason="failed answer"),), time=4),
    }
    assert list(current_branch(nodes, "4"))[-1] == Skipped(reason="failed answer")
    assert list(current_branch(nodes))[-1] == Skipped(reason="failed answer")


@pytest.mark.parametrize("first", ["", None, "00000000-0000-4000-8000-000000000000"])
def test_an_answer_to_a_lost_question_stands_behind_a_gap(first: str | None) -> None:
    nodes = without(TALK, "3", children=(), parent_1=first)
    assert branch(nodes, "4") == (["Q1", "A1", "", "A2"], [], 0)
    below_a_root = {"r": MessageNode(parent=""), **without(TALK, "3", children=(), parent_1="r")}
    assert branch(below_a_root, "4") == (["Q1", "A1", "", "A2"], [], 0)
    regenerated = {**nodes, "4b": node(ASSISTANT, "A2b", "3", time=5)}
    assert branch(regenerated, "4") == (["Q1", "A1", "", "A2"], ["A2b"], 0)


def test_a_wrong_link_after_an_open_question_is_no_gap() -> None:
    assert branch(without(TALK, children=(), parent_4="?"), "4") == (WHOLE, [], 0)


def test_a_question_after_a_lost_answer_stays_in_the_talk() -> None:
    assert branch(without(TALK, "2", children=()), "4") == (["Q1", "Q2", "A2"], [], 0)


def test_a_system_message_without_links_stays_before_the_question() -> None:
    system = MessageNode(parent="", turn=Turn(role=Role.SYSTEM, text="S"))
    assert branch({"s": system, **TALK}, "4") == (["S", *WHOLE], [], 0)


def test_alternatives_that_repeat_the_answer_are_counted() -> None:
    nodes = {**TALK, "4b": node(ASSISTANT, "A2", "3", time=5), "4c": node(ASSISTANT, "A3", "3", time=6)}
    assert branch(nodes, "4") == (WHOLE, ["A3"], 1)


def test_cycles_and_links_to_itself_end() -> None:
    nodes = {
        "a": node(USER, "q", "b", "b"),
        "b": node(ASSISTANT, "r", "a", "a"),
        "": node(USER, "x", "", ""),
        "c": node(ASSISTANT, "y", "c", "c", "c"),
    }
    texts, alternatives, others = branch(nodes, "b")
    assert texts == ["q", "r"]
    assert len(texts) + len(alternatives) + others == 4


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, MessageNode], str]:
    """A whole tree, in the order of its times, and the id of its current leaf."""
    size = draw(st.integers(1, 14))
    parents = [draw(st.integers(-1, place - 1)) if place else -1 for place in range(size)]
    # One first message: a second one is an edit, which no repair can tell from a lost link.
    parents = [max(parent, 0) if place else -1 for place, parent in enumerate(parents)]
    depth: list[int] = []
    for parent in parents:
        depth.append(depth[parent] + 1 if parent >= 0 else 0)
    nodes = {
        f"n{place}": node(
            ASSISTANT if depth[place] % 2 else USER,
            f"text {place}",
            f"n{parent}" if place else "",
            *(f"n{child}" for child, other in enumerate(parents) if other == place),
            time=1000.0 + place,
        )
        for place, parent in enumerate(parents)
    }
    leaves = [key for key, one in nodes.items() if not one.children]
    return nodes, draw(st.sampled_from(leaves))


@settings(max_examples=120, deadline=None)
@given(trees(), st.randoms(use_true_random=False), st.sampled_from(["all", "upward", "downward"]))
def test_any_order_and_any_lost_link_give_the_same_branch(
    tree: tuple[dict[str, MessageNode], str], chance: random.Random, lost: str
) -> None:
    nodes, current = tree
    path = [current]
    while nodes[path[-1]].parent:
        path.append(str(nodes[path[-1]].parent))
    expected = [f"text {key[1:]}" for key in reversed(path)]
    broken = {}
    keys = list(nodes)
    chance.shuffle(keys)
    for key in keys:
        one = nodes[key]
        if lost == "downward":
            one = replace(one, children=())
        elif lost == "upward" and chance.random() < 0.5:
            one = replace(one, parent=chance.choice([None, "", "gone"]) if key != "n0" else "")
        broken[key] = one
    texts, alternatives, others = branch(broken, current)
    assert texts == expected
    assert len(texts) + len(alternatives) + others == len(nodes)
    assert branch(nodes, current) == (texts, alternatives, others)


@settings(max_examples=120, deadline=None)
@given(st.integers(2, 12), st.booleans(), st.randoms(use_true_random=False))
def test_a_talk_without_branches_needs_no_links_but_times(
    size: int, has_root: bool, chance: random.Random
) -> None:
    root = {"r": MessageNode(parent="")} if has_root else {}
    nodes = {}
    for place in range(size):
        lost = [None, f"gone {place}"]
        # Without a root, a question that claims to be the first is an edit of the first.
        lost += [""] if has_root or place % 2 else []
        known = f"n{place - 1}" if place else "r"
        nodes[f"n{place}"] = node(
            ASSISTANT if place % 2 else USER,
            f"text {place}",
            known if not place or chance.random() < 0.5 else chance.choice(lost),
            time=1000.0 + place,
        )
    keys = [*root, *nodes]
    chance.shuffle(keys)
    found = branch({key: (root | nodes)[key] for key in keys}, f"n{size - 1}")
    assert found == ([f"text {place}" for place in range(size)], [], 0)


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["", *"abcdefg"]),
        st.builds(
            MessageNode,
            parent=st.sampled_from([None, "", *"abcdefgxy"]),
            children=st.lists(st.sampled_from(["", *"abcdefgx"]), max_size=3).map(tuple),
            turn=st.one_of(
                st.none(),
                st.builds(
                    Turn, role=st.sampled_from([USER, ASSISTANT, Role.SYSTEM]), text=st.sampled_from("pqrs")
                ),
            ),
            time=st.sampled_from([0.0, 1.0, 2.0]),
        ),
        max_size=8,
    ),
    st.sampled_from([None, "", *"abcx"]),
)
def test_every_message_of_any_tree_is_taken_an_alternative_or_counted(
    nodes: dict[str, MessageNode], current: str | None
) -> None:
    nodes = {
        key: one if one.turn else replace(one, skipped=(Skipped(reason="empty message"),))
        for key, one in nodes.items()
    }
    texts, alternatives, others = branch(nodes, current)
    assert len([text for text in texts if text]) + len(alternatives) + others == len(nodes)
    if any(one.turn for one in nodes.values()):
        assert texts


def test_a_long_talk_without_links_is_read_in_linear_time() -> None:
    nodes = {str(place): node(ASSISTANT if place % 2 else USER, f"t{place}", None) for place in range(20_000)}
    texts, _alternatives, others = branch(nodes)
    assert (len(texts), others) == (20_000, 0)
