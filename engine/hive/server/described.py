"""What a route says of itself in the OpenAPI document, from the structs of the protocol; and the page of `/docs`."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec

from engine.hive.protocol import Refusal

_SCHEMAS: set[type] = set()
_REFERENCE = "#/components/schemas/{name}"
_METHODS = ("get", "post", "put", "delete")


def answers(struct: type, status: int = 200, *, media: str = "application/json") -> dict[str, Any]:
    """Arguments of a route that answers with a struct."""
    return {
        "status_code": status,
        "responses": {
            status: {"description": "", "content": {media: {"schema": _schema(struct)}}},
            "4XX": {"description": "", "content": {"application/json": {"schema": _schema(Refusal)}}},
        },
    }


def takes(struct: type, *, required: bool = True) -> dict[str, Any]:
    """Arguments of a route whose body is the JSON of a struct."""
    body = {"required": required, "content": {"application/json": {"schema": _schema(struct)}}}
    return {"openapi_extra": {"requestBody": body}}


def takes_bytes(query: tuple[str, ...] = ()) -> dict[str, Any]:
    """Arguments of a route whose body is raw bytes, with numbers in its query."""
    parameters = [
        {"name": name, "in": "query", "required": True, "schema": {"type": "integer"}} for name in query
    ]
    body = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}  # fmt: skip
    return {"openapi_extra": {"requestBody": body, "parameters": parameters}}


def takes_form(fields: dict[str, str]) -> dict[str, Any]:
    """Arguments of a route whose body is a form; `fields` by their JSON types, "binary" for a file."""
    properties = {
        name: {"type": "string", "format": "binary"} if kind == "binary" else {"type": kind}
        for name, kind in fields.items()
    }
    schema = {"type": "object", "properties": properties, "required": ["file", "user_id"]}
    return {
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
        }
    }


def components() -> dict[str, Any]:
    """The schemas that the routes refer to."""
    structs = sorted(_SCHEMAS, key=lambda struct: struct.__name__)
    _found, schemas = msgspec.json.schema_components(structs, ref_template=_REFERENCE)
    return schemas


def docs_page(document: dict[str, Any]) -> str:
    """The OpenAPI document as a page without scripts, pictures or fonts: a browser asks nobody else for it."""
    parts = []
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                parts.append(_operation(method, path, operations[method]))
    schemas = "".join(
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary><pre>{_json(schema)}</pre></details>"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(document['info']['title'])}</title><style>{_STYLE}</style>"
        f"<h1>{escape(document['info']['title'])}</h1><p>{escape(document['info']['description'])} "
        "<a href='openapi.json'>openapi.json</a></p>"
        f"{''.join(parts)}<h2>Schemas</h2>{schemas}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    shown = {key: operation[key] for key in ("parameters", "requestBody", "responses") if operation.get(key)}
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}"
        f"</summary><pre>{_json(shown)}</pre></details>"
    )


def _json(value: Any) -> str:
    return escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _schema(struct: type) -> dict[str, str]:
    _SCHEMAS.add(struct)
    return {"$ref": _REFERENCE.format(name=struct.__name__)}


_STYLE = (
    "body{font:16px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
    "summary{padding:.4em;cursor:pointer}b{display:inline-block;width:4.5em}pre{overflow:auto;padding:1em}"
)
