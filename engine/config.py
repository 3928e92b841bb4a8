"""The person's settings: `config/h2q.toml` in the workspace, mode 0600, edited by hand or in the app."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec

from engine.atomic import write_text
from engine.errors import BadInput
from engine.i18n import _

if TYPE_CHECKING:
    from pathlib import Path

    from engine.paths import Workspace


PrivateType: TypeAlias = Literal[
    "PRIVATE_KEY", "API_KEY", "PASSWORD", "EMAIL", "ID_CARD", "CREDIT_CODE", "IBAN", "BANK_CARD", "SSN",
    "PASSPORT", "DRIVER_LICENSE", "IP", "PHONE", "PLATE", "WECHAT", "QQ", "ADDRESS",
]  # fmt: skip
"""What private data can be; the names of `engine.corpus.filters.sensitive.SensitiveType`."""


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
    low_value_phrases: tuple[str, ...] = ()
    """More phrases of the person's own that count as low value."""
    embedder: str = ""
    """What says which conversations mean the same: a folder with a sentence-transformers model (a relative one
    lies in the workspace) or `ollama:TAG`; "": character n-grams, which only group; "off": nothing."""
    backup_weekly: bool = True
    """Make a backup when the newest one is older than seven days."""
    first_start_done: bool = False
    """The first-start sheet has been answered."""
    keys: dict[str, str] = {}
    """Keys of the person's own: action id to key, e.g. `"runs.stop" = "x"`."""


_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_HEADER = "Settings of h2q-tui. A key that is not here has its default; `h2q-tui paths` shows this file."


def load_settings(workspace: Workspace) -> Settings:
    """The settings of `workspace`; the defaults when there is no file.

    Raises BadInput naming the file and the line (broken TOML), or the key (wrong type or value).
    """
    path = workspace.settings_file
    text = _read(path)
    return Settings() if text is None else _parse(text, path)


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
            reason = str(error).partition(" - at `")[0]
            raise BadInput(
                _("The setting {key} cannot be used: {reason}").format(key=key, reason=reason),
                path=path,
                line=_line_of(text, key),
            ) from None
    return Settings(**values)


def _line_of(text: str, key: str) -> int | None:
    """Line on which `key` is set at the top level, from 1."""
    pattern = re.compile(rf"^\s*(\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), None)
