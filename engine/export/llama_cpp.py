"""llama.cpp in this process: token ids and log-probabilities of a GGUF file, to compare an export with."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.core.errors import BadInput, RunFailed
from engine.core.i18n import _
from engine.models.template_text import FIXED

_TIMEOUT_S = 120
_FORCE = 1000.0
"""Logit bias for a token that is a complete character, so that the response is valid text. Reported probabilities are
without the bias."""


class LlamaCpp:
    """One model for one request at a time; `close` or `with` frees it.

    The KV cache is float32, so that a difference from torch comes from the file alone.
    """

    def __init__(
        self, gguf: Path, *, adapter: Path | None = None, context: int = 1024, threads: int = 1
    ) -> None:
        """Raises BadInput when llama.cpp rejects the file."""
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx, params.n_parallel, params.port = context, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup, params.verbosity, params.endpoint_slots = False, -1, False
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        # Small, because llama.cpp keeps the logits of the whole vocabulary for each token of a batch.
        params.n_batch = params.n_ubatch = 64
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        try:
            self._server: Any = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as problem:
            raise BadInput(
                _("llama.cpp rejected the file ({reason})").format(reason=str(problem).strip()), path=gguf
            ) from problem
        self._address = self._server.listening_address

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model. No other method works afterwards."""
        self._server = None

    def tokenize(self, text: str, *, bos: bool = False, control: bool = True) -> list[int]:
        """Ids of `text`; with `control`, control tokens spelled in it are parsed as such."""
        reply = self.post("/tokenize", {"content": text, "add_special": bos, "parse_special": control})
        return [int(number) for number in reply["tokens"]]

    def template(self, messages: Sequence[dict[str, str]]) -> str:
        """A conversation rendered by the file's chat template, with the generation prompt; without the BOS that
        `tokenize` adds.
        """
        body = {"messages": list(messages), "chat_template_kwargs": FIXED}
        return str(self.post("/apply-template", body)["prompt"])

    def log_probabilities(self, ids: Sequence[int], vocabulary: int, *, single: int) -> list[float]:
        """Log-probability of each next token after `ids`, by id. `single` is a token that is one complete character."""
        reply = self.post(
            "/completion",
            {
                "prompt": list(ids),
                "n_predict": 1,
                "n_probs": vocabulary,
                "temperature": 0.0,
                "logit_bias": [[single, _FORCE]],
                "cache_prompt": True,
            },
        )
        result = [-math.inf] * vocabulary
        for entry in reply["completion_probabilities"][0]["top_logprobs"]:
            result[entry["id"]] = entry["logprob"]
        return result

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply of an endpoint of llama.cpp's server. Raises RunFailed."""
        request = urllib.request.Request(  # noqa: S310  the server of this process
            self._address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                reply: dict[str, Any] = json.loads(response.read())
                return reply
        except urllib.error.HTTPError as problem:
            reason = problem.read(500).decode("utf-8", "replace")
            raise RunFailed(_("llama.cpp failed ({reason})").format(reason=reason)) from problem
        except OSError as problem:
            raise RunFailed(_("llama.cpp failed ({reason})").format(reason=problem)) from problem
