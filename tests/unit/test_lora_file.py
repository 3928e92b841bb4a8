"""What is refused of an adapter before a weight is read, by its rule; and that PEFT reads scales the same way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hive.lora_file import BadAdapter, parse_config, parse_header, read_lora
from tests.lora_adapters import SHAPES, factors, write_adapter

A, B = (f"base_model.model.{next(iter(SHAPES))}.lora_{one}.weight" for one in "AB")


def _rewrite(file: Path, change: Callable[[dict[str, Any]], object], extra: bytes = b"") -> None:
    """Writes the safetensors file with another header and perhaps more bytes behind it."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + extra)


def _rename(header: dict[str, Any], new: str) -> None:
    header[new] = header.pop(A)


HEADERS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "path in a name": ("keys", lambda h: _rename(h, "base_model.model.../../x.lora_A.weight")),
    "escape in a name": ("keys", lambda h: _rename(h, "base_model.model.a\x1b[2J.lora_A.weight")),
    "embedding": ("keys", lambda h: _rename(h, "base_model.model.model.embed_tokens.lora_embedding_A")),
    "lone matrix": ("keys", lambda h: _rename(h, "base_model.model.other.lora_A.weight")),
    "long name": ("keys", lambda h: _rename(h, f"base_model.model.{'a' * 500}.lora_A.weight")),
    "number format": ("dtypes", lambda h: h[A].update(dtype="F64")),
    "number format that is no text": ("dtypes", lambda h: h[A].update(dtype=["F32"])),
    "huge dimension": ("shapes", lambda h: h[A].update(shape=[0, 1 << 40])),
    "negative dimension": ("shapes", lambda h: h[A].update(shape=[-4, -20])),
    "true as a dimension": ("shapes", lambda h: h[A].update(shape=[True, 80])),
    "other rank": ("shapes", lambda h: h[A].update(shape=[5, 16])),
    "three dimensions": ("shapes", lambda h: h[A].update(shape=[4, 4, 5])),
    "shape larger than the data": ("header", lambda h: h[A].update(shape=[4, 21])),
    "overlap": ("header", lambda h: h[A].update(data_offsets=h[B]["data_offsets"], shape=h[B]["shape"])),
    "offset below zero": ("header", lambda h: h[A].update(data_offsets=[-320, 0])),
    "no tensors": ("header", lambda h: h.clear()),
    "a field more": ("header", lambda h: h[A].update(more=1)),
    "a list as a tensor": ("header", lambda h: h.update({A: []})),
    "metadata that are none": ("header", lambda h: h.update(__metadata__=[])),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_is_refused_by_its_rule(tmp_path: Path, case: str) -> None:
    rule, change = HEADERS[case]
    folder = write_adapter(tmp_path / "a", factors(0, 4))
    assert read_lora(folder).modules.keys() == SHAPES.keys()
    _rewrite(folder / "adapter_model.safetensors", change)
    with pytest.raises(BadAdapter) as caught:
        read_lora(folder)
    assert caught.value.rule == rule
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x08", b"\xff" * 8, (1 << 21).to_bytes(8, "little") + b"{" * 100, (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null", (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (8).to_bytes(8, "little") + b'{"a":\xff}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    folder = write_adapter(tmp_path / "a", factors(0, 4))
    (folder / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(BadAdapter) as caught:
        read_lora(folder)
    assert caught.value.rule == "header"


def test_bytes_behind_the_tensors_are_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", factors(0, 4))
    _rewrite(folder / "adapter_model.safetensors", lambda _header: None, b"PK\x03\x04")
    with pytest.raises(BadAdapter, match="longer or shorter"):
        read_lora(folder)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", factors(0, 4))
    file = folder / "adapter_model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = (
        data[8 : 8 + length].rstrip()[:-1]
        + b',"'
        + A.encode()
        + b'":{"dtype":"F32","shape":[4,20],"data_offsets":[0,320]}}'
    )
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(BadAdapter) as caught:
        read_lora(folder)
    assert caught.value.rule == "header"


@pytest.mark.parametrize(
    "more",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"lora_bias": True},
        {"trainable_token_indices": [1]},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"r": 0},
        {"r": "4"},
        {"lora_alpha": -1},
        {"lora_alpha": 1e300},
        {"rank_pattern": {"(a+)+$": 4}},
        {"alpha_pattern": {".*": 4}},
        {"rank_pattern": {"q_proj": 0}},
        {"target_modules": {"a": 1}},
    ],
    ids=str,
)
def test_a_configuration_beyond_plain_lora_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    folder = write_adapter(tmp_path / "a", factors(0, 4), **more)
    with pytest.raises(BadAdapter) as caught:
        read_lora(folder)
    assert caught.value.rule == "config"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    folder = write_adapter(tmp_path / "a", factors(0, 4))
    (folder / name).unlink()
    with pytest.raises(BadAdapter, match=f"has no {name}"):
        read_lora(folder)
    os.mkfifo(folder / name)
    with pytest.raises(BadAdapter, match="not a regular file"):
        read_lora(folder)


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 400))
@settings(deadline=None)
def test_any_bytes_as_a_header_are_refused_or_read(header: bytes, length: int, size: int) -> None:
    try:
        assert parse_header(length, header, size)
    except BadAdapter as problem:
        assert problem.rule in ("header", "keys", "dtypes", "shapes")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=5,
)


@given(JSON)
@settings(deadline=None)
def test_any_json_as_a_configuration_is_refused(value: Any) -> None:
    with pytest.raises(BadAdapter):
        parse_config(json.dumps(value).encode())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"down_proj": 3}},
        {"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 5, "q_proj": 7}},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 9}, "use_rslora": True},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"proj": 1}},
    ],
    ids=str,
)
def test_scales_are_those_of_peft(tmp_path: Path, more: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=20,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            head_dim=12,
        )
    )
    folder = write_adapter(tmp_path / "a", factors(0, 4), **more)
    model = PeftModel.from_pretrained(base, str(folder))
    for name, module in read_lora(folder).modules.items():
        layer: Any = model.get_base_model().get_submodule(name)
        assert module.scale == pytest.approx(layer.scaling["default"])
        assert module.shape == SHAPES[name]
