"""The specification of a run, `spec.json`: written once before the engine starts, never changed.

It holds no secrets. Paths are absolute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.core.filenames import path_to_text, text_to_path
from engine.runs.kinds import KINDS, Params, RunKind, TrainMode, TrainParams

SCHEMA = 1


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `params` is the raw JSON of the parameters of the kind (`params_of`)."""

    schema: int = SCHEMA
    run_id: str
    kind: RunKind
    label: str
    """A few words for lists, e.g. the mode of a training run: "native"."""
    created_at: float
    """Seconds since the epoch."""
    workspace: str
    language: str = "en"
    params: msgspec.Raw

    @property
    def folder(self) -> Path:
        return text_to_path(self.workspace) / "runs" / self.run_id


P = TypeVar("P", bound=msgspec.Struct)

_KIND_OF = {info.params: kind for kind, info in KINDS.items()}


def new_run_id(now: float | None = None) -> str:
    """A sortable run id that is a valid file name: local `MMDD-HHMMSS` and two random hex digits."""
    return time.strftime("%m%d-%H%M%S", time.localtime(now)) + "-" + os.urandom(1).hex()


def make_spec(workspace: Path, params: Params, *, language: str = "en", now: float | None = None) -> RunSpec:
    """A spec for `params`; their type determines the kind."""
    created = time.time() if now is None else now
    kind = _KIND_OF[type(params)]
    mode = params.mode if isinstance(params, TrainParams) else TrainMode.AUTO
    label = str(kind if mode is TrainMode.AUTO else mode)
    return RunSpec(
        run_id=new_run_id(created),
        kind=kind,
        label=label,
        created_at=created,
        workspace=path_to_text(workspace),
        language=language,
        params=msgspec.Raw(msgspec.json.encode(_map_texts(params, lambda text: path_to_text(Path(text))))),
    )


def params_of(spec: RunSpec, type_: type[P]) -> P:
    """The parameters as `type_`. Raises `msgspec.ValidationError` when they do not match."""
    return _map_texts(
        msgspec.json.decode(spec.params, type=type_), lambda text: str(text_to_path(text)), "file:///"
    )


def _map_texts(params: P, convert: Callable[[str], str], start: str = "/") -> P:
    """The parameters with each path that is not UTF-8 converted; `start` is how such a text begins."""

    def converted(value: object) -> object:
        if isinstance(value, list):
            return [converted(one) for one in value]
        return convert(value) if isinstance(value, str) and value.startswith(start) else value

    values = {field: getattr(params, field) for field in params.__struct_fields__}
    return msgspec.structs.replace(params, **{field: converted(value) for field, value in values.items()})


def encode_spec(spec: RunSpec) -> bytes:
    return msgspec.json.format(msgspec.json.encode(spec), indent=2) + b"\n"


def decode_spec(data: bytes) -> RunSpec:
    """Raises `msgspec.DecodeError`, also for an unknown kind."""
    return msgspec.json.decode(data, type=RunSpec)
