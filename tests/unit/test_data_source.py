from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.memory.data_source import MemoryDataSource, TrainingDataSource, last_training_file
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.transcripts import text
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.models.card import CARD_FILE, Lineage, ModelCard, encode_card
from engine.workspace.open import open_workspace
from engine.workspace.sample import write_sample


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(Workspace(tmp_path / "h2q"))


def test_a_memory_point_is_a_transcript(workspace: Workspace, tmp_path: Path) -> None:
    conversation = Conversation.of(
        [Turn(role=Role.USER, text="你好", time=86400.0), Turn(role=Role.ASSISTANT, text="在\n吗")],
        source="text",
    )
    with MemoryStore(workspace.memory_db) as store:
        store.add([conversation])
    source: TrainingDataSource = MemoryDataSource(workspace)
    (point,) = source.get_all_memory_points()
    assert point.conversation == conversation
    assert point.created_at == datetime(1970, 1, 2, tzinfo=UTC)
    path = tmp_path / "t.txt"
    path.write_text(point.content, encoding="utf-8")
    (again,) = text.read(path, ImportOptions())
    assert isinstance(again, Conversation)
    assert [(t.role, t.text) for t in again.turns] == [(t.role, t.text) for t in conversation.turns]


def test_the_last_training_has_mindx_format(workspace: Workspace) -> None:
    adapter = MemoryDataSource(workspace)
    assert adapter.get_last_train_time() is None
    moment = datetime(2026, 3, 7, 2, 19, 26, 123456, tzinfo=timezone(timedelta(hours=8)))
    adapter.update_last_train_time(moment)
    assert adapter.get_last_train_time() == moment
    (written,) = json.loads(last_training_file(workspace).read_text()).values()
    assert datetime.fromisoformat(written) == moment


def test_nine_fractional_digits_are_read(workspace: Workspace) -> None:
    last_training_file(workspace).write_text(
        '{\n  "last_train_time": "2026-03-07T02:19:26.123456789+08:00"\n}'
    )
    time = MemoryDataSource(workspace).get_last_train_time()
    assert time == datetime(2026, 3, 6, 18, 19, 26, 123456, tzinfo=UTC)


@pytest.mark.parametrize("data", ["", "[]", "{}", "null"])
def test_a_damaged_file_is_bad_input(workspace: Workspace, data: str) -> None:
    last_training_file(workspace).write_text(data)
    with pytest.raises(BadInput, match=r"last_training\.json"):
        MemoryDataSource(workspace).get_last_train_time()


def test_the_last_train_time_follows_the_model_in_use(workspace: Workspace) -> None:
    adapter = MemoryDataSource(workspace)
    adapter.update_last_train_time(datetime(2030, 1, 1, tzinfo=UTC))
    (workspace.models / "m").mkdir()
    card = ModelCard(
        name="m",
        mode="native",
        created_at=1.0,
        parameters=1,
        context=1,
        lineage=Lineage(newest_conversation=86400.0),
    )
    (workspace.models / "m" / CARD_FILE).write_bytes(encode_card(card))
    workspace.models_json.write_text('{"models": [], "brain_models": {"leftbrain": "m"}}')
    assert adapter.get_last_train_time() == datetime(1970, 1, 2, tzinfo=UTC)


def test_the_sample_overwrites_nothing(tmp_path: Path) -> None:
    first = write_sample(tmp_path / "s")
    assert "text/crosswoz.txt" in first.written
    assert (tmp_path / "s" / "README.md").is_file()
    again = write_sample(tmp_path / "s")
    assert (again.written, sorted(again.unchanged)) == ([], sorted(first.written))
    mine = tmp_path / "s" / "memory" / "crosswoz.jsonl"
    mine.write_text("mine")
    (tmp_path / "s" / "README.md").unlink()
    with pytest.raises(BadInput, match="crosswoz"):
        write_sample(tmp_path / "s")
    assert mine.read_text() == "mine"
    assert not (tmp_path / "s" / "README.md").exists()


def test_sample_memory_and_text_do_not_overlap(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "s")
    plain = (Path(sample.text) / "crosswoz.txt").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (Path(sample.memory) / "crosswoz.jsonl").open(encoding="utf-8")]
    assert len(rows) == 300
    labels = {"user": "用户", "assistant": "助手"}
    for row in rows:
        assert set(row) == {"id", "messages"}
        rendered = "".join(f"{labels[m['role']]}：{m['content']}\n" for m in row["messages"])
        assert rendered not in plain
