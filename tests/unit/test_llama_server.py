"""The llama.cpp process: what is checked before it starts, what it rejects, and who may ask it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from engine.core.errors import BadInput, H2QError, UsageProblem
from engine.inference.llama.parameters import MAX_CACHE_MB, SMALL_MB, fit_memory, threads_for
from engine.inference.llama.server import LlamaServer
from engine.models.base_models import ModelDimensions
from tests.export_models import write_gguf
from tests.hf_models import write_hf


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(folder / "tiny.gguf", write_hf(folder / "tiny"))


@pytest.mark.parametrize(
    "more",
    [
        {"threads": 0},
        {"threads": 100_000},
        {"context": 0},
        {"context": -1},
        {"parallel": 0},
        {"cache_mb": -1},
    ],
    ids=str,
)
def test_values_that_end_or_hang_llama_cpp_are_refused_before(gguf: Path, more: dict[str, int]) -> None:
    with pytest.raises(UsageProblem, match=next(iter(more))):
        LlamaServer(gguf, **{"context": 64, "threads": 1} | more)  # type: ignore[arg-type]


def damaged(content: bytes, kind: str) -> bytes:
    return {
        "empty": b"",
        "text": b"this is a text",
        "wrong magic": b"GGML" + content[4:],
        "magic alone": b"GGUF",
        "unknown version": content[:4] + b"\xff\xff\xff\x7f" + content[8:],
        "huge header": content[:8] + b"\xff" * 16 + content[24:],
        "half a header": content[:200],
        "truncated": content[: len(content) // 2],
    }[kind]


DAMAGE = (
    "empty",
    "text",
    "wrong magic",
    "magic alone",
    "unknown version",
    "huge header",
    "half a header",
    "truncated",
)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_sentence(gguf: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "damaged.gguf"
    file.write_bytes(damaged(gguf.read_bytes(), kind))
    with pytest.raises(BadInput) as problem:
        LlamaServer(file, context=64, threads=1)
    assert "damaged.gguf" in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "kind", ["a missing file", "a folder", "a model as an adapter", "a text as an adapter"]
)
def test_what_is_no_model_or_adapter_is_one_sentence(gguf: Path, tmp_path: Path, kind: str) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("text")
    model = {"a missing file": tmp_path / "missing", "a folder": tmp_path}.get(kind, gguf)
    adapters = {"a model as an adapter": [gguf], "a text as an adapter": [text]}.get(kind, [])
    with pytest.raises(BadInput) as problem:
        LlamaServer(model, adapters=adapters, context=64, threads=1)
    assert "\n" not in str(problem.value)


@pytest.fixture(scope="module")
def server(gguf: Path) -> LlamaServer:
    return LlamaServer(gguf, context=64, threads=1)


@pytest.mark.parametrize("path", ["/completion", "/v1/chat/completions", "/tokenize", "/apply-template"])
@pytest.mark.parametrize("key", ["", "wrong"])
def test_nobody_without_the_key_is_answered(server: LlamaServer, path: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reply = httpx.post(server.address + path, json={"prompt": "a"}, headers=headers, trust_env=False)
    assert reply.status_code == httpx.codes.UNAUTHORIZED
    assert server.address.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": [1] * 400}, {"prompt": [10_000_000]}, {"prompt": "a", "grammar": "((("}],
    ids=["no prompt", "longer than the context", "no token", "a broken grammar"],
)
def test_a_request_that_is_refused_leaves_the_process_running(
    server: LlamaServer, body: dict[str, object]
) -> None:
    async def ask() -> None:
        async for _event in server.stream("/completion", body | {"n_predict": 1}):
            pass

    for asked in (server.post("/completion", body | {"n_predict": 1}), ask()):
        with pytest.raises(H2QError, match=r"llama\.cpp") as problem:
            asyncio.run(asked)
        assert "\n" not in str(problem.value)
    assert server.alive
    assert asyncio.run(server.post("/tokenize", {"content": "a"}))["tokens"]


def dimensions(context: int = 8192, layers: int = 30) -> ModelDimensions:
    """Of SmolLM2-135M by default: 22.5 KiB of keys and values for each token."""
    return ModelDimensions(
        hidden=576, layers=layers, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49152, context=context
    )


@pytest.mark.parametrize(
    ("budget_mb", "context", "cached"),
    [(4096, 4096, True), (400, 4096, True), (360, 2048, True), (315, 512, False), (311.25, 512, False)],
)
def test_the_context_is_what_the_budget_has_room_for(budget_mb: float, context: int, cached: bool) -> None:
    memory = fit_memory(dimensions(), weights_mb=100, budget_mb=budget_mb)
    assert memory.context == context
    assert 0 <= memory.cache_mb <= MAX_CACHE_MB and (memory.cache_mb > 0) == cached
    assert 300 + memory.context * 0.02197 + memory.cache_mb < budget_mb + 1


def test_a_short_context_stays_as_it_is() -> None:
    assert fit_memory(dimensions(context=100), weights_mb=100, budget_mb=4096).context == 100


def test_a_model_beyond_the_budget_is_refused_with_both_figures() -> None:
    with pytest.raises(BadInput, match=r"needs 4,\d\d\d MB .* 4,096 MB"):
        fit_memory(dimensions(), weights_mb=4000, budget_mb=4096)


@pytest.mark.parametrize(
    ("weights_mb", "cores", "threads"),
    [(6, 2, 1), (SMALL_MB - 1, 8, 1), (SMALL_MB, 8, 8), (4000, 2, 2), (4000, 1, 1)],
)
def test_a_small_model_is_generated_by_one_thread(weights_mb: float, cores: int, threads: int) -> None:
    assert threads_for(weights_mb, cores) == threads
