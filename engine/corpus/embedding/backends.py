"""Embedders behind one protocol: a sentence-transformers model in a local folder, and a model of the local Ollama."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from engine.core.errors import BadInput, first_line
from engine.core.i18n import _
from engine.models.ollama.client import make_client, no_such_model, translated_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = NDArray[np.float32]

_SAMPLED_BYTES = 65536
_BATCH = 32
_OLLAMA_TIMEOUT_S = 120.0
_OLLAMA_MIN_CONTEXT = 600
"""Bytes that the smallest embedding model, with a context of 256 tokens, encodes without truncation."""


_E5 = re.compile(r"(?:\b|_)e5-(?:small|base|large)(?!.*instruct)", re.IGNORECASE)
_E5_PREFIX = "query: "
"""What the model card of E5 (Wang et al. 2022) asks for before both texts where they are compared as equals."""


def prefix_of(*names: str) -> str:
    """What an embedder with one of these names expects before each text: "" for most."""
    return _E5_PREFIX if any(map(_E5.search, names)) else ""


class Embedder(Protocol):
    """Maps texts to unit vectors, whose products are cosines."""

    @property
    def name(self) -> str:
        """Differs for other weights: vectors are cached under it."""
        ...

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Vectors of length 1, shape (texts, dimensions). Raises ServiceUnreachable, BadInput."""
        ...

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the tokens of `texts` that its tokenizer does not know; 0.0 where that cannot be measured."""
        ...

    def fits_context(self, text: str) -> bool:
        """Whether `text` is encoded without truncation."""
        ...


class SentenceTransformerEmbedder:
    """A sentence-transformers model. The constructor loads it on the CPU, from local files only.

    Raises BadInput for a folder without such a model, or whose weights would have to be unpickled.
    """

    def __init__(self, folder: Path) -> None:
        check_model_folder(folder)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            self._model: Any = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        except Exception as problem:  # three libraries raise their own errors for a damaged file
            raise BadInput(
                _("the embedder cannot be loaded ({reason})").format(reason=first_line(problem)), path=folder
            ) from problem
        self._prefix = "" if any(self._model.prompts.values()) else prefix_of(folder.name, _base_name(folder))
        prompted = "-query" if self._prefix else ""
        self._name = f"{folder.name}-{_folder_fingerprint(folder)}{prompted}"

    @property
    def name(self) -> str:
        return self._name

    def encode(self, texts: Sequence[str]) -> Matrix:
        vectors: Matrix = self._model.encode(
            [self._prefix + text for text in texts],
            batch_size=_BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors.astype("float32", copy=False)

    def unknown_share(self, texts: Sequence[str]) -> float:
        tokenizer = self._model.tokenizer
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is None or unknown == getattr(tokenizer, "eos_token_id", None) or not texts:
            return 0.0
        rows = tokenizer(list(texts), add_special_tokens=False, truncation=False)["input_ids"]
        total = sum(map(len, rows))
        return sum(row.count(unknown) for row in rows) / total if total else 0.0

    def fits_context(self, text: str) -> bool:
        limit = self._model.max_seq_length
        tokens = self._model.tokenizer(self._prefix + text, truncation=False)["input_ids"]
        return limit is None or len(tokens) <= limit


def check_model_folder(folder: Path) -> None:
    """Checks the files without loading them. Raises BadInput with what is missing or unsupported."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        paths = [str(module["path"]) for module in modules]
        types = [str(module["type"]) for module in modules]
    except FileNotFoundError:
        raise BadInput(_("not a sentence-transformers model: modules.json is missing"), path=folder) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadInput(_("modules.json of the embedder cannot be read"), path=folder) from problem
    foreign = [name for name in types if not name.startswith("sentence_transformers.")]
    if foreign:
        raise BadInput(
            _("the embedder needs custom code ({name}), which is never run").format(name=foreign[0]),
            path=folder,
        )
    for part in {folder, *(folder / path for path in paths)}:
        if (part / "pytorch_model.bin").exists() and not any(part.glob("*.safetensors")):
            raise BadInput(
                _("the embedder has no safetensors weights; pickled weights are not loaded"), path=part
            )


def _base_name(folder: Path) -> str:
    """The name under which the model was published, as its configuration gives it; "" without one."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return str(config.get("_name_or_path", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _folder_fingerprint(folder: Path) -> str:
    """Eight hex digits from the names, sizes, first and last bytes of the files, to tell other weights apart."""
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLED_BYTES))
            if size > _SAMPLED_BYTES:
                file.seek(max(_SAMPLED_BYTES, size - _SAMPLED_BYTES))
                digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()[:8]


class OllamaEmbedder:
    """An embedding model of the local Ollama, by tag.

    Raises UsageProblem when OLLAMA_HOST is another machine, BadInput for a model that Ollama does not have,
    ServiceUnreachable when it does not answer.
    """

    def __init__(self, tag: str, host: str | None = None) -> None:
        self._tag = tag
        self._client = make_client(host, timeout_s=_OLLAMA_TIMEOUT_S)
        with translated_errors(tag):
            listed = self._client.list()
        digests = {model.model: model.digest or "" for model in listed.models}
        digest = digests.get(tag, digests.get(f"{tag}:latest"))
        if digest is None:
            raise no_such_model(tag)
        self._prefix = prefix_of(tag)
        prompted = "-query" if self._prefix else ""
        self._name = f"ollama:{tag}-{digest.removeprefix('sha256:')[:8]}{prompted}"

    @property
    def name(self) -> str:
        return self._name

    def encode(self, texts: Sequence[str]) -> Matrix:
        import numpy as np

        rows: list[Sequence[float]] = []
        for start in range(0, len(texts), _BATCH):
            with translated_errors(self._tag):
                batch = [self._prefix + text for text in texts[start : start + _BATCH]]
                rows += self._client.embed(self._tag, batch).embeddings
        vectors = np.asarray(rows, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise BadInput(_("{tag} is not an embedding model").format(tag=self._tag))
        units: Matrix = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return units

    def unknown_share(self, texts: Sequence[str]) -> float:
        return 0.0

    def fits_context(self, text: str) -> bool:
        return len((self._prefix + text).encode("utf-8", "surrogatepass")) <= _OLLAMA_MIN_CONTEXT
