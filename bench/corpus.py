"""The corpus: recall and precision of the filters on labelled data against their targets, and the build speed.

The rules were developed on these labelled rows; expect less on other data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.building import DATA, measure
from bench.near_copies import plant
from bench.result import Benchmark, BenchResult, compare
from engine.corpus.dedup.near import near_pairs
from engine.corpus.filters.folding import fold
from engine.corpus.filters.low_value import classify
from engine.corpus.filters.pii import find_pii
from engine.corpus.filters.turn import filter_turn

MINDX_LOW = frozenset(
    [
        "好的",
        "嗯",
        "哦",
        "啊",
        "行",
        "可以",
        "是的",
        "对的",
        "谢谢",
        "再见",
        "拜拜",
        "晚安",
        "早安",
        "哈哈",
        "嘻嘻",
        "呵呵",
        "???",
        "!!!",
        "...",
    ]
)
MINDX_SENSITIVE = [
    "密码",
    "password",
    "passwd",
    "银行卡",
    "信用卡",
    "卡号",
    "身份证",
    "身份证号",
    "api_key",
    "apikey",
    "secret",
]


ROOT = Path(__file__).parents[1]


def labelled(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def against_target(name: str, ours: float, wanted: float, notes: str, *, unit: str = "share") -> BenchResult:
    """A figure against its target; higher is better."""
    return compare(
        name, ours=ours, baseline=wanted, target=1.0, unit=unit, lower_is_better=False, notes=notes
    )


def low_value(full: bool) -> list[BenchResult]:
    """CrossWOZ: recall of small talk, and the share of good turns that stay unmasked."""
    rows = labelled("crosswoz_turns.jsonl")
    low = [row["text"] for row in rows if row["low_value"]]
    good = [row["text"] for row in rows if not row["low_value"]]
    found = sum(classify(text).low for text in low) / len(low)
    kept = 1 - sum(classify(text).low for text in good) / len(good)
    theirs = sum(text.strip() in MINDX_LOW for text in low) / len(low)
    note = f"{len(low)} small-talk turns, {len(good)} others; recall of MindX's list {theirs:.3f}"
    return [
        against_target("corpus.low_value.recall", found, 0.90, note),
        against_target(
            "corpus.low_value.good_kept", kept, 0.99, "bare acknowledgements count as good in these labels"
        ),
    ]


def sensitive(full: bool) -> list[BenchResult]:
    """Recall of PII spans in Chinese and English, and the share of clean rows without a finding."""
    results = []
    for language, name in (("zh", "zh_pii.jsonl"), ("en", "presidio.jsonl")):
        wanted = covered = theirs = clean = untouched = 0
        for row in labelled(name):
            # Postal addresses are not labelled in the English rows.
            spans = [span for span in find_pii(row["text"]) if language == "zh" or span.type != "ADDRESS"]
            clean += not row["spans"]
            untouched += not row["spans"] and not spans
            for _type, start, end in row["spans"]:
                wanted += 1
                covered += any(span.start <= start and end <= span.end for span in spans)
                theirs += any(word in row["text"].lower() for word in MINDX_SENSITIVE)
        note = f"{wanted} spans of structured types fully covered; MindX's word list drops the rows of {theirs / wanted:.3f} of them"
        results.append(against_target(f"corpus.sensitive.{language}.recall", covered / wanted, 0.98, note))
        results.append(
            against_target(
                f"corpus.sensitive.{language}.clean_kept",
                untouched / clean,
                0.98,
                f"{clean} rows without a labelled span",
            )
        )
    return results


def near(full: bool) -> list[BenchResult]:
    """Planted near copies of each kind, and texts that only look similar: PAWS-X, and a table of pairs one word apart."""
    planted = plant(near_texts(), per_kind=200 if full else 60)
    texts = [text for _kind, one, other in planted for text in (one, other)]
    found = {(pair.first, pair.second) for pair in near_pairs(texts)}
    hits: dict[str, list[bool]] = {}
    for number, (kind, _one, _other) in enumerate(planted):
        hits.setdefault(kind, []).append((2 * number, 2 * number + 1) in found)
    share = sum(map(sum, hits.values())) / len(planted)
    pairs = labelled("paws_x_zh.jsonl")
    others = [(row["one"], row["other"]) for row in pairs if not row["same"] and row["one"] != row["other"]]
    table = [line.split("|") for line in (DATA / "other_meaning.txt").read_text("utf-8").splitlines()]
    framed = [[f"{_FRAME}{text}" for text in pair] for pair in table]
    apart = [*others, *table, *framed]
    wrong = round((1 - _kept(apart)) * len(apart))
    copies = round(share * len(planted))
    kinds = ", ".join(f"{kind} {sum(of_kind) / len(of_kind):.2f}" for kind, of_kind in hits.items())
    return [
        against_target(
            "corpus.near.recall", share, 0.98, f"{len(planted)} planted copies that say the same; {kinds}"
        ),
        against_target(
            "corpus.near.precision",
            copies / (copies + wrong),
            0.99,
            f"of the copies and {len(apart)} pairs of PAWS-X and the table that say different things",
        ),
        against_target(
            "corpus.near.paws_kept",
            _kept(others),
            0.99,
            f"{len(others)} pairs of PAWS-X that are no paraphrases",
        ),
        against_target(
            "corpus.near.others_kept",
            _kept([*table, *framed]),
            1.0,
            f"{len(table)} pairs one figure, sign, name or word apart, alone and at the end of a template; at any threshold",
        ),
    ]


def near_texts() -> list[str]:
    """Texts of two or three sentences in Chinese (PAWS-X) and in English."""
    zh = list(dict.fromkeys(row["one"] for row in labelled("paws_x_zh.jsonl")))
    general = (ROOT / "data" / "general" / "en.txt").read_text("utf-8").splitlines()
    rows = (ROOT / "data" / "calibration" / "paraphrases.jsonl").read_text("utf-8").splitlines()
    calibration = (row["one"] for row in map(json.loads, rows) if row["language"] == "en")
    en = [line if line[-1] in ".!?" else f"{line}." for line in (*general, *calibration) if line.strip()]
    # A text of five sentences, since those in English are short.
    joined = [" ".join(en[place : place + 5]) for place in range(0, len(en) - 5, 2)]
    return [zh[i] + zh[-1 - i] for i in range(len(zh) // 2)] + joined


_FRAME = (
    "You are an assistant. Read what stands behind the colon with care, keep to the form that is asked for, and answer in "
    "one sentence without any explanation, note or greeting. The text is: "
)


def _kept(pairs: Sequence[Sequence[str]]) -> float:
    """The share of pairs that are neither exact nor near duplicates, whatever the threshold."""
    kept = [fold(one) != fold(other) and not near_pairs([one, other], 0.0) for one, other in pairs]
    return sum(kept) / len(kept)


def speed(full: bool) -> list[BenchResult]:
    """Import, filters, split and dataset in sequence; then the review of the result.

    With 5,000 conversations; in full length also with 100,000.
    """
    rows = _speed(5_000, "corpus")
    if full:
        rows += _speed(100_000, "corpus.large")
    return rows


def _speed(count: int, name: str) -> list[BenchResult]:
    figures = measure("speed", count)
    note = f"{count:,} generated conversations"
    return [
        against_target(f"{name}.speed", figures["rate"], 2_000, f"import, filters, split, overlap check and dataset; {note}", unit="conversations/s"),
        _below_limit(f"{name}.transaction", figures["transaction_ms"], 50, f"longest write transaction, commit included, as measured by the writers; {note}", "ms"),
        _below_limit(f"{name}.memory", figures["memory_mb"], 500, f"peak resident memory of the process and its worker, shared pages counted twice; {note}", "MB"),
        _below_limit(f"{name}.review.page", figures["page_ms"], 50, f"p95 of a page of 60 at a random place; {note}", "ms"),
        _below_limit(f"{name}.review.verdict", figures["verdict_ms"], 50, f"p95 until a decision is on disk; {note}", "ms"),
    ]  # fmt: skip


def _below_limit(name: str, ours: float, limit: float, notes: str, unit: str) -> BenchResult:
    """A figure against its limit; lower is better."""
    return compare(name, ours=ours, baseline=limit, target=1.0, unit=unit, lower_is_better=True, notes=notes)


def incremental(full: bool) -> list[BenchResult]:
    """A build after 1 % more conversations, against a full build."""
    count = 100_000 if full else 5_000
    figures = measure("incremental", count)
    note = f"seconds of a build after {count // 100:,} more conversations, against the first one of {count:,}"
    return [
        compare("corpus.incremental", ours=figures["incremental"], baseline=figures["full"], target=4.0, unit="s", lower_is_better=True, notes=note)
    ]  # fmt: skip


PUMPS = (" ", "\n", "1", "1_", "a", "aB3", ".", "@", "-", "/", "号", "一二", "０", "=", ":", '"')
"""What a text may repeat: each is a class of characters that some pattern of the filters repeats."""
LEADS = ("", "我的微信", "key ", "password is ", "密码是", "QQ", '"""', "地址：")


def patterns(full: bool) -> list[BenchResult]:
    """Growth of the time of all filters of one turn, when a text that repeats something becomes ten times as long."""
    short, long = (10_000, 100_000) if full else (3_000, 30_000)
    worst, where = 0.0, ""
    for lead in LEADS:
        for pump in PUMPS:
            times = []
            for length in (short, long):
                text = lead + pump * (length // len(pump)) + "。"
                began = time.process_time()
                filter_turn("user", text)
                times.append(time.process_time() - began)
            growth = times[1] / max(times[0], 0.005)
            if growth > worst:
                worst, where = growth, repr(lead + pump)
    ratio = long / short
    return [
        compare(
            "corpus.patterns",
            ours=worst,
            baseline=ratio,
            target=0.4,
            unit="times the time",
            lower_is_better=True,
            notes=f"worst of {len(LEADS) * len(PUMPS)} texts from {short:,} to {long:,} characters, {where} repeated; "
            f"linear is {ratio:.0f}",
        )
    ]


BENCHMARKS = (
    Benchmark("corpus.patterns", "time of the filters on texts that repeat something", patterns, 8.0),
    Benchmark("corpus.low_value", "small talk in labelled dialogues", low_value, 2.0),
    Benchmark("corpus.sensitive", "PII spans in labelled rows, zh and en", sensitive, 2.0),
    Benchmark("corpus.near", "planted near duplicates, and sentences that only look similar", near, 10.0),
    Benchmark(
        "corpus.speed",
        "conversations per second from import to dataset; pages and decisions of the review",
        speed,
        15.0,
    ),
    Benchmark(
        "corpus.incremental",
        "incremental build against a full build",
        incremental,
        10.0,
    ),
)
