"""A model store in Ollama's layout: blobs by digest, a manifest for each tag."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_IMAGE = "application/vnd.ollama.image."


class OllamaStore:
    """The store in `root`, which is created."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True, exist_ok=True)

    def put(self, name: str, tag: str, model: bytes, **layers: bytes) -> Path:
        """Adds `name:tag` with further layers by kind (`adapter`, `system`); returns its manifest."""
        rows = [
            {"mediaType": _IMAGE + kind, "digest": self._blob(content), "size": len(content)}
            for kind, content in {"model": model, **layers}.items()
        ]
        path = self.root / "manifests" / "registry.ollama.ai" / "library" / name / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schemaVersion": 2, "layers": rows}))
        return path

    def _blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(content)
        return f"sha256:{digest}"
