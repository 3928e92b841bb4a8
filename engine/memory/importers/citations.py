"""Marks that ChatGPT puts into an answer for its page and never shows: where a statement comes from, what to link."""

from __future__ import annotations

import json
import re

from engine.memory.records import Skipped

_MARK = re.compile("\ue200([^\ue200\ue201]*)(?:\ue201|\\Z|(?=\ue200))")
"""Between characters for private use: a kind and its fields, each after U+E202."""
_SOURCE = re.compile(r" ?【\d+(?::\d+)?†[^】]{0,200}】")


def shown(text: str) -> tuple[str, list[Skipped]]:
    """`text` as its page shows it, and how many marks were left out."""
    if "\ue200" not in text and "†" not in text:
        return text, []
    text, marks = _MARK.subn(lambda match: _words(match[1]), text)
    text, sources = _SOURCE.subn("", text)
    return text, [Skipped(reason="citation", count=marks + sources)] if marks + sources else []


def _words(mark: str) -> str:
    """The words that stand on the page for a mark: the name of an entity, the text of a link."""
    kind, _between, rest = mark.partition("\ue202")
    fields = rest.split("\ue202")
    if kind == "url":
        return fields[0]
    if kind == "entity":
        try:
            named = json.loads(rest)
        except ValueError:
            return ""
        return named[1] if isinstance(named, list) and len(named) > 1 and isinstance(named[1], str) else ""
    return ""
