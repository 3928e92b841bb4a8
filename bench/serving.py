"""Benchmarks of the built-in server: speed and first text against llama.cpp itself, 200 requests, the native model."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.result import Benchmark, BenchResult, compare
from engine.core.chat import ChatMessage
from engine.core.paths import Workspace
from engine.export.gguf_writer import write_gguf_model
from engine.export.quant import Quant
from engine.export.source import find_export_source
from engine.inference.backends.llama_cpp import LlamaCppModel
from engine.inference.client import InferenceClient
from engine.inference.language_model import Sampling
from engine.inference.llama.server import LlamaServer
from engine.inference.loader import open_language_model
from engine.machine.cpu import usable_cores
from engine.models.card import ModelCard
from engine.models.native_format import save_model
from engine.models.transformer import ModelConfig, Transformer
from tests.smollm2 import smollm2_path

FIRST_TEXT_S = 0.1
NATIVE_TOKENS_S = 1000.0
REQUESTS = 200
ROUNDS = 5
_QUESTION = "Tell me a long story about the sea and number {n}."
_COMMAND = "from tui.cli.main import main; main()"


@contextmanager
def _serving(ws: Workspace) -> Iterator[str]:
    """The URL of `h2q-tui ollama serve` for a workspace."""
    command = [
        sys.executable,
        "-c",
        _COMMAND,
        "--data-dir",
        str(ws.root),
        "ollama",
        "serve",
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] not in ("}\n", ""):
            lines.append(process.stdout.readline())
        try:
            yield str(json.loads("".join(lines))["address"])
        finally:
            process.terminate()
            process.wait()
            asyncio.run(InferenceClient(ws).shutdown())


def _body(number: int, tokens: int) -> dict[str, Any]:
    question = [{"role": "user", "content": _QUESTION.format(n=number)}]
    return {"model": "bench", "messages": question, "options": {"temperature": 0, "num_predict": tokens}}


def _answer(client: httpx.Client, number: int, tokens: int) -> tuple[float, float]:
    """(tokens per second after the first text, seconds until it), by the clock of the client."""
    started, first = time.perf_counter(), 0.0
    with client.stream("POST", "/api/chat", json=_body(number, tokens)) as reply:
        for line in reply.iter_lines():
            first = first or time.perf_counter() - started
            last = json.loads(line)
    return float((last["eval_count"] - 1) / (time.perf_counter() - started - first)), first


def _direct(server: LlamaServer, ids: list[int], tokens: int) -> float:
    """Tokens per second of llama.cpp alone, by its own clock, without a stream."""
    body = {"prompt": ids, "n_predict": tokens, "temperature": 0.0, "cache_prompt": False}
    return float(asyncio.run(server.post("/completion", body))["timings"]["predicted_per_second"])


def server(full: bool) -> list[BenchResult]:
    """SmolLM2 through the server against xllamacpp; [] where the file is not there."""
    file = smollm2_path()
    if not file.is_file():
        return []
    tokens = 256 if full else 64
    with ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="h2q-b-"))
        ws = Workspace(Path(root))
        ws.models.mkdir(parents=True)
        (ws.models / "bench.gguf").symlink_to(file)
        url = stack.enter_context(_serving(ws))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=300, trust_env=False))
        alone = LlamaServer(file, context=4096, threads=usable_cores())
        stack.callback(alone.close)
        _answer(client, 0, 8)
        ids = list(range(1000, 1030))
        pairs = [
            (_answer(client, number, tokens), _direct(alone, ids, tokens)) for number in range(1, ROUNDS + 1)
        ]
        memory, answered = asyncio.run(_many(ws, url))
    name = f"SmolLM2-135M {file.stem.rpartition('.')[2]}"
    return [
        compare(
            "serving.tokens",
            ours=max(rate for (rate, _first), _direct in pairs),
            baseline=max(direct for _ours, direct in pairs),
            target=0.9,
            unit="tokens/s",
            lower_is_better=False,
            notes=f"{name} over HTTP after the first text, against xllamacpp's own clock; the best of {ROUNDS} rounds in turn",
        ),
        compare(
            "serving.first_text",
            ours=min(first for (_rate, first), _direct in pairs),
            baseline=FIRST_TEXT_S,
            target=1.0,
            unit="s",
            lower_is_better=True,
            notes=f"{name}, loaded: from the request to the first text, a question of 40 tokens, the best of {ROUNDS}, against the goal",
        ),
        compare(
            "serving.concurrent",
            ours=answered,
            baseline=REQUESTS,
            target=1.0,
            unit="requests",
            lower_is_better=False,
            notes="requests at the same time that were answered, of those that were sent",
        ),
        compare(
            "serving.memory",
            ours=memory[1],
            baseline=memory[0],
            target=0.9,
            unit="MB",
            lower_is_better=True,
            notes=f"server, service and llama.cpp after {REQUESTS} requests at the same time, against before",
        ),
    ]


async def _many(ws: Workspace, url: str) -> tuple[tuple[float, float], int]:
    """((MB before, MB after), answered) of many requests at the same time. A first round fills what is kept."""
    limits = httpx.Limits(max_connections=REQUESTS)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits) as client:

        async def ask(number: int) -> bool:
            reply = await client.post("/api/chat", json=_body(number, 2) | {"stream": False})
            return reply.status_code == 200 and bool(reply.json()["done"])

        await asyncio.gather(*(ask(number) for number in range(50)))
        before = await _memory_mb(ws)
        answered = sum(await asyncio.gather(*(ask(number) for number in range(REQUESTS))))
        return (before, await _memory_mb(ws)), answered


async def _memory_mb(ws: Workspace) -> float:
    """Of the processes that serve `ws`: this process's children, the service and its children."""
    status = await InferenceClient(ws).status()
    assert status is not None
    service = psutil.Process(status.pid)
    trees = [*psutil.Process().children(recursive=True), service, *service.children(recursive=True)]
    return float(sum({process.pid: process.memory_info().rss for process in trees}.values()) / 2**20)


def native(full: bool) -> list[BenchResult]:
    """The native model in its full size as a GGUF file through llama.cpp. Its weights are random: speed does not know them."""
    asked, count = [ChatMessage(role="user", content="Where do we go from here?")], 400 if full else 150
    rates = []
    with tempfile.TemporaryDirectory(prefix="h2q-b-") as folder:
        model = _native_gguf(Path(folder))
        for _round in range(ROUNDS):
            *_texts, done = model.generate(
                asked, Sampling(temperature=0.0, max_tokens=count, max_bytes=1 << 20)
            )
            assert not isinstance(done, str)
            rates.append(done.tokens_per_s)
        reforward = _reforward(model, model.prompt(asked), 20)
    size = "native, 8 M parameters, f16"
    ours = max(rates)
    return [
        compare(
            "serving.native", ours=ours, baseline=NATIVE_TOKENS_S, target=1.0, unit="tokens/s", lower_is_better=False,
            notes=f"{size}, through llama.cpp, the best of {ROUNDS} rounds, against the goal",
        ),
        compare(
            "serving.reforward", ours=ours, baseline=reforward, target=10.0,
            unit="tokens/s", lower_is_better=False, notes=f"{size}, against torch that reads the whole text for each token",
        ),
    ]  # fmt: skip


def _native_gguf(folder: Path) -> LlamaCppModel:
    network = Transformer(ModelConfig())
    network.initialise(0)
    card = ModelCard(
        name="bench", mode="scratch", created_at=1.0, parameters=network.parameters_count(), context=network.config.context
    )  # fmt: skip
    save_model(folder / "bench", network, card)
    source, file = find_export_source(Workspace(folder), str(folder / "bench")), folder / "bench.gguf"
    write_gguf_model(file, source.config, source.weights, source.vocabulary, Quant.F16, name="bench")
    model = open_language_model(Workspace(folder), str(file), serving=True)
    assert isinstance(model, LlamaCppModel)
    return model


def _reforward(model: LlamaCppModel, ids: list[int], tokens: int) -> float:
    model.next_token_log_probs(ids)
    started = time.perf_counter()
    for _number in range(tokens):
        scores = model.next_token_log_probs(ids)
        ids.append(max(range(len(scores)), key=scores.__getitem__))
    return tokens / (time.perf_counter() - started)


BENCHMARKS = (
    Benchmark(
        "serving.http", "the built-in server against llama.cpp alone, and under 200 requests", server, 60
    ),
    Benchmark("serving.llama", "the native model through llama.cpp", native, 40),
)
