"""Answers of the hive: structs as JSON, and refusals in HiveMind's shape with the rule beside it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from starlette.responses import Response

from engine.core.errors import BadInput
from engine.core.json_text import encode_json
from engine.hive.lora_file import BadAdapter
from engine.hive.protocol import Refusal, Rule
from engine.hive.uploads import OffsetDiffers
from engine.http.refused import INTERNAL, RequestRefused

JSON = "application/json; charset=utf-8"
_STATUSES = {Rule.SIZE: 413, Rule.VOTE: 409}


def reply(value: Any, status: int = 200) -> Response:
    """A struct or a dict as a JSON document."""
    return Response(encode_json(value), status, media_type=JSON)


def refusal(_path: str, refused: RequestRefused) -> Response:
    """A request that is not answered."""
    headers = {}
    if refused.status in (400, 401, 408, 413, 429):
        # What else comes on the connection belongs to the refused request.
        headers["connection"] = "close"
    if refused.status == 401:
        headers["www-authenticate"] = 'Bearer realm="hive"'
    wait_s = getattr(refused, "wait_s", 0.0)
    if wait_s:
        headers["retry-after"] = str(math.ceil(wait_s))
    body: msgspec.Struct = Refusal(detail=refused.message)
    if isinstance(refused, OffsetDiffers):
        body = refused.upload
    return Response(msgspec.json.encode(body), refused.status, headers, JSON)


def not_admitted(problem: BadAdapter) -> Response:
    """A refused adapter: the sentence and the rule, without paths of the server."""
    status = _STATUSES.get(problem.rule, 422)
    body = Refusal(detail=problem.reason, rule=problem.rule.value)
    return Response(encode_json(body), status, {"connection": "close"}, JSON)


def missing_field(name: str, place: str = "body") -> Response:
    """FastAPI's answer to a form that lacks a field, as HiveMind's clients know it."""
    found = [{"type": "missing", "loc": [place, name], "msg": "Field required"}]
    return Response(msgspec.json.encode(Refusal(detail=found)), 422, {"connection": "close"}, JSON)


def failure(problem: Exception) -> RequestRefused:
    """What a client gets of a failure here: nothing that names a file of this machine."""
    if isinstance(problem, BadInput):
        return RequestRefused(400, problem.reason)
    return RequestRefused(500, INTERNAL)
