"""An embedding model of the Ollama on this machine; `ollama:TAG` names one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.core.errors import BadInput, ServiceUnreachable
from engine.core.i18n import _
from engine.models.ollama.client import local_host

if TYPE_CHECKING:
    from engine.corpus.embedding.protocol import Matrix

_BATCH = 32
_TIMEOUT_S = 120.0
_WHOLE = 600
"""Bytes that the smallest of these models, with 256 tokens, reads to their end."""


class OllamaModel:
    """Raises UsageProblem when OLLAMA_HOST is another machine, BadInput for a model that Ollama does not have,
    ServiceUnreachable when it does not answer."""

    def __init__(self, tag: str, host: str | None = None) -> None:
        import ollama

        self._tag = tag
        self._client = ollama.Client(host=local_host(host), timeout=_TIMEOUT_S, trust_env=False)
        found = self._asked(self._client.list)
        digests = {model.model: model.digest or "" for model in found.models}
        digest = digests.get(tag, digests.get(f"{tag}:latest"))
        if digest is None:
            raise BadInput(_("Ollama has no model {tag}").format(tag=tag), hint=f"ollama pull {tag}")
        self._name = f"ollama:{tag}-{digest.removeprefix('sha256:')[:8]}"

    @property
    def name(self) -> str:
        return self._name

    def encode(self, texts: Sequence[str]) -> Matrix:
        import numpy as np

        rows: list[Sequence[float]] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            rows += self._asked(lambda batch=batch: self._client.embed(self._tag, batch)).embeddings
        vectors = np.asarray(rows, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise BadInput(_("{tag} is no model for embeddings").format(tag=self._tag))
        units: Matrix = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return units

    def unknown_share(self, texts: Sequence[str]) -> float:
        return 0.0

    def reads_whole(self, text: str) -> bool:
        return len(text.encode("utf-8", "surrogatepass")) <= _WHOLE

    def _asked(self, call: Any) -> Any:
        import httpx
        import ollama

        try:
            return call()
        except ollama.ResponseError as problem:
            if problem.status_code == 404:
                raise BadInput(
                    _("Ollama has no model {tag}").format(tag=self._tag), hint=f"ollama pull {self._tag}"
                ) from problem
            raise BadInput(_("Ollama refused: {reason}").format(reason=problem.error)) from problem
        except (ConnectionError, httpx.HTTPError) as problem:
            raise ServiceUnreachable(_("Ollama does not answer"), hint="ollama serve") from problem
