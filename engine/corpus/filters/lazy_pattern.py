"""Patterns that are compiled when they are first used.

Python compiles a pattern in some milliseconds. The filters have hundreds of them, of which most texts need few, and a
worker process begins with none.
"""

from __future__ import annotations

import re
from typing import Any, cast


class LazyPattern:
    """Stands for a compiled pattern: its methods are those of the pattern, which the first use compiles."""

    def __init__(self, source: str, flags: int) -> None:
        self.source = source
        self.flags = flags

    def compiled(self) -> re.Pattern[str]:
        return re.compile(self.source, self.flags)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.compiled(), name)
        # The next use finds it without a call.
        setattr(self, name, found)
        return found


def lazy_pattern(source: str, flags: int = 0) -> re.Pattern[str]:
    """As `re.compile`, for a pattern that most texts do not need. A wrong pattern raises `re.error` when it is used."""
    return cast("re.Pattern[str]", LazyPattern(source, flags))
