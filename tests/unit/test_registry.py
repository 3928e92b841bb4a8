"""Promotion and rollback of models.json: atomic, everything else preserved, always reversible."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.models.card import CARD_FILE, ModelCard, encode_card
from engine.models.registry import backups, in_use, promote, remove_model, rollback

NOON = 1_760_000_000.0
MINDX = """{
  "models": [
    {"name": "qwen3:0.6b", "api_key": "secret", "temperature": 0.70, "描述": "左脑"},
    {"name": "qwen3:0.6b", "max_tokens": 40960}
  ],
  "brain_models": {"leftbrain": "qwen3:0.6b", "rightbrain": "qwen3:1.7b"},
  "embedding_model": "bge-small-zh",
  "x": [1, null, true]
}"""


def put_model(folder: Path) -> None:
    """A minimal model folder: a card and weights with the hash in it."""
    from hashlib import sha256

    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights of " + folder.name.encode())
    card = ModelCard(
        name=folder.name,
        mode="native",
        created_at=1.0,
        parameters=1,
        context=256,
        weights_sha256=sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    )
    (folder / CARD_FILE).write_bytes(encode_card(card))


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "ws")
    for name in ("one", "two"):
        put_model(made.models / name)
    return made


def write_config(ws: Workspace, text: str | bytes) -> None:
    ws.config.mkdir(exist_ok=True)
    ws.models_json.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_the_first_promotion_writes_the_file_and_can_be_rolled_back(ws: Workspace) -> None:
    done = promote(ws, "one", "better", now=NOON)
    assert (done.name, done.previous, in_use(ws)) == ("one", "", "one")
    found = json.loads(ws.models_json.read_text())
    assert found["default_model"] == found["brain_models"]["leftbrain"] == "one"
    entry = found["models"][0]
    assert (entry["name"], entry["domain"], entry["description"]) == ("one", "subconscious", "better")
    back = rollback(ws, now=NOON + 60)
    assert not ws.models_json.exists() and in_use(ws) is None
    assert (back.name, back.previous) == ("", "one")


def test_backups_have_mindx_names(ws: Workspace) -> None:
    write_config(ws, MINDX)
    done = promote(ws, "one", now=NOON)
    assert re.fullmatch(r"models\.json\.backup\.\d{8}_\d{6}", Path(done.backup).name)
    assert Path(done.backup).read_text() == MINDX


def test_other_models_and_unknown_fields_are_preserved(ws: Workspace) -> None:
    write_config(ws, MINDX)
    promote(ws, "one")
    before, after = json.loads(MINDX), json.loads(ws.models_json.read_text())
    assert after["models"][:2] == before["models"]
    assert after["brain_models"] == {"leftbrain": "one", "rightbrain": "qwen3:1.7b"}
    assert (after["embedding_model"], after["x"]) == (before["embedding_model"], before["x"])


def test_promoting_twice_leaves_one_entry(ws: Workspace) -> None:
    promote(ws, "one", "first")
    promote(ws, "two")
    promote(ws, "one", "again")
    entries = [item for item in json.loads(ws.models_json.read_text())["models"] if item["name"] == "one"]
    assert [item["description"] for item in entries] == ["again"]


def test_rollback_restores_byte_for_byte(ws: Workspace) -> None:
    write_config(ws, MINDX)
    promote(ws, "one", now=NOON)
    rollback(ws, now=NOON + 5)
    assert ws.models_json.read_text() == MINDX


def test_a_rollback_can_be_rolled_back(ws: Workspace) -> None:
    promote(ws, "one", now=NOON)
    promote(ws, "two", now=NOON + 10)
    promoted = ws.models_json.read_bytes()
    assert rollback(ws, now=NOON + 20).name == "one"
    assert rollback(ws, now=NOON + 30).name == "two"
    assert ws.models_json.read_bytes() == promoted


def test_any_backup_can_be_chosen(ws: Workspace) -> None:
    write_config(ws, MINDX)
    first = promote(ws, "one", now=NOON)
    promote(ws, "two", now=NOON + 10)
    stamp = Path(first.backup).name.rsplit(".", 1)[1]
    assert rollback(ws, stamp, now=NOON + 20).restored == stamp
    assert ws.models_json.read_text() == MINDX
    with pytest.raises(BadInput, match="no backup 20010101_000000"):
        rollback(ws, "20010101_000000")


@pytest.mark.parametrize("step", [0.0, -3600.0])
def test_backups_of_one_second_and_of_a_clock_set_back_keep_their_order(ws: Workspace, step: float) -> None:
    for number in range(4):
        promote(ws, ("one", "two")[number % 2], now=NOON + number * step)
    assert [backup.model for backup in backups(ws)] == ["one", "two", "one", ""]
    assert len({backup.stamp for backup in backups(ws)}) == 4


def test_files_with_similar_names_are_not_backups(ws: Workspace) -> None:
    promote(ws, "one", now=NOON)
    for name in (
        "models.json.backup.20990101",
        "models.json.backup.x",
        "models.json.backup.99999999_999999.txt",
    ):
        (ws.config / name).write_text("{}")
    assert len(backups(ws)) == 1


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ('{"models": [\n  {"name": "a",}\n]}', 2),
        ('{"models": "many"}', None),
        ("[]", None),
        ('{"models": [], "brain_models": [1]}', None),
        ('{"models": [], "brain_models": {"leftbrain": 5}}', None),
        ('{"models": [], "default_model": ["one"]}', None),
        ('{"models": [], "temperature": NaN}', None),
        (b'{"models": [], "x": "\xff"}', None),
    ],
)
def test_a_broken_file_is_reported_and_kept(ws: Workspace, broken: str | bytes, line: int | None) -> None:
    write_config(ws, broken)
    before = ws.models_json.read_bytes()
    with pytest.raises(BadInput) as problem:
        promote(ws, "one")
    assert (problem.value.path, problem.value.line) == (ws.models_json, line)
    assert ws.models_json.read_bytes() == before
    assert backups(ws) == []
    if "NaN" not in str(broken):  # a number that only a writer of JSON may not write
        with pytest.raises(BadInput) as problem:
            in_use(ws)
        assert (problem.value.path, problem.value.line) == (ws.models_json, line)


def test_a_broken_file_can_be_rolled_back_and_is_not_lost(ws: Workspace) -> None:
    promote(ws, "one", now=NOON)
    promote(ws, "two", now=NOON + 10)
    write_config(ws, "{broken")
    back = rollback(ws, now=NOON + 20)
    assert back.name == "one"
    assert Path(back.backup).read_text() == "{broken"
    assert [backup.readable for backup in backups(ws)] == [False, True, True]


def test_unknown_models_and_changed_weights_are_rejected(ws: Workspace) -> None:
    with pytest.raises(BadInput, match="no model named nothing"):
        promote(ws, "nothing")
    weights = ws.models / "one" / "model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[3] ^= 1
    weights.write_bytes(flipped)
    with pytest.raises(BadInput, match="hash"):
        promote(ws, "one")
    assert not ws.models_json.exists()


def test_a_model_outside_the_workspace_is_found_again(ws: Workspace, tmp_path: Path) -> None:
    from engine.models.registry import find_model

    put_model(tmp_path / "elsewhere" / "mine")
    promote(ws, str(tmp_path / "elsewhere" / "mine"))
    used = in_use(ws)
    assert used is not None
    assert find_model(ws, used) == (tmp_path / "elsewhere" / "mine").resolve()


def test_file_permissions_are_preserved(ws: Workspace) -> None:
    write_config(ws, MINDX)
    ws.models_json.chmod(0o600)
    done = promote(ws, "one")
    assert [Path(path).stat().st_mode & 0o777 for path in (ws.models_json, done.backup)] == [0o600, 0o600]


def test_a_full_disk_changes_nothing(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(ws, "one", now=NOON)
    before = ws.models_json.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        promote(ws, "two", now=NOON + 10)
    monkeypatch.undo()
    assert ws.models_json.read_bytes() == before
    assert [file.name for file in ws.config.iterdir() if file.suffix == ".tmp"] == []


def test_without_a_backup_there_is_nothing_to_roll_back_to(ws: Workspace) -> None:
    with pytest.raises(BadInput, match="no backup"):
        rollback(ws)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.dictionaries(st.text(), json_values, max_size=4), indent=st.sampled_from([None, 1, 4]))
def test_any_file_content_survives_promotion_and_rollback(
    ws: Workspace, extra: dict[str, object], indent: int | None
) -> None:
    extra = {
        key: value for key, value in extra.items() if key not in ("models", "brain_models", "default_model")
    }
    data = json.dumps(extra, indent=indent).encode()
    write_config(ws, data)
    promote(ws, "one")
    after = json.loads(ws.models_json.read_text())
    assert {key: after[key] for key in extra} == json.loads(data)
    rollback(ws)
    assert ws.models_json.read_bytes() == data


def test_the_model_in_use_is_not_removed(ws: Workspace) -> None:
    promote(ws, "one")
    with pytest.raises(UsageProblem, match="in use"):
        remove_model(ws, "one")
    remove_model(ws, "two")
    assert [folder.name for folder in ws.models.iterdir()] == ["one"]
    for name in ("two", "../ws", ".", ""):
        with pytest.raises(BadInput):
            remove_model(ws, name)
