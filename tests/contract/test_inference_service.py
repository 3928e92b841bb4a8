"""The inference service through its client: a real process, a real socket, real models."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, ServiceUnreachable
from engine.core.paths import Workspace
from engine.inference.client import InferenceClient, free_service_memory
from engine.inference.language_model import Finish, Sampling
from engine.inference.protocol import Generate, log_path, socket_path
from engine.runs import lock
from engine.runs.shared_memory import service_lock, service_mb
from tests.models import TINY, copy_model, talk, write_tiny

TALKS = [talk("数到三", "一二三。")]
QUESTION = [ChatMessage(role="user", content="数到三")]
LONG = Sampling(temperature=0, max_bytes=1900)


@pytest.fixture(scope="module")
def ws(knowing: Path) -> Iterator[Workspace]:
    # Sockets need a short path; pytest's own folders are long.
    root = Path(tempfile.mkdtemp(prefix="h2q-svc-"))
    made = Workspace(root)
    copy_model(knowing, made.models / "good")
    wide = msgspec.structs.replace(TINY, context=2048, max_positions=4096)
    for name in ("endless", "endless-2"):
        write_tiny(made.models / name, TALKS, steps=0, config=wide)
    yield made
    asyncio.run(InferenceClient(made).shutdown())
    shutil.rmtree(made.runtime, ignore_errors=True)
    shutil.rmtree(root)


@pytest.fixture
async def client(ws: Workspace) -> AsyncIterator[InferenceClient]:
    yield InferenceClient(ws)


async def until(condition: object, seconds: float = 10.0) -> None:
    """Waits for an async condition. Fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not await condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.01)


async def test_it_starts_on_first_use_and_streams(client: InferenceClient, ws: Workspace) -> None:
    pieces = [piece async for piece in client.generate("good", QUESTION, Sampling(temperature=0))]
    # Deltas that have come while the service was busy go out as one.
    assert "".join(pieces) == "一二三。" and all(pieces)
    assert client.last is not None and client.last.finish is Finish.STOP
    assert socket_path(ws).stat().st_mode & 0o777 == 0o600
    assert ws.runtime.stat().st_mode & 0o777 == 0o700
    assert lock.is_locked(service_lock(ws)) and service_mb(ws) > 10


async def test_each_text_says_how_many_tokens_there_are(client: InferenceClient) -> None:
    counts = []
    async with aclosing(client.generate("endless", QUESTION, LONG)) as stream:
        async for _piece in stream:
            counts.append(client.tokens)
    assert client.last is not None and counts == sorted(counts) and counts[0] > 0
    assert counts[-1] <= client.last.tokens <= counts[-1] + 4, "bytes within a character come with the next"


async def test_a_model_may_be_named_by_its_folder(client: InferenceClient, ws: Workspace) -> None:
    assert await client.answer(str(ws.models / "good"), QUESTION, Sampling(temperature=0)) == "一二三。"


async def test_unknown_and_broken_models_raise_bad_input(client: InferenceClient, ws: Workspace) -> None:
    with pytest.raises(BadInput, match="no model named nothing") as problem:
        await client.answer("nothing", QUESTION)
    assert problem.value.hint == "h2q-tui models list"
    shutil.copytree(ws.models / "good", ws.models / "flipped")
    weights = bytearray((ws.models / "flipped" / "model.safetensors").read_bytes())
    weights[-9] ^= 4
    (ws.models / "flipped" / "model.safetensors").write_bytes(weights)
    with pytest.raises(BadInput, match="hash differs"):
        await client.load("flipped")


async def test_closing_the_stream_cancels_and_frees_the_queue(client: InferenceClient) -> None:
    async with aclosing(client.generate("endless", QUESTION, LONG)) as stream:
        async for _piece in stream:
            break
    assert client.last is None, "a cancelled generation has no statistics"
    assert await client.answer("good", QUESTION, Sampling(temperature=0)) == "一二三。"
    assert client.last is not None


async def test_status_is_served_while_generations_are_queued(client: InferenceClient) -> None:
    async with aclosing(client.generate("endless", QUESTION, LONG)) as stream:
        async for _piece in stream:
            break
        queued = asyncio.create_task(client.answer("good", QUESTION, Sampling(temperature=0)))

        async def waits() -> bool:
            status = await client.status()
            return status is not None and status.generating == "endless" and status.waiting == 1

        await until(waits)
        assert not queued.done()
    assert await queued == "一二三。"


async def test_the_generation_of_a_dead_client_is_cancelled(client: InferenceClient, ws: Workspace) -> None:
    await client.load("endless")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(socket_path(ws)))
        raw.sendall(msgspec.json.encode(Generate(model="endless", messages=QUESTION, sampling=LONG)) + b"\n")
        raw.recv(1)

    async def idle() -> bool:
        status = await client.status()
        return status is not None and status.generating == ""

    await until(idle)


async def test_two_models_stay_loaded_and_the_least_recently_used_is_unloaded(
    client: InferenceClient,
) -> None:
    for name in ("good", "endless", "endless-2"):
        await client.load(name)
    status = await client.status()
    assert status is not None
    assert [model.name for model in status.models] == ["endless-2", "endless"]
    await client.unload("endless")
    status = await client.status()
    assert status is not None and [model.name for model in status.models] == ["endless-2"]


async def test_replaced_weights_are_loaded_again(
    client: InferenceClient, ws: Workspace, knowing: Path
) -> None:
    copy_model(knowing, ws.models / "changing")
    first = await client.answer("changing", QUESTION, Sampling(temperature=0))
    write_tiny(ws.models / "changing", TALKS, steps=0)
    assert await client.answer("changing", QUESTION, Sampling(temperature=0)) != first == "一二三。"


async def test_log_likelihood_of_the_answers(client: InferenceClient) -> None:
    scored = await client.loglikelihood(
        "good", [*QUESTION, ChatMessage(role="assistant", content="一二三。")]
    )
    assert scored.bytes == 13 and scored.loglikelihood is not None and scored.loglikelihood < 0


@pytest.mark.parametrize(
    "line", [b"{}\n", b"nonsense\n", b'{"op": "dance"}\n', b'{"op": "load"}\n', b"\xff\n"]
)
async def test_a_malformed_request_gets_an_error_and_the_service_continues(
    client: InferenceClient, ws: Workspace, line: bytes
) -> None:
    await client.status(start=True)
    reader, writer = await asyncio.open_unix_connection(str(socket_path(ws)))
    writer.write(line)
    assert b'"error"' in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert await client.status() is not None


async def test_a_killed_service_is_restarted(client: InferenceClient) -> None:
    status = await client.status(start=True)
    assert status is not None
    os.kill(status.pid, 9)
    assert await client.answer("good", QUESTION, Sampling(temperature=0)) == "一二三。"
    again = await client.status()
    assert again is not None and again.pid != status.pid


async def test_a_service_that_dies_during_an_answer_raises(client: InferenceClient) -> None:
    with pytest.raises(ServiceUnreachable):
        async for _piece in client.generate("endless", QUESTION, LONG):
            status = await client.status()
            if status is not None:
                os.kill(status.pid, 9)


async def test_a_second_service_exits(client: InferenceClient, ws: Workspace) -> None:
    await client.status(start=True)
    second = await asyncio.create_subprocess_exec(sys.executable, "-m", "engine", "serve", str(ws.root))
    assert await asyncio.wait_for(second.wait(), 20) == 0
    assert await client.status() is not None


async def test_it_exits_when_a_run_needs_its_memory(client: InferenceClient, ws: Workspace) -> None:
    await client.load("good")
    assert await asyncio.to_thread(free_service_memory, ws, 100.0, 1_000_000.0) is False
    status = await client.status()
    assert status is not None and "good" in [model.name for model in status.models]
    assert await asyncio.to_thread(free_service_memory, ws, 3000.0, 3000.0) is True

    async def gone() -> bool:
        return await client.status() is None

    await until(gone)
    assert await asyncio.to_thread(free_service_memory, ws, 3000.0, 3000.0) is False, (
        "it is not started for this"
    )


async def test_shutdown_removes_the_socket(client: InferenceClient, ws: Workspace) -> None:
    await client.status(start=True)
    await client.shutdown()
    assert not socket_path(ws).exists()
    assert await client.status() is None


async def test_a_failed_start_raises_with_the_last_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = Workspace(tmp_path / "w")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    log_path(ws).parent.mkdir(parents=True)
    with pytest.raises(ServiceUnreachable, match="does not answer") as problem:
        await InferenceClient(ws).answer("x", QUESTION)
    assert problem.value.exit_code == 4 and problem.value.hint


def test_the_client_imports_nothing_heavy() -> None:
    code = (
        "import sys, engine.inference.client, engine.models.registry;"
        "heavy = {'torch', 'numpy', 'transformers', 'httpx', 'ollama', 'psutil'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
