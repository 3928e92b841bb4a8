from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.core.errors import Busy
from engine.core.paths import Workspace
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.models.card import CARD_FILE, Lineage, ModelCard, encode_card
from engine.pipeline.forget import forget
from engine.runs import lock
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from engine.workspace.backup import create_backup, list_backups
from engine.workspace.open import open_workspace

SECRET = "my-safe-opens-with-4711"


def talk(text: str) -> Conversation:
    return Conversation.of(
        [Turn(role=Role.USER, text=text), Turn(role=Role.ASSISTANT, text="ok")], source="text"
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    with MemoryStore(workspace.memory_db) as store:
        store.add([talk(SECRET), talk("harmless")])
    return workspace


def test_no_file_in_the_workspace_contains_a_forgotten_conversation(workspace: Workspace) -> None:
    forgotten, other = talk(SECRET).id, talk("harmless").id
    dataset = workspace.training / "train_data_1.jsonl"
    rows = [
        {"id": id_, "messages": [{"role": "user", "content": text}]}
        for id_, text in ((forgotten, SECRET), (other, "x"))
    ]
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = workspace.training / "report_1.json"
    answer = {"question": SECRET, "wanted": "ok", "base": "", "new": ""}
    report.write_text(
        json.dumps(
            {
                "validation": {
                    "cases": [{"conversation": forgotten}, {"conversation": other}],
                    "answers": [answer],
                }
            }
        )
    )
    run = create_run(workspace, make_spec(workspace.root, CorpusParams()))
    journal = json.dumps({"v": 1, "data": {"cases": [{"conversation": forgotten}], "answers": [answer]}})
    run.events_path.write_text('{"v":1}\n' + journal + "\n")
    for name, ids in (("knows", [forgotten]), ("innocent", [other])):
        (workspace.models / name).mkdir()
        card = ModelCard(
            name=name,
            mode="native",
            created_at=1.0,
            parameters=1,
            context=1,
            lineage=Lineage(conversations=ids),
        )
        (workspace.models / name / CARD_FILE).write_bytes(encode_card(card))
    create_backup(workspace)

    result = forget(workspace, [forgotten])

    assert result.ids == [forgotten]
    assert (result.backups, result.models) == (1, ["knows"])
    assert set(result.files) == {str(dataset), str(report), str(run.events_path)}
    for path in workspace.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += gzip.decompress(data) if path.suffix == ".gz" else b""
            assert SECRET.encode() not in data, path
    assert [json.loads(line)["id"] for line in dataset.read_text().splitlines()] == [other]
    assert json.loads(report.read_text())["validation"]["cases"] == [{"conversation": other}]
    assert len(run.events_path.read_text().splitlines()) == 2
    assert len(list_backups(workspace)) == 1


def test_synthetic_data_derived_from_it_is_deleted(workspace: Workspace) -> None:
    forgotten, other = talk(SECRET).id, talk("harmless").id
    dataset = workspace.training / "train_data_evolve-1-c1.jsonl"
    rows = [
        {"id": f"made:retrieved:{other}", "messages": [{"role": "user", "content": SECRET}], "made_from": [other, forgotten]},
        {"id": f"made:recombined:{other}", "messages": [], "made_from": [other]},
        {"id": "odd", "messages": [], "made_from": forgotten},
    ]  # fmt: skip
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    forget(workspace, [forgotten])
    assert [json.loads(line)["id"] for line in dataset.read_text().splitlines()] == [
        f"made:recombined:{other}",
        "odd",
    ]


def test_other_files_are_not_rewritten(workspace: Workspace) -> None:
    dataset = workspace.training / "train_data_1.jsonl"
    dataset.write_bytes(b'{"id": "other"}\nnot json\n')
    before = dataset.stat().st_mtime_ns
    assert forget(workspace, [talk(SECRET).id]).files == []
    assert dataset.stat().st_mtime_ns == before


def test_a_live_run_prevents_forgetting(workspace: Workspace) -> None:
    import os

    run = create_run(workspace, make_spec(workspace.root, CorpusParams()))
    fd = lock.acquire(run.lock_path)
    assert fd is not None
    try:
        with pytest.raises(Busy, match=run.run_id):
            forget(workspace, [talk(SECRET).id])
    finally:
        os.close(fd)
    with MemoryStore(workspace.memory_db) as store:
        assert store.count() == 2
