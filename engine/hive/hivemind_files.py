"""HiveMind's own shapes: its registry file and the entries of its list of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.core.local_time import local_time
from engine.hive.registry import Registry


def registry_file(registry: Registry, folder: Path) -> dict[str, Any]:
    """The content of `registry.json`: adapters by id, and the published versions, oldest first."""
    adapters = registry.rows("SELECT * FROM adapters WHERE withdrawn = 0 ORDER BY uploaded_at, id")
    versions = registry.rows(
        "SELECT version, created_at FROM versions WHERE state != 'rejected' ORDER BY created_at, version"
    )
    return {
        "adapters": {
            row["id"]: {
                "user_id": row["user_id"],
                "path": str(folder / row["folder"]),
                "metadata": adapter_metadata(dict(row)),
            }
            for row in adapters
        },
        "aggregated_versions": [
            {
                "version": row["version"],
                "path": str(folder / "aggregated" / row["version"]),
                "created_at": local_time("%Y-%m-%dT%H:%M:%S", row["created_at"]),
            }
            for row in versions
        ],
    }


def adapter_metadata(adapter: dict[str, Any]) -> dict[str, Any]:
    """HiveMind's metadata of an adapter, from its row or the fields of its struct."""
    return {
        "user_id": adapter["user_id"],
        "base_model": adapter["base_model"],
        "version": "1.0.0",
        "uploaded_at": local_time("%Y-%m-%dT%H:%M:%S", adapter["uploaded_at"]),
        "training_samples": adapter["training_samples"],
        "epochs": adapter["epochs"],
    }
