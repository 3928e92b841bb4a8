"""User-visible messages are translated, and the Chinese catalog is complete."""

from __future__ import annotations

import ast
import re
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "locale" / "zh" / "LC_MESSAGES"
KEYWORDS = {"_": None, "N_": None, "n_": (1, 2), "p_": ((1, "c"), 2)}
FIELDS = re.compile(r"\{([a-z_]*)[^}]*\}")
SAME = {
    "h2q", "SQLite", "Python", "torch", "accelerate", "llama.cpp", "zh", "en", "{speed} tok/s",
    "CPU {share}", "top-p {value}",
}  # fmt: skip
"""Messages that are the same in Chinese."""


def messages() -> dict[tuple[str | tuple[str, ...], str | None], str]:
    """Every message of the sources with its context, and the first place that has it."""
    found: dict[tuple[str | tuple[str, ...], str | None], str] = {}
    for folder in ("tui", "engine"):
        for file, line, message, _comments, context in extract_from_dir(
            ROOT / folder, method_map=[("**.py", "python")], keywords=KEYWORDS
        ):
            assert message is not None
            key = message if isinstance(message, str) else tuple(message)
            found.setdefault((key, context), f"{folder}/{file}:{line}")
    return found


def catalog() -> Catalog:
    with (FOLDER / "h2q-tui.po").open("rb") as file:
        return read_po(file, locale="zh", domain="h2q-tui")


def test_every_message_has_a_translation_with_the_same_fields() -> None:
    chinese = catalog()
    missing, differing = [], []
    for (message, context), place in messages().items():
        known = chinese.get(message[0] if isinstance(message, tuple) else message, context)
        strings = (
            [known.string]
            if known and isinstance(known.string, str)
            else list(known.string or ())
            if known
            else []
        )
        if not strings or not all(strings) or (known is not None and known.fuzzy):
            missing.append(f"{place}: {message!r}")
            continue
        wanted = set(FIELDS.findall(message[-1] if isinstance(message, tuple) else message))
        differing += [f"{place}: {string}" for string in strings if set(FIELDS.findall(string)) != wanted]
    assert missing == []
    assert differing == []


def test_no_translation_is_english() -> None:
    english = [
        message.id
        for message in catalog()
        if message.id
        and isinstance(message.string, str)
        and re.search(
            r"[A-Za-z]{3}", re.sub(r"\{[^}]*\}|h2q-tui [a-z-]+|--[a-z-]+|\S+\.\w+", "", str(message.id))
        )
        and not re.search(r"[\u4e00-\u9fff]", message.string)
        and message.string not in SAME
        and message.string == message.id
        and " " in str(message.id)
    ]
    assert english == []


def test_the_compiled_catalog_is_up_to_date() -> None:
    with (FOLDER / "h2q-tui.mo").open("rb") as file:
        compiled = read_mo(file)
    fresh = BytesIO()
    write_mo(fresh, catalog())
    fresh.seek(0)

    def strings(words: Catalog) -> dict[object, object]:
        return {(str(message.id), message.context): message.string for message in words if message.id}

    assert strings(compiled) == strings(read_mo(fresh))


SHOWN = {
    "echo": 0, "show_message": 0, "notify": 0, "Static": 0, "Label": 0, "Button": 0, "confirm": 0, "log": 0, "accept": 0, "refuse": 0,
    "H2QError": 0, "UsageProblem": 0, "BadInput": 0, "NotEnoughData": 0, "ServiceUnreachable": 0, "RunFailed": 0,
    "Busy": 0, "Interrupted": 0, "BadParameter": 0,
}  # fmt: skip
"""Calls whose first argument is user-visible."""
KEYWORDS_SHOWN = {"help", "placeholder", "title", "tooltip", "border_title", "label"}
INTERNAL = {"math", "logger", "torch", "np"}
WORD = re.compile(r"[A-Za-z]{2,}")


def literal(node: ast.expr) -> str:
    """The words of a literal that is not translated; "" if there are none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(
            part.value
            for part in node.values
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
    else:
        return ""
    text = re.sub(r"h2q-tui( [a-z-]+)*|\b(?:GB|MB|kB|KB|ms|tok/s)\b|\S*[/_.|]\S*", "", text)
    # A text with both languages needs no catalog.
    return text if WORD.search(text) and not re.search(r"[\u4e00-\u9fff]", text) else ""


def untranslated(source: str) -> list[str]:
    """User-visible words of `source` that are not translated, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        suspects: list[ast.expr] = []
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            owner = getattr(function.value, "id", "") if isinstance(function, ast.Attribute) else ""
            if name in SHOWN and node.args and owner not in INTERNAL:
                suspects.append(node.args[SHOWN[name]])
            if name not in ("Action", "AppAction", "ArgumentParser", "add_argument", "add_parser"):
                suspects += [keyword.value for keyword in node.keywords if keyword.arg in KEYWORDS_SHOWN]
        elif isinstance(node, ast.Assign):
            titles = [
                t
                for t in node.targets
                if isinstance(t, ast.Attribute) and t.attr in ("border_title", "border_subtitle")
            ]
            suspects += [node.value] if titles else []
        found += [f"{suspect.lineno}: {literal(suspect)!r}" for suspect in suspects if literal(suspect)]
    return found


@pytest.mark.parametrize("folder", ["tui", "engine"])
def test_every_user_visible_literal_is_translated(folder: str) -> None:
    violations = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        violations += [
            f"{file.relative_to(ROOT)}:{line}" for line in untranslated(file.read_text(encoding="utf-8"))
        ]
    assert violations == []


@pytest.mark.parametrize(
    "line",
    [
        'echo("Nothing here")',
        'raise BadInput(f"no file {name}")',
        'Option(help="Some words")',
        'widget.border_title = "Loss"',
        'self.notify("Saved")',
    ],
)
def test_the_scan_finds_untranslated_literals(line: str) -> None:
    assert len(untranslated(line)) == 1
    assert untranslated(re.sub(r'f?"(.*?)"', r'_("\1")', line)) == []
