"""Weights of a model on disk by their transformers names, read a few rows at a time, whatever file they lie in."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WEIGHTS_FILE, WEIGHTS_INDEX
from engine.models.gguf.model import GgufModel
from engine.models.gguf.tensor_names import ROPE_FACTORS, heads_to_pair, paired_rows, to_transformers

_PEFT = "base_model.model."
_COMPUTED = "rotary_emb.inv_freq"
"""Older files keep what the configuration says anyway."""


class Weights(Protocol):
    """Tensors of a model. `shapes` has every name of the state dict; tied heads are left out."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of `name` as float32; a vector's elements."""
        ...


class SafetensorsWeights:
    """One file or the shards of an index. A file is open only while rows are read, so that its pages go again."""

    def __init__(self, folder: Path) -> None:
        """Raises BadInput when there are no weights or a file is broken."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        for file in _weight_files(folder):
            try:
                with safe_open(file, "pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118  it is no dict
                        if name.endswith(_COMPUTED):
                            continue
                        self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
                        self._files[name] = file
            except FileNotFoundError as problem:
                raise BadInput(_("the model has no weights"), path=file) from problem
            except SafetensorError as problem:
                raise BadInput(_("the weights are broken"), path=file) from problem

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        with safe_open(self._files[name], "pt") as tensors:
            found: Tensor = tensors.get_slice(name)[start:stop]
            return found.to(torch.float32, copy=True)


class GgufWeights:
    """A GGUF file, dequantized as it is read."""

    def __init__(self, model: GgufModel) -> None:
        self._model = model
        self._names = {
            str(to_transformers(name)): name for name in model.file.tensors if name != ROPE_FACTORS
        }
        self.shapes = {hf: model.file.tensors[name].shape for hf, name in self._names.items()}

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        file, stored = self._model.file, self._names[name]
        tensor, config = file.tensors[stored], self._model.config
        heads = heads_to_pair(
            self._model.arch, stored, config.num_attention_heads, config.num_key_value_heads
        )
        if len(tensor.shape) == 1:
            values = file.read(tensor)
            return values[_places(len(values), heads)[start:stop]]
        if heads is None:
            return file.read_rows(tensor, start, stop).float()
        whole = file.read_rows(tensor, 0, tensor.shape[0]).float()
        return whole[_places(tensor.shape[0], heads)[start:stop]]


def _places(rows: int, heads: int | None) -> Tensor:
    """Where row `i` of transformers' tensor stands in the GGUF tensor."""
    if heads is None:
        return torch.arange(rows)
    return paired_rows(rows, heads).argsort()


@dataclass(frozen=True)
class LoraPair:
    """One adapted matrix: `weight + scale * b @ a`; `a` is `(rank, in)`, `b` is `(out, rank)`, both float32."""

    a: Tensor
    b: Tensor
    scale: float


def read_adapter(folder: Path) -> dict[str, LoraPair]:
    """The adapter of a PEFT directory by the name of the weight it changes (`model.layers.0.….weight`).

    Raises BadInput for a kind of adapter that is more than two matrices per weight (DoRA, new heads, biases).
    """
    config = adapter_config(folder)
    refused = (
        config.get("peft_type") != "LORA"
        or config.get("use_dora")
        or config.get("modules_to_save")
        or config.get("bias", "none") != "none"
        or config.get("fan_in_fan_out")
        or config.get("trainable_token_indices")
    )
    if refused:
        raise BadInput(_("only plain LoRA adapters can be exported"), path=folder / ADAPTER_CONFIG)
    found: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                name, _dot, part = key.removeprefix(_PEFT).partition(".lora_")
                if part not in ("A.weight", "B.weight"):
                    raise BadInput(
                        _("only plain LoRA adapters can be exported"), path=folder / ADAPTER_WEIGHTS
                    )
                found.setdefault(name, {})[part[0]] = tensors.get_tensor(key).float()
    except FileNotFoundError as problem:
        raise BadInput(_("the adapter has no weights"), path=folder / ADAPTER_WEIGHTS) from problem
    except SafetensorError as problem:
        raise BadInput(_("the weights are broken"), path=folder / ADAPTER_WEIGHTS) from problem
    pairs = {}
    for name, parts in found.items():
        if parts.keys() != {"A", "B"} or parts["A"].shape[0] != parts["B"].shape[1]:
            raise BadInput(_("the weights are broken"), path=folder / ADAPTER_WEIGHTS)
        rank = parts["A"].shape[0]
        alpha = float(_for_module(config.get("alpha_pattern"), name, config.get("lora_alpha", rank)))
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        pairs[f"{name}.weight"] = LoraPair(parts["A"], parts["B"], scale)
    return pairs


def adapter_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json` of a PEFT directory. Raises BadInput."""
    file = folder / ADAPTER_CONFIG
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise BadInput(_("there is no adapter here"), path=folder) from problem
    except (ValueError, OSError) as problem:
        raise BadInput(_("the adapter's configuration is broken"), path=file) from problem
    if not isinstance(found, dict):
        raise BadInput(_("the adapter's configuration is broken"), path=file)
    return found


class MergedWeights:
    """A base with an adapter added to it, row by row."""

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
    """The share of smallest magnitudes of every matrix inside the layers set to zero.

    Unstructured magnitude pruning, matrix by matrix (Han et al., arXiv 1506.02626); embeddings, head and norms
    stay. The zeros are stored like any value: a file does not become smaller by it.
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
            sizes = self._weights.rows(name, 0, self.shapes[name][0]).abs().flatten()
            count = int(self.share * sizes.numel())
            self._last = name, float(sizes.kthvalue(count).values) if count else -1.0
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
    """PEFT's `alpha_pattern`: a key holds for every module whose name ends with it."""
    if isinstance(patterns, dict):
        for key, value in patterns.items():
            if name == key or name.endswith(f".{key}"):
                return value
    return default
