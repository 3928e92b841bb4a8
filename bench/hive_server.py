"""Benchmarks of the hive's server: hostile uploads, many large ones together, and kills in every phase."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
from safetensors.numpy import save

from bench.result import Benchmark, BenchResult, compare
from tests.hive_server import adapter_zip, config, send, stored_files, weights
from tests.hostile_uploads import ANNOUNCED, RAW, hostile_files

MB = 1 << 20
GROWTH_MB = 64.0
"""What the server's memory may grow by."""
_COMMAND = "from tui.cli.main import main; main()"
_LEGITIMATE_S = 0.5
PHASES = ("announce", "part", "finish", "form", "aggregate", "rollback")
"""What a client does when the server is killed."""


@dataclass
class Server:
    """`h2q-tui hive serve` of a workspace, in a process."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    peak: int = 0

    def rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measures `peak` inside the block."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                self.peak = max(self.peak, self.rss())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def served(root: Path, *options: str) -> Iterator[Server]:
    """A server, ended at the end of the block if it lives."""
    words = [
        sys.executable,
        "-c",
        _COMMAND,
        "--data-dir",
        str(root),
        "hive",
        "serve",
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(
        [*words, "--rate", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] not in ("}\n", ""):
            lines.append(process.stdout.readline())
        try:
            yield Server(process, str(json.loads("".join(lines))["address"]), root / "hive")
        finally:
            if process.poll() is None:
                process.terminate()


def _raw(url: str, request: bytes) -> int:
    """The status that is answered to bytes; 400 for a connection that was closed."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=60) as connection,
    ):
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        line = connection.recv(100)
        return int(line.split(b" ")[1]) if line else 400
    return 400


def _hostile(url: str, wanted: int) -> Iterator[tuple[str, int]]:
    """(why, status) of each hostile request."""
    data = weights(1)
    seed = sent = 0
    client = httpx.Client(timeout=120, trust_env=False)
    while sent < wanted:
        seed += 1
        for file in hostile_files(seed):
            reply = send(url, f"eve{sent}", file.data, client=client, base_model="Tiny-Base")
            yield file.why, reply.status_code
            sent += 1
        for why, request in RAW.items():
            yield f"raw: {why}", _raw(url, request)
            sent += 1
        for why, change in ANNOUNCED.items():
            body = {"sha256": sha256(data).hexdigest(), "size": len(data), "config": config(), **change(data)}
            reply = client.post(f"{url}/api/v1/uploads", json=body)
            yield f"announced: {why}", reply.status_code
            sent += 1


def hostile(full: bool) -> list[BenchResult]:
    """Hostile uploads beside legitimate ones and 100 half-sent heads. Raises RuntimeError when one is accepted."""
    wanted = 5000 if full else 250
    with (
        tempfile.TemporaryDirectory(prefix="h2q-b-") as folder,
        served(Path(folder)) as server,
        ExitStack() as open_,
    ):
        for number in range(3):
            send(server.url, f"first{number}", adapter_zip(number))
        kept = len(stored_files(server.folder))
        for _number in range(100):
            with suppress(OSError):
                half = open_.enter_context(
                    socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=60)
                )
                half.sendall(b"POST /api/v1/adapter/upload HTTP/1.1\r\nHost: local")
        before, done, taken = server.rss(), threading.Event(), Counter[int]()

        def legitimate() -> None:
            number = 100
            client = httpx.Client(timeout=120, trust_env=False)
            while not done.wait(_LEGITIMATE_S):
                file = adapter_zip(number)
                taken[send(server.url, f"friend{number}", file, client=client).status_code] += 1
                number += 1

        thread = threading.Thread(target=legitimate)
        with server.watched():
            thread.start()
            statuses = Counter[int]()
            wrong = []
            for why, status in _hostile(server.url, wanted):
                statuses[status] += 1
                if not 400 <= status < 500:
                    wrong.append(f"{why}: {status}")
            done.set()
            thread.join()
        friends = taken.total()
        foreign = len(stored_files(server.folder)) - kept - 3 * friends
        outside = sorted(path.name for path in Path(folder).iterdir())
        if wrong or foreign or taken.keys() - {200}:
            raise RuntimeError(f"accepted or failed: {wrong[:5]}; foreign files: {foreign}; friends: {taken}")
        return [
            compare(
                "hive.hostile",
                ours=max(0.1, (server.peak - before) / MB),
                baseline=GROWTH_MB,
                target=1.0,
                unit="MB",
                lower_is_better=True,
                notes=f"{statuses.total()} hostile requests beside 100 half-sent heads: none accepted, {dict(statuses)}; "
                f"{friends} legitimate uploads beside them all taken; beside the hive: {', '.join(outside)}",
            )
        ]


@dataclass
class _LargeAdapter:
    """An adapter of tens of MB, of which each user has another one, without one in memory for each."""

    data: bytes
    body: int
    """Where the matrices begin."""

    @classmethod
    def made(cls, size: int) -> _LargeAdapter:
        columns = size // (2 * 4 * 16)
        values = np.random.default_rng(0).normal(size=(16, columns)).astype("f4")
        name = "base_model.model.model.layers.0.self_attn.q_proj"
        data = save({f"{name}.lora_A.weight": values, f"{name}.lora_B.weight": values.T.copy()})
        return cls(data, 8 + int.from_bytes(data[:8], "little"))

    def of(self, user: int) -> bytes:
        """The first value is another one for each user."""
        return self.data[: self.body] + np.float32(user).tobytes() + self.data[self.body + 4 :]


def parallel(full: bool) -> list[BenchResult]:
    """Uploads of 50 MB that arrive together. Raises RuntimeError when one is not taken."""
    count, size = (50, 50 * MB) if full else (8, 8 * MB)
    adapter = _LargeAdapter.made(size)
    about = config(16, target_modules=["q_proj"])
    with tempfile.TemporaryDirectory(prefix="h2q-b-") as folder, served(Path(folder)) as server:
        send(server.url, "first", adapter_zip(1))
        httpx.delete(f"{server.url}/api/v1/adapters/none", trust_env=False)
    with tempfile.TemporaryDirectory(prefix="h2q-b-") as folder, served(Path(folder)) as server:
        before, statuses = server.rss(), []

        def upload(user: int) -> None:
            data = adapter.of(user)
            body = {
                "sha256": sha256(data).hexdigest(),
                "size": len(data),
                "config": about,
                "user_id": f"u{user}",
            }
            with httpx.Client(base_url=f"{server.url}/api/v1", timeout=600, trust_env=False) as client:
                path = f"/uploads/{client.post('/uploads', json=body).json()['upload_id']}"
                for start in range(0, len(data), 8 * MB):
                    client.put(f"{path}?offset={start}", content=data[start : start + 8 * MB])
                statuses.append(client.post(f"{path}/finish").status_code)

        threads = [threading.Thread(target=upload, args=[user]) for user in range(count)]
        started = time.monotonic()
        with server.watched():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if statuses != [201] * count:
            raise RuntimeError(f"not all were taken: {Counter(statuses)}")
        return [
            compare(
                "hive.parallel",
                ours=max(0.1, (server.peak - before) / MB),
                baseline=GROWTH_MB,
                target=1.0,
                unit="MB",
                lower_is_better=True,
                notes=f"{count} uploads of {size / MB:.0f} MB together, {time.monotonic() - started:.0f} s; "
                f"the server grew from {before / MB:.0f} to {server.peak / MB:.0f} MB",
            )
        ]


@dataclass
class _Acknowledged:
    """What a server has said that it has."""

    offsets: dict[str, int] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    """Id to hash of the weights."""
    versions: dict[str, str] = field(default_factory=dict)
    phase: str = ""


def _use(url: str, seed: int, said: _Acknowledged) -> None:
    """One client: sends adapters both ways and has them joined, until the server is gone."""
    client = httpx.Client(base_url=f"{url}/api/v1", timeout=60, trust_env=False)
    number = 0
    while True:
        number += 1
        data, user = weights(1000 * seed + number), f"u{seed}x{number}"
        said.phase = "announce"
        body = {"sha256": sha256(data).hexdigest(), "size": len(data), "config": config(), "user_id": user}
        upload = client.post("/uploads", json=body).json()["upload_id"]
        said.offsets[upload] = 0
        for start in range(0, len(data), 800):
            said.phase = "part"
            answer: dict[str, Any] = client.put(
                f"/uploads/{upload}?offset={start}", content=data[start : start + 800]
            ).json()
            said.offsets[upload] = answer["offset"]
        said.phase = "finish"
        admitted = client.post(f"/uploads/{upload}/finish").json()
        said.adapters[admitted["adapter_id"]] = admitted["sha256"]
        said.phase = "form"
        admitted = send(
            url, f"f{seed}x{number}", adapter_zip(500_000 + 1000 * seed + number), client=client
        ).json()
        said.adapters[admitted["adapter_id"]] = admitted["sha256"]
        said.phase = "aggregate"
        joined = client.post("/aggregate").json()
        said.versions[joined["version"]] = joined["detail"]["sha256"]
        said.phase = "rollback"
        client.post("/rollback", json={})


def _lost(url: str, folder: Path, said: _Acknowledged) -> list[str]:
    """What was acknowledged and is not there, and rows without files."""
    lost = []
    client = httpx.Client(base_url=f"{url}/api/v1", timeout=60, trust_env=False)
    for upload, offset in said.offsets.items():
        state = client.get(f"/uploads/{upload}").json()
        if state.get("offset", -1) < offset:
            lost.append(f"upload: {state} after {offset}")
    adapters = {one["id"]: one for one in client.get("/adapters").json()["adapters"]}
    lost += [f"adapter {one}" for one in said.adapters if one not in adapters]
    for name, one in adapters.items():
        user = one["user_id"]
        file = folder / user / name.removeprefix(f"{user}_") / "adapter_model.safetensors"
        if not file.is_file() or sha256(file.read_bytes()).hexdigest() != one["sha256"]:
            lost.append(f"weights of {name}")
    versions = {one["version"]: one for one in client.get("/versions").json()["versions"]}
    lost += [f"version {one}" for one in said.versions if one not in versions]
    for name, one in versions.items():
        data = client.get(f"/adapter/download/{name}").content
        if sha256(data).hexdigest() != one["sha256"]:
            lost.append(f"weights of version {name}")
    if versions and sum(one["state"] == "current" for one in versions.values()) != 1:
        lost.append("no version is current")
    return lost


def killed(full: bool) -> list[BenchResult]:
    """`kill -9` at random moments. Raises RuntimeError when something that was acknowledged is lost."""
    kills, rng, phases = 36 if full else 6, random.Random(0), Counter[str]()
    said, lost = _Acknowledged(), list[str]()
    with tempfile.TemporaryDirectory(prefix="h2q-b-") as folder:
        for number in range(kills + 1):
            with served(Path(folder)) as server:
                lost += _lost(server.url, server.folder, said)
                if number == kills or lost:
                    break

                def use(url: str, seed: int) -> None:
                    with suppress(httpx.HTTPError, json.JSONDecodeError, KeyError):
                        _use(url, seed, said)

                said.phase = ""
                thread = threading.Thread(target=use, args=(server.url, number))
                thread.start()
                wanted, deadline = PHASES[number % len(PHASES)], time.monotonic() + 60
                while said.phase != wanted and thread.is_alive() and time.monotonic() < deadline:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0.0, 1.0 if wanted == "aggregate" else 0.05))
                phases[said.phase] += 1
                os.kill(server.process.pid, signal.SIGKILL)
                thread.join()
        left = [
            name for name in stored_files(Path(folder) / "hive") if ".incoming" in name or ".joined" in name
        ]
        if lost or left:
            raise RuntimeError(f"lost after {number} kills: {lost[:5]}; left: {left[:5]}")
    return [
        compare(
            "hive.killed",
            ours=1.0,
            baseline=1.0 + len(lost),
            target=1.0,
            unit="1 + lost",
            lower_is_better=True,
            notes=f"{kills} kills, during {dict(phases)}: {len(said.offsets)} uploads, {len(said.adapters)} adapters and "
            f"{len(said.versions)} versions were acknowledged, all are there with their hashes",
        )
    ]


BENCHMARKS = (
    Benchmark("hive.hostile", "hostile uploads beside legitimate ones: the server's memory", hostile, 30),
    Benchmark("hive.parallel", "large uploads together: the server's memory", parallel, 15),
    Benchmark("hive.killed", "kill -9 in every phase: nothing acknowledged is lost", killed, 40, long=True),
)
