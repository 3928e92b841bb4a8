"""Loads a base model and its tokenizer with transformers: local files only, no remote code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.core.errors import BadInput, first_line
from engine.core.i18n import _
from engine.models.base_models import FOUR_BIT, BaseModel
from engine.models.card import ModelCard
from engine.models.chat_template import ChatTemplate
from engine.models.message_turns import MessageTemplate
from engine.models.template_text import PLAIN_TEMPLATE

if TYPE_CHECKING:
    from engine.models.gguf.model import GgufModel

FP32_BYTES = 1 << 30
"""Size up to which a base is loaded in float32 by default."""


def context_of(config: Any) -> int:
    """Tokens that a model is made for, by its transformers configuration; the positions of a native one reach further."""
    return int(getattr(config, "trained_context", None) or config.max_position_embeddings)


def base_format(base: BaseModel, card: ModelCard | None = None) -> str:
    """The format to load a base in: the one that its adapter was trained on, else float32 for small models."""
    if card is not None and card.base_format:
        return card.base_format
    return "float32" if 4 * base.parameters <= FP32_BYTES else "bfloat16"


def load_base_as(base: BaseModel, format_: str, device: str = "cpu") -> Any:
    """`load_base` with a format as in `ModelCard.base_format`."""
    return load_base(
        base,
        torch.float32 if format_ == "float32" else torch.bfloat16,
        four_bit=format_ == FOUR_BIT,
        device=device,
    )


def load_base(base: BaseModel, dtype: torch.dtype, *, four_bit: bool = False, device: str = "cpu") -> Any:
    """The causal language model in evaluation mode, frozen. Raises BadInput when files are broken or hold no numbers."""
    silence_transformers()
    if base.is_gguf:
        from engine.models.gguf.model import open_gguf

        opened = open_gguf(base.path)
        model: Any = opened.load(dtype)
        if base.lora is not None:
            _merge(model, opened, base.lora)
    else:
        model = _from_directory(base, dtype, four_bit=four_bit)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = False
        # The extremes carry NaN and infinities, and take no copy of the weights.
        if parameter.is_floating_point() and not all(map(torch.isfinite, parameter.aminmax())):
            raise BadInput(_("{tensor} holds NaN or infinite values").format(tensor=name), path=base.path)
    if not four_bit:
        model.to(device)
    return model.eval()


def _merge(model: Any, opened: GgufModel, lora: Path) -> None:
    """Adds an adapter in GGUF to the weights of `model`, in float32 before they are rounded. Raises BadInput."""
    from engine.models.weights import GgufWeights, MergedWeights, read_gguf_adapter

    pairs = read_gguf_adapter(lora, opened)
    merged = MergedWeights(GgufWeights(opened), pairs)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in pairs:
            parameters[name].data.copy_(merged.rows(name, 0, merged.shapes[name][0]))


def _from_directory(base: BaseModel, dtype: torch.dtype, *, four_bit: bool) -> Any:
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {"quantization_config": nf4_config()} if four_bit else {}
    try:
        auto_model: Any = AutoModelForCausalLM
        model, loading_info = auto_model.from_pretrained(
            base.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            # The error without it does not name the tensor.
            ignore_mismatched_sizes=True,
            **more,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as problem:
        raise BadInput(
            _("the base model cannot be loaded: {reason}").format(reason=first_line(problem)), path=base.path
        ) from problem
    missing = sorted(loading_info.get("missing_keys") or [])
    if missing:
        # transformers would initialise them at random and continue.
        raise BadInput(
            _("{count} tensors are missing from the weights, for example {name}").format(
                count=len(missing), name=missing[0]
            ),
            path=base.path,
        )
    mismatched = sorted(loading_info.get("mismatched_keys") or [])
    if mismatched:
        name, stored, expected = mismatched[0]
        raise BadInput(
            _("{tensor} has the shape {stored} in the weights and {wanted} in the configuration").format(
                tensor=name, stored=tuple(stored), wanted=tuple(expected)
            ),
            path=base.path,
        )
    return model


def nf4_config() -> Any:
    """The quantization of QLoRA (arXiv 2305.14314): NF4 with double quantization."""
    import transformers

    config_class: Any = transformers.BitsAndBytesConfig
    return config_class(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def check_four_bit(device: str, widths: Iterable[int] = (64,)) -> tuple[bool, str]:
    """(whether bitsandbytes computes correctly on `device`, the reason if not), tried on layers of these `widths`."""
    try:
        import bitsandbytes
    except ImportError:
        return False, _("bitsandbytes is not installed")
    except Exception as problem:  # a build for another CUDA fails in many ways
        return False, first_line(problem)
    try:
        for width in sorted(set(widths)):
            if not _layer_works(bitsandbytes, device, width):
                return False, _("bitsandbytes gives wrong results on {device}").format(device=device)
    except Exception as problem:
        return False, first_line(problem)
    return True, ""


def _layer_works(bitsandbytes: Any, device: str, width: int) -> bool:
    """A layer of ones sums its inputs, with and without gradients (different kernels)."""
    layer = bitsandbytes.nn.Linear4bit(64, width, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    with torch.no_grad():
        layer.weight.data.fill_(1.0)
    layer = layer.to(device)
    layer.weight.requires_grad = False
    x = torch.rand(2, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
    expected = x.detach().float().sum(dim=1, keepdim=True).expand(2, width)
    out = layer(x)
    out.float().sum().backward()
    with torch.no_grad():
        again = layer.eval()(x.detach())
    right = (torch.allclose(one.float(), expected, rtol=0.05) for one in (out, again))
    return all(right) and x.grad is not None


def load_chat_template(base: BaseModel) -> ChatTemplate:
    """The tokenizer of the base with its chat template. Raises BadInput."""
    silence_transformers()
    if base.is_gguf:
        from engine.models.gguf.model import open_gguf

        tokenizer: Any = open_gguf(base.path).tokenizer()
        if base.system:
            set_default_system(tokenizer, base.system)
        return MessageTemplate(tokenizer, base.messages) if base.messages else ChatTemplate(tokenizer)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except Exception as problem:  # whatever a broken file makes tokenizers raise
        raise BadInput(
            _("the tokenizer of the base model cannot be loaded: {reason}").format(
                reason=first_line(problem)
            ),
            path=base.path,
        ) from problem
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        # Without tokenizer files transformers creates an empty one from the model type.
        raise BadInput(_("the base model has no tokenizer (tokenizer.json)"), path=base.path)
    return ChatTemplate(tokenizer)


def set_default_system(tokenizer: Any, system: str) -> None:
    """Makes conversations without a system turn begin with `system`, as Ollama does for a tag with one.

    Raises BadInput when the chat template takes no system turn.
    """
    template = tokenizer.chat_template or PLAIN_TEMPLATE
    # json.dumps writes a literal that Jinja reads alike.
    turn = f"[{{'role': 'system', 'content': {json.dumps(system, ensure_ascii=False)}}}]"
    tokenizer.chat_template = (
        f"{{%- if not messages or messages[0]['role'] != 'system' %}}{{%- set messages = {turn} + messages %}}{{%- endif %}}"
        + template
    )
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except Exception as problem:  # templates raise whatever they like
        raise BadInput(
            _("its system prompt does not fit its chat template: {reason}").format(reason=first_line(problem))
        ) from problem


def silence_transformers() -> None:
    """Keeps progress bars and warnings of transformers out of the log."""
    with suppress(ImportError):
        from transformers.utils import logging as transformers_logging

        logging: Any = transformers_logging
        logging.disable_progress_bar()
        logging.set_verbosity_error()
