"""What a llama.cpp process is started with. Checked here: llama.cpp ends the process, or hangs, on values out of range."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.core.errors import BadInput, UsageProblem
from engine.core.i18n import _
from engine.models.base_models import ModelDimensions

_MAGIC = b"GGUF"
MAX_CONTEXT = 4096
"""Tokens of prompt and answer together: the key-value cache grows with them."""
MIN_CONTEXT = 512
"""Tokens below which a conversation has no room."""
MAX_CACHE_MB = 256
"""MB for prompts of earlier conversations at most; llama.cpp's own default is 8192."""
PROGRAM_MB = 200
"""What a llama.cpp process takes beside weights and key-value cache."""
SMALL_MB = 64
"""MB of weights below which one thread is fastest: its neighbours at each of the hundreds of barriers of a token would
be waited for longer than they help. Measured on two cores: 6 MB 3.5 times as fast as with two threads, 50 MB 1.1 times."""
_CACHE_SHARE = 8
"""The kept prompts take at most this part of what is left of the budget."""


class NoMemory(BadInput):
    """A model does not fit into the memory budget beside what is in use."""

    @classmethod
    def of(cls, needed_mb: float, budget_mb: float, taken_mb: float) -> NoMemory:
        """The error for a model of `needed_mb`, where `taken_mb` of the budget are in use."""
        if taken_mb <= 0:
            text = _(
                "this model needs {needed:,.0f} MB to be talked to, and the memory budget is {budget:,.0f} MB"
            )
            return cls(text.format(needed=needed_mb, budget=budget_mb), hint="h2q-tui check")
        text = _(
            "this model needs {needed:,.0f} MB to be talked to; of the memory budget of {budget:,.0f} MB runs and other"
            " models take {taken:,.0f} MB"
        )
        return cls(text.format(needed=needed_mb, budget=budget_mb, taken=taken_mb), hint="h2q-tui runs list")


class LlamaParameters(msgspec.Struct, frozen=True, kw_only=True):
    """One model and its adapters: llama.cpp's prompt cache mixes up adapters that share a server."""

    model: str
    """GGUF file."""
    adapters: list[str] = []
    """GGUF files of LoRA adapters, all of them on at scale 1."""
    context: int
    """Tokens of one conversation, prompt and answer."""
    threads: int
    parallel: int = 1
    """Conversations at a time; each has `context` tokens."""
    cache_mb: int = 0
    """MB of memory for prompts that are kept for later."""
    api_key: str
    """Without it the port would answer every program and web page on this machine."""
    embedding: bool = False
    """Whether the server embeds texts (mean of the last hidden states) instead of answering."""

    def check(self) -> None:
        """Raises UsageProblem for a value out of range, BadInput for a file that is not GGUF."""
        for name, value, low, high in (
            ("context", self.context, 8, 1 << 20),
            ("threads", self.threads, 1, 256),
            ("parallel", self.parallel, 1, 64),
            ("cache_mb", self.cache_mb, 0, 1 << 20),
        ):
            if not low <= value <= high:
                raise UsageProblem(
                    _("llama.cpp cannot be started with {name} {value}: {low} to {high} are possible").format(
                        name=name, value=value, low=low, high=high
                    )
                )
        if not self.api_key:
            raise UsageProblem(_("llama.cpp is not started without a key"))
        for file in (self.model, *self.adapters):
            _check_gguf(Path(file))


class LlamaMemory(msgspec.Struct, frozen=True):
    """How a model is served within a memory budget."""

    context: int
    """Tokens of one conversation."""
    cache_mb: int
    """MB for prompts that are kept."""


def fit_memory(
    dimensions: ModelDimensions, weights_mb: float, budget_mb: float, taken_mb: float = 0.0
) -> LlamaMemory:
    """The longest context, up to `MAX_CONTEXT`, whose key-value cache fits into the budget beside the weights.

    `taken_mb` of the budget are in use already. Raises NoMemory when not even the shortest context fits.
    """
    # Keys and values of 16 bits for each layer.
    token_mb = 2 * 2 * dimensions.layers * dimensions.kv_heads * dimensions.head_dim / 2**20
    context = min(dimensions.context, MAX_CONTEXT)
    free_mb = budget_mb - taken_mb - weights_mb - PROGRAM_MB
    while context * token_mb > free_mb and context > MIN_CONTEXT:
        context = max(context // 2, MIN_CONTEXT)
    left_mb = free_mb - context * token_mb
    if left_mb < 0:
        raise NoMemory.of(budget_mb - taken_mb - left_mb, budget_mb, taken_mb)
    return LlamaMemory(context, int(min(MAX_CACHE_MB, left_mb / _CACHE_SHARE)))


def threads_for(weights_mb: float, cores: int) -> int:
    """Threads that generate fastest with a model of this size."""
    return 1 if weights_mb < SMALL_MB else cores


def _check_gguf(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as problem:
        raise BadInput(
            _("the GGUF file cannot be read: {reason}").format(reason=problem.strerror), path=file
        ) from problem
    if magic != _MAGIC:
        raise BadInput(_("this is not a GGUF file"), path=file)
