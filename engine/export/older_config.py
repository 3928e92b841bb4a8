"""The rotary embedding in the keys of transformers before version 5, which vLLM and other programs still read.

Version 5 keeps everything in `rope_parameters`; version 4 has `rope_theta`, `rope_scaling` and, by family, more keys at
the top level, and ignores `rope_parameters` without a word: a scaled model then computes without its scaling.
"""

from __future__ import annotations

from typing import Any

_TOP_LEVEL = ("rope_theta", "partial_rotary_factor")
_PHI_SCALING = ("short_factor", "long_factor")


def rope_keys_of_version_4(model_type: str, rope: dict[str, Any], positions: int) -> dict[str, Any]:
    """Keys for config.json from `rope_parameters`; empty without any. `positions` is `max_position_embeddings`."""
    if "full_attention" in rope:
        # Gemma 3: the scaling is that of the layers that see the whole text.
        keys = rope_keys_of_version_4(model_type, rope["full_attention"], positions)
        local = (rope.get("sliding_attention") or {}).get("rope_theta")
        return keys if local is None else {**keys, "rope_local_base_freq": local}
    keys = {key: rope[key] for key in _TOP_LEVEL if rope.get(key) is not None}
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return keys
    if kind == "longrope" and model_type == "phi3":
        # Its configuration refuses any further key.
        scaling: dict[str, Any] = {"type": kind, **{key: rope[key] for key in _PHI_SCALING}}
        return {
            **keys,
            "original_max_position_embeddings": rope["original_max_position_embeddings"],
            "rope_scaling": scaling,
        }
    scaling = {key: value for key, value in rope.items() if key not in _TOP_LEVEL and value is not None}
    if kind == "yarn" and scaling.get("original_max_position_embeddings") == positions:
        # Version 4 would take the factor from the ratio of both, which is 1, instead of `factor`.
        del scaling["original_max_position_embeddings"]
    return {**keys, "rope_scaling": scaling}
