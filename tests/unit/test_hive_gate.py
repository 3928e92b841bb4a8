"""The gate before a version is published, on a tiny Hugging Face model with real adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.core.errors import NotEnoughData, RunFailed
from engine.hive import gate_process
from engine.hive.gate import GateRequest, GateResult, run_gate
from engine.hive.gate_process import judge, read_held_out

WORDS = ("tea", "water", "fox", "dog", "name", "leaves", "minutes", "weather", "walk", "lazy")

TEXT = "Thank you, I like tea and water very much! Do you like fox and dog? " * 40
"""The general set."""


def _talk(number: int) -> tuple[str, str]:
    one, other = WORDS[number % 10], WORDS[number // 10]
    return f"Do you like {one} and {other}?", f"Thank you, I like {one} and {other} very much!"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hive") / "held.json"
    rows = [_talk(number) for number in range(0, 100, 3)]
    path.write_text(json.dumps([{"instruction": q, "output": a} for q, a in rows]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Path:
    """An adapter on talks like the held-out ones, and on the general text."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(knowing_hf)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(knowing_hf), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    numbers = [number for number in range(100) if number % 3]
    for step in range(30):
        question, answer = _talk(numbers[(7 * step) % len(numbers)])
        text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        for one in (text, TEXT[:300]):
            ids = torch.tensor([tokenizer(one)["input_ids"]])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("hive") / "good"
    model.save_pretrained(folder)
    return folder


def _changed(adapter: Path, folder: Path, factor: float) -> Path:
    """The adapter with its update multiplied by a factor."""
    folder.mkdir()
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: value * factor if "lora_B" in name else value for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/home/somebody/else/base"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def known_general_text(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"en": TEXT.encode()}
    monkeypatch.setattr(gate_process, "shipped_texts", lambda: texts)


def _judged(ws: Path, base: Path, candidate: Path, held_out: Path, **more: Any) -> GateResult:
    return judge(
        GateRequest(
            workspace=str(ws), base=str(base), candidate=str(candidate), held_out=str(held_out), **more
        )
    )


def test_only_a_better_candidate_passes(
    tmp_path: Path, knowing_hf: Path, trained: Path, held_out: Path
) -> None:
    good = _judged(tmp_path, knowing_hf, _changed(trained, tmp_path / "same", 1.0), held_out)
    assert (good.decision, good.against) == ("promote", "base"), good.reasons
    assert good.gain is not None and good.gain > 0
    assert good.n_groups >= 20
    for factor in (-1.0, 30.0):
        bad = _judged(tmp_path, knowing_hf, _changed(trained, tmp_path / f"x{factor}", factor), held_out)
        assert bad.decision == "keep"
        assert bad.sentence


def test_the_version_in_use_must_be_beaten(
    tmp_path: Path, knowing_hf: Path, trained: Path, held_out: Path
) -> None:
    weak = _changed(trained, tmp_path / "weak", 0.3)
    better = _judged(tmp_path, knowing_hf, trained, held_out, served=str(weak))
    worse = _judged(tmp_path, knowing_hf, weak, held_out, served=str(trained))
    assert (better.decision, better.against) == ("promote", "served")
    assert (worse.decision, worse.against) == ("keep", "served")


def test_held_out_conversations_of_any_format_are_read_in_clusters(tmp_path: Path, held_out: Path) -> None:
    rows = read_held_out(held_out)
    assert len(rows) == 34
    chats = tmp_path / "chats.jsonl"
    messages = [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "Good day to you"},
    ]
    chats.write_bytes(msgspec.json.encode({"messages": messages}) + b"\n")
    (row,) = read_held_out(chats)
    assert [message.content for message in row.messages] == ["Hello there", "Good day to you"]


def test_nothing_held_out_gives_no_verdict(tmp_path: Path, knowing_hf: Path, trained: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps([{"instruction": "Hello?", "output": " "}]))
    with pytest.raises(NotEnoughData):
        _judged(tmp_path, knowing_hf, trained, empty)


def test_the_process_answers_also_when_it_cannot_compare(tmp_path: Path) -> None:
    request = GateRequest(
        workspace=str(tmp_path),
        base=str(tmp_path / "none"),
        candidate=str(tmp_path),
        held_out=str(tmp_path / "no"),
    )
    with pytest.raises(RunFailed, match="cannot be compared"):
        run_gate(request)
