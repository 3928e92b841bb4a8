"""The routes that HiveMind's own clients use, with the answers that they read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.responses import Response

from engine.core.i18n import _
from engine.hive.archives import is_zip, unpack_adapter
from engine.hive.hivemind_files import adapter_metadata
from engine.hive.intake import Announced
from engine.hive.lora_file import BadAdapter, open_regular, read_header
from engine.hive.names import user_name
from engine.hive.protocol import (
    API,
    ARCHIVE_CONFIG,
    ARCHIVE_WEIGHTS,
    AdapterInfo,
    Admitted,
    HiveStatus,
    Rule,
)
from engine.hive.server.access import caller_of
from engine.hive.server.described import answers, takes_form
from engine.hive.server.hive import Hive, sender
from engine.hive.server.replies import missing_field, reply
from engine.hive.server.uploads_api import admitted
from engine.hive.uploads import check_space
from engine.http.bodies import check_length, chunks
from engine.http.multipart import FormFields, read_form
from engine.http.refused import bad_request

VERSION = "0.1.0"
_MOST_ARCHIVE = (4 << 30) - 1
"""Bytes of an upload: HiveMind packs checkpoints and optimizer states beside the adapter."""
_SENT = "sent"
_WRITTEN = 1 << 16
_FORM = {"file": "binary", "user_id": "string", "base_model": "string", "training_samples": "integer", "epochs": "integer"}  # fmt: skip
_HIVEMIND_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
"""What HiveMind's training always uses: a file of weights alone does not say its scale."""


def routes(hive: Hive) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["HiveMind"])

    @router.get("/", summary="Which program this is")
    async def root() -> Response:
        return reply({"message": "HiveMind Server is running", "version": VERSION})

    @router.get(f"{API}/status", summary="Counts", **answers(HiveStatus))
    async def status() -> Response:
        return reply(await asyncio.to_thread(_status, hive))

    @router.post(
        f"{API}/adapter/upload",
        summary="Send an adapter as a form: a zip file, or weights alone",
        **takes_form(_FORM),
        **answers(Admitted),
    )
    async def upload(request: Request) -> Response:
        limit = min(_MOST_ARCHIVE, 4 * hive.limits.max_bytes)
        check_length(request, limit)
        fields = FormFields()
        with hive.store.incoming() as folder:
            size = await _write_files(hive, request, limit, folder, fields)
            for name in ("file", "user_id"):
                if name not in (fields.files if name == "file" else fields.values):
                    return missing_field(name)
            user = sender(caller_of(request), user_name(fields.values["user_id"]))
            stored = await hive.admit(user, size, _take, hive, folder, user, fields.values)
        return reply(admitted(stored))

    @router.get(f"{API}/adapter/list", summary="Adapters with their metadata")
    async def adapters(request: Request) -> Response:
        found = await asyncio.to_thread(hive.store.adapters, request.query_params.get("user_id", ""))
        return reply({"adapters": [_listed(one) for one in found if not one.withdrawn]})

    @router.get(f"{API}/adapter/download/{{version}}", summary="The weights of a version, or of latest")
    async def download(version: str) -> Response:
        found = await asyncio.to_thread(hive.rounds.versions.find, version)
        file = await asyncio.to_thread(hive.rounds.versions.file, found, ARCHIVE_WEIGHTS)
        return FileResponse(
            file,
            media_type="application/octet-stream",
            filename=f"hivemind_{found.version}.safetensors",
            headers={"x-adapter-sha256": found.sha256},
        )

    return router


async def _write_files(hive: Hive, request: Request, limit: int, folder: Path, fields: FormFields) -> int:
    """Writes the content of the form's file under a name of our own; returns its bytes."""
    declared = request.headers.get("content-length", "")
    check_space(folder, int(declared) if declared.isdigit() else 0)
    kind = request.headers.get("content-type", "")
    size, block = 0, bytearray()
    with (folder / _SENT).open("xb", buffering=0) as file:
        async for part in read_form(kind, chunks(request, limit), fields):
            if part.name != "file":
                raise bad_request(f"the form has a file in the field {part.name!r}")
            block += part.data
            size += len(part.data)
            if len(block) >= _WRITTEN:
                await asyncio.to_thread(file.write, bytes(block))
                block.clear()
        await asyncio.to_thread(file.write, bytes(block))
    if fields.files.count("file") > 1:
        raise bad_request("the form has the file twice")
    return size


def _take(hive: Hive, folder: Path, user: str, values: dict[str, str]) -> AdapterInfo:
    sent = folder / _SENT
    weights = folder / ARCHIVE_WEIGHTS
    if is_zip(sent):
        unpack_adapter(sent, folder, hive.limits.max_bytes)
        sent.unlink()
        config = (folder / ARCHIVE_CONFIG).read_bytes()
    else:
        sent.rename(weights)
        config = _config_of(weights, values)
    announced = Announced(
        user=user,
        config=config,
        base_model=values.get("base_model") or "Qwen/Qwen2-7B",
        training_samples=_number(values, "training_samples"),
        epochs=_number(values, "epochs"),
    )
    return hive.intake.take(announced, weights)


def _config_of(weights: Path, values: dict[str, str]) -> bytes:
    """The configuration of a file of weights alone: one that came in the form, else that of HiveMind's training if the
    weights may be its own. Raises BadAdapter."""
    if "adapter_config" in values:
        return values["adapter_config"].encode()
    with open_regular(weights) as fd:
        tensors = read_header(fd, weights)
    if any(entry.shape[0] != 16 for name, entry in tensors.items() if name.endswith(".lora_A.weight")):
        raise BadAdapter(
            Rule.CONFIG, _("weights alone do not say their scale: send a zip file with adapter_config.json")
        )
    return msgspec.json.encode(_HIVEMIND_CONFIG)


def _number(values: dict[str, str], name: str) -> int:
    text = values.get(name, "0").strip() or "0"
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or len(text) > 18:
        raise BadAdapter(Rule.SAMPLES, _("{field} is no whole number").format(field=name))
    return int(text)


def _status(hive: Hive) -> HiveStatus:
    registry = hive.store.registry
    current = hive.rounds.versions.current()
    return HiveStatus(
        total_adapters=registry.number("SELECT count(*) FROM adapters WHERE withdrawn = 0"),
        total_users=registry.number("SELECT count(DISTINCT user_id) FROM adapters WHERE withdrawn = 0"),
        latest_aggregated_version=current.version if current is not None else None,
        pending_for_aggregation=len(hive.store.pending()),
        round=hive.store.round_number(),
        base_model=hive.intake.base().name,
        bytes_received=hive.traffic.received,
        bytes_sent=hive.traffic.sent,
        aggregating=hive.rounds.is_busy,
    )


def _listed(adapter: AdapterInfo) -> dict[str, Any]:
    """HiveMind's entry; the path is that below the hive's folder."""
    path = f"{adapter.user_id}/{adapter.id.removeprefix(f'{adapter.user_id}_')}"
    return {
        "id": adapter.id,
        "user_id": adapter.user_id,
        "path": path,
        "metadata": adapter_metadata(msgspec.structs.asdict(adapter)),
    }
