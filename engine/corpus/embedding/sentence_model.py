"""A sentence-transformers model in a folder of this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import BadInput, first_line
from engine.core.i18n import _

if TYPE_CHECKING:
    from engine.corpus.embedding.protocol import Matrix

_EDGE = 65536
_BATCH = 32


class SentenceModel:
    """Loads at construction, on the CPU, from files alone.

    Raises BadInput for a folder that is no such model, or whose weights would have to be unpickled.
    """

    def __init__(self, folder: Path) -> None:
        examine(folder)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            self._model: Any = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        except Exception as problem:  # three libraries, each with errors of its own for a damaged file
            raise BadInput(
                _("The embedder cannot be loaded ({reason})").format(reason=first_line(problem)), path=folder
            ) from problem
        self._name = f"{folder.name}-{fingerprint(folder)}"

    @property
    def name(self) -> str:
        return self._name

    def encode(self, texts: Sequence[str]) -> Matrix:
        vectors: Matrix = self._model.encode(
            list(texts),
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

    def reads_whole(self, text: str) -> bool:
        limit = self._model.max_seq_length
        return limit is None or len(self._model.tokenizer(text, truncation=False)["input_ids"]) <= limit


def examine(folder: Path) -> None:
    """Looks at the files without loading them. Raises BadInput with what is missing or not taken."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        paths = [str(module["path"]) for module in modules]
        types = [str(module["type"]) for module in modules]
    except FileNotFoundError:
        raise BadInput(
            _("This is no sentence-transformers model: it has no modules.json"), path=folder
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadInput(_("The modules.json of the embedder cannot be read"), path=folder) from problem
    foreign = [name for name in types if not name.startswith("sentence_transformers.")]
    if foreign:
        raise BadInput(
            _("The embedder needs code of its own ({name}), which is not run").format(name=foreign[0]),
            path=folder,
        )
    for place in {folder, *(folder / path for path in paths)}:
        if (place / "pytorch_model.bin").exists() and not any(place.glob("*.safetensors")):
            raise BadInput(_("The embedder has no safetensors; pickled weights are not read"), path=place)


def fingerprint(folder: Path) -> str:
    """Eight hex digits from the names, sizes and edges of the files: other weights, other vectors."""
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE))
            if size > _EDGE:
                file.seek(max(_EDGE, size - _EDGE))
                digest.update(file.read(_EDGE))
    return digest.hexdigest()[:8]
