"""The gate before a version is published: the verdict's rule on conversations that the operator holds out.

Torch runs in a process of its own (`python -m engine gate`), which ends with the server, however that ends. What is
compared is the likelihood of the held-out answers and of the general set; nothing is generated.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable

import msgspec

from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.core.json_text import encode_json
from engine.runs.own_process import engine_command, engine_environment


class GateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared."""

    workspace: str
    """Folder in which names of models are looked up (`path_to_text`)."""
    base: str
    """The base model that the adapters are for, by a name or path of this machine."""
    candidate: str
    """Folder of the joined adapter."""
    served: str = ""
    """Folder of the version in use, which the candidate must beat; "" for none: it must beat the base."""
    held_out: str
    """A file or folder of conversations in any format that can be imported."""
    look: int = 1
    """How many candidates were judged on `held_out`, this one included: each look costs significance."""
    language: str = ""
    """Of the sentence; "" for English."""


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The decision."""

    decision: str
    """"promote", "keep" or "inconclusive"; only a promoted candidate is published."""
    gain: float | None
    """Mean gain over clusters in nats per byte, above 0: better."""
    sentence: str
    n_cases: int
    n_groups: int
    p_value: float | None
    against: str
    """"base" or "served"."""
    reasons: list[str] = []
    seconds: float = 0.0


class GateAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The line that the process of the gate writes."""

    result: GateResult | None = None
    error: str = ""


def run_gate(
    request: GateRequest,
    *,
    timeout_s: float = 3600.0,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _process: None,
) -> GateResult:
    """The decision on a candidate. Blocks.

    Args:
        on_start: called with the process, so that a server that stops can end it.

    Raises RunFailed when models or conversations cannot be read, or after `timeout_s`.
    """
    process = subprocess.Popen(
        [*engine_command(), "gate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=engine_environment(),
    )
    on_start(process)
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            # stdin stays open: the process ends when it is closed, thus also when this one is killed.
            process.stdin.write(encode_json(request) + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
    try:
        answer = msgspec.json.decode(line, type=GateAnswer)
    except msgspec.DecodeError as problem:
        raise RunFailed(_("the comparison on held-out conversations ended without a result")) from problem
    if answer.result is None:
        raise RunFailed(
            _("the candidate cannot be compared on held-out conversations: {reason}").format(
                reason=answer.error
            )
        )
    return answer.result
