"""Tiny models of each exported architecture, with weights large enough to reveal a wrong order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.core.paths import Workspace
from engine.export.gguf_writer import write_gguf_copy, write_gguf_model
from engine.export.llama_cpp import LlamaCpp
from engine.export.quant import Quant
from engine.export.source import ExportSource, find_export_source
from engine.models.adapters import new_adapter, save_adapter
from engine.models.base_models import find_base
from engine.models.card import ModelCard
from engine.models.hf import load_base
from engine.training.recipe import LoraSettings
from tests.hf_models import tiny_tokenizer

torch.set_num_threads(1)

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 50_000.0, "factor": 4.0, "original_max_position_embeddings": 128}
TALK = "<|im_start|>user\n你好 hello, what's 1234 é😀<|im_end|>\n<|im_start|>assistant\n"


def write_arch(
    folder: Path,
    arch: str,
    *,
    tied: bool = False,
    rope: dict[str, Any] | None = None,
    tokenizer: Any = None,
    **settings: Any,
) -> Path:
    """An untrained model of `arch` with more rows than its tokenizer has tokens. `settings` of its configuration."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(len(arch))
    config = AutoConfig.for_model(
        arch,
        **{
            "vocab_size": len(tokenizer) + 5,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 16_384,
            "rms_norm_eps": 1e-5,
            "rope_parameters": rope or {"rope_type": "default", "rope_theta": 50_000.0},
            "tie_word_embeddings": tied,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": None,
        }
        | settings,
    )
    make: Any = AutoModelForCausalLM
    model = make.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(
                1.0 if "norm" in name else 0.0, 0.2 if "norm" in name or "bias" in name else 0.1
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def source_of(folder: Path) -> ExportSource:
    return find_export_source(Workspace(folder.parent / "ws"), str(folder))


def write_gguf(path: Path, folder: Path, quant: Quant = Quant.F32) -> Path:
    source = source_of(folder)
    write_gguf_model(
        path,
        source.config,
        source.weights,
        source.vocabulary,
        quant,
        name=folder.name,
        metadata=source.metadata(),
    )
    return path


def write_lora(ws: Workspace, name: str, *, seed: int, base: str = "tiny") -> Path:
    """An adapter on the GGUF model `base` of the workspace, with weights large enough to show."""
    found = find_base(ws, base)
    peft = new_adapter(load_base(found, torch.float32), LoraSettings(rank=2, alpha=8), seed)
    torch.manual_seed(seed)
    for parameter_name, parameter in peft.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(0, 0.5)
    card = ModelCard(
        name=name, mode="lora", base_path=found.source, base_sha256=found.sha256, base_format="float32",
        created_at=1.0, parameters=1, context=64,
    )  # fmt: skip
    save_adapter(ws.adapters / name, peft, card)
    write_gguf_copy(ws.adapters / name, base=found.path, name=name)
    return ws.adapters / name


@torch.inference_mode()
def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """`(length, vocab)`: log-probabilities of the next token after each token."""
    found: torch.Tensor = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return found


def llama_answer(served: LlamaCpp, messages: list[dict[str, str]], *, limit: int = 64) -> str:
    """llama.cpp's greedy answer to a conversation."""
    body = {"messages": messages, "temperature": 0.0, "max_tokens": limit}
    return str(served.post("/v1/chat/completions", body)["choices"][0]["message"]["content"] or "")


def difference(served: LlamaCpp, expected: torch.Tensor, ids: list[int]) -> float:
    """Largest difference between llama.cpp's log-probabilities and `expected` at three positions of `ids`."""
    single = served.tokenize("a")[0]
    worst = 0.0
    for place in (1, len(ids) // 2, len(ids)):
        found = served.log_probabilities(ids[:place], expected.shape[1], single=single)
        worst = max(worst, float((torch.tensor(found) - expected[place - 1]).abs().max()))
    return worst
