"""The llama.cpp process: `python -m engine llama`, with its parameters as one line of JSON on stdin.

It answers one line on stdout, and lives as long as its stdin is open: it ends with the process that started it, however
that ends.
"""

from __future__ import annotations

import os
import sys
import threading

import msgspec

from engine.core.errors import H2QError
from engine.inference.llama.parameters import LlamaParameters


class LlamaStart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of a llama.cpp process: where it serves, or why it does not."""

    address: str = ""
    """URL of its HTTP server on loopback."""
    error: str = ""
    missing: str = ""
    """Why llama.cpp itself could not be loaded."""


def main() -> int:
    """Ends when stdin is closed; exit code 2 when llama.cpp did not start."""
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_stdin, args=[sys.stdin.fileno()], daemon=True).start()
    answer, server = _start(line)
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()
    if server is None:
        return 2
    threading.Event().wait()
    return 0


def _end_with_stdin(descriptor: int) -> None:
    while os.read(descriptor, 1 << 12):
        pass
    # llama.cpp's threads are not waited for.
    os._exit(0)


def _start(line: bytes) -> tuple[LlamaStart, object]:
    try:
        parameters = msgspec.json.decode(line, type=LlamaParameters)
        parameters.check()
    except (msgspec.DecodeError, H2QError) as problem:
        return LlamaStart(error=getattr(problem, "message", str(problem))), None
    try:
        import xllamacpp
    except ImportError as problem:  # also a library of the system that is missing
        return LlamaStart(missing=str(problem)), None

    params = xllamacpp.CommonParams()
    params.model.path = parameters.model
    params.n_ctx, params.n_parallel = parameters.context * parameters.parallel, parameters.parallel
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [parameters.api_key]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = parameters.threads
    params.cache_ram_mib = parameters.cache_mb
    params.warmup, params.verbosity = False, 1
    params.endpoint_slots = params.endpoint_metrics = params.ui = False
    if parameters.embedding:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # A text is pooled within one batch.
        params.n_batch = params.n_ubatch = parameters.context
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(file, 1.0) for file in parameters.adapters]
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as problem:
        return LlamaStart(error=str(problem).strip()), None
    return LlamaStart(address=server.listening_address), server
