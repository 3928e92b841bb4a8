"""What can be set on the settings sheet: each setting with its values, and which keys are free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.core.config import PrivateType
from engine.core.i18n import N_
from tui.app.actions import ACTIONS, EVERYWHERE, AppAction

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


def _numbers(zero: str, *values: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Values from 0 on, of which 0 is the word `zero`, and their words."""
    return (0, *values), (zero, *map(str, values))


def _training() -> tuple[Choice, ...]:
    """How training uses memory, processors and the disk."""
    recipe = N_("as the recipe says")
    return (
        Choice(
            "memory_buffer_gb",
            N_("memory kept free"),
            N_("of the budget: training makes itself smaller when less is left"),
            tuple(n / 4 for n in range(9)),
            unit="GB",
        ),
        Choice(
            "streaming_batch_size",
            N_("batch"),
            N_("windows of text in a step, before accumulation"),
            *_numbers(recipe, 1, 2, 4, 8, 16, 24, 32, 64, 128),
        ),
        Choice(
            "micro_batch_size",
            N_("micro-batch"),
            N_("windows in one pass at most: the same batch in smaller pieces"),
            *_numbers(N_("as many as fit"), 1, 2, 4, 8, 16, 32),
        ),
        Choice(
            "gradient_accumulation_steps",
            N_("accumulation"),
            N_("batches added up before a step"),
            *_numbers(recipe, 1, 2, 4, 8, 16),
        ),
        Choice(
            "num_worker_threads",
            N_("loader threads"),
            N_("threads that prepare batches while the model computes; 0: none"),
            (0, 1, 2, 3, 4),
        ),
        Choice(
            "prefetch_buffer_size",
            N_("batches ahead"),
            N_("how many batches those threads prepare ahead"),
            (1, 2, 3, 4, 8, 16),
        ),
        Choice(
            "data_chunk_size",
            N_("chunk of text"),
            N_("what one read of a small text takes and keeps; 0: only what is asked for"),
            (0, 4, 16, 32, 64, 256),
            unit="KB",
        ),
        Choice(
            "max_cached_chunks",
            N_("chunks kept"),
            N_("chunks of text in memory at most"),
            (0, 1, 16, 64, 256, 1024),
        ),
        Choice(
            "cpu_affinity",
            N_("processors"),
            N_("auto: one of each physical core; others in h2q.toml, such as 0-3,6 (Linux)"),
            ("", "auto"),
            (N_("all"), N_("auto")),
        ),
        Choice(
            "max_cpu_percent",
            N_("share of processors"),
            N_("what training takes of all processors at most, by pauses between steps"),
            tuple(float(n) for n in range(10, 101, 10)),
            unit="%",
        ),
        Choice(
            "pause_on_battery",
            N_("battery"),
            N_("training waits for the mains below this; 0: never"),
            (0, 10, 20, 30, 50, 80, 100),
            unit="%",
        ),
        Choice(
            "pause_above_c",
            N_("temperature"),
            N_("training waits above this until the processor has cooled; 0: never"),
            (0, 70, 75, 80, 85, 90, 95, 100),
            unit="°C",
        ),
        Choice(
            "unload_ollama",
            N_("free Ollama's memory"),
            N_("Ollama is asked to free the models it holds before a training begins"),
            (True, False),
            (N_("yes"), N_("no")),
        ),
        Choice(
            "update_interval",
            N_("records every"),
            N_("seconds between two records of memory and two states of the status files"),
            (0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
            unit="s",
        ),
        Choice(
            "resource_check_interval",
            N_("looks every"),
            N_(
                "seconds between two looks at the limit of the system, other programs, battery and temperature"
            ),
            (0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
            unit="s",
        ),
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
    *_training(),
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


def is_of_digits(action: AppAction) -> bool:
    """Whether it is about the digits, which stay what they are."""
    return any(key.isdigit() for key in action.keys)


def key_conflict(action: AppAction, key: str, own: dict[str, str]) -> AppAction | None:
    """The action that already answers to `key` where `action` would; None when the key is free.

    KeyMap of everywhere clash with every tab; digits belong to the tabs and are refused by the caller.
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
