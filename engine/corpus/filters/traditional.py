"""Traditional Chinese characters in simplified form, one to one (OpenCC's table of characters).

Several traditional characters may have one simplified form, and phrases are not looked at: good enough to compare texts,
not to convert them.
"""

from __future__ import annotations

import re
from functools import cache

from engine.core.paths import shipped


@cache
def _table() -> tuple[re.Pattern[str], dict[int, str]]:
    pairs = (shipped("data") / "words" / "simplified.txt").read_text("utf-8").replace("\n", "")
    table = {ord(old): new for old, new in zip(pairs[::2], pairs[1::2], strict=True)}
    return re.compile(f"[{''.join(map(chr, table))}]"), table


def simplified(text: str) -> str:
    """`text` in simplified characters, of the same length; the same object where nothing changes."""
    if text.isascii():
        return text
    pattern, table = _table()
    return text.translate(table) if pattern.search(text) else text
