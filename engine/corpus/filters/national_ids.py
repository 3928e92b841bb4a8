"""Identity, tax and health numbers of many countries: by the label next to them, or by their check digits.

A number without a label is one only where its shape is its own and python-stdnum (or a check digit here) confirms it:
a row of plain digits passes the check of some country by chance.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from engine.corpus.filters import checksums
from engine.corpus.filters.lazy_pattern import lazy_pattern
from engine.corpus.filters.national_labels import CHECKED_LABELS, LABELS

TYPES = ("ID_CARD", "TAX_NUMBER", "HEALTH_NUMBER", "PERSONAL_NUMBER", "PASSPORT")
"""The types of `engine.core.pii_types` that are found here."""

_FILLER = (
    # "number:", "nr.", "(optional)", "meine … lautet", "号码是": a few short words between the label and the number
    r"(?:[^0-9A-Za-z\n。；;,，()]{0,4}+(?:\([^()\n]{1,24}\)|(?-i:[A-Z]?[^\W\d_A-Z]{1,12}|ID|NO|NR|NUMBER|CARD)(?![^\W_])\.?)){0,4}+[^0-9A-Za-z\n。；;,，]{0,4}+"
)
_END = r"(?![0-9A-Za-z])(?![.,-][0-9])"


class _Labelled(NamedTuple):
    type_: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    module: str
    """Whose check digits decide, as the label is a word with other meanings too; "": the label is enough."""


def _labelled(type_: str, words: tuple[str, ...], shape: str, module: str = "") -> _Labelled:
    forms = tuple(unicodedata.normalize("NFKC", word) for word in words)
    labels = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return _Labelled(
        type_,
        forms,
        lazy_pattern(rf"(?<![a-zà-ÿ0-9_])(?:{labels})(?![a-zà-ÿ]){_FILLER}({shape}){_END}", re.IGNORECASE),
        module,
    )


_LABELLED = (
    *(_labelled(type_, words, shape) for type_, words, shape in LABELS),
    *(_labelled(type_, words, shape, module) for type_, words, shape, module in CHECKED_LABELS),
)


_LONG_NUMBER = re.compile(r"[0-9](?:(?:[ ./-]?[A-Za-z]{0,4}[ ./-]?[0-9]){4}|(?<=[A-Za-z]{5}.)[0-9]{3})")
"""A necessary condition of every number beside a label."""
_FIVE_DIGITS = re.compile(r"[0-9](?:[^0-9\n]{0,3}[0-9]){4}")
"""Of every shape, and faster."""
_FOUR_DIGITS = re.compile(r"[0-9](?:[^0-9]{0,6}[0-9]){3}")
"""Of both, and the fastest."""
_LATIN_WORD = re.compile("[a-zà-ÿ]+")


def _index() -> tuple[dict[str, set[tuple[str, int]]], dict[str, set[int]]]:
    """The entries by the first word of their labels in Latin letters, and by the label itself in other scripts."""
    words: dict[str, set[tuple[str, int]]] = {}
    parts: dict[str, set[int]] = {}
    for place, entry in enumerate(_LABELLED):
        for word in entry.words:
            first = _LATIN_WORD.match(word)
            # A label within a word of its own language, "дом" or "身份证", is found as a part.
            whole = first is not None and (first.end() == len(word) or not word[first.end()].isalpha())
            if first and whole:
                words.setdefault(first.group(), set()).add((word, place))
            elif not any(part != word and part in word for part in entry.words):
                parts.setdefault(word, set()).add(place)
    return words, parts


_BY_WORD, _BY_PART = _index()
_ANY_PART = re.compile("|".join(map(re.escape, _BY_PART)))


class _Checked(NamedTuple):
    type_: str
    pattern: re.Pattern[str]
    module: str
    """Of python-stdnum; "": the shape is enough."""


def _checked(type_: str, shape: str, module: str = "") -> _Checked:
    return _Checked(
        type_,
        lazy_pattern(rf"(?<![0-9A-Za-z])(?<![0-9A-Za-z][-/.])(?:{shape})(?![0-9A-Za-z])(?![-/.][0-9A-Za-z])"),
        module,
    )


_CHECKED = (
    _checked("TAX_NUMBER", r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]", "it.codicefiscale"),
    _checked("ID_CARD", r"[0-9]{8}-?[TRWAGMYFPDXBNJZSQVHLCKE]", "es.dni"),
    _checked("ID_CARD", r"[XYZ]-?[0-9]{7}-?[TRWAGMYFPDXBNJZSQVHLCKE]", "es.nie"),
    _checked("ID_CARD", r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9][0-9]", "mx.curp"),
    _checked("TAX_NUMBER", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf"),
    _checked("TAX_NUMBER", r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}/[0-9]{4}-[0-9]{2}", "br.cnpj"),
    _checked("HEALTH_NUMBER", r"[12] [0-9]{2} [0-9]{2} [0-9][0-9AB] [0-9]{3} [0-9]{3} [0-9]{2}", "fr.nir"),
    _checked("ID_CARD", r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}[. ][0-9]{2}", "be.nn"),
    _checked("ID_CARD", r"[0-9]{6}/[0-9]{4}", "cz.rc"),
    _checked("ID_CARD", r"(?:19|20)?[0-9]{6}[-+][0-9]{4}", "se.personnummer"),
    _checked("ID_CARD", r"[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Y]", "fi.hetu"),
    _checked("HEALTH_NUMBER", r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", "ch.ssn"),
    _checked("ID_CARD", r"[0-9]{6}-[1-8][0-9]{6}", "kr.rrn"),
    _checked("ID_CARD", r"[0-9]-[0-9]{4}-[0-9]{5}-[0-9]{2}-[0-9]", "th.pin"),
    _checked("ID_CARD", r"[0-9]{6}-[0-9]{2}-[0-9]{4}", "my.nric"),
    _checked("ID_CARD", r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9K]", "cl.rut"),
    _checked("TAX_NUMBER", r"(?:2[0347]|3[034])-[0-9]{8}-[0-9]", "ar.cuit"),
    _checked("ID_CARD", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] [0-9]{2} [0-9]{2} [0-9]{2} [A-D]"),
    _checked("HEALTH_NUMBER", r"[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9][0-9]-[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9][0-9]-[AC-HJKMNP-RT-Y]{2}[0-9]{2}"),
    _checked("ID_CARD", r"784-[0-9]{4}-[0-9]{7}-[0-9]"),
    _checked("ID_CARD", r"[1-7][0-9]{4}-[0-9]{7}-[0-9]"),
    _checked("ID_CARD", r"[157]/[0-9]{6}/[0-9]"),
    _checked("ID_CARD", r"[A-Z][12][0-9]{8}", "tw"),
    _checked("ID_CARD", r"[STFGM][0-9]{7}[A-Z]", "sg"),
    _checked("HEALTH_NUMBER", r"[0-9]{3}-[0-9]{3}-[0-9]{3} [0-9]{2}", "ru"),
)  # fmt: skip
_SHAPED = re.compile(
    # `re` skips fast to a set of characters that a pattern begins with
    r"[0-9A-Z](?:(?<=[A-Z])(?:[A-Z]{3,5}[0-9]{2}|[A-Z] [0-9]{2} [0-9]{2} |[12][0-9]{8})"
    r"|(?<=[0-9])(?:[0-9]{5}[-+/A-FU-Y][0-9]|[0-9]{6}-?[A-Z]|\.[0-9]{3}\.[0-9]|\.[0-9]{2}\.[0-9]{2}-|-[0-9]{4}-|-[0-9]{7,8}-"
    r"|[0-9]{2}-[0-9]{3}-[0-9]{3} |-[A-Z][A-Z0-9][0-9]-|/[0-9]{6}/|56\.| [0-9]{2} [0-9]{2} ))"
)
"""A necessary condition of the shapes."""

_WALLET = re.compile(
    r"(?<![0-9A-Za-z])(?:(bc1[ac-hj-np-z02-9]{25,62})|(0x[0-9a-fA-F]{40})|([13][1-9A-HJ-NP-Za-km-z]{25,34})|(T[1-9A-HJ-NP-Za-km-z]{33}))(?![0-9A-Za-z])"
)
_WALLET_WORD = re.compile(
    r"wallet|bitcoin|btc|usdt|ethereum|(?<![a-z])eth(?![a-z])|tron|trc20|erc20|address|send to|地址|钱包|转到|转账|打到|收款|提币|充值",
    re.IGNORECASE,
)


def find_numbers(text: str, type_: str) -> Iterator[tuple[int, int]]:
    """Ranges of the numbers of one type of `TYPES`."""
    return ((start, end) for found, start, end in _numbers(text) if found == type_)


def holds_number(text: str) -> bool:
    """Whether `find_numbers` finds one, whatever the type."""
    return _FOUR_DIGITS.search(text) is not None and bool(_numbers(text))


@lru_cache(maxsize=2)
def _numbers(text: str) -> tuple[tuple[str, int, int], ...]:
    """The numbers of all types, those with a label first."""
    found = [
        (entry.type_, *match.span(1))
        for entry in _labels_in(text)
        for match in _beside_label(entry, text)
        if is_valid(entry.module, match[1])
    ]
    if _FIVE_DIGITS.search(text) and _SHAPED.search(text):
        found += [
            (check.type_, *match.span())
            for check in _CHECKED
            for match in check.pattern.finditer(text)
            if is_valid(check.module, match.group())
            and (check.module not in _COMMON_SHAPES or _has_context(text, match.start(), match.end()))
        ]
    return tuple(found)


def wallets(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of addresses of cryptocurrencies; one that looks like a word or a hash needs a word before it."""
    for match in _WALLET.finditer(text):
        named = _WALLET_WORD.search(text, max(0, match.start() - 40), match.start()) is not None
        if match.group(1) or named:
            yield match.span()


def _labels_in(text: str) -> list[_Labelled]:
    """The entries that may have a label in the text."""
    if not _LONG_NUMBER.search(text):
        return []
    lower = text.lower()
    places = {
        place
        for word in _BY_WORD.keys() & _LATIN_WORD.findall(lower)
        for label, place in _BY_WORD[word]
        if label in lower
    }
    if not lower.isascii() and _ANY_PART.search(lower):
        places.update(place for part, found in _BY_PART.items() if part in lower for place in found)
    return [_LABELLED[place] for place in sorted(places)]


def _beside_label(entry: _Labelled, text: str) -> Iterator[re.Match[str]]:
    """The matches of its pattern: as `finditer`, but only where a label begins."""
    lower = text.lower()
    if len(lower) != len(text) or (not text.isascii() and _OTHER_CASE.search(text)):
        yield from entry.pattern.finditer(text)
        return
    end = 0
    for start in sorted({start for word in entry.words for start in _places(lower, word)}):
        if start >= end and (match := entry.pattern.match(text, start)):
            end = match.end()
            yield match


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)


_OTHER_CASE = re.compile("[\u0131\u03a3\u03c2\u03c3]")
"""Letters that a pattern matches without their case, but that are not equal in lower case."""


def is_valid(module: str, number: str) -> bool:
    """Whether the check digits of a number are right; without python-stdnum only those that are known here."""
    if not module:
        return True
    if module in _OWN_CHECKS:
        return _OWN_CHECKS[module](re.sub(r"[^0-9A-Za-z]", "", number))
    try:
        checker = importlib.import_module(f"stdnum.{module}")
    except ModuleNotFoundError:
        return False
    return bool(checker.is_valid(number))


_OWN_CHECKS = {
    "tw": checksums.taiwan_id,
    "sg": checksums.singapore_id,
    "ru": checksums.russian_insurance,
    "ru.inn": checksums.russian_taxpayer,
}
_COMMON_SHAPES = frozenset(("tw",))
"""A letter and nine digits are the number of a part or of an order too, of which one in ten passes the check."""
_CONTEXT = re.compile(
    r"[\u4e00-\u9fff]|(?<![a-z])(?:taiwan|roc|id|ids|identity|identification|passport)(?![a-z])",
    re.IGNORECASE,
)


def _has_context(text: str, start: int, end: int) -> bool:
    """Whether Chinese or a word for identity stands near."""
    return _CONTEXT.search(text[max(0, start - 40) : start] + "\n" + text[end : end + 40]) is not None
