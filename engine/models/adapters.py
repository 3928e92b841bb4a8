"""A frozen Hugging Face model with a trainable adapter, in the shape in which the loop knows models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from engine.core.digest import file_sha256
from engine.core.errors import BadInput, first_line
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.core.outputs import ADAPTER_FOLDER, new_folder
from engine.models.base_models import adapter_card
from engine.models.card import ADAPTER_WEIGHTS, CARD_FILE, ModelCard, encode_card
from engine.models.losses import has_linear_head, token_losses

LOW_MEMORY = {"use_reentrant": False}


@dataclass(frozen=True)
class AdapterModelConfig:
    """What the loop asks of a model's configuration."""

    context: int
    """Tokens of a training window at most."""
    dim: int
    vocab: int


class AdapterModel(nn.Module):
    """`state_dict` holds what is trained and nothing else; copies share the frozen base."""

    def __init__(self, peft: Any, context: int) -> None:
        """`peft` is a PeftModel over a causal language model."""
        super().__init__()
        self.peft = peft
        base = self.base
        text = base.config.get_text_config()
        self.config = AdapterModelConfig(context=context, dim=text.hidden_size, vocab=text.vocab_size)
        self._recompute = False
        self.head_apart = has_linear_head(base)

    @property
    def base(self) -> Any:
        """The Hugging Face model, adapter layers in it."""
        return self.peft.get_base_model()

    @property
    def model(self) -> AdapterModel:
        """Where the governor finds `recompute`, as in the native model."""
        return self

    @property
    def recompute(self) -> bool:
        """Activation checkpointing."""
        return self._recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        if on and not self._recompute:
            self.base.activation_checkpointing_enable(dict(LOW_MEMORY))
        elif self._recompute and not on:
            self.base.activation_checkpointing_disable()
        self._recompute = on

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits `(rows, length, vocab)` of ids `(rows, length)`; all of them at once."""
        logits: Tensor = self.base(input_ids=ids, position_ids=positions, use_cache=False).logits
        return logits

    def losses(self, ids: Tensor, targets: Tensor, wanted: Tensor, positions: Tensor | None = None) -> Tensor:
        """-log p of `targets` where `wanted`, 0 elsewhere; all `(rows, length)`, float32.

        `positions` that begin again at 0 tell conversations in one row apart: they do not see each other.
        """
        return token_losses(self.base, ids, targets, wanted, positions, head_apart=self.head_apart)

    def parameters_count(self) -> int:
        """Of the adapter: what gradients and moments are kept of."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def state_dict(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The adapter's tensors by name."""
        return {name: value.detach() for name, value in self._trained().items()}

    @torch.no_grad()
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Takes the adapter's tensors. Raises KeyError when they belong to another adapter."""
        trained = self._trained()
        if trained.keys() != state_dict.keys():
            raise KeyError(", ".join(sorted(trained.keys() ^ state_dict.keys())[:3]))
        for name, value in trained.items():
            value.copy_(state_dict[name])

    def __deepcopy__(self, memo: dict[int, Any]) -> AdapterModel:
        """The base is not copied: it does not change, and there is no room for two."""
        for frozen in [*self.buffers(), *(p for p in self.parameters() if not p.requires_grad)]:
            memo[id(frozen)] = frozen
        made = AdapterModel.__new__(AdapterModel)
        memo[id(self)] = made
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made


def attach_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """A PeftModel of `model` with the adapter in `folder`.

    Raises BadInput: no safetensors, a hash that is not the card's, an adapter for another architecture.
    """
    from peft import PeftModel

    weights = adapter_weights(folder)
    try:
        found = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, torch_device="cpu")
        wanted = set(load_file(weights))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as problem:
        raise BadInput(
            _("the adapter does not fit its base: {reason}").format(reason=first_line(problem)), path=folder
        ) from problem
    if not wanted:
        raise BadInput(_("the adapter is empty"), path=weights)
    return found


def adapter_weights(folder: Path) -> Path:
    """The weights of an adapter, checked against its card where there is one. Raises BadInput."""
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise BadInput(_("the adapter has no {name}").format(name=ADAPTER_WEIGHTS), path=folder)
    card = adapter_card(folder)
    if card is not None and card.weights_sha256 and card.weights_sha256 != file_sha256(file):
        raise BadInput(
            _("the weights have changed since they were written (their hash differs)"),
            path=file,
            hint=f"h2q-tui models remove {card.name}",
        )
    return file


def new_adapter(model: Any, settings: Any, seed: int) -> Any:
    """A PeftModel with a fresh adapter as `engine.training.recipe.AdapterSettings` say.

    Raises BadInput for a name of `settings.targets` that is no linear layer, or the head: no program takes
    an adapter on it, and with a tied embedding it would hold that whole.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(seed)
    layers = linear_layers(model)
    wrong = [
        name
        for name in settings.targets
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers)
    ]
    if wrong:
        raise _no_layer(model, wrong)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or "all-linear",
        use_rslora=settings.rslora,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as problem:
        raise BadInput(
            _("no adapter can be made on this model: {reason}").format(reason=first_line(problem))
        ) from problem


def _no_layer(model: Any, wrong: list[str]) -> BadInput:
    names = sorted({layer.rpartition(".")[2] for layer in linear_layers(model)})
    return BadInput(
        _("--target-modules: {wrong} is no layer that can be adapted; there are {names}").format(
            wrong=", ".join(wrong), names=", ".join(names)
        )
    )


def linear_layers(model: Any) -> list[str]:
    """Names of the linear layers without the head, GPT-2's kind of them included."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def save_adapter(
    folder: Path, peft: Any, card: ModelCard, more: Callable[[Path], None] | None = None
) -> ModelCard:
    """Writes a PEFT directory with its card, whole or not at all; returns the card with its hash.

    `more` may add files before it takes its name. A folder of that name is replaced. Raises OSError.
    """
    from peft import get_peft_model_state_dict

    with new_folder(folder, ADAPTER_FOLDER) as temporary:
        tensors = {
            name: tensor.detach().to("cpu", torch.float32).contiguous()
            for name, tensor in get_peft_model_state_dict(peft).items()
        }
        weights = save(tensors, metadata={"format": "pt"})
        card = msgspec.structs.replace(card, weights_sha256=sha256(weights).hexdigest())
        write_bytes(temporary / ADAPTER_WEIGHTS, weights)
        config = peft.peft_config["default"]
        config.base_model_name_or_path, config.inference_mode = card.base_path, True
        config.save_pretrained(str(temporary))
        if more is not None:
            more(temporary)
        write_bytes(temporary / CARD_FILE, encode_card(card))
    return card
