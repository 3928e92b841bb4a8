"""What another process is given before its first step, and the model and objective that it builds from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.transformer import ModelConfig, Transformer
from engine.training.adapter_source import LoraSetup
from engine.training.devices import Device, choose_device
from engine.training.objective import Objective, TrainableModel


class RankSetup(msgspec.Struct, frozen=True):
    """How another process computes as the first one does."""

    threads: int
    bf16: bool
    fused: bool
    model: ModelConfig | None = None
    """Of a native model. None: an adapter is trained."""
    lora: LoraSetup | None = None

    def encode(self) -> str:
        return msgspec.json.encode(self, enc_hook=str).decode()

    @classmethod
    def decode(cls, data: bytes) -> RankSetup:
        return msgspec.json.decode(data, type=cls, dec_hook=_path)


def _path(type_: type, value: Any) -> Any:
    if type_ is Path:
        return Path(value)
    raise NotImplementedError


def build(setup: RankSetup) -> tuple[TrainableModel, Objective]:
    """The model with weights of no meaning, in training mode, and its objective. Raises BadInput for a base that is
    not the same here."""
    if setup.lora is None:
        assert setup.model is not None
        native = Transformer(setup.model)
        device = _device(setup, setup.model.dim)
        native.to(device.name).train()
        native.model.fused = device.fused
        return native, Objective(device)
    from engine.training.adapter_objective import LoraObjective

    lora = setup.lora
    device = _device(setup, lora.source.base.dimensions.hidden)
    adapter, _peft = lora.source.open(device.name)
    adapter.to(device.name).train()
    adapter.make_lean(fused=device.fused)
    if lora.joined and not adapter.joins_rows(fused=device.fused, longest=lora.longest):
        raise BadInput(
            _("the base computes packed rows differently in this process"), path=lora.source.base.path
        )
    return adapter, LoraObjective(device)


def _device(setup: RankSetup, width: int) -> Device:
    return choose_device(width, threads=setup.threads, bf16=setup.bf16, fused=setup.fused)
