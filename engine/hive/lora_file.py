"""A LoRA adapter in PEFT's layout as its headers describe it: tensors, ranks, scales. No weight is read here.

Adapters come from strangers, so everything is checked before it is used: the `safetensors` library accepts headers of
60 MB, names with `../` and shapes with a dimension of 2^40, and a PEFT configuration may hold regular expressions. What
is not a plain LoRA adapter (two matrices per weight on an unchanged base) is refused. Imports nothing heavy: the app
reads adapters with it too.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.hive.protocol import Rule
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS

T = TypeVar("T", int, float)

HEADER_LIMIT = 1 << 20
"""Bytes of a safetensors header or a configuration that are read at most."""
MOST_TENSORS = 4096
MOST_RANK = 1 << 16
ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of one value by safetensors' name of its number format; an adapter holds nothing else."""
PREFIX = "base_model.model."
"""What PEFT puts before the name of an adapted module."""

_MODULE = re.compile(r"[A-Za-z0-9_]{1,64}(?:\.[A-Za-z0-9_]{1,64}){0,31}")
_KEY = re.compile(re.escape(PREFIX) + rf"({_MODULE.pattern})\.lora_([AB])\.weight")
_PATTERN = re.compile(rf"\^?{_MODULE.pattern}")
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts that are subtracted from the base: the adapter belongs to a base that nobody else has."""


class BadAdapter(BadInput):
    """An adapter that cannot be used; `rule` says which rule it breaks."""

    def __init__(self, rule: Rule, message: str, *, path: Path | None = None) -> None:
        super().__init__(message, path=path)
        self.rule = rule


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a safetensors file."""

    dtype: str
    """"F32", "F16" or "BF16"."""
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class LoraModule:
    """One adapted matrix: its update is `scale * b @ a`."""

    name: str
    """As transformers names the module: "model.layers.0.self_attn.q_proj"."""
    a: TensorEntry
    """`(rank, in)`."""
    b: TensorEntry
    """`(out, rank)`."""
    scale: float
    """alpha / rank, with rank-stabilised LoRA alpha / sqrt(rank)."""

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the adapted matrix."""
        return self.b.shape[0], self.a.shape[1]


class LoraConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of `adapter_config.json`; what it leaves out is PEFT's default."""

    peft_type: str
    base_model_name_or_path: str | None = None
    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    fan_in_fan_out: bool = False
    task_type: str | None = None

    def scale_of(self, module: str) -> float:
        """The factor of `b @ a`."""
        rank = self.rank_of(module)
        alpha = _for_module(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def rank_of(self, module: str) -> int:
        return _for_module(self.rank_pattern, module, self.r)


@dataclass(frozen=True)
class LoraFile:
    """An adapter whose headers fit together; its values have not been read."""

    folder: Path
    config: LoraConfig
    modules: Mapping[str, LoraModule]
    """By name, sorted."""

    @property
    def weights(self) -> Path:
        return self.folder / ADAPTER_WEIGHTS

    @property
    def dtypes(self) -> frozenset[str]:
        return frozenset(entry.dtype for module in self.modules.values() for entry in (module.a, module.b))


def read_lora(folder: Path) -> LoraFile:
    """The adapter in `folder`. Raises BadAdapter."""
    config = parse_config(_small_file(folder / ADAPTER_CONFIG), folder / ADAPTER_CONFIG)
    with open_regular(folder / ADAPTER_WEIGHTS) as fd:
        tensors = read_header(fd, folder / ADAPTER_WEIGHTS)
    return LoraFile(folder, config, pair_tensors(tensors, config, folder / ADAPTER_WEIGHTS))


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """A descriptor of a regular file; a FIFO or a device is not waited for. Raises BadAdapter."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as problem:
        raise BadAdapter(
            _rule_of(path), _("the adapter has no {name}").format(name=path.name), path=path.parent
        ) from problem
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadAdapter(_rule_of(path), _("this is not a regular file"), path=path)
        yield fd
    finally:
        os.close(fd)


def read_header(fd: int, path: Path) -> dict[str, TensorEntry]:
    """The tensors of the safetensors file `fd` by name, checked as `parse_header` does. Raises BadAdapter."""
    try:
        size = os.fstat(fd).st_size
        length = int.from_bytes(os.pread(fd, 8, 0), "little")
        header = os.pread(fd, length, 8) if length <= HEADER_LIMIT else b""
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    return parse_header(length, header, size, path)


def parse_header(length: int, header: bytes, size: int, path: Path | None = None) -> dict[str, TensorEntry]:
    """The tensors that a safetensors header describes.

    Args:
        length: what the first 8 bytes say.
        header: the bytes after them; may be cut off.
        size: bytes of the whole file.

    Raises BadAdapter unless the tensors fill the file without gaps, overlaps or rests, in at most `MOST_TENSORS`.
    """
    if not 0 < length <= HEADER_LIMIT or len(header) < length or 8 + length > size:
        raise _bad_header(_("its header is missing, cut off or larger than 1 MB"), path)
    try:
        found = json.loads(header[:length].decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:
        raise _bad_header(_("its header is not valid JSON"), path) from problem
    if not isinstance(found, dict) or not isinstance(found.pop("__metadata__", {}), dict):
        raise _bad_header(_("its header describes no tensors"), path)
    if not 0 < len(found) <= MOST_TENSORS:
        raise _bad_header(
            _("it has {count} tensors; 1 to {most} are allowed").format(count=len(found), most=MOST_TENSORS),
            path,
        )
    first = 8 + length
    tensors = {name: _entry(name, value, first, path) for name, value in found.items()}
    end = first
    for entry in sorted(tensors.values(), key=lambda one: one.start):
        if entry.start != end:
            raise _bad_header(_("its tensors leave gaps or overlap"), path)
        end += entry.size
    if end != size:
        raise _bad_header(_("it is longer or shorter than its header says"), path)
    return tensors


def parse_config(data: bytes, path: Path | None = None) -> LoraConfig:
    """`adapter_config.json`. Raises BadAdapter for what is not plain LoRA, and for patterns that are not names."""
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        config = msgspec.convert(raw, LoraConfig)
    except (ValueError, RecursionError, msgspec.ValidationError) as problem:
        raise BadAdapter(Rule.CONFIG, _("the adapter's configuration is broken"), path=path) from problem
    if config.peft_type != "LORA" or (extra := _more_than_lora(raw)):
        named = extra if config.peft_type == "LORA" else config.peft_type[:40]
        raise BadAdapter(
            Rule.CONFIG,
            _("only plain LoRA adapters can be joined; this one has {what}").format(what=ascii(named)),
            path=path,
        )
    ranks = [config.r, *(config.rank_pattern or {}).values()]
    alphas = [config.lora_alpha, *(config.alpha_pattern or {}).values()]
    if not all(0 < rank <= MOST_RANK for rank in ranks) or not all(0 <= alpha <= 2**31 for alpha in alphas):
        raise BadAdapter(Rule.CONFIG, _("rank or alpha of the adapter is out of range"), path=path)
    patterns = [*(config.rank_pattern or {}), *(config.alpha_pattern or {})]
    if not all(_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise BadAdapter(
            Rule.CONFIG, _("rank_pattern and alpha_pattern may only hold names of modules"), path=path
        )
    return config


def pair_tensors(
    tensors: Mapping[str, TensorEntry], config: LoraConfig, path: Path | None = None
) -> dict[str, LoraModule]:
    """The adapted matrices by name. Raises BadAdapter for other tensors, lone ones, and shapes that do not fit."""
    halves: dict[str, dict[str, TensorEntry]] = {}
    for key, entry in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise BadAdapter(
                Rule.KEYS,
                _("{tensor} is not a matrix of a LoRA adapter").format(tensor=ascii(key[:120])),
                path=path,
            )
        halves.setdefault(match[1], {})[match[2]] = entry
    modules = {}
    for name, pair in sorted(halves.items()):
        if pair.keys() != {"A", "B"}:
            raise BadAdapter(
                Rule.KEYS, _("{module} has one of its two matrices").format(module=name), path=path
            )
        a, b = pair["A"], pair["B"]
        rank = config.rank_of(name)
        if len(a.shape) != 2 or len(b.shape) != 2 or not a.shape[0] == b.shape[1] == rank:
            raise BadAdapter(
                Rule.SHAPES,
                _("the matrices of {module} are {a} and {b}, which is not rank {rank}").format(
                    module=name, a=list(a.shape), b=list(b.shape), rank=rank
                ),
                path=path,
            )
        modules[name] = LoraModule(name, a, b, config.scale_of(name))
    return modules


def plain_config(lora: LoraFile, base: str) -> bytes:
    """`adapter_config.json` with what counts of the adapter's own: no pattern of a stranger is matched here, and no option of
    PEFT is taken over."""
    config = lora.config
    text = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": config.use_rslora,
        "fan_in_fan_out": config.fan_in_fan_out,
        "rank_pattern": config.rank_pattern or {},
        "alpha_pattern": config.alpha_pattern or {},
        "target_modules": list(lora.modules),
    }
    return json.dumps(text, indent=2).encode() + b"\n"


def _entry(name: str, value: Any, first: int, path: Path | None) -> TensorEntry:
    """One row of a header. `first`: where its data begin."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad_header(_("its header describes no tensors"), path)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise BadAdapter(
            Rule.DTYPES,
            _("{tensor} is {dtype}; only F32, F16 and BF16 are allowed").format(
                tensor=ascii(name[:120]), dtype=ascii(str(dtype)[:20])
            ),
            path=path,
        )
    if not _whole_numbers(shape) or not 1 <= len(shape) <= 4 or not all(0 < one < 2**31 for one in shape):
        raise BadAdapter(
            Rule.SHAPES, _("the shape of {tensor} is none").format(tensor=ascii(name[:120])), path=path
        )
    size = math.prod(shape) * ITEM_SIZES[dtype]
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] < 0 or offsets[1] - offsets[0] != size:
        raise _bad_header(_("a tensor has another size than its shape says"), path)
    return TensorEntry(dtype, tuple(shape), first + offsets[0], size)


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for a name that it has twice, of which each reader takes another one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _more_than_lora(config: Mapping[str, Any]) -> str:
    """The option that makes an adapter more than two matrices per weight on an unchanged base; "" for none."""
    for option in (
        "use_dora", "modules_to_save", "lora_bias", "target_parameters", "trainable_token_indices",
        "alora_invocation_tokens", "use_qalora", "use_bdlora", "layer_replication", "kasa_config",
        "monteclora_config", "lora_ga_config",
    ):  # fmt: skip
        if config.get(option):
            return option
    if config.get("bias", "none") not in ("none", None):
        return "bias"
    start = config.get("init_lora_weights")
    return start[:40] if isinstance(start, str) and start.lower().startswith(_OTHER_BASES) else ""


def _for_module(patterns: Mapping[str, T] | None, module: str, default: T) -> T:
    """The value of PEFT's `rank_pattern` or `alpha_pattern`: the first key that the name is, or ends with after a dot.

    A key with "^" is the whole name.
    """
    for key, value in (patterns or {}).items():
        if module == key.removeprefix("^") or (not key.startswith("^") and module.endswith(f".{key}")):
            return value
    return default


def _small_file(path: Path) -> bytes:
    """Raises BadAdapter also for a file larger than `HEADER_LIMIT`."""
    with open_regular(path) as fd:
        try:
            data = os.pread(fd, HEADER_LIMIT + 1, 0)
        except OSError as problem:
            raise _unreadable(path, problem) from problem
    if len(data) > HEADER_LIMIT:
        raise BadAdapter(Rule.CONFIG, _("the adapter's configuration is broken"), path=path)
    return data


def _rule_of(path: Path) -> Rule:
    return Rule.CONFIG if path.name == ADAPTER_CONFIG else Rule.HEADER


def _bad_header(reason: str, path: Path | None) -> BadAdapter:
    return BadAdapter(
        Rule.HEADER,
        _("the weights are no safetensors file: {reason}").format(reason=reason),
        path=path,
    )


def _unreadable(path: Path, problem: OSError) -> BadAdapter:
    return BadAdapter(
        _rule_of(path), _("the file cannot be read: {reason}").format(reason=problem.strerror), path=path
    )
