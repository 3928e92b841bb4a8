"""The rotary embedding in the keys of older programs.

Exports with these keys gave the same log-probabilities in transformers 4.51.3 and 5.23 (llama3, yarn with a context
equal to the original and four times it, linear, longrope of Phi, Gemma 3).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.export.hf_model import write_hf_model
from engine.export.older_config import rope_keys_of_version_4
from tests.export_models import LLAMA3_ROPE, YARN, log_probabilities, source_of, write_arch
from tests.unit.test_gguf_architectures import GEMMA, LONG_ROPE, gemma_tokens

LINEAR = {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("model_type", "rope", "positions", "expected"),
    [
        ("qwen3", {"rope_type": "default", "rope_theta": 5e5}, 4096, {"rope_theta": 5e5}),
        (
            "llama",
            LLAMA3_ROPE,
            131_072,
            {
                "rope_theta": 500_000.0,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
            },
        ),
        (
            "qwen2",
            YARN,
            512,
            {
                "rope_theta": 50_000.0,
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 128,
                },
            },
        ),
        (
            "qwen2",
            YARN,
            128,
            {"rope_theta": 50_000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        ),
        (
            "phi3",
            LONG_ROPE,
            131_072,
            {
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": LONG_ROPE["short_factor"],
                    "long_factor": LONG_ROPE["long_factor"],
                },
            },
        ),
        (
            "gemma3_text",
            GEMMA["rope_parameters"],
            32_768,
            {
                "rope_theta": 90_000.0,
                "rope_local_base_freq": 5_000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        ("gpt2", {}, 1024, {}),
    ],
)
def test_scaling_stands_where_older_programs_read_it(
    model_type: str, rope: dict[str, Any], positions: int, expected: dict[str, Any]
) -> None:
    assert rope_keys_of_version_4(model_type, rope, positions) == expected


@pytest.mark.parametrize(
    ("arch", "rope", "more"),
    [
        ("llama", LLAMA3_ROPE, {}),
        ("llama", LINEAR, {}),
        ("phi3", LONG_ROPE, {"original_max_position_embeddings": 4096, "pad_token_id": 0}),
        ("gemma3_text", None, {**GEMMA, "tokenizer": gemma_tokens}),
    ],
)
def test_an_export_computes_as_its_source_in_this_transformers(
    tmp_path: Path, arch: str, rope: dict[str, Any] | None, more: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    settings = {key: value() if callable(value) else value for key, value in more.items()}
    folder = write_arch(tmp_path / "model", arch, rope=rope, tied=True, **settings)
    source = source_of(folder)
    write_hf_model(tmp_path / "out", source, source.weights, torch.float32)
    assert "rope_scaling" in json.loads((tmp_path / "out" / "config.json").read_text())
    make: Any = AutoModelForCausalLM
    first, second = (
        log_probabilities(make.from_pretrained(path, local_files_only=True).eval(), list(range(3, 60)))
        for path in (folder, tmp_path / "out")
    )
    torch.testing.assert_close(second, first, atol=1e-5, rtol=0)
