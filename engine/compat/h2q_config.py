"""H2Q-Evo's streaming configuration (JSON of its `MemoryEfficientConfig`) as settings of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.i18n import _

SUPPORTED = frozenset(
    (
        "max_memory_gb",
        "memory_buffer_gb",
        "streaming_batch_size",
        "micro_batch_size",
        "gradient_accumulation_steps",
        "data_chunk_size",
        "max_cached_chunks",
        "num_worker_threads",
        "prefetch_buffer_size",
        "cpu_affinity",
        "max_cpu_percent",
        "update_interval",
        "resource_check_interval",
    )
)
"""Names with the same meaning in `engine.core.config.Settings`."""
IGNORED = frozenset(
    (
        "enable_streaming",
        "stream_buffer_size",
        "model_memory_limit_mb",
        "activation_checkpointing",
        "use_mixed_precision",
        "encoding_resolution",
        "fixed_point_iterations",
        "compression_layers",
        "use_memory_pool",
    )
)
"""Names without a setting: text is always streamed, buffers are always reused, and the budget and measurements
decide the rest."""
MIN_CONTEXT = 64


@dataclass(frozen=True)
class StreamingConfig:
    """The settings in a configuration."""

    settings: dict[str, bool | int | float | str]
    """By the names of `engine.core.config.Settings`; the values are not validated yet."""
    context: int | None = None
    """`max_sequence_length`, at least `LEAST_CONTEXT`."""
    ignored: list[str] = field(default_factory=list)
    """Names without effect."""


def read_streaming_config(path: Path) -> StreamingConfig | None:
    """The configuration in `path`; None for a missing file or one of another kind, such as a models.json.

    Raises BadInput for a configuration with an unknown name.
    """
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    known = SUPPORTED | IGNORED | {"enable_cpu_affinity", "max_sequence_length"}
    if not isinstance(config, dict) or "models" in config or not known & config.keys():
        return None
    for name in config:
        if name not in known:
            raise BadInput(_("H2Q-Evo has no setting {name}").format(name=name), path=path)
    settings: dict[str, bool | int | float | str] = {
        name: _plain(path, name, value) for name, value in config.items() if name in SUPPORTED
    }
    if config.get("enable_cpu_affinity"):
        settings.setdefault("cpu_affinity", "auto")
    length = config.get("max_sequence_length")
    return StreamingConfig(
        settings,
        max(MIN_CONTEXT, length) if isinstance(length, int) else None,
        [name for name in config if name in IGNORED],
    )


def _plain(path: Path, name: str, value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    raise BadInput(_("The setting {key} cannot be used: {reason}").format(key=name, reason=value), path=path)
