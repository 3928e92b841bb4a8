"""A second import with `--map` replaces the halves that the first import left in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.memory.importers.fields import ImportOptions
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths

MAPPED = ImportOptions(roles={"oracle": Role.ASSISTANT})


def messages(name: str, speaker: str) -> list[dict[str, str]]:
    texts = [("user", f"{name} q1"), (speaker, f"{name} a1"), ("user", f"{name} q2"), (speaker, f"{name} a2")]
    return [{"role": role, "content": text} for role, text in texts]


def talks() -> list[list[dict[str, str]]]:
    only_oracle = [{"role": "oracle", "content": "alone"}, {"role": "oracle", "content": "still alone"}]
    return [
        messages("one", "oracle"),
        messages("known", "assistant"),
        only_oracle,
        messages("two", "oracle"),
    ]


def openai_file(folder: Path, *, ids: bool, dated: bool) -> Path:
    rows = [
        {"messages": talk} | ({"id": f"c{n}"} if ids else {}) | ({"updated_at": 1.7e9 + n} if dated else {})
        for n, talk in enumerate(talks())
    ]
    path = folder / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def sharegpt_file(folder: Path) -> Path:
    rows = [
        {"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in talk]}
        for talk in talks()
    ]
    path = folder / "x.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def current(store: MemoryStore) -> list[list[str]]:
    return sorted([turn.text for turn in conversation.turns] for conversation in store.conversations())


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_the_whole_conversations_replace_their_halves(
    tmp_path: Path, ids: bool, dated: bool, share: bool
) -> None:
    path = sharegpt_file(tmp_path) if share else openai_file(tmp_path, ids=ids, dated=dated)
    whole = sorted([turn["content"] for turn in talk] for talk in talks())
    with MemoryStore(tmp_path / "memory.db") as store:
        first = import_paths(store, [path])
        assert first.conversations == 3 and sum(first.skipped.values()) >= 4
        second = import_paths(store, [path], options=MAPPED)
        assert current(store) == whole
        assert (second.added, second.unchanged, second.superseded) == (3, 1, 2)
        again = import_paths(store, [path], options=MAPPED)
        assert (again.added, again.unchanged, again.superseded) == (0, 4, 0)
        without = import_paths(store, [path])
        assert (without.added, current(store)) == (0, whole)


def test_a_forgotten_conversation_does_not_replace_its_half(tmp_path: Path) -> None:
    path = openai_file(tmp_path, ids=False, dated=False)
    with MemoryStore(tmp_path / "memory.db") as store:
        import_paths(store, [path], options=MAPPED)
        gone = [c.id for c in store.conversations() if c.turns[0].text == "one q1"]
        store.forget(gone)
        import_paths(store, [path])
        import_paths(store, [path], options=MAPPED)
        assert ["one q1", "one q2"] in current(store)


def test_a_mapped_text_replaces_the_text_without_the_map(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("User: q1\nAssistant: a1\nOracle: o1\n---\nUser: q2\nAssistant: a2\n", encoding="utf-8")
    with MemoryStore(tmp_path / "memory.db") as store:
        import_paths(store, [path])
        second = import_paths(store, [path], options=MAPPED)
        assert second.superseded == 1
        assert len(current(store)) == 2


def test_a_broken_line_is_named_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = openai_file(folder, ids=False, dated=False)
    path.write_text("{]\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with MemoryStore(tmp_path / "memory.db") as store:
        import_paths(store, [folder])
        second = import_paths(store, [folder], options=MAPPED)
    assert (len(second.unread), second.superseded) == (1, 2)
