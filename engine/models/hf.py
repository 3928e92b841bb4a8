"""Loading a base, its tokenizer, and adapters on it: from local files only, and never by running what lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch

from engine.core.errors import BadInput, first_line
from engine.core.i18n import _
from engine.models.base_models import FOUR_BIT, BaseModel
from engine.models.card import ModelCard
from engine.models.chat_template import ChatTemplate

FP32_BYTES = 1 << 30
"""Up to this size a base is loaded in float32 where nothing says otherwise."""


def base_format(base: BaseModel, card: ModelCard | None = None) -> str:
    """How a base is loaded for use: as the adapter was trained on it, else so that it stays small."""
    if card is not None and card.base_format:
        return card.base_format
    return "float32" if 4 * base.parameters <= FP32_BYTES else "bfloat16"


def load_base_as(base: BaseModel, format_: str, device: str = "cpu") -> Any:
    """`load_base` with the format as a card names it."""
    return load_base(
        base,
        torch.float32 if format_ == "float32" else torch.bfloat16,
        four_bit=format_ == FOUR_BIT,
        device=device,
    )


def load_base(base: BaseModel, dtype: torch.dtype, *, four_bit: bool = False, device: str = "cpu") -> Any:
    """The causal language model in evaluation mode, all of it frozen. Raises BadInput when files are broken."""
    silence_transformers()
    if base.is_gguf:
        from engine.models.gguf.model import open_gguf

        model: Any = open_gguf(base.path).load(dtype)
    else:
        model = _from_directory(base, dtype, four_bit=four_bit)
    for parameter in model.parameters():
        parameter.requires_grad = False
    if not four_bit:
        model.to(device)
    return model.eval()


def _from_directory(base: BaseModel, dtype: torch.dtype, *, four_bit: bool) -> Any:
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {"quantization_config": nf4_config()} if four_bit else {}
    try:
        loading: Any = AutoModelForCausalLM
        model, told = loading.from_pretrained(
            base.path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            # Its own refusal does not say which tensor it is.
            ignore_mismatched_sizes=True,
            **more,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as problem:
        raise BadInput(
            _("the base model cannot be loaded: {reason}").format(reason=first_line(problem)), path=base.path
        ) from problem
    missing = sorted(told.get("missing_keys") or [])
    if missing:
        # transformers would fill them with random numbers and go on.
        raise BadInput(
            _("{count} tensors are missing from the weights, for example {name}").format(
                count=len(missing), name=missing[0]
            ),
            path=base.path,
        )
    mismatched = sorted(told.get("mismatched_keys") or [])
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise BadInput(
            _("{tensor} has the shape {stored} in the weights and {wanted} in the configuration").format(
                tensor=name, stored=tuple(stored), wanted=tuple(wanted)
            ),
            path=base.path,
        )
    return model


def nf4_config() -> Any:
    """QLoRA's format (arXiv 2305.14314): NF4 with double quantization."""
    import transformers

    configuration: Any = transformers.BitsAndBytesConfig
    return configuration(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def check_four_bit(device: str, widths: Iterable[int] = (64,)) -> tuple[bool, str]:
    """Whether bitsandbytes computes on `device`, found out by small layers of these `widths`; and why not."""
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
    """A layer of ones: its sums and their gradient, then the same without gradients (other kernels do that)."""
    layer = bitsandbytes.nn.Linear4bit(64, width, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    with torch.no_grad():
        layer.weight.data.fill_(1.0)
    layer = layer.to(device)
    layer.weight.requires_grad = False
    x = torch.rand(2, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
    wanted = x.detach().float().sum(dim=1, keepdim=True).expand(2, width)
    out = layer(x)
    out.float().sum().backward()
    with torch.no_grad():
        again = layer.eval()(x.detach())
    right = (torch.allclose(one.float(), wanted, rtol=0.05) for one in (out, again))
    return all(right) and x.grad is not None


def load_chat_template(base: BaseModel) -> ChatTemplate:
    """The tokenizer of the base with its chat template. Raises BadInput."""
    silence_transformers()
    if base.is_gguf:
        from engine.models.gguf.model import open_gguf

        return ChatTemplate(open_gguf(base.path).tokenizer())
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
        # Without its files transformers makes an empty one from the kind of the model alone.
        raise BadInput(_("the base model has no tokenizer (tokenizer.json)"), path=base.path)
    return ChatTemplate(tokenizer)


def silence_transformers() -> None:
    """No bars of transformers in the log."""
    with suppress(ImportError):
        from transformers.utils import logging as found

        logging: Any = found
        logging.disable_progress_bar()
        logging.set_verbosity_error()
