"""A request that is not answered: a status and one sentence, in the shape that the server's API gives it."""

from __future__ import annotations

from engine.core.errors import BadInput, H2QError, ServiceUnreachable, UsageProblem

INTERNAL = "internal error"
"""What is said of a fault of the server itself."""


class RequestRefused(Exception):
    """A request that gets an error: its HTTP status and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def bad_request(message: str) -> RequestRefused:
    """Status 400."""
    return RequestRefused(400, message)


def refusal_of(problem: H2QError) -> RequestRefused:
    """An expected failure as a refusal; the hint is a command for this machine, and is part of the sentence."""
    status = 400 if isinstance(problem, BadInput | UsageProblem) else 500
    if isinstance(problem, ServiceUnreachable):
        status = 503
    return RequestRefused(status, str(problem))
