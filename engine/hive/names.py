"""Names that come from outside: of users, versions and base models. They become parts of paths only after this.

Ids and folders are made by the server; a name of a user is one of their parts, so it is a single plain word.
"""

from __future__ import annotations

import re
import unicodedata

from engine.core.i18n import _
from engine.hive.lora_file import BadAdapter
from engine.hive.protocol import Rule

_WORD = re.compile(r"\w[\w.@+-]{0,63}")
"""Letters and digits of any script; no separators of paths, no marks of direction."""
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("aggregated", "latest", "registry.json")
_LONGEST = 200
"""Bytes of a name."""


def user_name(text: str) -> str:
    """The name of a user in one form. Raises BadAdapter."""
    name = unicodedata.normalize("NFC", text)
    if (
        not _WORD.fullmatch(name)
        or ".." in name
        or name.endswith(".")
        or name.casefold() in _RESERVED
        or len(name.encode("utf-8", "surrogatepass")) > _LONGEST
        or re.search("[\ud800-\udfff]", name)
    ):
        raise BadAdapter(
            Rule.USER,
            _("a user's name is one word of letters, digits and . _ - @ +, at most 64 characters"),
        )
    return name


def is_version(text: str) -> bool:
    """Whether it can be the name of a version: a folder of its own."""
    return bool(_VERSION.fullmatch(text)) and ".." not in text and text.casefold() not in _RESERVED


def same_base(one: str, other: str) -> bool:
    """Whether two names mean one base model. Paths differ from machine to machine, so the last part counts, without
    the suffix of GGUF files."""
    return base_word(one) == base_word(other)


def base_word(name: str) -> str:
    """What a name of a base model is compared by."""
    last = re.split(r"[/\\]", name.strip().rstrip("/\\"))[-1]
    return last.casefold().removesuffix(".gguf")
