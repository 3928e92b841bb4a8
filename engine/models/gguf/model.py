"""A model in a GGUF file (an Ollama blob, an export): its configuration, its tokenizer, and its weights, dequantized
tensor by tensor into transformers' class of its architecture.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.architectures import Architecture, is_weight
from engine.models.gguf.config import architecture_of, config_of
from engine.models.gguf.file import GgufFile, read_gguf
from engine.models.gguf.tokenizer import chat_template_of, eos_ids_of, tokenizer_of, vocabulary_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


LOADING_THREADS = 2
"""Threads that dequantize: numpy computes without the interpreter's lock."""


@dataclass(frozen=True)
class GgufModel:
    """A checked GGUF file. Opening reads the header only; `load` reads the weights."""

    path: Path
    arch: Architecture
    config: PretrainedConfig
    parameters: int
    chat_template: str | None
    eos_ids: tuple[int, ...]
    """Ids that end an answer, end of turn first."""
    context: int
    """Context length in tokens."""
    name: str
    """`general.name` of the file; "" when it has none."""
    file: GgufFile
    tokens: list[str]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer with the same ids as llama.cpp, also for control tokens in the text. Raises BadInput."""
        eos = self.eos_ids[0] if self.eos_ids else None
        return tokenizer_of(self.file, self.tokens, self.chat_template, eos, self.context)

    def load(self, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
        """The model in evaluation mode, on the CPU. Peak memory: the model in `dtype` and about 100 MB for each thread.

        Raises BadInput when the file has become shorter.
        """
        model = empty_model(self.config, dtype)
        targets = dict(model.named_parameters())
        with ThreadPoolExecutor(LOADING_THREADS, thread_name_prefix="weights") as pool:
            for done in [
                pool.submit(self._fill, name, targets[str(self.arch.to_transformers(name))])
                for name in self.weight_names
            ]:
                done.result()
        if self.eos_ids and model.generation_config is not None:
            model.generation_config.eos_token_id = list(self.eos_ids)
        return model

    @torch.no_grad()
    def _fill(self, name: str, target: nn.Parameter) -> None:
        layout, tensor = self.arch.layout(name, self.config), self.file.tensors[name]
        if len(tensor.shape) == 1:
            values = layout.decode(self.file.read(tensor))
            if layout.rows is not None:
                values = values[layout.rows(len(values)).argsort()]
            target.data.copy_(values)
            return
        order = None if layout.rows is None else layout.rows(len(target))
        for start, values in self.file.rows(tensor):
            stop = start + len(values)
            decoded = layout.decode(values).to(target.dtype)
            target.data[slice(start, stop) if order is None else order[start:stop]] = decoded

    @property
    def weight_names(self) -> list[str]:
        """GGUF names of the tensors of the language model."""
        return [name for name in self.file.tensors if is_weight(name)]


def open_gguf(path: Path) -> GgufModel:
    """The model in the file at `path`; only the header is read.

    Raises BadInput for a file that is not GGUF or truncated, an unsupported architecture, tokenizer or tensor type, or
    a vocabulary that does not match the weights.
    """
    file = read_gguf(path)
    arch, config = architecture_of(file), config_of(file)
    _check_tensors(file, arch, config)
    tokens = vocabulary_of(file)
    if len(tokens) != config.vocab_size:
        raise file.invalid("tokenizer.ggml.tokens")
    eos_ids = eos_ids_of(file, tokens)
    config.eos_token_id = list(eos_ids) or None
    config.bos_token_id = file.metadata.get("tokenizer.ggml.bos_token_id")
    config.pad_token_id = file.metadata.get("tokenizer.ggml.padding_token_id")
    return GgufModel(
        path=path,
        arch=arch,
        config=config,
        parameters=sum(tensor.elements for name, tensor in file.tensors.items() if is_weight(name)),
        chat_template=chat_template_of(file, tokens),
        eos_ids=eos_ids,
        context=config.max_position_embeddings,
        name=file.text("general.name"),
        file=file,
        tokens=tokens,
    )


def _check_tensors(file: GgufFile, arch: Architecture, config: PretrainedConfig) -> None:
    """Checks that the file has exactly the tensors of `config`'s model, in their shapes. Raises BadInput."""
    with torch.device("meta"):
        model = empty_model(config, torch.bfloat16)
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    present = {
        str(arch.to_transformers(name)): arch.layout(name, config).hf_shape(tensor.shape)
        for name, tensor in file.tensors.items()
        if is_weight(name)
    }
    for name in sorted({*expected, *present}):
        if expected.get(name) != present.get(name):
            raise BadInput(
                _("tensor {tensor} of the GGUF file does not match its architecture").format(tensor=name),
                path=file.path,
            )


def empty_model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model with uninitialised weights and computed rotary buffers, in evaluation mode."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    auto_model: Any = AutoModelForCausalLM
    with no_init_weights():
        model: PreTrainedModel = auto_model.from_config(config, dtype=dtype)
    if config.tie_word_embeddings:
        model.tie_weights()
    model.train(False)
    return model
