"""A frozen Hugging Face model with a trainable adapter, in the shape in which the loop knows models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.losses import chunked_cross_entropy

LOW_MEMORY = {"use_reentrant": False}


@dataclass(frozen=True)
class AdapterShape:
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
        self.config = AdapterShape(context=context, dim=text.hidden_size, vocab=text.vocab_size)
        self._recompute = False
        self.head_apart = head_is_linear(base)

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
        return causal_losses(self.base, ids, targets, wanted, positions, head_apart=self.head_apart)

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


def causal_losses(
    model: Any, ids: Tensor, targets: Tensor, wanted: Tensor, positions: Tensor | None, *, head_apart: bool
) -> Tensor:
    """-log p of `targets` under a causal language model where `wanted`, 0 elsewhere; all `(rows, length)`."""
    found = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
    if head_apart:
        hidden = model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        head = model.get_output_embeddings()
        values = chunked_cross_entropy(hidden[wanted], head.weight, head.bias, targets[wanted])
    else:
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[wanted].float()
        values = nn.functional.cross_entropy(logits, targets[wanted], reduction="none")
    return found.masked_scatter(wanted, values)


@torch.no_grad()
def head_is_linear(model: Any) -> bool:
    """Whether logits are the head's product with the last hidden states and nothing more; the model is asked."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(1, 5, device=head.weight.device)[None] % model.config.get_text_config().vocab_size
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(head(hidden), model(input_ids=ids, use_cache=False).logits)
