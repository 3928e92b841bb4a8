"""Every architecture that is read from and written to GGUF: the same logits in llama.cpp, in transformers and here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.export.gguf_writer import write_gguf_adapter
from engine.export.llama_cpp import LlamaCpp
from engine.export.parity import conversations
from engine.export.quant import Quant
from engine.models.chat_template import ChatTemplate
from engine.models.gguf.model import open_gguf
from engine.models.gguf.tokenizer import PRE_TOKENIZERS
from engine.models.weights import GgufWeights, LoraPair, MergedWeights, SafetensorsWeights, load_weights
from tests.export_models import (
    TALK,
    difference,
    log_probabilities,
    source_of,
    write_arch,
    write_gguf,
)
from tests.hf_models import tiny_tokenizer
from tests.sentencepiece_models import sentencepiece_tokenizer

TOLERANCE = 2e-3
"""Of log-probabilities; a wrong order of rows or a wrong scale is off by more than 0.1."""
GELU_TOLERANCE = 3e-2
"""llama.cpp reads GELU from a table in half precision."""


@dataclass(frozen=True)
class Case:
    """A tiny model: its `model_type`, tokenizer and configuration."""

    arch: str
    tokenizer: Callable[[], Any] = tiny_tokenizer
    settings: dict[str, Any] = field(default_factory=dict)
    rope: dict[str, Any] | None = None
    tied: bool = False
    tolerance: float = TOLERANCE


CUT_LETTERS = " aBsStTdDéÉßあ你Dž12½.,!/'\n\r\t\u0301\u093f"
"""Letters of both cases and of none, digits, marks and the signs at which pre-tokenizers cut."""


def mistral_tokens() -> Any:
    return sentencepiece_tokenizer(prefix=True)


def gemma_tokens() -> Any:
    return sentencepiece_tokenizer(prefix=False)


GEMMA = {
    "num_hidden_layers": 7,
    "sliding_window": 8,
    "query_pre_attn_scalar": 16,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 90_000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
    },
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3, 1.5, 2.0, 2.5],
    "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 30.0],
    "original_max_position_embeddings": 4096,
}
MULTIPLIERS = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.1,
    "logits_scaling": 3.0,
}
QWEN35 = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 50_000.0,
        "partial_rotary_factor": 0.25,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    },
}
CASES = {
    "mistral with SentencePiece": Case("mistral", mistral_tokens, {"sliding_window": None}),
    "llama with SentencePiece": Case("llama", mistral_tokens),
    "gemma3": Case("gemma3_text", gemma_tokens, GEMMA, tied=True, tolerance=GELU_TOLERANCE),
    "phi3": Case("phi3", settings={"num_key_value_heads": 2, "pad_token_id": 0}),
    "phi4-mini": Case(
        "phi3", settings={"original_max_position_embeddings": 4096, "pad_token_id": 0}, rope=LONG_ROPE, tied=True
    ),
    "smollm3": Case("smollm3", settings={"num_hidden_layers": 5}, tied=True),
    "granite": Case("granite", settings=MULTIPLIERS, tied=True),
    "qwen3.5, as many heads": Case("qwen3_5_text", settings={**QWEN35, "linear_num_value_heads": 2}, tied=True),
    "qwen3.5, more value heads": Case("qwen3_5_text", settings={**QWEN35, "linear_num_value_heads": 6}),
}  # fmt: skip


def written(case: Case, folder: Path) -> tuple[Path, Path, Any]:
    """(GGUF file, Hugging Face directory, transformers' model)."""
    from transformers import AutoModelForCausalLM

    hf = write_arch(
        folder / "model",
        case.arch,
        tied=case.tied,
        rope=case.rope,
        tokenizer=case.tokenizer(),
        **case.settings,
    )
    make: Any = AutoModelForCausalLM
    model = make.from_pretrained(hf, local_files_only=True, dtype=torch.float32).eval()
    return write_gguf(folder / "model.gguf", hf), hf, model


def ids_of(case: Case) -> list[int]:
    text = TALK if case.tokenizer is tiny_tokenizer else "你好 hello, what's 1234 é😀 again and again"
    ids: list[int] = case.tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_same_in_llama_cpp_in_transformers_and_here(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path, _hf, model = written(case, tmp_path)
    ids = ids_of(case)
    expected = log_probabilities(model, ids)
    read = open_gguf(path)
    with LlamaCpp(path) as served:
        assert difference(served, expected, ids) < case.tolerance
    torch.testing.assert_close(log_probabilities(read.load(torch.float32), ids), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_weights_read_by_rows_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    path, hf, model = written(CASES[name], tmp_path)
    read = open_gguf(path)
    original, found = SafetensorsWeights(hf), GgufWeights(read)
    for tensor, shape in found.shapes.items():
        assert shape == original.shapes[tensor]
        for start, stop in ((0, shape[0]), (1, max(2, shape[0] // 2))):
            expected = original.rows(tensor, start, stop)
            torch.testing.assert_close(found.rows(tensor, start, stop), expected, atol=1e-6, rtol=1e-5)
    again = load_weights(read.config, found, torch.float32)
    ids = ids_of(CASES[name])
    torch.testing.assert_close(
        log_probabilities(again, ids), log_probabilities(model, ids), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_on_every_matrix_changes_llama_cpp_as_transformers(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path, hf, _model = written(case, tmp_path)
    torch.manual_seed(0)
    pairs = {
        tensor: LoraPair(torch.randn(4, shape[1]) * 0.3, torch.randn(shape[0], 4) * 0.3, 0.5)
        for tensor, shape in SafetensorsWeights(hf).shapes.items()
        if len(shape) == 2 and ".layers." in tensor
    }
    source = source_of(hf)
    adapter = tmp_path / "adapter.gguf"
    write_gguf_adapter(adapter, source.config, pairs, Quant.F32, name="a")
    merged = load_weights(source.config, MergedWeights(SafetensorsWeights(hf), pairs), torch.float32)
    ids = ids_of(case)
    with LlamaCpp(path, adapter=adapter) as served:
        assert difference(served, log_probabilities(merged, ids), ids) < 2 * case.tolerance


@pytest.mark.parametrize("name", ["llama with SentencePiece", "gemma3", "phi4-mini"])
def test_a_conversation_has_the_prompt_of_llama_cpp(tmp_path: Path, name: str) -> None:
    path, _hf, _model = written(CASES[name], tmp_path)
    chat = ChatTemplate(open_gguf(path).tokenizer())
    with LlamaCpp(path) as served:
        for messages in conversations():
            plain = [{"role": message.role, "content": message.content} for message in messages]
            assert chat.prompt(messages) == served.tokenize(served.template(plain))


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "Hello again and again",
        " leading", "trailing  ", "a  b   c    d", "你好，world! 今天", "naïve café e\u0301 😀", "\n\n\n x\n\n", "\t▁▁ ▁",
        "<s> and </s>", "it<end_of_turn>'s <start_of_turn>user\nHello", "<0x0A>", "",
    ],
)  # fmt: skip
def test_sentencepiece_ids_are_those_of_llama_cpp(prefix: bool, text: str) -> None:
    tokenizer, served = sentencepiece_pair(prefix)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == served.tokenize(text)


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("abcdefghi theran你好我是小明 \n▁'é😀<s>12"), max_size=40), st.booleans()
)
def test_any_text_has_the_ids_of_llama_cpp_with_sentencepiece(text: str, prefix: bool) -> None:
    tokenizer, served = sentencepiece_pair(prefix)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert served.tokenize(text) == ids


@cache
def sentencepiece_pair(prefix: bool) -> tuple[Any, LlamaCpp]:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    tokens = sentencepiece_tokenizer(prefix=prefix)
    path = write_gguf(folder / "m.gguf", write_arch(folder / "m", "llama", tokenizer=tokens))
    return open_gguf(path).tokenizer(), LlamaCpp(path)


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_pre_tokenizers_cut_any_text_as_llama_cpp_does(tmp_path: Path, pre: str) -> None:
    """Every pair of neighbours is a token, so that a missing or additional cut shows."""
    path = pairs_vocabulary(tmp_path / "x.gguf", pre)
    tokenizer = open_gguf(path).tokenizer()

    with LlamaCpp(path) as served:

        @settings(max_examples=120, deadline=None)
        @example("éDBd")
        @example("aÉ\u0301b \u093fB")
        @given(st.text(alphabet=st.sampled_from(CUT_LETTERS), max_size=24))
        def cuts_agree(text: str) -> None:
            assert served.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]

        cuts_agree()


def pairs_vocabulary(path: Path, pre: str) -> Path:
    """A one-layer model whose byte-level vocabulary joins any two bytes."""
    from tokenizers import pre_tokenizers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    encoder: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    used = sorted({c for piece, _at in encoder.pre_tokenize_str(CUT_LETTERS) for c in piece})
    pairs = [(one, two) for one in used for two in used]
    tokens = [*bytes_, *(one + two for one, two in pairs), "<|end|>"]
    writer = gguf.GGUFWriter(str(path), "qwen2")
    for add, value in (
        (writer.add_context_length, 512), (writer.add_embedding_length, 32), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 2), (writer.add_head_count_kv, 2),
    ):  # fmt: skip
        add(value)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges([f"{one} {two}" for one, two in pairs])
    writer.add_eos_token_id(len(tokens) - 1)
    shapes = {
        "token_embd": (len(tokens), 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,),
        "blk.0.attn_q": (32, 32), "blk.0.attn_k": (32, 32), "blk.0.attn_v": (32, 32), "blk.0.attn_output": (32, 32),
        "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32), "blk.0.ffn_down": (32, 32),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.ones(shape).numpy())
    for name in ("q", "k", "v"):
        writer.add_tensor(f"blk.0.attn_{name}.bias", torch.ones(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_vision_tensors_of_an_ollama_file_are_left_out(tmp_path: Path) -> None:
    path, _hf, model = written(CASES["gemma3"], tmp_path)
    both = tmp_path / "both.gguf"
    copy_with(path, both, lambda writer: writer.add_tensor("v.blk.0.attn_k.weight", torch.ones(4, 4).numpy()))
    read = open_gguf(both)
    ids = ids_of(CASES["gemma3"])
    torch.testing.assert_close(
        log_probabilities(read.load(torch.float32), ids), log_probabilities(model, ids), atol=1e-5, rtol=0
    )


def copy_with(path: Path, to: Path, change: Callable[[gguf.GGUFWriter], None]) -> None:
    read = open_gguf(path).file
    writer = gguf.GGUFWriter(str(to), read.text("general.architecture"))
    for key, value in read.metadata.items():
        if key != "general.architecture":
            kind, inner = read.types[key]
            writer.add_key_value(
                key, value, gguf.GGUFValueType(kind), None if inner is None else gguf.GGUFValueType(inner)
            )
    for tensor in read.tensors.values():
        writer.add_tensor(tensor.name, read.read(tensor).numpy())
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("name", "settings_"),
    [
        ("smollm3", {"no_rope_layers": [1, 1, 1, 1, 1]}),
        ("gemma3", {"query_pre_attn_scalar": 32}),
        ("gemma3", {"layer_types": ["full_attention"] * 7}),
        ("gemma3", {"final_logit_softcapping": 30.0}),
        ("qwen3.5, as many heads", {"layer_types": ["full_attention"] + ["linear_attention"] * 3}),
    ],
)
def test_what_llama_cpp_computes_in_another_way_is_refused(
    tmp_path: Path, name: str, settings_: dict[str, Any]
) -> None:
    case = CASES[name]
    changed = Case(case.arch, case.tokenizer, {**case.settings, **settings_}, case.rope, case.tied)
    with pytest.raises(BadInput, match=r"llama\.cpp does not support"):
        written(changed, tmp_path)
