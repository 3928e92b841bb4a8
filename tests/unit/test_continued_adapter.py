"""Flags of `train` that an adapter to continue, or the mode, leaves without a use: refused, never silently ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import BadInput, UsageProblem
from engine.machine.budget import Budget
from engine.models.adapter_settings import check_continued, read_adapter_settings
from engine.models.base_models import BaseModel, ModelDimensions
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.train_flags import unused_flags
from engine.training.lora.fit import fit_to_budget
from engine.training.recipe import LoraSettings
from tests.cli import run_cli


def adapter(folder: Path, **changed: Any) -> Path:
    """A folder with the adapter_config.json of rank 64, alpha 16 on two layers."""
    folder.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA", "base_model_name_or_path": "/bases/a model", "r": 64, "lora_alpha": 16,
        "lora_dropout": 0.0, "target_modules": ["v_proj", "q_proj"], "use_rslora": False,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config | changed), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"rank": 64},
        {"alpha": 16},
        {"rank": 64, "alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    ],
)
def test_flags_that_the_adapter_agrees_with_are_accepted(tmp_path: Path, asked: dict[str, Any]) -> None:
    check_continued(adapter(tmp_path / "lora-1"), TrainParams(**asked))


@pytest.mark.parametrize(
    ("flag", "asked"),
    [
        ("--rank", {"rank": 16}),
        ("--rank", {"rank": 8, "alpha": 16}),
        ("--alpha", {"alpha": 32}),
        ("--target-modules", {"target_modules": ["q_proj"]}),
        ("--target-modules", {"target_modules": ["q_proj", "v_proj", "o_proj"]}),
        ("--rslora", {"rslora": True}),
    ],
)
def test_a_flag_that_the_adapter_contradicts_is_refused(
    tmp_path: Path, flag: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(UsageProblem) as problem:
        check_continued(adapter(tmp_path / "lora-1"), TrainParams(**asked))
    assert problem.value.message.startswith(f"{flag} does not fit: lora-1, which this run would continue,")
    assert "--rank 64 --alpha 16 --target-modules q_proj,v_proj" in problem.value.message
    assert problem.value.hint == "h2q-tui train --mode lora --model '/bases/a model'"


def test_an_adapter_with_rslora_is_continued_with_and_without_the_flag(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "lora-1", use_rslora=True)
    check_continued(folder, TrainParams())
    check_continued(folder, TrainParams(rslora=True))


def test_names_of_every_layer_are_read_as_names_of_modules(tmp_path: Path) -> None:
    names = [f"model.layers.{n}.self_attn.{name}" for n in range(30) for name in ("q_proj", "v_proj")]
    folder = adapter(tmp_path / "lora-1", target_modules=names)
    assert read_adapter_settings(folder).targets == ("q_proj", "v_proj")
    check_continued(folder, TrainParams(target_modules=["v_proj", "q_proj"]))


@pytest.mark.parametrize("broken", ["", "[]", '{"r": "many"}', '{"target_modules": 5}'])
def test_a_broken_configuration_of_an_adapter_is_named(tmp_path: Path, broken: str) -> None:
    (tmp_path / "adapter_config.json").write_text(broken, encoding="utf-8")
    with pytest.raises(BadInput, match=r"adapter_config\.json"):
        read_adapter_settings(tmp_path)


def test_the_memory_of_a_continued_adapter_is_that_of_its_own_rank(tmp_path: Path) -> None:
    shape = ModelDimensions(512, 8, 8, 8, 64, 2048, 1000, 512)
    base = BaseModel("x", tmp_path, "x", shape, 30_000_000, "BF16", "")
    continued = BaseModel("x", tmp_path, "x", shape, 30_000_000, "BF16", "", adapter(tmp_path / "lora-1"))

    def need(base: BaseModel, rank: int) -> float:
        budget = Budget(4000.0, "max_memory_gb")
        settings = LoraSettings(rank=rank)
        return fit_to_budget(base, settings, budget, context=256, four_bit=False, bf16_fast=True).need_mb

    assert need(continued, 16) == need(base, 64) > need(base, 16)


@pytest.mark.parametrize(
    ("mode", "asked", "unused"),
    [
        (TrainMode.NATIVE, {}, []),
        (TrainMode.NATIVE, {"rank": 16}, ["--rank"]),
        (TrainMode.NATIVE, {"packing": False, "four_bit": False}, ["--no-packing", "--no-4bit"]),
        (TrainMode.NATIVE, {"target_modules": ["q_proj"], "rslora": True}, ["--target-modules", "--rslora"]),
        (TrainMode.NATIVE, {"model": "x", "data": ["a.txt"], "recipe": "quality"}, []),
        (TrainMode.SCRATCH, {"alpha": 8, "training_dir": "/a"}, ["--alpha", "--training-dir"]),
        (TrainMode.SCRATCH, {"model": "native-1"}, ["--model"]),
        (TrainMode.LORA, {"rank": 4, "packing": False, "training_dir": "/a"}, []),
        (TrainMode.LORA, {"recipe": "h2q-local"}, ["--recipe"]),
        (TrainMode.AUTO, {"rank": 4, "recipe": "quality"}, []),
    ],
)  # fmt: skip
def test_flags_that_a_mode_does_not_read_are_named(
    mode: TrainMode, asked: dict[str, Any], unused: list[str]
) -> None:
    assert unused_flags(TrainParams(mode=mode, **asked), mode) == unused


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--mode", "native", "--rank", "8"], "--mode native makes no use of --rank"),
        (["--mode", "scratch", "--no-4bit"], "--mode scratch makes no use of --no-4bit"),
        (["--mode", "lora", "--model", "ADAPTER", "--rank", "8"], "--rank does not fit: lora-1"),
        (["--model", "ADAPTER", "--rslora"], "--rslora does not fit: lora-1"),
    ],
)
def test_the_command_refuses_such_a_flag_before_a_run_exists(
    tmp_path: Path, knowing_hf: Path, flags: list[str], sentence: str
) -> None:
    folder = str(adapter(tmp_path / "lora-1", base_model_name_or_path=str(knowing_hf)))
    flags = [folder if flag == "ADAPTER" else flag for flag in flags]
    result = run_cli("--data-dir", str(tmp_path / "ws"), "train", *flags)
    assert (result.code, sentence in result.err) == (2, True), result.err
    assert not list((tmp_path / "ws" / "runs").glob("*"))
