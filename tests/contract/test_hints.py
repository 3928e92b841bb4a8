"""Hints: none deletes a model but the one that the person has named, and none of a broken file deletes anything."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.export.source import check_weights, find_export_source
from engine.models.adapters import adapter_weights
from engine.models.card import CARD_FILE, ModelCard, encode_card, load_card
from engine.models.native_format import load_model
from engine.models.registry import check_removable, promote

ROOT = Path(__file__).parents[2]
DELETES = re.compile(r"\brm |h2q-tui (?:models remove|reset|memory forget|schedule remove)")
"""How a command that deletes is written in a text."""
ALLOWED = {
    (
        "engine/workspace/open.py",
        "rm ",
    ): "the file with the number of the schema, which is made again",
    (
        "engine/memory/data_source.py",
        "rm ",
    ): "a note of the time of the last training, which the next one writes",
    ("engine/serving/ollama_store.py", "h2q-tui models remove"): "what a program has just asked to delete",
    ("tui/cli/commands/models.py", "h2q-tui models remove"): "the command as it was typed, with --yes",
    ("tui/cli/commands/memory.py", "h2q-tui models remove"): "a model that was trained on what was forgotten",
}
"""(file, command) → why its hint may delete."""


def test_every_text_with_a_command_that_deletes_is_accounted_for() -> None:
    found = set()
    for file in (*ROOT.glob("engine/**/*.py"), *ROOT.glob("tui/**/*.py")):
        source = file.read_text(encoding="utf-8")
        if not DELETES.search(source):
            continue
        tree = ast.parse(source)
        documentation = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if text and id(node) not in documentation and (command := DELETES.search(text)):
                found.add((file.relative_to(ROOT).as_posix(), command[0]))
    assert found == set(ALLOWED)


@pytest.fixture
def ws(tmp_path: Path, knowing_hf: Path) -> Workspace:
    """A workspace with the good adapter `lora-1` on `base`; `broken` is what a test damages."""
    ws = Workspace(tmp_path / "ws")
    shutil.copytree(knowing_hf, ws.models / "base", copy_function=shutil.copyfile)
    card = ModelCard(
        name="lora-1", mode="lora", created_at=0.0, parameters=1, context=64, weights_sha256="0" * 64
    )
    put(ws.adapters / "lora-1", card, base_path=str(ws.models / "base"))
    return ws


def put(folder: Path, card: ModelCard, base_path: str) -> None:
    """An adapter's folder with a card that its weights do not fit."""
    import msgspec

    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "base_model_name_or_path": "{base_path}"}}'
    )
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / CARD_FILE).write_bytes(encode_card(msgspec.structs.replace(card, base_path=base_path)))


def merged_with_other_weights(ws: Workspace) -> None:
    """A merged export bears the name of its adapter in its card."""
    folder = Path(shutil.copytree(ws.models / "base", ws.exports / "lora-1-hf"))
    card = ModelCard(
        name="lora-1", mode="lora", created_at=0.0, parameters=1, context=64, weights_sha256="0" * 64
    )
    (folder / CARD_FILE).write_bytes(encode_card(card))
    check_weights(find_export_source(ws, str(folder)))


def adapter_with_other_weights(ws: Workspace) -> None:
    adapter_weights(ws.adapters / "lora-1")


def adapter_with_other_weights_exported(ws: Workspace) -> None:
    check_weights(find_export_source(ws, "lora-1"))


def adapter_with_other_weights_promoted(ws: Workspace) -> None:
    promote(ws, "lora-1")


def native_model_without_weights(ws: Workspace) -> None:
    """Its card bears the name of another model, as that of a copied or renamed folder does."""
    from engine.models.native_format import save_model
    from engine.models.transformer import ModelConfig, Transformer

    model = Transformer(ModelConfig(dim=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8, context=16))
    card = ModelCard(name="lora-1", mode="scratch", created_at=0.0, parameters=1, context=16)
    folder = ws.models / "copy"
    save_model(folder, model, card)
    assert load_card(folder).name == "lora-1"
    (folder / "model.safetensors").unlink()
    load_model(folder)


def base_of_another(ws: Workspace) -> None:
    check_removable(ws, "base")


@pytest.mark.parametrize(
    "broken",
    [
        merged_with_other_weights,
        adapter_with_other_weights,
        adapter_with_other_weights_exported,
        adapter_with_other_weights_promoted,
        native_model_without_weights,
        base_of_another,
    ],
)
def test_the_hint_about_a_broken_model_deletes_nothing(
    ws: Workspace, broken: Callable[[Workspace], None]
) -> None:
    with pytest.raises(H2QError) as problem:
        broken(ws)
    assert problem.value.hint == "h2q-tui models list", problem.value
