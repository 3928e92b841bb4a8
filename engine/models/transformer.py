"""The native model: a small decoder in the Qwen3 architecture.

RMSNorm, rotary positions, SwiGLU, normalised queries and keys, no biases (Qwen3 technical report,
arXiv 2505.09388). Modules have the names of transformers' `Qwen3ForCausalLM`.
"""

from __future__ import annotations

import math

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.models.kernels import fused as kernels
from engine.models.tokenizer import VOCAB

NORM_EPS = 1e-6
BLOCKED_ATTENTION = 1024
"""Up to this length blocked matrix products beat PyTorch's fused CPU kernel (twice as fast at 512); beyond it the scores
saved for the backward pass take too much memory."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Dimensions of a model. `context` is the training length; rotary positions exist up to `max_positions`."""

    dim: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 8
    head_dim: int = 32
    ffn: int = 704
    """Hidden width of the SwiGLU, about 8/3 of `dim`."""
    vocab: int = VOCAB
    context: int = 2048
    max_positions: int = 4096
    rope_theta: float = 10_000.0


class KVCache:
    """Keys and values of the processed tokens, for generation.

    Tensors are `(layers, 2, batch, kv_heads, capacity, head_dim)`; `length` positions are filled.
    """

    def __init__(self, config: ModelConfig, *, batch: int = 1, capacity: int, like: Tensor) -> None:
        shape = (config.layers, 2, batch, config.kv_heads, capacity, config.head_dim)
        self.data = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.data.shape[4]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends `(batch, kv_heads, new, head_dim)` to one layer; returns all keys and values so far.

        `length` itself grows once per step, in `Decoder.forward`.
        """
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"cache has {self.capacity} positions, {end} requested")
        self.data[layer, 0, :, :, self.length : end] = keys
        self.data[layer, 1, :, :, self.length : end] = values
        return self.data[layer, 0, :, :, :end], self.data[layer, 1, :, :, :end]


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv 1910.07467) over the last dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        if fused:
            return kernels.rms_norm(x, self.weight, NORM_EPS)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), NORM_EPS)


class Attention(nn.Module):
    """Causal self-attention with grouped keys, rotary positions and normalised queries and keys."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_dim = (
            layer,
            config.heads,
            config.kv_heads,
            config.head_dim,
        )
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.dim, width, bias=False)
        self.k_proj = nn.Linear(config.dim, kv_width, bias=False)
        self.v_proj = nn.Linear(config.dim, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.dim, bias=False)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, fused: bool = False
    ) -> Tensor:
        batch, length, _ = x.shape
        queries = self.q_proj(x).view(batch, length, self.heads, self.head_dim)
        keys = self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim)
        values = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        if fused:
            queries = kernels.norm_rope(queries, self.q_norm.weight, cos, sin, NORM_EPS)
            keys = kernels.norm_rope(keys, self.k_norm.weight, cos, sin, NORM_EPS)
        else:
            queries = rotate(self.q_norm(queries).transpose(1, 2), cos, sin)
            keys = rotate(self.k_norm(keys).transpose(1, 2), cos, sin)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        if self.kv_heads != self.heads:
            keys = keys.repeat_interleave(self.heads // self.kv_heads, dim=1)
            values = values.repeat_interleave(self.heads // self.kv_heads, dim=1)
        short = fused and length <= BLOCKED_ATTENTION
        mixed = (kernels.causal_attention if short else attend)(queries, keys, values)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim))
        return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864), halves convention. `x` is `(batch, heads, T, head_dim)`."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last `T` of `S` positions: `(B, H, T, D)` over `(B, H, S, D)`."""
    new, total = queries.shape[2], keys.shape[2]
    if new == 1:
        return F.scaled_dot_product_attention(queries, keys, values)
    if new == total and (total > BLOCKED_ATTENTION or queries.device.type != "cpu"):
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    flat_queries, flat_keys, flat_values = queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
    blocks = []
    for start in range(0, new, kernels.BLOCK):
        stop = min(start + kernels.BLOCK, new)
        seen = total - new + stop
        # Mask and scale as addend and factor of the product save two passes over the scores.
        future = torch.full((stop - start, seen), float("-inf"), dtype=queries.dtype, device=queries.device)
        scores = torch.baddbmm(
            future.triu(total - new + start + 1),
            flat_queries[:, start:stop],
            flat_keys[:, :seen].transpose(1, 2),
            alpha=1 / math.sqrt(queries.shape[-1]),
        )
        blocks.append(scores.softmax(dim=-1).to(values.dtype) @ flat_values[:, :seen])
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)).view(queries.shape)


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.dim, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        out: Tensor = self.down_proj(kernels.swiglu(gate, up) if fused else F.silu(gate) * up)
        return out


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim)
        self.self_attn = Attention(config, number)
        self.post_attention_layernorm = RMSNorm(config.dim)
        self.mlp = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, fused: bool = False
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x, fused), cos, sin, cache, fused)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x, fused), fused)
        return out


class Decoder(nn.Module):
    """Embedding, layers and final norm: `model` in transformers."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation_checkpointing = False
        """Whether each layer is computed again in the backward pass to save memory."""
        self.fused = False
        """Whether training on a CPU uses `engine.models.kernels.fused`; requires `load_kernels()`."""
        self.embed_tokens = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm = RMSNorm(config.dim)
        frequencies = config.rope_theta ** (
            -torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
        )
        angles = torch.outer(torch.arange(config.max_positions, dtype=torch.float64), frequencies)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        end = start + ids.shape[1]
        x = self.embed_tokens(ids)
        fused = self.fused and cache is None and x.device.type == "cpu" and x.dtype is torch.float32
        cos, sin = self.cos[start:end], self.sin[start:end]
        if not fused:
            device = x.device.type
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
            cos, sin = cos.to(dtype), sin.to(dtype)
        for layer in self.layers:
            if self.activation_checkpointing and cache is None and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, None, fused, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cos, sin, cache, fused)
        if cache is not None:
            cache.length = end
        out: Tensor = self.norm(x, fused)
        return out


class Transformer(nn.Module):
    """Decoder and head. `forward` maps ids `(B, T)` to logits `(B, T, vocab)`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.dim, config.vocab, bias=False)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        logits: Tensor = self.lm_head(self.model(ids, cache))
        return logits

    def parameters_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Uniform ±√3/√dim for matrices, zero for the projections into the residual stream and for the head.

        Every layer then starts as the identity, and the first loss is exactly ln(vocab).
        """
        generator = torch.Generator().manual_seed(seed)
        bound = math.sqrt(3 / self.config.dim)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")) or name == "lm_head.weight":
                parameter.zero_()
            elif name == "model.embed_tokens.weight":
                parameter.normal_(0.0, 1.0, generator=generator)
            elif parameter.ndim == 2:
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.fill_(1.0)
