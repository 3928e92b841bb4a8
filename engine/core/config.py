"""The person's settings: `config/h2q.toml` in the workspace, mode 0600, edited by hand or in the app."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec.inspect import BoolType, FloatType, IntType, LiteralType, type_info
from msgspec.structs import FieldInfo

from engine.core.errors import BadInput, UsageProblem
from engine.core.files import write_text
from engine.core.i18n import _

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.core.paths import Workspace


PrivateType: TypeAlias = Literal[
    "PRIVATE_KEY", "API_KEY", "PASSWORD", "EMAIL", "ID_CARD", "CREDIT_CODE", "IBAN", "BANK_CARD", "SSN",
    "PASSPORT", "DRIVER_LICENSE", "IP", "PHONE", "PLATE", "WECHAT", "QQ", "ADDRESS",
]  # fmt: skip
"""What private data can be; the names of `engine.corpus.filters.pii.SensitiveType`."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. A missing key means its default; unknown keys are kept in the file."""

    language: Literal["auto", "en", "zh"] = "auto"
    """"auto": as the environment says (LC_ALL, LC_MESSAGES, LANG)."""
    theme: str = "auto"
    """Name of a theme of the app; "auto": chosen from what the terminal can show."""
    signs: Literal["auto", "unicode", "ascii"] = "auto"
    ambiguous_width: Literal["auto", "narrow", "wide"] = "auto"
    """Cells that East Asian ambiguous characters take; "auto" asks the terminal once."""
    max_memory_gb: Annotated[float, msgspec.Meta(gt=0, le=1024)] = 4.0
    """Budget of a run and its children, in GB."""
    memory_buffer_gb: Annotated[float, msgspec.Meta(ge=0, le=64)] = 0.5
    """GB of the budget that are to stay free: training makes itself smaller when less is left. A quarter of
    the budget at most."""
    streaming_batch_size: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    """Windows of text in a step before accumulation; 0: as the recipe says."""
    micro_batch_size: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    """Windows in one pass at most: the same batch in more, smaller pieces; 0: as many as fit the budget."""
    gradient_accumulation_steps: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """Batches added up before an optimizer step; 0: as the recipe says."""
    data_chunk_size: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 32
    """KB of text that one read of a file takes; 0: only what is asked for, and nothing is kept."""
    max_cached_chunks: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 64
    """Chunks of text kept in memory; the longest unused one gives way. Of a text more than four times as large
    as all of them none are kept: random windows would hardly ever meet one again."""
    num_worker_threads: Annotated[int, msgspec.Meta(ge=0, le=16)] = 1
    """Threads that read and prepare batches while the model computes; 0: each batch when it is its turn."""
    prefetch_buffer_size: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    """Batches that those threads prepare ahead."""
    cpu_affinity: str = ""
    """Processors a run may use, e.g. "0-3,6"; "auto": one of each physical core; "": all (Linux)."""
    max_cpu_percent: Annotated[float, msgspec.Meta(ge=1, le=100)] = 100.0
    """Share of all processors together that training takes at most, by pauses between steps."""
    update_interval: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 2.0
    """Seconds between two records of memory and two states of the status files."""
    resource_check_interval: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 2.0
    """Seconds between two looks at child processes, at the limit of the system and at what other programs,
    the battery and the temperature ask for."""
    pause_on_battery: Annotated[int, msgspec.Meta(ge=0, le=100)] = 20
    """Percent of the battery below which training waits for the mains; 0: never."""
    pause_above_c: Annotated[int, msgspec.Meta(ge=0, le=120)] = 95
    """Degrees Celsius of the processor above which training waits until it has cooled; 0: never."""
    unload_ollama: bool = False
    """Ask Ollama to free the models it holds in memory before a training begins."""
    review: Literal["auto", "manual"] = "auto"
    """"auto": what passes the filters and is not held is accepted unless the person rejects it.
    "manual": only what the person accepted is trained on."""
    near_threshold: Annotated[float, msgspec.Meta(ge=0.3, le=1.0)] = 0.8
    """Jaccard similarity from which two conversations are near duplicates."""
    sensitive: Literal["redact", "drop"] = "redact"
    """What happens to private data found: the span is replaced, or the conversation left out."""
    sensitive_types: dict[PrivateType, Literal["redact", "drop", "keep"]] = {}
    """What happens to one type instead, e.g. `PHONE = "drop"` under `[sensitive_types]`; "keep": nothing."""
    low_value: Literal["mask", "keep"] = "mask"
    """"mask": turns that only greet, thank or agree stay as context and are not trained on."""
    low_value_from: Annotated[float, msgspec.Meta(ge=0.5, le=1.0)] = 0.5
    """How much of a turn must be courtesy (or repetition) for it to count as low value; 1.0: all of it."""
    low_value_phrases: tuple[str, ...] = ()
    """More phrases of the person's own that count as low value."""
    embedder: str = ""
    """What says which conversations mean the same: a folder with a sentence-transformers model (a relative one
    lies in the workspace) or `ollama:TAG`; "": character n-grams, which only group; "off": nothing."""
    checkpoints_last: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 2
    """Newest checkpoints of a training phase that are kept, beside the best one."""
    checkpoints_hourly: Annotated[int, msgspec.Meta(ge=0, le=10000)] = 24
    """Hours of which one checkpoint each is kept, too; 0: none. They are the first to go when the disk is short."""
    lora_base: str = ""
    """Base that `train --mode auto` tunes by LoRA where it fits the budget: a Hugging Face directory or an
    Ollama tag; "": the built-in model is trained."""
    backup_weekly: bool = True
    """Make a backup when the newest one is older than seven days."""
    first_start_done: bool = False
    """The first-start sheet has been answered."""
    keys: dict[str, str] = {}
    """Keys of the person's own: action id to key, e.g. `"runs.stop" = "x"`."""


CONTENT_SETTINGS = ("streaming_batch_size", "micro_batch_size", "gradient_accumulation_steps")
"""Settings that decide what a training learns, step by step: one that goes on must take them as it began."""
TRAINING_SETTINGS = (
    *CONTENT_SETTINGS, "memory_buffer_gb", "data_chunk_size", "max_cached_chunks", "num_worker_threads",
    "prefetch_buffer_size", "cpu_affinity", "max_cpu_percent", "update_interval", "resource_check_interval",
    "pause_on_battery", "pause_above_c", "checkpoints_last", "checkpoints_hourly",
)  # fmt: skip
"""Settings that change how a training goes; the run says at its start which of them are set."""

_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_HEADER = "Settings of h2q-tui. A key that is not here has its default; `h2q-tui paths` shows this file."


def load_settings(workspace: Workspace) -> Settings:
    """The settings of `workspace`; the defaults when there is no file.

    Raises BadInput naming the file and the line (broken TOML), or the key (wrong type or value).
    """
    path = workspace.settings_file
    text = _read(path)
    return Settings() if text is None else _parse(text, path)


def overridden(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with `values` by their names, as a run was asked for them.

    Raises UsageProblem for a name that does not exist and for a value that cannot be used.
    """
    known = {field.name: field for field in msgspec.structs.fields(Settings)}
    changes = {}
    for name, value in values.items():
        if name not in known:
            raise UsageProblem(_("there is no setting {name}").format(name=name), hint="h2q-tui paths")
        try:
            changes[name] = msgspec.convert(value, type=known[name].type, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            hint = f"h2q-tui train --set {name}={_written(known[name].default)}"
            raise UsageProblem(_refusal(known[name], value, error), hint=hint) from None
    return msgspec.structs.replace(settings, **changes)


def told_settings(settings: Settings) -> str:
    """Those of `TRAINING_SETTINGS` that are not at their defaults, as they are typed; "" when all are."""
    changed = (
        (field.name, getattr(settings, field.name))
        for field in msgspec.structs.fields(Settings)
        if field.name in TRAINING_SETTINGS and getattr(settings, field.name) != field.default
    )
    return ", ".join(f"{name}={_written(value)}" for name, value in changed)


def save_settings(workspace: Workspace, settings: Settings) -> None:
    """Writes what differs from the defaults or already stands in the file; comments and unknown keys stay.

    Raises BadInput when the file that is there cannot be read, so that nothing in it is lost, and OSError.
    """
    import tomlkit

    path = workspace.settings_file
    text = _read(path)
    if text is None:
        document = tomlkit.document()
        document.add(tomlkit.comment(_HEADER))
    else:
        _parse(text, path)
        document = tomlkit.parse(text)
    defaults = msgspec.to_builtins(Settings())
    for key, value in msgspec.to_builtins(settings).items():
        if key in document:
            if _plain(document[key]) != value:
                document[key] = value
        elif value != defaults[key]:
            document.add(key, tomlkit.item(value))
    write_text(path, tomlkit.dumps(document), mode=0o600)


def _plain(item: Any) -> Any:
    """A tomlkit item as what `msgspec.to_builtins` would give."""
    return item.unwrap() if hasattr(item, "unwrap") else item


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadInput(_("The settings are not UTF-8"), path=path, line=line) from None
    except OSError as error:
        raise BadInput(
            _("The settings cannot be read ({reason})").format(reason=error.strerror), path=path
        ) from None


def _parse(text: str, path: Path) -> Settings:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = _TOML_LINE.search(str(error))
        line = int(where[1]) if where else text.count("\n") + 1
        reason = _TOML_LINE.sub("", str(error)).strip()
        raise BadInput(
            _("The settings are not valid TOML ({reason})").format(reason=reason), path=path, line=line
        ) from None
    known = {field.name: field for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            continue
        try:
            values[key] = msgspec.convert(value, type=known[key].type)
        except msgspec.ValidationError as error:
            at = _line_of(text, key)
            raise BadInput(
                _refusal(known[key], value, error),
                path=path,
                line=at,
                # Every editor that a terminal has takes the line like this.
                hint=f"${{EDITOR:-vi}} +{at or 1} {shlex.quote(str(path))}",
            ) from None
    return Settings(**values)


def _refusal(field: FieldInfo, value: Any, error: msgspec.ValidationError) -> str:
    """Why `value` is none for a setting, in the words of what it takes."""
    kind, key, given = type_info(field.type), field.name, _written(value)
    if isinstance(kind, IntType | FloatType):
        least: float | None = kind.ge if kind.gt is None else kind.gt
        if isinstance(kind, IntType):
            words = _("{key} takes a whole number from {least} to {most}, not {value}")
        elif kind.gt is None:
            words = _("{key} takes a number from {least} to {most}, not {value}")
        else:
            words = _("{key} takes a number above {least} and up to {most}, not {value}")
        return words.format(key=key, least=_written(least), most=_written(kind.le), value=given)
    if isinstance(kind, BoolType | LiteralType):
        choices = ("true", "false") if isinstance(kind, BoolType) else kind.values
        return _("{key} takes one of {choices}, not {value}").format(
            key=key, choices=", ".join(map(str, choices)), value=given
        )
    reason = str(error).partition(" - at `")[0]
    return _("The setting {key} cannot be used: {reason}").format(key=key, reason=reason)


def _written(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line_of(text: str, key: str) -> int | None:
    """Line on which `key` is set at the top level, from 1."""
    pattern = re.compile(rf"^\s*(\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), None)
