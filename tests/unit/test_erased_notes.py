"""What people wrote about conversations goes with them: rules, reasons, former edits and names of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review import decision_log
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.pipeline.forget import forget
from engine.workspace.backup import create_backup
from engine.workspace.open import open_workspace
from tests.cli import run_cli
from tests.leftover_texts import places_with

SECRET = "ZEBRAQUARTZ"
TEXTS = (
    f"Please tell me about {SECRET}, which opens my safe; 我的银行密码是石榴树下",
    "Please tell me about granite, which is a stone",
    "Please tell me about walnut wood and how to polish it",
)


def talk(text: str) -> Conversation:
    return Conversation.of(
        [Turn(role=Role.USER, text=text), Turn(role=Role.ASSISTANT, text=f"It is {text[::-1]} backwards.")],
        source="text",
    )


IDS = [talk(text).id for text in TEXTS]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    with MemoryStore(workspace.memory_db) as store:
        store.add([talk(text) for text in TEXTS])
        build_corpus(store, Settings())
    return workspace


def rule(line: str, on: bool = True) -> tuple[str, tuple[object, ...]]:
    return "set_rule", (line, on, ())


UNDO: tuple[str, tuple[object, ...]] = ("undo", ())
ROUTES: dict[str, list[tuple[str, tuple[object, ...]]]] = {
    "rule": [rule(SECRET)],
    "rule with other spelling": [rule(f"-stage:near {SECRET.lower()} len>3")],
    "Chinese rule": [rule("石榴树下")],
    "undone rule": [rule(SECRET), UNDO],
    "undone rule after which something was decided": [rule(SECRET), UNDO, rule("walnut")],
    "ended rule": [rule(SECRET), rule(SECRET, False)],
    "reason about another one": [("decide", ([IDS[1]], "rejected", f"like the {SECRET} one"))],
    "reason in Chinese": [("decide", ([IDS[1]], "rejected", "和石榴树下那个一样"))],
    "undone reason": [("decide", ([IDS[1]], "rejected", f"as {SECRET}s")), UNDO],
    "undone edit": [("edit", (IDS[1], 0, f"tell me of {SECRET} or 石榴树下")), UNDO],
    "replaced edit": [
        ("edit", (IDS[1], 0, f"tell me of {SECRET}")),
        ("edit", (IDS[1], 0, "tell me of stone")),
    ],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("by_text", [False, True])
def test_what_quotes_it_goes_with_it(workspace: Workspace, route: str, by_text: bool) -> None:
    with MemoryStore(workspace.memory_db) as store:
        for step, arguments in ROUTES[route]:
            getattr(decision_log, step)(store.connection, *arguments)
    create_backup(workspace)
    wanted = [SECRET, "石榴树下"]
    forget(workspace, IDS[:1], text=SECRET if by_text else "")
    assert places_with(workspace.root, wanted) == []
    with MemoryStore(workspace.memory_db) as store:
        decision_log.undo(store.connection)
        decision_log.redo(store.connection)
        build_corpus(store, Settings())
        assert store.count() == 2
        assert not any(turn.text == "" for c in store.conversations() for turn in c.turns)


def test_notes_with_common_words_stay(workspace: Workspace) -> None:
    with MemoryStore(workspace.memory_db) as store:
        decision_log.set_rule(store.connection, "please stage:near", True, ())
        decision_log.set_rule(store.connection, "granite", True, ())
        decision_log.decide(store.connection, [IDS[1]], "rejected", "tell me about walnut")
        decision_log.edit(store.connection, IDS[2], 0, f"in force, {SECRET} stays")
    done = forget(workspace, IDS[:1])
    assert (done.rules, done.notes) == (0, 0)
    with MemoryStore(workspace.memory_db) as store:
        assert decision_log.active_rules(store.connection) == ["please stage:near", "granite"]
        assert decision_log.decisions_of(store.connection, IDS[1])[0].reason == "tell me about walnut"
        assert decision_log.edits_in_force(store.connection)[IDS[2]][0].text == f"in force, {SECRET} stays"


def test_a_rule_stays_while_another_conversation_has_its_word(workspace: Workspace) -> None:
    with MemoryStore(workspace.memory_db) as store:
        store.add([talk(f"Another {SECRET} thing")])
        decision_log.set_rule(store.connection, SECRET, True, ())
    assert forget(workspace, IDS[:1]).rules == 0
    assert forget(workspace, [talk(f"Another {SECRET} thing").id]).rules == 1
    assert places_with(workspace.root, [SECRET]) == []


def test_an_undone_edit_does_not_make_a_conversation_the_searched_one(workspace: Workspace) -> None:
    with MemoryStore(workspace.memory_db) as store:
        decision_log.edit(store.connection, IDS[1], 0, "about MARBLE now")
        assert store.ids_containing("marble") == IDS[1:2]
        decision_log.undo(store.connection)
        assert store.ids_containing("marble") == []
    assert forget(workspace, [], text="marble").notes == 1
    assert places_with(workspace.root, ["marble"]) == []


NAMES = ("my_ZebraQuartz_file.jsonl", "石榴树下.jsonl", "plain words.jsonl")


@pytest.mark.parametrize("by_text", [False, True])
@pytest.mark.parametrize("name", NAMES[:2])
def test_the_path_of_a_file_goes_with_the_first_conversation_that_it_names(
    tmp_path: Path, name: str, by_text: bool
) -> None:
    workspace, ids = _imported(tmp_path, name)
    done = forget(workspace, [ids[TEXTS[0]]], text=SECRET if by_text and name == NAMES[0] else "")
    assert len(done.runs) == 1
    assert places_with(workspace.root, [name, SECRET]) == []
    with MemoryStore(workspace.memory_db) as store:
        assert store.count() == 2


def test_the_path_of_a_file_that_names_nothing_stays_until_the_last(tmp_path: Path) -> None:
    workspace, ids = _imported(tmp_path, NAMES[2])
    assert forget(workspace, [ids[TEXTS[0]]]).runs == []
    assert any("memory.db" in place for place in places_with(workspace.root, [NAMES[2]]))
    forget(workspace, [ids[text] for text in TEXTS[1:]])
    assert places_with(workspace.root, [NAMES[2]]) == []


def _imported(tmp_path: Path, name: str) -> tuple[Workspace, dict[str, str]]:
    file = tmp_path / name
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text[::-1]}!"}]}
        for text in TEXTS
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    root = tmp_path / "h2q"
    assert run_cli("memory", "import", str(file), "--data-dir", str(root)).code == 0
    assert run_cli("backup", "create", "--data-dir", str(root)).code == 0
    workspace = Workspace(root)
    with MemoryStore(workspace.memory_db) as store:
        return workspace, {c.turns[0].text: c.id for c in store.conversations()}


def test_a_text_that_only_a_backup_and_an_old_export_hold_is_erased_there(workspace: Workspace) -> None:
    folder = workspace.training / "export"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"c{n}", "messages": [{"role": "user", "content": text}]}
        for n, text in enumerate((f"Tell: {SECRET}.", "other"))
    ]
    export = folder / "old.jsonl"
    export.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    create_backup(workspace)
    with MemoryStore(workspace.memory_db) as store:
        store.forget(IDS[:1])
    command = (
        "memory",
        "forget",
        "--match",
        SECRET.lower(),
        "--yes",
        "--json",
        "--data-dir",
        str(workspace.root),
    )
    done = json.loads(run_cli(*command).out)
    assert (done["ids"], done["files"], done["backups"]) == ([], [str(export)], 1)
    assert places_with(workspace.root, [SECRET]) == []
    assert json.loads(export.read_text(encoding="utf-8"))["id"] == "c1"
    refused = run_cli(*command)
    assert refused.code == 2
    assert "contains" in refused.out + refused.err
