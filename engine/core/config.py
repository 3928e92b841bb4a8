"""The settings file: `config/h2q.toml` in the workspace, mode 0600, edited by hand or in the app."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.inspect import BoolType, FloatType, IntType, LiteralType, type_info
from msgspec.structs import FieldInfo

from engine.core.errors import BadInput, UsageProblem
from engine.core.filenames import shell_word
from engine.core.files import write_text
from engine.core.i18n import _
from engine.core.settings import Settings, setting_infos

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.core.paths import Workspace

_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_HEADER = "Settings of h2q-tui. A key that is not here has its default; `h2q-tui paths` shows this file."


def load_settings(workspace: Workspace) -> Settings:
    """The settings of `workspace`; the defaults without a file.

    Raises BadInput with the file and the line (broken TOML), or the key (wrong type or value).
    """
    path = workspace.settings_file
    text = _read(path)
    return Settings() if text is None else _parse(text, path)


def with_overrides(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """`settings` with the values of a run (name to value) in place of some.

    Raises UsageProblem for an unknown name and for an invalid value.
    """
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    changes = {}
    for name, value in overrides.items():
        if name not in fields:
            raise UsageProblem(_("there is no setting {name}").format(name=name), hint="h2q-tui paths")
        try:
            changes[name] = msgspec.convert(value, type=fields[name].type, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            hint = f"h2q-tui train --set {name}={_as_typed(fields[name].default)}"
            raise UsageProblem(_error_text(fields[name], value, error), hint=hint) from None
    return msgspec.structs.replace(settings, **changes)


def frozen_settings(settings: Settings) -> dict[str, Any]:
    """The settings that a resumed training must keep, with their values."""
    return {name: getattr(settings, name) for name, info in setting_infos().items() if info.frozen}


def non_default_training_settings(settings: Settings) -> str:
    """`NAME=VALUE, …` of the training settings that are not at their defaults; "" if all are."""
    infos = setting_infos()
    changed = (
        (field.name, getattr(settings, field.name))
        for field in msgspec.structs.fields(Settings)
        if field.name in infos and infos[field.name].training
        if getattr(settings, field.name) != field.default
    )
    return ", ".join(f"{name}={_as_typed(value)}" for name, value in changed)


def save_settings(workspace: Workspace, settings: Settings) -> None:
    """Write values that differ from the defaults or are in the file already; comments and unknown keys stay.

    Raises BadInput if the existing file cannot be read, so that nothing in it is lost, and OSError.
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
    """A tomlkit item as plain Python value."""
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
            _("The settings are not valid TOML ({reason})").format(reason=reason),
            path=path,
            line=line,
            hint=f"${{EDITOR:-vi}} +{line} {shell_word(path)}",
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
                _error_text(known[key], value, error),
                path=path,
                line=at,
                # All common terminal editors accept +LINE.
                hint=f"${{EDITOR:-vi}} +{at or 1} {shell_word(path)}",
            ) from None
    return Settings(**values)


def _error_text(field: FieldInfo, value: Any, error: msgspec.ValidationError) -> str:
    """Error text for an invalid value of a setting."""
    kind, key, given = type_info(field.type), field.name, _as_typed(value)
    if isinstance(kind, IntType | FloatType):
        least: float | None = kind.ge if kind.gt is None else kind.gt
        if isinstance(kind, IntType):
            text = _("{key} takes a whole number from {least} to {most}, not {value}")
        elif kind.gt is None:
            text = _("{key} takes a number from {least} to {most}, not {value}")
        else:
            text = _("{key} takes a number above {least} and up to {most}, not {value}")
        return text.format(key=key, least=_as_typed(least), most=_as_typed(kind.le), value=given)
    if isinstance(kind, BoolType | LiteralType):
        choices = ("true", "false") if isinstance(kind, BoolType) else kind.values
        return _("{key} takes one of {choices}, not {value}").format(
            key=key, choices=_(", ").join(map(str, choices)), value=given
        )
    reason = str(error).partition(" - at `")[0]
    return _("The setting {key} cannot be used: {reason}").format(key=key, reason=reason)


def _as_typed(value: Any) -> str:
    """A value as the user would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line_of(text: str, key: str) -> int | None:
    """Line that sets `key` at the top level, from 1; None if there is none."""
    pattern = re.compile(rf"^\s*(\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), None)
