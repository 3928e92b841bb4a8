"""What can be set on the settings sheet: each setting with its values, and which keys are free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.config import PrivateType
from engine.i18n import N_
from tui.actions import ACTIONS, EVERYWHERE, Action

TYPE_PREFIX = "sensitive_types:"
EMBEDDER = "embedder"


@dataclass(frozen=True)
class Choice:
    """One setting. `values` are its values in the order of the arrow keys; numbers step through `steps`."""

    field: str
    label: str
    help: str
    values: tuple[Any, ...]
    words: tuple[str, ...] = ()
    """What a person reads for each value, marked for the catalogs; empty: the value itself."""
    unit: str = ""


def _half_gigabytes() -> tuple[float, ...]:
    return (*(n / 2 for n in range(1, 33)), 24.0, 32.0, 48.0, 64.0)


_TYPES: dict[PrivateType, str] = {
    "PRIVATE_KEY": N_("private keys"),
    "API_KEY": N_("API keys and tokens"),
    "PASSWORD": N_("passwords"),
    "EMAIL": N_("e-mail addresses"),
    "ID_CARD": N_("identity numbers"),
    "CREDIT_CODE": N_("social credit codes"),
    "IBAN": N_("IBAN"),
    "BANK_CARD": N_("bank cards"),
    "SSN": N_("SSN"),
    "PASSPORT": N_("passports"),
    "DRIVER_LICENSE": N_("driving licences"),
    "IP": N_("IP addresses"),
    "PHONE": N_("telephone numbers"),
    "PLATE": N_("number plates"),
    "WECHAT": N_("WeChat ids"),
    "QQ": N_("QQ numbers"),
    "ADDRESS": N_("postal addresses"),
}


def _types() -> tuple[Choice, ...]:
    return tuple(
        Choice(
            TYPE_PREFIX + name,
            label,
            N_("what happens to this kind instead; as above: what holds for all private data"),
            ("", "redact", "drop", "keep"),
            (N_("as above"), N_("replace"), N_("leave out"), N_("keep")),
        )
        for name, label in _TYPES.items()
    )


CHOICES: tuple[Choice, ...] = (
    Choice(
        "language",
        "language / 语言",
        N_("auto: as the environment of the terminal says"),
        ("auto", "en", "zh"),
    ),
    Choice("theme", N_("theme"), N_("auto: chosen from the colours that the terminal can show"), ("auto",)),
    Choice(
        "signs",
        N_("signs"),
        N_("ascii where the terminal draws ● ✓ ▲ two cells wide or not at all"),
        ("auto", "unicode", "ascii"),
        (N_("auto"), "Unicode", "ASCII"),
    ),
    Choice(
        "ambiguous_width",
        N_("ambiguous width"),
        N_("cells that the terminal gives to East Asian ambiguous characters"),
        ("auto", "narrow", "wide"),
        (N_("auto"), N_("narrow"), N_("wide")),
    ),
    Choice(
        "max_memory_gb",
        N_("memory budget"),
        N_("the most a run and its children may take; the machine may allow less"),
        _half_gigabytes(),
        unit="GB",
    ),
    Choice(
        "review",
        N_("review"),
        N_("auto: what passes the filters is trained on unless rejected; by hand: only what you accepted"),
        ("auto", "manual"),
        (N_("auto"), N_("by hand")),
    ),
    Choice(
        "sensitive",
        N_("private data found"),
        N_("replace: a placeholder stands there; leave out: the whole conversation goes"),
        ("redact", "drop"),
        (N_("replace"), N_("leave out")),
    ),
    *_types(),
    Choice(
        "low_value",
        N_("greetings and thanks"),
        N_("mask: they stay as context and are not trained on"),
        ("mask", "keep"),
        (N_("mask"), N_("train on them")),
    ),
    Choice(
        "low_value_from",
        N_("courtesy from"),
        N_("how much of a turn must be courtesy for it not to be trained on, 0.5 to 1"),
        tuple(round(0.5 + n * 0.1, 2) for n in range(6)),
    ),
    Choice(
        "near_threshold",
        N_("near duplicates from"),
        N_("how alike two conversations are to count as one, 0.3 to 1"),
        tuple(round(0.3 + n * 0.05, 2) for n in range(15)),
    ),
    Choice(
        EMBEDDER,
        N_("same meaning"),
        N_(
            "who says what means the same: n-grams only group; enter: a folder of sentence-transformers or ollama:TAG"
        ),
        ("", "off"),
        (N_("character n-grams"), N_("off")),
    ),
    Choice(
        "backup_weekly",
        N_("weekly backup"),
        N_("a backup when the newest one is older than seven days"),
        (True, False),
        (N_("yes"), N_("no")),
    ),
)


def is_of_digits(action: Action) -> bool:
    """Whether it is about the digits, which stay what they are."""
    return any(key.isdigit() for key in action.keys)


def key_conflict(action: Action, key: str, own: dict[str, str]) -> Action | None:
    """The action that already answers to `key` where `action` would; None when the key is free.

    Keys of everywhere clash with every tab; digits belong to the tabs and are refused by the caller.
    """
    for row in ACTIONS:
        if row.id == action.id or not {row.tab, action.tab} & {
            EVERYWHERE,
            row.tab if row.tab == action.tab else "",
        }:
            continue
        if key in own.get(row.id, row.key).split():
            return row
    return None
