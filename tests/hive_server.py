"""A hive for tests: served in a thread of this process, with tiny adapters that it takes."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import save

from engine.hive.intake import HiveLimits
from engine.hive.registry import Registry
from engine.hive.rounds import RoundOptions
from engine.hive.server.hive import Hive
from engine.hive.server.serve import make_server
from engine.hive.store import AdapterStore
from engine.hive.tokens import TokenBook

LAYERS = {
    f"model.layers.{layer}.self_attn.{name}": shape
    for layer in range(2)
    for name, shape in {"q_proj": (32, 16), "v_proj": (8, 16)}.items()
}
"""`(out, in)` of the layers of the tests' base model."""
BASE = "Tiny-Base"
FINGERPRINT = "ab" * 32


def config(rank: int = 4, **changes: Any) -> dict[str, Any]:
    """An `adapter_config.json` that fits `weights`."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": f"/home/someone/models/{BASE}.gguf",
        **changes,
    }


def matrices(seed: int = 0, rank: int = 4, layers: Mapping[str, tuple[int, int]] = LAYERS) -> dict[str, Any]:
    """The matrices of an adapter by PEFT's names."""
    random, tensors = np.random.default_rng(seed), {}
    for name, (out, into) in layers.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = random.normal(size=(rank, into)).astype("f4")
        tensors[f"base_model.model.{name}.lora_B.weight"] = random.normal(size=(out, rank)).astype("f4") / 10
    return tensors


def weights(seed: int = 0, rank: int = 4) -> bytes:
    """`adapter_model.safetensors`."""
    return save(matrices(seed, rank))


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def adapter_zip(seed: int = 0, **changes: Any) -> bytes:
    """What HiveMind's client packs: the folder of a training, with what is no business of a server."""
    return zipped(
        {
            "adapter_config.json": json.dumps(config(**changes)).encode(),
            "adapter_model.safetensors": weights(seed),
            "checkpoint-2/optimizer.pt": b"\x80\x04pickle",
            "checkpoint-2/adapter_model.safetensors": weights(seed + 1000),
            "training_args.bin": b"\x80\x04pickle",
        }
    )


@contextmanager
def serving_hive(
    folder: Path, *, with_base: bool = True, limits: HiveLimits | None = None, **options: Any
) -> Iterator[str]:
    """The URL of a server of the hive in `folder`; `options` are those of `make_server`."""
    store = AdapterStore(folder)
    store.sweep(time.time())
    hive = Hive(store, limits or HiveLimits(), RoundOptions())
    if with_base:
        hive.intake.set_base(BASE, FINGERPRINT, LAYERS)
    server = make_server(hive, TokenBook(Registry(folder)), **options)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(256)
        thread = threading.Thread(target=server.run, args=[[bound]], daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        scheme = "https" if options.get("certificate") else "http"
        try:
            yield f"{scheme}://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
    store.close()


def send(
    url: str, user: str, file: bytes, token: str = "", *, client: httpx.Client | None = None, **fields: Any
) -> httpx.Response:
    """The request of HiveMind's client; `client` for many of them."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    data = {"user_id": user, "base_model": "Qwen/Qwen2-7B", "training_samples": "10", "epochs": "3", **fields}
    files = {"file": ("adapter.zip", file, "application/octet-stream")}
    path = f"{url}/api/v1/adapter/upload"
    if client is not None:
        return client.post(path, files=files, data=data, headers=headers)
    return httpx.post(path, files=files, data=data, headers=headers, timeout=60, trust_env=False)


def announce(url: str, data: bytes, token: str = "", **changes: Any) -> httpx.Response:
    """Opens an upload of `data`."""
    body = {"sha256": sha256(data).hexdigest(), "size": len(data), "config": config(), **changes}
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.post(f"{url}/api/v1/uploads", json=body, headers=headers, timeout=60, trust_env=False)


def stored_files(folder: Path) -> set[str]:
    """Everything below a hive that is not its registry, lock or log, and what stands beside it."""
    inside = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    beside = {f"../{path.name}" for path in folder.parent.iterdir() if path != folder}
    own = ("registry.", ".serving", ".server.log")
    return {name for name in inside if not name.startswith(own)} | beside
