"""The new-run sheet offers an adapter and lets the person choose what it stands on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import Settings, save_settings
from engine.paths import Workspace
from engine.runs.spec import TrainMode
from tui.screens.new_run import MODES, Material, describe, look

NOTHING = Material(
    conversations=0, accepted=0, kept_back=0, groups=0, base="", texts=0, text_bytes=0, training=""
)


def test_lora_is_offered() -> None:
    assert TrainMode.LORA in [mode.mode for mode in MODES]


def test_without_a_base_it_says_how_to_name_one() -> None:
    words, kind = describe(TrainMode.LORA, NOTHING)[0]
    assert "lora_base" in words and kind == "act"


def test_the_base_is_shown_and_the_key_for_the_next_one() -> None:
    several = replace(NOTHING, bases=("tiny", "qwen3:0.6b"))
    assert "qwen3:0.6b (2 of 2, b" in describe(TrainMode.LORA, several, "qwen3:0.6b")[0][0]
    assert describe(TrainMode.LORA, replace(NOTHING, bases=("tiny",)), "tiny")[0] == ("base: tiny", "")


def test_the_configured_base_comes_first_then_what_ollama_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "qwen3" / "0.6b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    ws = Workspace(tmp_path / "ws")
    ws.config.mkdir(parents=True)
    assert look(ws).bases == ("qwen3:0.6b",)
    save_settings(ws, Settings(lora_base="/models/tiny"))
    assert look(ws).bases == ("/models/tiny", "qwen3:0.6b")
