"""The matrices of a model that LoRA can adapt, by name and shape; weights are not read."""

from __future__ import annotations

from engine.models.base_models import BaseModel, base_config


def linear_shapes(base: BaseModel) -> dict[str, tuple[int, int]]:
    """`(out, in)` of every linear layer but the head, by its name in transformers. Raises BadInput.

    Imports torch and transformers, which takes seconds.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    from engine.models.adapters import linear_layers
    from engine.models.gguf.model import empty_model

    with torch.device("meta"):
        model = empty_model(base_config(base), torch.float32)
    modules = dict(model.named_modules())
    shapes = {}
    for name in linear_layers(model):
        rows, columns = modules[name].weight.shape
        shapes[name] = (columns, rows) if isinstance(modules[name], Conv1D) else (rows, columns)
    return shapes
