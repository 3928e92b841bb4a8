"""What a client gets when a request fails, in the shape of the API that it speaks.

Sentences that programs compare are Ollama's own and stay English.
"""

from __future__ import annotations

from typing import Any

from engine.http.refused import RequestRefused

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         413: "request_too_large", 503: "overloaded_error"}  # fmt: skip
"""Words of OpenAI and Anthropic for a status."""


def model_not_found(name: str) -> RequestRefused:
    """Status 404, with Ollama's words."""
    return RequestRefused(404, f"model '{name}' not found")


def error_body(path: str, refused: RequestRefused) -> dict[str, Any]:
    """The body of a refusal for the API that `path` belongs to: Ollama's, OpenAI's or Anthropic's."""
    kind = TYPES.get(refused.status, "api_error")
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": kind, "message": refused.message}}
    if path.startswith("/v1/"):
        return {"error": {"message": refused.message, "type": kind, "param": None, "code": None}}
    return {"error": refused.message}
