"""Reading GGUF files: exact values, or a clear error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.export.llama_cpp import LlamaCpp
from engine.models.gguf.architectures import architecture_for
from engine.models.gguf.file import read_gguf
from engine.models.gguf.layout import paired_rows
from engine.models.gguf.model import open_gguf
from engine.models.gguf.tokenizer import PRE_TOKENIZERS
from tests.export_models import TALK, difference, log_probabilities, write_arch, write_gguf
from tests.hf_models import tiny_tokenizer

TEXTS = (
    "你好，world! What's up?  I'LL go\n\n\n  now\t1234567",
    "naïve café e\u0301 👩‍👩‍👧 ①②③ 全角　空格",
    "<|im_start|>user\n<|im_end|> <|im_start",
    "'s'S don't 12,345.67 \r\n\r\n x",
    "",
    " ",
)


def file_with(path: Path, change: Callable[[gguf.GGUFWriter], None], *, tensors: bool = True) -> Path:
    """A one-layer Qwen3 of 32 tokens, changed by `change` before it is written."""
    writer = gguf.GGUFWriter(str(path), "qwen3")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["Ċ", *(chr(97 + number) for number in range(29)), "<|im_start|>", "<|im_end|>"])
    writer.add_token_types([1] * 30 + [3] * 2)
    writer.add_token_merges(["<|im_start|> <|im_end|>"])
    writer.add_eos_token_id(31)
    shapes = {
        "token_embd": (32, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,),
        "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32),
        "blk.0.attn_q_norm": (16,), "blk.0.attn_k_norm": (16,),
        "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32), "blk.0.ffn_down": (32, 32),
    }  # fmt: skip
    for name, shape in shapes.items() if tensors else ():
        writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32))
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@cache
def whole() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return file_with(Path(folder) / "x.gguf", lambda _writer: None).read_bytes()


def replaced(key: str, value: Any) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        for table in writer.kv_data:
            table.pop(key, None)
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(
            key, value, gguf.GGUFValueType.UINT32 if kind is gguf.GGUFValueType.INT32 else kind
        )

    return change


def without(key: str) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0][key]

    return change


def test_a_complete_file_opens_with_its_metadata(tmp_path: Path) -> None:
    model = open_gguf(file_with(tmp_path / "x.gguf", lambda _writer: None))
    assert (model.arch.name, model.context, model.eos_ids, model.parameters) == ("qwen3", 64, (31,), 7296)
    assert model.chat_template is not None and "<|im_start|>" in model.chat_template
    loaded = model.load()
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config is not None and loaded.generation_config.eos_token_id == [31]
    assert not loaded.training
    assert model.tokenizer().eos_token_id == 31


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (replaced("general.architecture", "gemma4"), "qwen3, .*llama"),
        (replaced("general.type", "adapter"), "adapter"),
        (replaced("tokenizer.ggml.model", "bert"), "llama-bpe"),
        (replaced("tokenizer.ggml.pre", "bloom"), "bloom"),
        (replaced("qwen3.block_count", 2), "block_count"),
        (replaced("qwen3.block_count", 2**30), "block_count"),
        (replaced("qwen3.embedding_length", 64), "embedding_length"),
        (replaced("qwen3.attention.head_count", 0), "embedding_length"),
        (replaced("qwen3.attention.head_count", "two"), "head_count"),
        (replaced("qwen3.attention.head_count_kv", 3), "head_count_kv"),
        (replaced("qwen3.feed_forward_length", 1 << 20), "down_proj"),
        (replaced("qwen3.expert_count", 8), "experts"),
        (replaced("qwen3.rope.scaling.type", "longrope"), "rope"),
        (replaced("qwen3.rope.freq_base", float("nan")), "freq_base"),
        (without("qwen3.context_length"), "context_length"),
        (without("qwen3.attention.layer_norm_rms_epsilon"), "rms_epsilon"),
        (replaced("tokenizer.ggml.tokens", ["a"] * 32), "tokens"),
        (replaced("tokenizer.ggml.tokens", ["a", "b"]), "tokens"),
        (replaced("split.count", 3), "split model"),
        (lambda writer: writer.add_tensor("rope_freqs.weight", np.full(8, 3.3, np.float32)), "Llama 3"),
        (lambda writer: writer.add_tensor("blk.0.ssm_a", np.ones(8, np.float32)), "ssm_a"),
        (lambda writer: writer.add_tensor("x", np.ones(8, np.int32)), "I32"),
        (lambda writer: writer.add_tensor("output.weight", np.ones((8, 32), np.float32)), "lm_head"),
    ],
)  # fmt: skip
def test_unsupported_or_inconsistent_files_are_rejected(
    tmp_path: Path, change: Callable[[gguf.GGUFWriter], None], error: str
) -> None:
    with pytest.raises(BadInput, match=error):
        open_gguf(file_with(tmp_path / "x.gguf", change))


def test_files_that_are_not_gguf_models_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        open_gguf(file_with(tmp_path / "x.gguf", lambda _writer: None, tensors=False))
    with pytest.raises(BadInput, match="does not exist"):
        open_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(BadInput, match="directory"):
        open_gguf(tmp_path)
    for content in (
        b"",
        b"GGU",
        b"PK\x03\x04" * 10,
        b"GGUF\x00\x00\x00\x03" + bytes(60),
        b"GGUF\x01\x00\x00\x00",
    ):
        (tmp_path / "y").write_bytes(content)
        with pytest.raises(BadInput):
            open_gguf(tmp_path / "y")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_truncated_or_damaged_file_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(whole())
    cut = data.draw(st.integers(0, len(content)), label="length")
    head = 2400
    for _number in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, head))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.gguf"
    path.write_bytes(bytes(content[: max(cut, 100)]))
    try:
        model = open_gguf(path)
    except BadInput:
        return
    assert 2 * model.parameters < 1 << 20
    try:
        model.tokenizer()
    except BadInput:
        return


def test_huge_counts_are_rejected_without_allocating(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for tail in (
        struct.pack("<QQ", 2**62, 0),
        struct.pack("<QQ", 0, 2**62),
        struct.pack("<QQQ", 0, 1, 2**60),
        struct.pack("<QQQ3sIIQ", 0, 1, 3, b"a.b", 9, 4, 2**61),
    ):
        path.write_bytes(b"GGUF" + struct.pack("<I", 3) + tail)
        with pytest.raises(BadInput):
            read_gguf(path)


def test_a_file_that_shrinks_after_opening_is_bad_input(tmp_path: Path) -> None:
    model = open_gguf(file_with(tmp_path / "x.gguf", lambda _writer: None))
    with model.path.open("r+b") as file:
        file.truncate(model.file.size - 500)
    with pytest.raises(BadInput, match="truncated"):
        model.load()


@given(
    st.integers(0, 9),
    st.sampled_from(["self_attn.q_proj", "mlp.down_proj", "input_layernorm"]),
    st.booleans(),
)
def test_tensor_names_round_trip(layer: int, module: str, bias: bool) -> None:
    name = f"model.layers.{layer}.{module}.{'bias' if bias else 'weight'}"
    arch = architecture_for("qwen3")
    stored = arch.to_gguf(name)
    assert stored is not None and arch.to_transformers(stored) == name
    assert arch.to_gguf("model.visual.x") is None and arch.to_transformers("blk.0.nothing.weight") is None


def test_paired_rows_have_llama_cpps_rotary_order() -> None:
    assert paired_rows(8, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_matches_llama_cpp(tmp_path: Path, pre: str) -> None:
    path = write_gguf(tmp_path / "model.gguf", write_arch(tmp_path / "model", "llama"))
    if pre != "qwen2":
        changed = tmp_path / "changed.gguf"
        _copy_with(path, changed, {"tokenizer.ggml.pre": pre})
        path = changed
    tokenizer = open_gguf(path).tokenizer()
    with LlamaCpp(path) as served:
        for text in TEXTS:
            assert served.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_llama_cpps_ids_and_round_trips(text: str) -> None:
    tokenizer, served = _served()
    text = text.encode("utf-8", "ignore").decode().replace("\x00", "")
    ids = tokenizer(text)["input_ids"]
    assert served.tokenize(text) == ids
    assert tokenizer.decode(ids) == text


@cache
def _served() -> tuple[Any, LlamaCpp]:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    path = write_gguf(folder / "model.gguf", write_arch(folder / "model", "qwen3"))
    return open_gguf(path).tokenizer(), LlamaCpp(path)


def _copy_with(path: Path, to: Path, values: dict[str, str]) -> None:
    """A copy of the file with other metadata."""
    found = read_gguf(path)
    writer = gguf.GGUFWriter(str(to), found.text("general.architecture"))
    for key, value in {**found.metadata, **values}.items():
        if key != "general.architecture":
            kind, inner = found.types[key]
            writer.add_key_value(
                key, value, gguf.GGUFValueType(kind), None if inner is None else gguf.GGUFValueType(inner)
            )
    for tensor in found.tensors.values():
        writer.add_tensor(tensor.name, found.read(tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


BLOCKS = {
    # Bytes of a block, and the offsets of its half-precision scales.
    Kind.Q4_0: (32, 18, [0]), Kind.Q4_1: (32, 20, [0, 2]), Kind.Q5_0: (32, 22, [0]), Kind.Q5_1: (32, 24, [0, 2]),
    Kind.Q8_0: (32, 34, [0]), Kind.Q2_K: (256, 84, [80, 82]), Kind.Q3_K: (256, 110, [108]),
    Kind.Q4_K: (256, 144, [0, 2]), Kind.Q5_K: (256, 176, [0, 2]), Kind.Q6_K: (256, 210, [208]),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(BLOCKS))
def test_each_quantized_type_matches_llama_cpp(tmp_path: Path, kind: Kind) -> None:
    size, nbytes, scales = BLOCKS[kind]
    random = np.random.default_rng(int(kind))
    steps = {Kind.Q8_0: 127, Kind.Q2_K: 45, Kind.Q3_K: 128, Kind.Q4_K: 900, Kind.Q5_K: 1900, Kind.Q6_K: 4000}
    scale = 0.12 / steps.get(kind, 16 if kind in (Kind.Q5_0, Kind.Q5_1) else 8)

    def quantized(rows: int, columns: int) -> Any:
        blocks = random.integers(0, 256, (rows, columns // size, nbytes), dtype=np.uint8)
        for place in scales:
            half = np.full((rows, columns // size), scale * (1 if place == scales[0] else 0.5), np.float16)
            blocks[:, :, place : place + 2] = half[..., None].view(np.uint8)
        return blocks.reshape(rows, -1)

    def change(writer: gguf.GGUFWriter) -> None:
        for key, value in {"embedding_length": 256, "feed_forward_length": 256}.items():
            replaced(f"qwen3.{key}", value)(writer)
        shapes = {"attn_q": 32, "attn_k": 16, "attn_v": 16, "ffn_gate": 256, "ffn_up": 256, "ffn_down": 256}
        writer.add_tensor("token_embd.weight", random.normal(0, 0.2, (32, 256)).astype(np.float32))
        for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
            writer.add_tensor(f"{name}.weight", np.ones(256, np.float32))
        for name in ("attn_q_norm", "attn_k_norm"):
            writer.add_tensor(f"blk.0.{name}.weight", np.ones(16, np.float32))
        writer.add_tensor("blk.0.attn_output.weight", random.normal(0, 0.1, (256, 32)).astype(np.float32))
        for name, rows in shapes.items():
            writer.add_tensor(f"blk.0.{name}.weight", quantized(rows, 256), raw_dtype=kind)

    model = open_gguf(file_with(tmp_path / "x.gguf", change, tensors=False))
    loaded = model.load(torch.float32)
    ids = list(range(12))
    expected = log_probabilities(loaded, ids)
    with LlamaCpp(model.path) as served:
        found = torch.tensor(served.log_probabilities(ids, 32, single=0))
    spread = float(expected[-1].max() - expected[-1].min())
    # llama.cpp rounds the activations to eight bits as well.
    assert float((found - expected[-1]).abs().max()) < 0.05 * spread


def test_tensors_have_the_requested_dtype(tmp_path: Path) -> None:
    folder = write_arch(tmp_path / "model", "llama")
    model = open_gguf(write_gguf(tmp_path / "m.gguf", folder))
    ids = tiny_tokenizer()(TALK)["input_ids"]
    exact = log_probabilities(model.load(torch.float32), ids)
    halved = log_probabilities(model.load(torch.bfloat16), ids)
    assert 0 < float((exact - halved).abs().max()) < 1.0
    with LlamaCpp(model.path) as served:
        assert difference(served, exact, ids) < 1e-4
