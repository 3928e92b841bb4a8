"""LoRA from a dataset to a PEFT directory, on a real Qwen3 model small enough to memorise answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, Interrupted, UsageProblem
from engine.core.paths import Workspace
from engine.machine.budget import Budget
from engine.models.adapters import attach_adapter
from engine.models.base_models import BaseModel, find_base
from engine.models.card import Lineage, ModelCard, read_card
from engine.models.hf import load_base, load_chat_template
from engine.runs.events import EpochDone, Log, Step
from engine.runs.kinds import TrainParams
from engine.training.lora.fit import fit_to_budget
from engine.training.lora.train import train_lora
from engine.training.recipe import LoraSettings, Phase, Recipe, recipe_for
from tests.hf_models import talks
from tests.unit.training_run import DatasetFile, events, new_run

PAIRS = (
    ("What is your name?", "I am little Q."),
    ("你叫什么名字？", "我叫小Q。"),
    ("How do I make tea?", "Boil some water."),
    ("今天天气怎么样？", "今天很晴朗。"),
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)


def rows(folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> DatasetFile:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in talks(pairs)), encoding="utf-8")
    lineage = Lineage(conversations=["c0"], clusters=["k0"], dataset_sha256="h", newest_conversation=5.0)
    return DatasetFile(path, lineage)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Path:
    return Path(shutil.copytree(knowing_hf, tmp_path_factory.mktemp("hf") / "tiny-qwen3"))


def recipe(**changes: object) -> Recipe:
    made = recipe_for(TrainParams(context=128, rank=4, batch_size=2, max_steps=6), Phase.LORA)
    return msgspec.structs.replace(made, eval_bytes=128, **changes)


def base(root: Path, model: Path) -> BaseModel:
    return find_base(Workspace(root), str(model))


def train(
    root: Path, model: Path, data: DatasetFile, *, settings: Recipe | None = None, resume: Path | None = None
) -> ModelCard:
    found = base(root, model)
    return train_lora(
        new_run(root), settings or recipe(), found, data, name="mine", out=root / "mine", resume=resume
    )


def answer(root: Path, model: Path, question: str) -> str:
    """The greedy answer."""
    found = base(root, model)
    chat = load_chat_template(found)
    peft = attach_adapter(load_base(found, torch.float32), root / "mine").eval()
    ids = torch.tensor([chat.prompt([ChatMessage(role="user", content=question)])])
    with torch.no_grad():
        out = peft.generate(input_ids=ids, max_new_tokens=40, do_sample=False)
    return chat.decode(out[0, ids.shape[1] :].tolist())


def test_an_adapter_learns_to_answer_and_is_a_peft_directory(tmp_path: Path, model: Path) -> None:
    ctx = new_run(tmp_path)
    adapter = LoraSettings(rank=16, alpha=32)
    settings = recipe(max_steps=None, epochs=60, lr=1e-2, adapter=adapter)
    card = train_lora(
        ctx, settings, base(tmp_path, model), rows(tmp_path), name="mine", out=tmp_path / "mine"
    )
    recorded = events(ctx, Step)
    assert recorded[0].loss is not None and recorded[-1].loss is not None
    assert recorded[-1].loss < 0.25 * recorded[0].loss
    assert answer(tmp_path, model, "What is your name?") == "I am little Q."
    assert answer(tmp_path, model, "你叫什么名字？") == "我叫小Q。"
    names = {file.name for file in (tmp_path / "mine").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "h2q.json"} <= names
    stored = json.loads((tmp_path / "mine" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (stored["r"], stored["lora_alpha"], stored["base_model_name_or_path"]) == (16, 32, str(model))
    assert read_card(tmp_path / "mine") == card
    assert (card.mode, card.base, card.base_path) == ("lora", "tiny-qwen3", str(model))
    assert card.lineage.conversations == ["c0"]
    assert len(events(ctx, EpochDone)) == 60
    assert all(
        tensor.dtype is torch.float32
        for tensor in load_file(tmp_path / "mine" / "adapter_model.safetensors").values()
    )


def test_a_stopped_phase_resumes_exactly_dropout_included(tmp_path: Path, model: Path) -> None:
    from tests.unit.test_training_loop import commanded

    data = rows(tmp_path)
    whole = train(tmp_path / "whole", model, data)
    stopping = commanded(tmp_path / "stopped", (4, "stop", ""))
    with pytest.raises(Interrupted):
        train_lora(stopping, recipe(), base(tmp_path, model), data, name="mine", out=tmp_path / "x")
    resumed = train(tmp_path / "resumed", model, data, resume=stopping.run_dir.path)
    assert resumed.weights_sha256 == whole.weights_sha256
    kept = next((stopping.run_dir.path / "checkpoints").glob("lora-*/weights.safetensors"))
    assert all("lora_" in name for name in load_file(kept))


def test_a_base_that_cannot_fit_is_rejected_before_loading(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object, **_more: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("engine.models.hf.load_base", never)
    with pytest.raises(UsageProblem, match="no base fits the budget") as problem:
        train(tmp_path, model, rows(tmp_path), settings=recipe(max_memory_gb=0.5))
    assert f"--model {model} --max-memory-gb 0." in str(problem.value.hint)


def test_an_error_for_a_too_large_base_has_the_largest_size_that_fits(tmp_path: Path, model: Path) -> None:
    large = dataclasses.replace(base(tmp_path, model), parameters=3_000_000_000)
    for bound, hint in (("max_memory_gb", "--max-memory-gb 6."), ("available", "h2q-tui check")):
        with pytest.raises(UsageProblem, match=r"the largest that fits has about 1\.59 billion") as problem:
            fit_to_budget(
                large, recipe().adapter, Budget(4096, bound), context=128, four_bit=False, bf16_fast=True
            )
        assert hint in str(problem.value.hint)


@pytest.mark.parametrize("targets", [("q_proj", "q_porj"), ("lm_head",), ("embed_tokens",)])
def test_an_unknown_target_module_is_rejected_before_training(
    tmp_path: Path, model: Path, targets: tuple[str, ...]
) -> None:
    chosen = recipe(adapter=LoraSettings(rank=4, targets=targets))
    with pytest.raises(BadInput, match=f"{targets[-1]} is not a layer") as problem:
        train(tmp_path, model, rows(tmp_path), settings=chosen)
    assert "down_proj, gate_proj, k_proj, o_proj" in str(problem.value)
    assert not (tmp_path / "mine").exists()


def test_a_base_without_a_tokenizer_or_with_other_shapes_is_reported(tmp_path: Path, model: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(model / name, bare / name)
    with pytest.raises(BadInput, match="no tokenizer"):
        load_chat_template(base(tmp_path, bare))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, bare / name)
    stored = load_file(bare / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    stored[name] = stored[name][:, :50].contiguous()
    save_file(stored, bare / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        BadInput, match=r"down_proj\.weight has the shape \(48, 50\) in the weights and \(48, 96\)"
    ):
        load_base(base(tmp_path, bare), torch.float32)


def test_a_dataset_without_answers_does_not_start(tmp_path: Path, model: Path) -> None:
    data = rows(tmp_path)
    masked = data.path.read_text(encoding="utf-8").replace(
        '"role": "assistant"', '"train": false, "role": "assistant"'
    )
    data.path.write_text(masked, encoding="utf-8")
    with pytest.raises(BadInput, match="loss mask is empty"):
        train(tmp_path, model, data)


def test_the_log_reports_how_the_base_is_loaded(tmp_path: Path, model: Path) -> None:
    ctx = new_run(tmp_path)
    train_lora(ctx, recipe(), base(tmp_path, model), rows(tmp_path), name="m", out=tmp_path / "m")
    recorded = " ".join(event.text for event in events(ctx, Log))
    assert "4-bit" in recorded and "tiny-qwen3" in recorded and "windows with" in recorded


def test_a_second_adapter_continues_the_first(tmp_path: Path, model: Path) -> None:
    train(tmp_path, model, rows(tmp_path))
    first = tmp_path / "mine"
    found = find_base(Workspace(tmp_path), str(first))
    later = DatasetFile(rows(tmp_path, PAIRS[:2]).path, Lineage(conversations=["c9"]))
    ctx = new_run(tmp_path / "two")
    card = train_lora(ctx, recipe(), found, later, name="next", out=tmp_path / "next")
    assert (card.base, card.base_path) == ("mine", str(model))
    assert card.lineage.conversations == ["c0", "c9"]
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, tmp_path / "next"))
    assert before.keys() == after.keys()
