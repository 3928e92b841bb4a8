"""A Modelfile for the person: what `ollama create` reads. Our own way goes through Ollama's API instead.

Ollama's parser ends a text at three quotes before a line break and drops what it does not hold printable.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = str | int | float | Sequence[str]


def modelfile(
    from_: str,
    *,
    adapter: Path | None = None,
    system: str = "",
    parameters: Mapping[str, Value] | None = None,
) -> str:
    """The text. `from_` is a GGUF file's path or the tag that an adapter stands on."""
    lines = [f"FROM {_quoted(from_)}"]
    if adapter is not None:
        lines.append(f"ADAPTER {_quoted(str(adapter))}")
    for name, value in (parameters or {}).items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            lines.append(f"PARAMETER {name} {_quoted(one) if isinstance(one, str) else one}")
    if system:
        lines.append(f'SYSTEM """{_safe(system)}"""')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or text.startswith("<") else text


def _safe(text: str) -> str:
    """Three quotes become others, blanks of other scripts a blank; what Go's parser would drop is left out."""
    kept = (" " if unicodedata.category(c) == "Zs" else c for c in text.replace("\t", " "))
    return "".join(c for c in kept if c in " \n" or unicodedata.category(c)[0] not in "CZ").replace(
        '"""', "'''"
    )
