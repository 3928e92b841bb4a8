"""Readers of model weights by transformers names, a few rows at a time: safetensors, GGUF, merged LoRA, pruned."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.filenames import printable_name
from engine.core.i18n import _
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WEIGHTS_FILE, WEIGHTS_INDEX
from engine.models.gguf.file import CHUNK, read_gguf
from engine.models.gguf.model import GgufModel, empty_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_PEFT = "base_model.model."
_COMPUTED = "rotary_emb.inv_freq"
"""Older files store these buffers; transformers computes them from the configuration."""


class Weights(Protocol):
    """The tensors of a model. `shapes` has every name of the state dict except tied heads."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of tensor `name` (elements of a vector) as float32."""
        ...


@contextmanager
def open_safetensors(file: Path) -> Iterator[Any]:
    """`safetensors.safe_open` for a file in any folder: the library itself takes no path that is not UTF-8.

    Raises FileNotFoundError, SafetensorError.
    """
    if printable_name(str(file)) == str(file):
        with safe_open(file, "pt") as tensors:
            yield tensors
        return
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with safe_open(f"/proc/self/fd/{folder}/{file.name}", "pt") as tensors:
            yield tensors
    finally:
        os.close(folder)


class SafetensorsWeights:
    """One safetensors file or the shards of an index; each is open only while rows are read, to free its pages."""

    def __init__(self, folder: Path) -> None:
        """Raises BadInput when there are no weights or a file is broken."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        for file in _weight_files(folder):
            try:
                with open_safetensors(file) as tensors:
                    for name in tensors.keys():  # noqa: SIM118  not a dict
                        if name.endswith(_COMPUTED):
                            continue
                        self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
                        self._files[name] = file
            except FileNotFoundError as problem:
                raise BadInput(_("the model has no weights"), path=file) from problem
            except SafetensorError as problem:
                raise BadInput(_("the weights are broken"), path=file) from problem

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        with open_safetensors(self._files[name]) as tensors:
            values: Tensor = tensors.get_slice(name)[start:stop]
            return values.to(torch.float32, copy=True)


class GgufWeights:
    """The tensors of a GGUF file, dequantized while reading."""

    def __init__(self, model: GgufModel) -> None:
        self._model = model
        self._names = {str(model.arch.to_transformers(name)): name for name in model.weight_names}
        self.shapes = {
            hf: model.arch.layout(name, model.config).hf_shape(model.file.tensors[name].shape)
            for hf, name in self._names.items()
        }

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        file, stored = self._model.file, self._names[name]
        tensor, layout = file.tensors[stored], self._model.arch.layout(stored, self._model.config)
        if layout.rows is None and len(tensor.shape) > 1:
            return layout.decode(file.read_rows(tensor, start, stop).float())
        # The place of a row in the file depends on all others.
        values = layout.decode(file.read(tensor))
        return (values if layout.rows is None else values[layout.rows(len(values)).argsort()])[start:stop]


@dataclass(frozen=True)
class LoraPair:
    """One adapted matrix: `weight + scale * b @ a`; `a` is `(rank, in)`, `b` is `(out, rank)`, both float32."""

    a: Tensor
    b: Tensor
    scale: float


def read_adapter(folder: Path) -> dict[str, LoraPair]:
    """The matrices of a PEFT directory by the name of the adapted weight (`model.layers.0.….weight`).

    Raises BadInput for adapters that are more than two matrices per weight (DoRA, new heads, biases).
    """
    config = adapter_config(folder)
    unsupported = (
        config.get("peft_type") != "LORA"
        or config.get("use_dora")
        or config.get("modules_to_save")
        or config.get("bias", "none") != "none"
        or config.get("fan_in_fan_out")
        or config.get("trainable_token_indices")
        or _changes_base(config.get("init_lora_weights"))
    )
    if unsupported:
        raise BadInput(_("only plain LoRA adapters can be exported"), path=folder / ADAPTER_CONFIG)
    matrices: dict[str, dict[str, Tensor]] = {}
    try:
        with open_safetensors(folder / ADAPTER_WEIGHTS) as tensors:
            for key in tensors.keys():  # noqa: SIM118
                name, _dot, part = key.removeprefix(_PEFT).partition(".lora_")
                if part not in ("A.weight", "B.weight"):
                    raise BadInput(
                        _("only plain LoRA adapters can be exported"), path=folder / ADAPTER_WEIGHTS
                    )
                matrices.setdefault(name, {})[part[0]] = tensors.get_tensor(key).float()
    except FileNotFoundError as problem:
        raise BadInput(_("the adapter has no weights"), path=folder / ADAPTER_WEIGHTS) from problem
    except SafetensorError as problem:
        raise BadInput(_("the weights are broken"), path=folder / ADAPTER_WEIGHTS) from problem
    pairs = {}
    for name, parts in matrices.items():
        if parts.keys() != {"A", "B"} or parts["A"].shape[0] != parts["B"].shape[1]:
            raise BadInput(_("the weights are broken"), path=folder / ADAPTER_WEIGHTS)
        rank = parts["A"].shape[0]
        alpha = float(_for_module(config.get("alpha_pattern"), name, config.get("lora_alpha", rank)))
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        pairs[f"{name}.weight"] = LoraPair(parts["A"], parts["B"], scale)
    return pairs


def _changes_base(start: Any) -> bool:
    """Whether an adapter was trained on a base from which its start was subtracted (PiSSA, OLoRA, CorDA, LoftQ)."""
    return isinstance(start, str) and start.lower().startswith(("pissa", "olora", "corda", "loftq"))


def read_gguf_adapter(path: Path, base: GgufModel) -> dict[str, LoraPair]:
    """The matrices of a LoRA adapter in a GGUF file by transformers' names of the weights that it adapts.

    llama.cpp scales by alpha / rank, or not at all where alpha is 0. Raises BadInput for an adapter of another base.
    """
    file = read_gguf(path)
    if (file.text("general.type"), file.text("adapter.type", "lora")) != ("adapter", "lora"):
        raise BadInput(_("this GGUF file is not a LoRA adapter"), path=path)
    alpha = file.number("adapter.lora.alpha", 0.0)
    pairs = {}
    for name in file.tensors:
        stored, _dot, part = name.rpartition(".")
        target = base.arch.to_transformers(stored)
        if part not in ("lora_a", "lora_b") or target is None or f"{stored}.lora_b" not in file.tensors:
            raise BadInput(
                _("the adapter does not fit its base model: {tensor}").format(tensor=name), path=path
            )
        if part == "lora_b":
            continue
        a, b = (file.read(file.tensors[f"{stored}.{one}"]) for one in ("lora_a", "lora_b"))
        layout = base.arch.layout(stored, base.config)
        if layout.rows is not None:
            b = b[layout.rows(len(b)).argsort()]
        if layout.columns is not None:
            a = a[:, layout.columns(a.shape[1]).argsort()]
        pairs[target] = LoraPair(a, b, alpha / len(a) if alpha else 1.0)
    return pairs


def adapter_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json` of a PEFT directory. Raises BadInput."""
    file = folder / ADAPTER_CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise BadInput(_("there is no adapter here"), path=folder) from problem
    except (ValueError, OSError) as problem:
        raise BadInput(_("the adapter's configuration is broken"), path=file) from problem
    if not isinstance(config, dict):
        raise BadInput(_("the adapter's configuration is broken"), path=file)
    return config


class MergedWeights:
    """A base model with a LoRA adapter merged into it, row by row."""

    def __init__(self, base: Weights, pairs: dict[str, LoraPair]) -> None:
        """Raises BadInput when the adapter belongs to another base."""
        self.shapes = base.shapes
        self._base, self._pairs = base, pairs
        for name, pair in pairs.items():
            if base.shapes.get(name) != (pair.b.shape[0], pair.a.shape[1]):
                raise BadInput(_("the adapter does not fit its base model: {tensor}").format(tensor=name))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        values = self._base.rows(name, start, stop)
        if (pair := self._pairs.get(name)) is not None:
            values += pair.scale * (pair.b[start:stop] @ pair.a)
        return values


class PrunedWeights:
    """Weights after unstructured magnitude pruning (Han et al., arXiv 1506.02626).

    In every matrix inside the layers, the share of smallest magnitudes is zero; embeddings, head and norms stay.
    Zeros are stored like other values: the file does not become smaller.
    """

    def __init__(self, weights: Weights, share: float) -> None:
        self.shapes = weights.shapes
        self.share = share
        self._weights = weights
        self._last: tuple[str, float] = "", 0.0

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        values = self._weights.rows(name, start, stop)
        if len(self.shapes[name]) == 2 and ".layers." in name:
            values[values.abs() <= self._threshold(name)] = 0.0
        return values

    def _threshold(self, name: str) -> float:
        if self._last[0] != name:
            magnitudes = self._weights.rows(name, 0, self.shapes[name][0]).abs().flatten()
            count = int(self.share * magnitudes.numel())
            self._last = name, float(magnitudes.kthvalue(count).values) if count else -1.0
        return self._last[1]


def _weight_files(folder: Path) -> list[Path]:
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [folder / WEIGHTS_FILE]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, OSError) as problem:
        raise BadInput(_("the index of the weights is broken"), path=index) from problem
    if not all(isinstance(name, str) and "/" not in name for name in names):
        raise BadInput(_("the index of the weights is broken"), path=index)
    return [folder / name for name in sorted(names)]


def _for_module(patterns: Any, name: str, default: Any) -> Any:
    """The value of PEFT's `alpha_pattern`: a key matches every module whose name ends with it."""
    if isinstance(patterns, dict):
        for key, value in patterns.items():
            if name == key or name.endswith(f".{key}"):
                return value
    return default


def load_weights(config: PretrainedConfig, weights: Weights, dtype: torch.dtype) -> Any:
    """A transformers model in evaluation mode with `weights`, filled row by row."""
    model = empty_model(config, dtype)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, shape in weights.shapes.items():
            if name not in parameters:
                continue
            rows = max(1, CHUNK // shape[1]) if len(shape) > 1 else shape[0]
            for start in range(0, shape[0], rows):
                stop = min(start + rows, shape[0])
                parameters[name].data[start:stop] = weights.rows(name, start, stop).to(dtype)
    return model
