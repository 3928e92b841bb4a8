"""Every pattern that reads conversations takes time in proportion to the text.

The patterns are collected from the modules themselves, so that a new one cannot be left out. Every run tries each with
what its own literals suggest, up to 10,000 characters; `make test-long` tries all pumps, up to 100,000.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parse  # type: ignore[import-not-found]
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from engine.corpus.filters.lazy_pattern import LazyPattern
from engine.corpus.filters.turn import filter_turn

PACKAGES = (
    "engine.corpus",
    "engine.memory",
    "engine.evolution.augmentation",
    "engine.models.chat_template",
    "engine.models.chatml",
    "engine.export",
    "engine.core",
    "tui.host",
    "tui.tabs.corpus",
    "tui.tabs.validate",
)
"""Packages and modules whose patterns read text of the user's conversations."""

PUMPS = (
    " ", "\t", "\n", " \n", "　", "0", "1", "13", "1_", "a_", "1 ", "1-", "1.", "a", "A", "aA", "a1", "f0", "0123456789abcdef", ".",
    "a.", "@", "a@", "a@a.", "-", "- ", "--", ":", "a:", "::", "/", "//", "路", "号1", "中", "中国", "一", "一百", "“", "(", ")", "((", "[",
    "{", "{{", "}", "<", "<|", "|", "=", "\"", '"""\n', "`", "```\n", "*", "#", ",", "，", "。", "!", "?", "'", "~", "\u200b", "é", "ok, ", "x=",
)  # fmt: skip
"""What is repeated, besides the characters of the pattern itself."""
USUAL_PUMPS = (" ", "\n", "0", "1 ", "a", "a.", "中", "-")
"""The pumps of every run."""
FIRST, FACTOR = 1_000, 4
LONG, LONGEST = 10_000, 100_000
FLOOR_S = 0.05
"""Below this a time says nothing about growth."""
SLACK = 3
"""How much more than the text a time may grow."""
WORST_S = 1.0
"""A pattern over the longest text. A linear one takes milliseconds; the rest is room for a busy machine."""


def _modules() -> Iterator[ModuleType]:
    for name in PACKAGES:
        module = importlib.import_module(name)
        yield module
        if hasattr(module, "__path__"):
            for info in pkgutil.walk_packages(module.__path__, name + "."):
                yield importlib.import_module(info.name)


def _patterns_in(value: Any, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, LazyPattern):
        yield value.compiled()
    elif depth and isinstance(value, dict):
        for part in (*value, *value.values()):
            yield from _patterns_in(part, depth - 1)
    elif depth and isinstance(value, (tuple, list, set, frozenset)):
        for part in value:
            yield from _patterns_in(part, depth - 1)
    elif depth and isinstance(value, type) and value.__module__.startswith(("engine.", "tui.")):
        for part in vars(value).values():
            yield from _patterns_in(part, 1)


def _inline(module: ModuleType) -> Iterator[re.Pattern[str]]:
    """Patterns that are written where they are used: `re.sub("[ -]", …)`."""
    for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text("utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            yield re.compile(node.args[0].value)


def _all_patterns() -> dict[str, re.Pattern[str]]:
    found: dict[tuple[str, int], str] = {}
    patterns: dict[str, re.Pattern[str]] = {}
    for module in _modules():
        named = [(name, one) for name, value in vars(module).items() for one in _patterns_in(value)]
        named += [("inline", one) for one in _inline(module)]
        for name, pattern in named:
            key = (pattern.pattern, pattern.flags)
            if isinstance(pattern.pattern, str) and key not in found:
                found[key] = label = f"{module.__name__}.{name}-{len(found)}"
                patterns[label] = pattern
    return patterns


PATTERNS = _all_patterns()


def _literals(parsed: Any) -> Iterator[str]:
    """The literal runs of a pattern, and one character of each of its sets."""
    run = ""
    for op, value in parsed:
        if op is sre.LITERAL:
            run += chr(value)
            continue
        if op is sre.IN:
            yield from (chr(low) for low in _members(value))
        if run:
            yield run
        run = ""
        for part in _parts(op, value):
            yield from _literals(part)
    if run:
        yield run


def _members(items: Any) -> Iterator[int]:
    for op, value in items[:4]:
        if op is sre.LITERAL:
            yield value
        elif op is sre.RANGE:
            yield value[0]


def _parts(op: Any, value: Any) -> list[Any]:
    if op is sre.BRANCH:
        return list(value[1])
    if op is sre.SUBPATTERN:
        return [value[3]]
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return [value[2]]
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        return [value[1]]
    if op is sre.ATOMIC_GROUP:
        return [value]
    return []


def _prefix(parsed: Any, length: int) -> str:
    """A text that the first `length` items of the pattern match, as far as literals go."""
    text = ""
    for op, value in list(parsed)[:length]:
        if op is sre.LITERAL:
            text += chr(value)
        elif op is sre.IN:
            text += "".join(chr(one) for one in list(_members(value))[:1])
        elif op is sre.BRANCH:
            text += _prefix(value[1][0], len(value[1][0]))
        elif op is sre.SUBPATTERN:
            text += _prefix(value[3], len(value[3]))
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            text += _prefix(value[2], len(value[2])) * max(1, min(value[0], 20))
        elif op is sre.ATOMIC_GROUP:
            text += _prefix(value, len(value))
    return text


def _attacks(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """(prefix, pump): prefixes that lead into the pattern, and what its repeats may match."""
    words, leads = _words_and_leads(pattern)
    prefixes = list(dict.fromkeys(["", *leads, *[word for word in words if len(word) > 1][:4]]))
    pumps = list(
        dict.fromkeys([*PUMPS, *[one for one in words if len(one) == 1][:6], *words[:4], *leads[-1:]])
    )
    return [(prefix, pump) for prefix in prefixes for pump in pumps if pump]


def _own_attacks(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """The fewest attacks: from the beginning, or behind what leads into the pattern."""
    words, leads = _words_and_leads(pattern)
    pumps = dict.fromkeys([*USUAL_PUMPS, *[one for one in words if len(one) == 1][:4], *leads[-1:]])
    return [(prefix, pump) for prefix in dict.fromkeys(["", *leads[-1:]]) for pump in pumps if pump]


def _words_and_leads(pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Literals of the pattern, and texts that its beginning matches."""
    parsed = sre_parse.parse(pattern.pattern, pattern.flags & ~re.UNICODE | (pattern.flags & re.UNICODE))
    words = list(dict.fromkeys(one for one in _literals(parsed) if one))
    leads = [_prefix(parsed, length) for length in range(min(4, len(list(parsed))) + 1)]
    return words, leads


class _TooSlow(Exception):
    pass


def _alarm(_signal: int, _frame: FrameType | None) -> None:
    raise _TooSlow


def _seconds(search: Callable[[str], object], text: str, limit: float) -> float:
    """Processor time of one search; `limit` when it takes longer."""
    before = signal.signal(signal.SIGVTALRM, _alarm)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    started = time.process_time()
    try:
        search(text)
        return time.process_time() - started
    except _TooSlow:
        return limit
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _text(prefix: str, pump: str, length: int) -> str:
    return prefix + (pump * (length // len(pump) + 1))[:length] + "\x01"


def slowest(
    search: Callable[[str], object],
    attacks: list[tuple[str, str]],
    limit: float = WORST_S,
    longest: int = LONGEST,
    deepest: int = 3,
) -> list[tuple[float, str, str]]:
    """The attacks whose time grows faster than the text: (seconds, prefix, pump). The `deepest` slowest are enlarged."""
    times = [(_seconds(search, _text(prefix, pump, FIRST), 0.3), prefix, pump) for prefix, pump in attacks]
    times.sort(reverse=True)
    bad = []
    for seconds, prefix, pump in times[:deepest]:
        size, before = FIRST, seconds
        while size < longest:
            smaller, size = size, size * FACTOR if size < 5 * FIRST and longest > LONG else longest
            text = _text(prefix, pump, size)
            allowed = min(limit, SLACK * size / smaller * max(before, FLOOR_S * smaller / size))
            # The second time is for a busy machine.
            after = _seconds(search, text, limit)
            after = min(after, _seconds(search, text, limit)) if after >= allowed else after
            if after >= allowed:
                bad.append((after, prefix, pump))
                break
            before = after
    return bad


def _search_all(pattern: re.Pattern[str]) -> Callable[[str], None]:
    def search(text: str) -> None:
        for _match in pattern.finditer(text):
            pass

    return search


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_time_in_proportion_to_the_text(name: str) -> None:
    pattern = PATTERNS[name]
    assert slowest(_search_all(pattern), _own_attacks(pattern), longest=LONG, deepest=1) == []


@pytest.mark.long
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_time_in_proportion_to_any_text(name: str) -> None:
    pattern = PATTERNS[name]
    assert slowest(_search_all(pattern), _attacks(pattern)) == []


TURNS = {
    "blanks": " ",
    "line ends": "\n",
    "blanks after a label": "我的微信   ",
    "telephone numbers": "13812345678,",
    "telephone numbers in rows": "张三\t138 1234 5678\t10086\n",
    "landlines side by side": "010-67028866,010-67028867,",
    "mail addresses": "a.b@example.org; ",
    "mail without an end": "a@",
    "keys": "-----BEGIN PRIVATE KEY-----",
    "figures": "3 1 4 1 5 9 2 6 5 ",
    "digits": "1",
    "hexadecimal digits": "0123456789abcdef",
    "names of keys": "api_key_",
    "underscores": "1_",
    "passwords": "密码是 ",
    "addresses": "北京市海淀区中关村大街27号3号楼2单元501室，",
    "streets": "路",
    "streets and numbers": "路1",
    "quotes": '"""\n',
    "template": "{{ .System }} ",
    "tokens": "<|im_end|>",
    "open tokens": "<|",
    "laughter": "哈",
    "exclamation marks": "!",
    "thanks": "谢谢，",
    "one letter": "a",
    "code": "for (let i = 0; i < n; i++) { x[i] = y[i] * 2; }\n",
    "links": "https://example.org/a/b?c=d&e=f ",
    "full-width digits": "１２３ ",
    "combining marks": "a\u0301",
    "ligatures": "\ufdfa",
    "traditional characters": "電話號碼",
}


LEADS = ("", "我的微信", "key ", "密码是", "账号", "QQ", '"""', "the password is")


def _filter_as(role: str) -> Callable[[str], object]:
    return lambda text: filter_turn(role, text, "")


@pytest.mark.parametrize("pump", TURNS.values(), ids=TURNS)
def test_a_turn_is_filtered_in_time_in_proportion_to_its_length(pump: str) -> None:
    attacks = [("密码是", pump)]
    assert slowest(_filter_as("user"), attacks, limit=2 * WORST_S, longest=LONG, deepest=1) == []


@pytest.mark.long
@pytest.mark.parametrize("pump", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_turn_of_any_length_is_filtered_in_time_in_proportion(role: str, pump: str) -> None:
    attacks = [(lead, pump) for lead in LEADS]
    assert slowest(_filter_as(role), attacks, limit=2 * WORST_S) == []
