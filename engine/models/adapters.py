"""LoRA adapters on a frozen Hugging Face model: create, attach, save, and the module that the training loop steps."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from engine.core.errors import BadInput, first_line
from engine.core.files import file_sha256, write_bytes
from engine.core.i18n import _
from engine.core.outputs import ADAPTER_FOLDER, new_folder
from engine.models.base_models import adapter_card
from engine.models.card import ADAPTER_WEIGHTS, CARD_FILE, ModelCard, encode_card, weights_changed
from engine.models.divergence import token_losses_and_drift
from engine.models.lean.dropout import SharedDropout
from engine.models.lean.install import joined_row, keeps_apart, make_lean
from engine.models.lean.joined_attention import JoinedRow
from engine.models.losses import has_linear_head, token_losses


@dataclass(frozen=True)
class AdapterModelConfig:
    """The part of a model configuration that the training loop reads."""

    context: int
    """Maximum tokens of a training window."""
    dim: int
    vocab: int


class AdapterModel(nn.Module):
    """A PEFT model whose `state_dict` holds the trained tensors only; copies share the frozen base."""

    def __init__(self, peft: Any, context: int) -> None:
        """`peft` is a PeftModel over a causal language model."""
        super().__init__()
        self.peft = peft
        base = self.base
        text = base.config.get_text_config()
        self.config = AdapterModelConfig(context=context, dim=text.hidden_size, vocab=text.vocab_size)
        self._checkpointing = False
        self.linear_head = has_linear_head(base)
        self._dropout: SharedDropout | None = None
        self._row: JoinedRow | None = None

    def make_lean(self, *, fused: bool) -> None:
        """Replaces layers by faster ones that compute the same; `fused`: with the kernels of
        `engine.models.kernels.build`."""
        self._dropout = make_lean(self.peft, fused=fused)

    def joins_rows(self, *, fused: bool, longest: int) -> bool:
        """Whether a row may join conversations of up to `longest` tokens, measured on short ones; then `losses` takes
        rows with `joined`."""
        self._row = joined_row(self.base, fused=fused, longest=longest)
        return self._row is not None

    def packs_rows(self) -> bool:
        """Whether conversations packed into padded rows are kept apart by the model, measured on short ones."""
        return keeps_apart(self.base)

    @property
    def base(self) -> Any:
        """The Hugging Face model with the adapter layers inside."""
        return self.peft.get_base_model()

    @property
    def model(self) -> AdapterModel:
        """Holds `activation_checkpointing`, as `Transformer.model` does."""
        return self

    @property
    def activation_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass to save memory."""
        return self._checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        if on and not self._checkpointing:
            contexts = {} if self._row is None else {"context_fn": self._row.checkpoint_contexts}
            self.base.activation_checkpointing_enable({"use_reentrant": False, **contexts})
        elif self._checkpointing and not on:
            self.base.activation_checkpointing_disable()
        self._checkpointing = on

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits `(rows, length, vocab)` of ids `(rows, length)`, not chunked."""
        logits: Tensor = self.base(input_ids=ids, position_ids=positions, use_cache=False).logits
        return logits

    def losses(
        self,
        ids: Tensor,
        targets: Tensor,
        mask: Tensor,
        positions: Tensor | None = None,
        *,
        joined: bool = False,
    ) -> Tensor:
        """-log p of `targets` where `mask`, 0 elsewhere; all `(rows, length)`, float32.

        Conversations packed into one row do not attend to each other: their `positions` start at 0 each. `joined`:
        the only row has no padding between them (`joins_rows`).
        """
        with self._row_context(mask, positions, joined=joined):
            return token_losses(self.base, ids, targets, mask, positions, linear_head=self.linear_head)

    def losses_and_drift(
        self,
        ids: Tensor,
        targets: Tensor,
        mask: Tensor,
        held: Tensor,
        positions: Tensor | None = None,
        *,
        joined: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(`losses`, KL(base ‖ with the adapter) of the predictions where `held`, 0 elsewhere), `(rows, length)` float32."""
        with self._row_context(mask, positions, joined=joined):
            return token_losses_and_drift(
                self.base,
                self._without_adapter,
                ids,
                targets,
                mask,
                held,
                positions,
                linear_head=self.linear_head,
            )

    @contextlib.contextmanager
    def _row_context(self, mask: Tensor, positions: Tensor | None, *, joined: bool) -> Iterator[None]:
        context: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if joined:
            assert self._row is not None and positions is not None
            context = self._row.active(_trained_spans(positions[0], mask[0]), positions.shape[1])
        try:
            with context:
                yield
        finally:
            if self._dropout is not None:
                self._dropout.forget()

    @contextlib.contextmanager
    def _without_adapter(self) -> Iterator[None]:
        """Inside, the model computes what its base does."""
        training = self.peft.training
        self.peft.eval()
        try:
            with self.peft.disable_adapter():
                yield
        finally:
            self.peft.train(training)

    def parameters_count(self) -> int:
        """Trainable parameters, those of the adapter."""
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
        """Copies the adapter's tensors in place. Raises KeyError when they belong to another adapter."""
        trained = self._trained()
        if trained.keys() != state_dict.keys():
            raise KeyError(", ".join(sorted(trained.keys() ^ state_dict.keys())[:3]))
        for name, value in trained.items():
            value.copy_(state_dict[name])

    def __deepcopy__(self, memo: dict[int, Any]) -> AdapterModel:
        """Shares the frozen base with the copy: it never changes, and two would not fit into memory."""
        for frozen in [*self.buffers(), *(p for p in self.parameters() if not p.requires_grad)]:
            memo[id(frozen)] = frozen
        clone = AdapterModel.__new__(AdapterModel)
        memo[id(self)] = clone
        clone.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return clone


def _trained_spans(positions: Tensor, mask: Tensor) -> list[tuple[int, int]]:
    """(start, end) of each conversation of a row with a loss; its positions start at 0.

    What has none is padding: no loss depends on its attention.
    """
    starts = (positions == 0).nonzero()[:, 0].tolist()
    spans = list(pairwise([*starts, len(positions)]))
    return [(start, end) for start, end in spans if bool(mask[start:end].any())] or spans


def attach_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """A PeftModel of `model` with the adapter in `folder`.

    Raises BadInput for missing safetensors, a hash other than the card's, or an adapter for another architecture.
    """
    from peft import PeftModel, get_peft_model_state_dict

    weights = adapter_weights(folder)
    try:
        peft = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, torch_device="cpu")
        tensors = load_file(weights)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as problem:
        raise _does_not_fit(_load_problem(problem), folder) from problem
    if not tensors:
        raise BadInput(_("the adapter is empty"), path=weights)
    unfit = _names_unlike(get_peft_model_state_dict(peft), tensors)
    if unfit:
        raise _does_not_fit(unfit, folder)
    return peft


_OTHER_SHAPE = re.compile(
    r"size mismatch for (\S+?)(?:\.default)?\.weight: .*?torch\.Size\(\[([^]]*)\]\).*?torch\.Size\(\[([^]]*)\]\)",
    re.DOTALL,
)
"""PyTorch's words for a tensor, its shape in the file and in the model."""


def _load_problem(problem: Exception) -> str:
    """Why an adapter was not loaded, in one sentence that names the tensor where PyTorch does."""
    found = _OTHER_SHAPE.search(str(problem))
    if found is None:
        return first_line(problem)
    return _("{tensor} is {have} in the adapter and {need} on this base").format(
        tensor=found[1], have=found[2].replace(", ", " × "), need=found[3].replace(", ", " × ")
    )


def _names_unlike(model: Mapping[str, Any], file: Mapping[str, Any]) -> str:
    """Which matrix of an adapter's file has no place in the model, or the model misses, which PEFT passes over;
    "" for none."""
    stored, wanted = ({name for name in one if ".lora_" in name} for one in (file, model))
    if stored - wanted:
        return _("{tensor} has no place on this base").format(tensor=min(stored - wanted))
    return _("{tensor} is missing").format(tensor=min(wanted - stored)) if wanted - stored else ""


def _does_not_fit(reason: str, folder: Path) -> BadInput:
    return BadInput(
        _("the adapter does not fit its base model: {reason}").format(reason=reason),
        path=folder,
        hint="h2q-tui models list",
    )


def adapter_weights(folder: Path) -> Path:
    """The weights file of an adapter, checked against its card if it has one. Raises BadInput."""
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise BadInput(_("the adapter has no {name}").format(name=ADAPTER_WEIGHTS), path=folder)
    card = adapter_card(folder)
    if card is not None and card.weights_sha256 and card.weights_sha256 != file_sha256(file):
        raise weights_changed(file)
    return file


def new_adapter(model: Any, settings: Any, seed: int) -> Any:
    """A PeftModel with a new adapter; `settings` are `engine.training.recipe.LoraSettings`.

    Raises BadInput when `settings.targets` names something other than a linear layer, or the head: other programs
    do not load an adapter on it, and with tied embeddings it would contain the whole embedding.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(seed)
    layers = linear_layers(model)
    unknown = [
        name
        for name in settings.targets
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers)
    ]
    if unknown:
        raise _unknown_layers(unknown, layers)
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
            _("an adapter cannot be added to this model: {reason}").format(reason=first_line(problem))
        ) from problem


def _unknown_layers(unknown: list[str], layers: list[str]) -> BadInput:
    names = sorted({layer.rpartition(".")[2] for layer in layers})
    return BadInput(
        _("--target-modules: {wrong} is not a layer that LoRA can adapt; available: {names}").format(
            wrong=_(", ").join(unknown), names=_(", ").join(names)
        )
    )


def linear_layers(model: Any) -> list[str]:
    """Names of the linear layers without the head; GPT-2's `Conv1D` counts as linear."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def save_adapter(
    folder: Path, peft: Any, card: ModelCard, add_files: Callable[[Path], None] | None = None
) -> ModelCard:
    """Writes a PEFT directory with its card atomically; returns the card with the hash of the weights.

    `add_files` may write more files before the folder gets its name. Replaces a folder of that name. Raises OSError.
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
        if add_files is not None:
            add_files(temporary)
        write_bytes(temporary / CARD_FILE, encode_card(card))
    return card
