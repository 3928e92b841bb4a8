"""Benchmarks of export: parity of logits with llama.cpp, cost of quantization and pruning, speed, memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bench.result import Benchmark, BenchResult, compare
from engine.core.chat import ChatMessage
from engine.core.paths import Workspace, shipped
from engine.export import cost as measure
from engine.export import parity
from engine.export.gguf_writer import write_gguf_model
from engine.export.llama_cpp import LlamaCpp
from engine.export.quant import Quant
from engine.export.source import ExportSource, find_export_source
from engine.inference.language_model import LanguageModel, Sampling, generate_text
from engine.inference.loader import open_language_model, open_weights
from engine.models.card import ModelCard
from engine.models.gguf.model import open_gguf
from engine.models.native_format import save_model
from engine.models.transformer import ModelConfig, Transformer
from engine.models.weights import GgufWeights, PrunedWeights, Weights

TOLERANCE = 1e-2
SHORT = ModelConfig(dim=96, layers=3, heads=3, kv_heads=3, head_dim=32, ffn=256, context=512)
FULL = ModelConfig()
READER = """
import json, sys, time
from pathlib import Path
import psutil, torch
from bench.export import peak_rss, reset_peak
from engine.models.gguf.model import open_gguf
torch.set_num_threads(1)
gguf = open_gguf(Path(sys.argv[1]))
before = psutil.Process().memory_info().rss
reset_peak()
started = time.perf_counter()
model = gguf.load()
print(json.dumps([2 * gguf.parameters, before, peak_rss(), time.perf_counter() - started]))
"""


def reset_peak() -> None:
    """Resets the peak resident memory where the kernel supports it (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss() -> int:
    """Peak resident memory of this process in bytes, since `reset_peak` where that works."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@cache
def _source(full: bool) -> ExportSource:
    """A native model trained on the shipped plain text until its weights are not random."""
    if not full:
        torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="h2q-bench-export-"))
    config, steps, rows = (FULL, 1000, 16) if full else (SHORT, 240, 8)
    texts = sorted((shipped("data") / "sample" / "text").glob("*.txt"))
    data = torch.from_numpy(np.frombuffer(b"".join(file.read_bytes() for file in texts), np.uint8).copy())
    model = Transformer(config)
    model.initialise(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (steps - step) / (0.5 * steps))
        starts = torch.randint(len(data) - 257, (rows,), generator=generator)
        ids = torch.stack([data[start : start + 257] for start in starts.tolist()]).long()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    card = ModelCard(
        name="bench",
        mode="scratch",
        created_at=time.time(),
        parameters=model.parameters_count(),
        context=config.context,
    )
    save_model(folder / "bench", model, card)
    return find_export_source(Workspace(folder), str(folder / "bench"))


def _written(source: ExportSource, quant: Quant, prune: float = 0.0) -> Path:
    path = source.base.path.with_name(f"bench-{quant}-{prune}.gguf")
    if not path.exists():
        weights: Weights = PrunedWeights(source.weights, prune) if prune else source.weights
        write_gguf_model(path, source.config, weights, source.vocabulary, quant, name="bench")
    return path


def _read(path: Path, tokenizer: measure.ExportTokenizer) -> LanguageModel:
    found = open_gguf(path)
    return open_weights(
        found.config, GgufWeights(found), torch.float32, tokenizer.chat, eval_context=tokenizer.context
    )


def _original(source: ExportSource, tokenizer: measure.ExportTokenizer) -> LanguageModel:
    return open_weights(
        source.config, source.weights, torch.float32, tokenizer.chat, eval_context=tokenizer.context
    )


def logits(full: bool) -> list[BenchResult]:
    """Log-probabilities and prompt ids of the source in torch against the file in llama.cpp."""
    source = _source(full)
    tokenizer = measure.ExportTokenizer(source)
    model = _original(source, tokenizer)
    results = []
    for quant in (Quant.F32, Quant.F16):
        found = parity.measure_parity(_written(source, quant), parity.parity_reference(model, tokenizer))
        results.append(
            compare(
                f"export.logits_{quant}",
                ours=max(found.max_logit_difference, 1e-9),
                baseline=TOLERANCE,
                target=1.0,
                unit="nats",
                lower_is_better=True,
                notes=f"largest difference of a log-probability, torch's {source.base.weight_format} weights against llama.cpp with "
                f"the {quant} file, {found.positions} positions, whole vocabulary; the baseline is the tolerance",
            )
        )
    results.append(
        compare(
            "export.same_ids",
            ours=found.same_ids,
            baseline=parity.CONVERSATIONS,
            target=1.0,
            unit="conversations",
            lower_is_better=False,
            notes="prompts with the same ids in llama.cpp (template and tokenizer of the file) and in torch",
        )
    )
    return results


def cost(full: bool) -> list[BenchResult]:
    """NLL per byte of the file, dequantized into torch, against the source weights."""
    source = _source(full)
    tokenizer = measure.ExportTokenizer(source)
    pieces = measure.general_sequences(tokenizer, 120_000 if full else 12_000)
    before = measure.nll_per_byte(_original(source, tokenizer), pieces)
    results = []
    for quant, prune, most in (
        (Quant.F16, 0.0, 0.001),
        (Quant.Q8_0, 0.0, 0.005),
        (Quant.Q4_0, 0.0, 0.05),
        (Quant.F16, 0.3, 0.1),
    ):
        path = _written(source, quant, prune)
        after = measure.nll_per_byte(_read(path, tokenizer), pieces)
        results.append(
            compare(
                f"export.cost_{quant}" + (f"_prune{prune:g}" if prune else ""),
                ours=after,
                baseline=before,
                target=1 - most,
                unit="nats/byte",
                lower_is_better=True,
                notes=f"cost {after - before:+.4f} nats per byte ({100 * (after / before - 1):+.2f} %), file "
                f"{path.stat().st_size / 1e6:.2f} MB; general text; at most {100 * most:g} % is good enough",
            )
        )
    return results


def _tokens_per_s(served: LlamaCpp, ids: list[int], count: int) -> float:
    """Of generating `count` tokens after `ids`, as measured by llama.cpp."""
    body = {"prompt": ids, "n_predict": count, "ignore_eos": True, "temperature": 0.9, "seed": 1}
    return float(served.post("/completion", body)["timings"]["predicted_per_second"])


def speed(full: bool) -> list[BenchResult]:
    """Generated tokens per second of llama.cpp with the file and of torch, one thread each."""
    source = _source(full)
    native = open_language_model(Workspace(source.base.path.parent), source.base.path, serving=True)
    count = 400 if full else 200
    asked = [ChatMessage(role="user", content="Where do we go from here?")]
    said = generate_text(native, asked, Sampling(max_bytes=count, temperature=0.9, seed=1))[1]
    results = []
    for quant in (Quant.F16, Quant.Q8_0, Quant.Q4_0):
        with LlamaCpp(_written(source, quant)) as served:
            rate = _tokens_per_s(served, list(b"Where do we go from here?"), count)
        results.append(
            compare(
                f"export.tokens_{quant}",
                ours=rate,
                baseline=said.bytes / said.seconds,
                target=1.0,
                unit="tokens/s",
                lower_is_better=False,
                notes=f"llama.cpp against our torch with a cache, {native.memory_mb / 4:.1f} M parameters, one thread each",
            )
        )
    return results


def reader(full: bool) -> list[BenchResult]:
    """Peak memory of loading a quantized file in bfloat16, in a separate process."""
    from transformers import AutoConfig

    layers, dim, vocab = (28, 1024, 151_936) if full else (4, 512, 20_000)
    config: Any = AutoConfig.for_model(
        "qwen3",
        vocab_size=vocab,
        hidden_size=dim,
        intermediate_size=3 * dim,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    with tempfile.TemporaryDirectory(prefix="h2q-bench-reader-") as folder:
        path = Path(folder) / "big.gguf"
        write_gguf_model(path, config, _Random(config), _vocabulary(vocab), Quant.Q8_0, name="big")
        size = path.stat().st_size
        done = subprocess.run(
            [sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=True
        )
    weights, before, after, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return [
        compare(
            "export.reader_memory",
            ours=(after - before) / 2**20,
            baseline=weights / 2**20,
            target=0.85 if full else 0.4,
            unit="MB",
            lower_is_better=True,
            notes=f"peak while a q8_0 file of {size / 1e6:.0f} MB becomes a bf16 model, against the model itself; "
            f"{seconds:.1f} s, the program had {before / 2**20:.0f} MB before",
        )
    ]


class _Random:
    """Random weights of any shape, generated on read."""

    def __init__(self, config: Any) -> None:
        from engine.models.gguf.model import empty_model

        with torch.device("meta"):
            made = empty_model(config, torch.bfloat16)
        self.shapes = {name: tuple(value.shape) for name, value in made.named_parameters()}

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(start)
        return torch.randn((stop - start, *self.shapes[name][1:]), generator=generator) * 0.02


def _vocabulary(size: int) -> Any:
    from engine.export.vocabulary import DUMMY_MERGE, Vocabulary
    from engine.models.tokenizer import byte_alphabet

    tokens = [*byte_alphabet(), "<|im_start|>", "<|im_end|>"]
    tokens += [f"[{number}]" for number in range(size - len(tokens))]
    types = [1] * 256 + [3] * 2 + [5] * (size - 258)
    return Vocabulary(tokens, types, [DUMMY_MERGE], "qwen2", (257,), None, None, False, None, False)


BENCHMARKS = (
    Benchmark("export.logits", "logits and ids of an exported file in llama.cpp against torch", logits, 15),
    Benchmark("export.cost", "cost of f16, q8_0, q4_0 and pruning in NLL", cost, 10),
    Benchmark("export.tokens", "tokens per second of llama.cpp against torch", speed, 5),
    Benchmark("export.reader", "peak memory of reading a GGUF file into bf16", reader, 8),
)
