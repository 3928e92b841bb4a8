"""Native model folders are written atomically, and every changed bit is detected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.models.card import WEIGHTS_FILE
from engine.models.native_format import load_model, save_model
from engine.models.registry import find_model, in_use, list_models, new_name
from tests.unit.test_transformer import card, random_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "models" / "tiny", random_model(), card())
    return tmp_path / "models" / "tiny"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_flipped_bit_in_the_weights_is_detected(folder: Path, share: float) -> None:
    file = folder / WEIGHTS_FILE
    data = bytearray(file.read_bytes())
    data[int(len(data) * share)] ^= 0x10
    file.write_bytes(data)
    with pytest.raises(BadInput, match="hash differs"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "h2q.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model_type": "qwen3"}', b"\xff\xfe"])
def test_a_broken_config_or_card_is_bad_input(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=r"broken|architecture"):
        load_model(folder)


def test_weights_of_another_shape_are_rejected(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="do not match"):
        load_model(folder)


def test_an_error_names_the_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=str(tmp_path)):
        load_model(tmp_path)


def test_saving_again_replaces_the_folder(folder: Path) -> None:
    save_model(folder, random_model(), card())
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_the_registry_lists_finds_and_names(folder: Path, tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    assert [found.name for found in list_models(ws)] == ["tiny"]
    assert find_model(ws, "tiny") == folder == find_model(ws, str(folder))
    for missing in ("nobody", "../tiny/..", str(tmp_path)):
        with pytest.raises(BadInput):
            find_model(ws, missing)
    first = new_name(ws, "native", now=0)
    (ws.models / first).mkdir()
    assert new_name(ws, "native", now=0) == f"{first}-2"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"brain_models": {"leftbrain": "a"}, "default_model": "b"}', "a"),
        ('{"default_model": "b"}', "b"),
        ('{"models": []}', None),
    ],
)
def test_the_model_in_use_is_read_from_the_configuration(
    tmp_path: Path, content: str, name: str | None
) -> None:
    ws = Workspace(tmp_path)
    assert in_use(ws) is None
    ws.config.mkdir()
    ws.models_json.write_text(content)
    assert in_use(ws) == name


def test_the_error_of_a_broken_configuration_has_file_and_line(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    ws.config.mkdir()
    ws.models_json.write_text('{\n"models": [,]}')
    with pytest.raises(BadInput, match="line 2"):
        in_use(ws)
