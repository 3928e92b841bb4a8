"""E-mail addresses: as they are typed, and as people spell them out. Code with an @ is none."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LOCAL = r"(?<![A-Za-z0-9._%+@-])(?:[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ._-]{0,30}['’](?=[A-Za-zÀ-ɏ]))?[A-Za-z0-9À-ɏ_](?:[A-Za-z0-9À-ɏ._%+-]{0,63})"
_LABEL = r"[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ-]{0,62})"
EMAIL = re.compile(_LOCAL + rf"@(?:{_LABEL}\.){{1,5}}([A-Za-z]{{2,24}})(?![A-Za-z0-9])", re.IGNORECASE)
_USUAL_ENDING = r"(?:com|net|org|edu|gov|info|cn|de|fr|uk|jp|kr|tw|hk|ru|ch|at|nl|it|es|eu|in|br|ca|au|io|me)(?![A-Za-z0-9])"
SPELT = re.compile(
    # "ann (at) posteo (dot) de", "ann at posteo dot de", "ann @ posteo.de", "zhangwei艾特163点com"
    _LOCAL
    + rf"(?: ?[(\[{{]at[)\]}}] ?(?:{_LABEL}(?:\.| ?[(\[{{]dot[)\]}}] ?| dot )){{1,5}}[A-Za-z]{{2,24}}(?![A-Za-z0-9])"
    + rf"| @ (?:{_LABEL}\.){{1,5}}{_USUAL_ENDING}"
    + rf"| at (?:{_LABEL} dot ){{1,5}}{_USUAL_ENDING}"
    + rf"| ?(?:艾特|圈a|小老鼠) ?(?:{_LABEL} ?(?:\.|点) ?){{1,5}}[A-Za-z]{{2,24}}(?![A-Za-z0-9]))",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"://(?:[^\s/@]{0,64}:)?\Z")
_NO_ENDING = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "ico",
        "pdf",
        "tgz",
        "gz",
        "js",
        "jsx",
        "ts",
        "tsx",
        "mjs",
        "json",
        "css",
        "scss",
        "html",
        "xml",
        "yaml",
        "yml",
        "toml",
        "lock",
        "txt",
        "csv",
        "exe",
        "dll",
        "shape",
        "mean",
        "view",
        "data",
        "size",
        "sum",
        "dot",
        "weight",
        "bias",
        "grad",
        "norm",
        "numpy",
        "route",
        "fixture",
        "mark",
        "property",
        "setter",
        "getter",
        "class",
        "init",
        "core",
        "types",
        "cli",
        "task",
        "command",
        "get",
        "post",
        "put",
        "patch",
        "delete",
        "transpose",
        "reshape",
        "item",
        "value",
        "values",
        "inv",
        "conj",
        "local",
        "localhost",
    ]
)
"""Names of files (`icon@2x.png`) and attributes of code (`x@w.shape`)."""
_CODE_HOSTS = frozenset(("self", "this", "np", "torch", "jnp", "tf", "app", "pytest"))
_PLACEHOLDER = re.compile(
    r"(?:user(?:name)?|you|your[._-]?(?:name|email|address)|name|e?mail|test|foo|bar|example|me|admin|info|john\.?doe|jane\.?doe|first\.last)[0-9]?"
    r"@(?:[a-z0-9-]{1,40}\.)?(?:(?:example|domain|your-?domain|company|yourcompany|email|mail|test|host)\.(?:com|org|net|edu|cn)|example|test|invalid)",
    re.IGNORECASE,
)
"""Addresses of manuals."""


def find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of e-mail addresses."""
    if "@" in text:
        for match in EMAIL.finditer(text):
            if _is_address(text, match):
                yield match.span()
    if may_be_spelt(text.lower()):
        for match in SPELT.finditer(text):
            yield match.span()


def may_be_spelt(lower: str) -> bool:
    """A necessary condition of a spelt-out e-mail address in a text in lower case."""
    has = lower.__contains__
    return (
        has(" @ ")
        or has("at)")
        or has("at]")
        or has("at}")
        or (has(" at ") and has(" dot "))
        or (not lower.isascii() and (has("艾特") or has("圈a") or has("小老鼠")))
    )


def _is_address(text: str, match: re.Match[str]) -> bool:
    name, _, host = match.group().partition("@")
    if name == "git" or _PLACEHOLDER.fullmatch(match.group()):
        return False
    first = host.partition(".")[0].lower()
    code = (
        match.group(1).lower() in _NO_ENDING
        or first in _CODE_HOSTS
        or text[match.end() : match.end() + 1] in ("(", "[")
        # "react@18.2.0-beta.com" has no host
        or (host.count(".") > 1 and first.isdigit())
    )
    return not code and _IN_URL.search(text, max(0, match.start() - 80), match.start()) is None
