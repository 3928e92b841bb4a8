"""The user's settings, each declared once.

A setting is declared as a field of `Settings`: name (also of `train --set`), type and bounds, default, and in
`SettingInfo` what the settings sheet shows and what the setting affects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.core.i18n import N_
from engine.core.pii_types import PiiTypeName as PiiTypeName

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class SettingInfo:
    """How a setting is shown and what it affects. Texts are marked for the catalogs.

    Attributes:
        title: label of its row in the settings sheet; "": it has no row.
        group: heading under which its row stands; "": that of the row before.
        help: one sentence for the row.
        values: values in the order of the arrow keys.
        labels: text for each of `values`; empty: the value itself.
        training: affects how a training runs; the run logs its value where it is not the default.
        frozen: decides what each training step learns, so a resumed training keeps the value it began with.
    """

    title: str = ""
    help: str = ""
    values: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    unit: str = ""
    training: bool = False
    frozen: bool = False
    group: str = ""


def _counts(zero: str, *values: int) -> dict[str, Any]:
    """Values and labels of a count whose 0 means `zero`."""
    return {"values": (0, *values), "labels": (zero, *map(str, values))}


_FROM_RECIPE = N_("from the recipe")
_YES_NO: dict[str, Any] = {"values": (True, False), "labels": (N_("yes"), N_("no"))}
_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, in the order of the settings sheet. Unknown keys stay in the file."""

    language: Annotated[
        Literal["auto", "en", "zh"],
        SettingInfo(
            "language / 语言",
            N_("auto: from the terminal's locale (LC_ALL, LC_MESSAGES, LANG)"),
            ("auto", "en", "zh"),
            group=N_("Look"),
        ),
    ] = "auto"
    theme: Annotated[
        str, SettingInfo(N_("theme"), N_("auto: chosen from the terminal's colours"), ("auto",))
    ] = "auto"
    signs: Annotated[
        Literal["auto", "unicode", "ascii"],
        SettingInfo(
            N_("glyphs"),
            N_("ASCII for terminals that draw ● ✓ ▲ two cells wide or not at all"),
            ("auto", "unicode", "ascii"),
            (N_("auto"), "Unicode", "ASCII"),
        ),
    ] = "auto"
    ambiguous_width: Annotated[
        Literal["auto", "narrow", "wide"],
        SettingInfo(
            N_("ambiguous width"),
            N_("width of East Asian ambiguous characters; auto: ask the terminal"),
            ("auto", "narrow", "wide"),
            (N_("auto"), N_("narrow"), N_("wide")),
        ),
    ] = "auto"
    max_memory_gb: Annotated[
        float,
        Meta(gt=0, le=1024),
        SettingInfo(
            N_("memory budget"),
            N_("the most memory that a run and its children may use; the machine may allow less"),
            (*(n / 2 for n in range(1, 33)), 24.0, 32.0, 48.0, 64.0),
            unit="GB",
            group=N_("Memory and machine"),
        ),
    ] = 4.0
    memory_buffer_gb: Annotated[
        float,
        Meta(ge=0, le=64),
        SettingInfo(
            N_("memory buffer"),
            N_("part of the budget that stays free: with less left, training uses smaller micro-batches"),
            tuple(n / 4 for n in range(9)),
            unit="GB",
            training=True,
        ),
    ] = 0.5
    """A quarter of the budget at most."""
    streaming_batch_size: Annotated[
        int,
        Meta(ge=0, le=4096),
        SettingInfo(
            N_("batch size"),
            N_("windows of text in a step, before accumulation"),
            **_counts(_FROM_RECIPE, 1, 2, 4, 8, 16, 24, 32, 64, 128),
            training=True,
            frozen=True,
        ),
    ] = 0
    micro_batch_size: Annotated[
        int,
        Meta(ge=0, le=4096),
        SettingInfo(
            N_("micro-batch"),
            N_("windows in a micro-batch at most; the batch stays the same"),
            **_counts(N_("as many as fit"), 1, 2, 4, 8, 16, 32),
            training=True,
            frozen=True,
        ),
    ] = 0
    gradient_accumulation_steps: Annotated[
        int,
        Meta(ge=0, le=1024),
        SettingInfo(
            N_("accumulation"),
            N_("batches accumulated for each optimizer step"),
            **_counts(_FROM_RECIPE, 1, 2, 4, 8, 16),
            training=True,
            frozen=True,
        ),
    ] = 0
    num_worker_threads: Annotated[
        int,
        Meta(ge=0, le=16),
        SettingInfo(
            N_("loader threads"),
            N_("threads that prepare batches while the model computes; 0: none"),
            (0, 1, 2, 3, 4),
            training=True,
        ),
    ] = 1
    prefetch_buffer_size: Annotated[
        int,
        Meta(ge=1, le=64),
        SettingInfo(
            N_("prefetch"),
            N_("batches that those threads prepare ahead"),
            (1, 2, 3, 4, 8, 16),
            training=True,
        ),
    ] = 3
    data_chunk_size: Annotated[
        int,
        Meta(ge=0, le=65536),
        SettingInfo(
            N_("chunk size"),
            N_("text read and cached at a time from small files; 0: only what a batch needs, no cache"),
            (0, 4, 16, 32, 64, 256),
            unit="KB",
            training=True,
        ),
    ] = 32
    max_cached_chunks: Annotated[
        int,
        Meta(ge=0, le=65536),
        SettingInfo(
            N_("cached chunks"),
            N_("chunks of text in memory at most"),
            (0, 1, 16, 64, 256, 1024),
            training=True,
        ),
    ] = 64
    """Least recently used first out. No chunk of a text more than four times as large as the cache is kept: random
    windows would hardly ever hit one again."""
    cpu_affinity: Annotated[
        str,
        SettingInfo(
            N_("CPU affinity"),
            N_("auto: one thread of each physical core; a list such as 0-3,6 in h2q.toml (Linux)"),
            ("", "auto"),
            (N_("all"), N_("auto")),
            training=True,
        ),
    ] = ""
    max_cpu_percent: Annotated[
        float,
        Meta(ge=1, le=100),
        SettingInfo(
            N_("CPU limit"),
            N_("share of all CPUs that training uses at most, by pauses between steps"),
            tuple(float(n) for n in range(10, 101, 10)),
            unit="%",
            training=True,
        ),
    ] = 100.0
    pause_on_battery: Annotated[
        int,
        Meta(ge=0, le=100),
        SettingInfo(
            N_("battery"),
            N_("training pauses below this charge until on mains power; 0: never"),
            (0, 10, 20, 30, 50, 80, 100),
            unit="%",
            training=True,
        ),
    ] = 20
    pause_above_c: Annotated[
        int,
        Meta(ge=0, le=120),
        SettingInfo(
            N_("temperature"),
            N_("training pauses above this CPU temperature until it has cooled; 0: never"),
            (0, 70, 75, 80, 85, 90, 95, 100),
            unit="°C",
            training=True,
        ),
    ] = 95
    unload_ollama: Annotated[
        bool,
        SettingInfo(
            N_("unload Ollama"),
            N_("unload the models that Ollama has in memory before a training"),
            **_YES_NO,
        ),
    ] = False
    update_interval: Annotated[
        float,
        Meta(ge=0.1, le=600),
        SettingInfo(
            N_("write figures every"),
            N_("seconds between records of memory, and between updates of the status files"),
            _SECONDS,
            unit="s",
            training=True,
            group=N_("Training"),
        ),
    ] = 2.0
    sample_every: Annotated[
        float,
        Meta(ge=0, le=86_400),
        SettingInfo(
            N_("samples"),
            N_("seconds between two answers of the model in training, shown on the Train tab; 0: none"),
            (0.0, 10.0, 20.0, 60.0, 300.0, 900.0),
            unit="s",
            training=True,
        ),
    ] = 20.0
    """They take at most 3 % of the time of a training."""
    sample_question: Annotated[
        str,
        Meta(max_length=200),
        SettingInfo(
            N_("sample question"),
            N_("enter: a question that the model in training answers; empty: one of your held-out questions"),
            ("",),
            (N_("a held-out question"),),
        ),
    ] = ""
    """Asked besides the fixed prompt. The run's log does not quote it."""
    resource_check_interval: Annotated[
        float,
        Meta(ge=0.1, le=600),
        SettingInfo(
            N_("check machine every"),
            N_(
                "seconds between checks of children, the system's limit, other programs, battery, temperature"
            ),
            _SECONDS,
            unit="s",
            training=True,
        ),
    ] = 2.0
    review: Annotated[
        Literal["auto", "manual"],
        SettingInfo(
            N_("review"),
            N_(
                "auto: trains on what passes the filters unless you reject it; manual: only on what you accept"
            ),
            ("auto", "manual"),
            (N_("auto"), N_("manual")),
            group=N_("Conversations"),
        ),
    ] = "auto"
    """Conversations that wait for review are not trained on in either mode."""
    sensitive: Annotated[
        Literal["redact", "drop"],
        SettingInfo(
            N_("PII"),
            N_("personal data. replace: by a placeholder; drop: the whole conversation is excluded"),
            ("redact", "drop"),
            (N_("replace"), N_("drop")),
        ),
    ] = "redact"
    sensitive_types: Annotated[
        dict[PiiTypeName, Literal["redact", "drop", "keep"]],
        SettingInfo(
            help=N_("how this type is handled; as above: like all PII"),
            values=("", "redact", "drop", "keep"),
            labels=(N_("as above"), N_("replace"), N_("drop"), N_("keep")),
        ),
    ] = {}
    """Handling of single types, e.g. `PHONE = "drop"` under `[sensitive_types]`. A row of the sheet for each type."""
    low_value: Annotated[
        Literal["mask", "keep"],
        SettingInfo(
            N_("small talk"),
            N_("greetings and thanks. mask: they stay as context and are not trained on"),
            ("mask", "keep"),
            (N_("mask"), N_("train on them")),
        ),
    ] = "mask"
    low_value_from: Annotated[
        float,
        Meta(ge=0.5, le=1.0),
        SettingInfo(
            N_("small talk from"),
            N_("share of a turn that must be small talk or repetition for it to be masked, 0.5 to 1"),
            tuple(round(0.5 + n * 0.1, 2) for n in range(6)),
        ),
    ] = 0.5
    low_value_phrases: tuple[str, ...] = ()
    """The user's own phrases that count as small talk."""
    near_threshold: Annotated[
        float,
        Meta(ge=0.3, le=1.0),
        SettingInfo(
            N_("near duplicates from"),
            N_("Jaccard similarity from which two conversations are near duplicates, 0.3 to 1"),
            tuple(round(0.3 + n * 0.05, 2) for n in range(15)),
        ),
    ] = 0.8
    embedder: Annotated[
        str,
        SettingInfo(
            N_("semantic duplicates"),
            N_("n-grams only group conversations; enter: a sentence-transformers folder or ollama:TAG"),
            ("", "off"),
            (N_("character n-grams"), N_("off")),
        ),
    ] = ""
    """Embedding model of semantic deduplication: a sentence-transformers folder (a relative path starts in the
    workspace) or `ollama:TAG`."""
    checkpoints_last: Annotated[int, Meta(ge=1, le=1000), SettingInfo(training=True)] = 2
    """Newest checkpoints of a training phase that are kept, with the best one."""
    checkpoints_hourly: Annotated[int, Meta(ge=0, le=10000), SettingInfo(training=True)] = 24
    """Hours of which one more checkpoint each is kept; 0: none. They are deleted first if the disk is short."""
    lora_base: str = ""
    """Base that `train --mode auto` tunes with LoRA if it fits the budget: a Hugging Face directory or an Ollama
    tag; "": the built-in model is trained."""
    lora_hold: Annotated[
        float,
        Meta(ge=0, le=100),
        SettingInfo(
            N_("hold to the base"),
            N_(
                "how firmly an adapter predicts your questions as its base does, so that it forgets less; 0: not"
            ),
            (0.0, 0.3, 1.0, 3.0),
            training=True,
            frozen=True,
            group=N_("Models"),
        ),
    ] = 1.0
    """Weight of that divergence beside the loss on the answers."""
    backup_weekly: Annotated[
        bool,
        SettingInfo(
            N_("weekly backup"),
            N_("back up when the newest backup is older than seven days"),
            **_YES_NO,
            group=N_("Safety and alerts"),
        ),
    ] = True
    watch: Annotated[
        bool,
        SettingInfo(
            N_("watch runs"),
            N_("a small process watches machine and runs while one trains, and alerts are recorded and sent"),
            **_YES_NO,
        ),
    ] = True
    alert_level: Annotated[
        Literal["info", "warning", "error", "critical"],
        SettingInfo(
            N_("send alerts from"),
            N_("the least level that is sent to your channels; h2q-tui notify setup adds one"),
            ("info", "warning", "error", "critical"),
            (N_("info"), N_("warning"), N_("error"), N_("critical")),
        ),
    ] = "info"
    quiet_hours: Annotated[
        str,
        Meta(max_length=20),
        SettingInfo(
            N_("quiet hours"),
            N_("only critical alerts are sent then; enter: two times of day, such as 22:00-07:00"),
            ("",),
            (N_("none"),),
        ),
    ] = ""
    heartbeat_url: str = ""
    """Address that is called every five minutes while a run is watched, so that another machine notices when this
    one dies; "": none."""
    peers: tuple[str, ...] = ()
    """Other machines on the Health tab: `NAME=ADDRESS`, where ADDRESS is that of their `h2q-tui web` (with its token) or
    `h2q-tui monitor --export-port`. Only these are asked."""
    alert_channels: dict[str, dict[str, str]] = {}
    """Where alerts are sent, by name: `kind` and the public fields of `engine.alerts.channels`; secrets are elsewhere."""
    hive_server: str = ""
    """Address of the hive server; "": none. Adapters are sent there only, and only when the user says so."""
    hive_user: Annotated[str, Meta(max_length=64)] = ""
    """Name under which adapters are shared where the server or the shared folder asks for one."""
    hive_allow_http: bool = False
    """A hive server on another machine may be spoken to without TLS."""
    hive_ca_file: str = ""
    """File with the certificates that vouch for the hive server; "": those of the system."""
    first_start_done: bool = False
    """The first-start sheet has been answered."""
    keys: dict[str, str] = {}
    """The user's own keys: action id to key, e.g. `"runs.stop" = "x"`."""


@cache
def setting_infos() -> dict[str, SettingInfo]:
    """The info of every setting that has one, in the order of the fields."""
    return {
        field.name: data
        for field in msgspec.structs.fields(Settings)
        for data in getattr(field.type, "__metadata__", ())
        if isinstance(data, SettingInfo)
    }
