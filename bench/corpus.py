"""The corpus: what the filters find on labelled data, against the figures asked for, and how fast a corpus is built.

The labelled rows are those that the rules were written beside; on other data expect less.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench.result import Benchmark, BenchResult, compare
from engine.config import Settings
from engine.corpus.build import build_corpus
from engine.corpus.dataset import write_dataset
from engine.corpus.filters.low_value import judge
from engine.corpus.filters.near import near_pairs
from engine.corpus.filters.normalise import fold
from engine.corpus.filters.sensitive import find
from engine.corpus.review import ReviewStore
from engine.corpus.split import assert_no_overlap, open_window
from engine.memory.points import Conversation, Role, Turn
from engine.memory.store import MemoryStore
from engine.paths import Workspace

DATA = Path(__file__).parent / "data" / "corpus"
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


def labelled(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def asked(name: str, ours: float, asked: float, notes: str, *, unit: str = "share") -> BenchResult:
    """A share against the one that was asked for; higher is better."""
    return compare(name, ours=ours, baseline=asked, target=1.0, unit=unit, lower_is_better=False, notes=notes)


def low_value(full: bool) -> list[BenchResult]:
    """CrossWOZ: courtesy found, and good turns that keep their loss."""
    rows = labelled("crosswoz_turns.jsonl")
    low = [row["text"] for row in rows if row["low_value"]]
    good = [row["text"] for row in rows if not row["low_value"]]
    found = sum(judge(text).low for text in low) / len(low)
    kept = 1 - sum(judge(text).low for text in good) / len(good)
    theirs = sum(text.strip() in MINDX_LOW for text in low) / len(low)
    note = f"{len(low)} turns of courtesy, {len(good)} others; MindX's list finds {theirs:.3f}"
    return [
        asked("corpus.low_value.recall", found, 0.90, note),
        asked(
            "corpus.low_value.good_kept", kept, 0.99, "bare acknowledgements count as good in these labels"
        ),
    ]


def sensitive(full: bool) -> list[BenchResult]:
    """Private spans in Chinese and English, and clean rows that stay as they are."""
    results = []
    for language, name in (("zh", "zh_pii.jsonl"), ("en", "presidio.jsonl")):
        wanted = covered = theirs = clean = untouched = 0
        for row in labelled(name):
            spans = find(row["text"])
            clean += not row["spans"]
            untouched += not row["spans"] and not spans
            for _type, start, end in row["spans"]:
                wanted += 1
                covered += any(span.start <= start and end <= span.end for span in spans)
                theirs += any(word in row["text"].lower() for word in MINDX_SENSITIVE)
        note = f"{wanted} spans of structured types covered whole; MindX's words drop the row of {theirs / wanted:.3f} of them"
        results.append(asked(f"corpus.sensitive.{language}.recall", covered / wanted, 0.98, note))
        results.append(
            asked(
                f"corpus.sensitive.{language}.clean_kept",
                untouched / clean,
                0.98,
                f"{clean} rows without a labelled span",
            )
        )
    return results


def near(full: bool) -> list[BenchResult]:
    """Planted near duplicates, and PAWS-X sentences that only look alike."""
    chance = random.Random(5)
    pairs = labelled("paws_x_zh.jsonl")
    sentences = list(dict.fromkeys(fold(row["one"]) for row in pairs))
    texts = [sentences[i] + sentences[-1 - i] for i in range(len(sentences) // 2)]
    planted = [_slip(text, chance) for text in texts]
    expected = {(i, i + len(texts)) for i, text in enumerate(texts) if text != planted[i]}
    found = {(pair.first, pair.second) for pair in near_pairs(texts + planted)}
    others = [(fold(row["one"]), fold(row["other"])) for row in pairs if not row["same"]]
    kept = 1 - sum(one == other or bool(near_pairs([one, other])) for one, other in others) / len(others)
    note = f"{len(expected)} texts of two sentences with 2 % of the characters changed, left out or doubled"
    return [
        asked("corpus.near.recall", len(found & expected) / len(expected), 0.98, note),
        asked("corpus.near.precision", len(found & expected) / len(found), 0.99, note),
        asked("corpus.near.paws_kept", kept, 0.98, f"{len(others)} pairs of PAWS-X that are no paraphrases"),
    ]


def _slip(text: str, chance: random.Random) -> str:
    letters = list(text)
    for _ in range(max(1, len(letters) // 50)):
        place = chance.randrange(len(letters))
        letters[place] = chance.choice(("", letters[place] * 2, "的", "了"))
    return "".join(letters)


def _talks(count: int) -> Iterator[Conversation]:
    """Conversations of about 1,000 bytes in two languages: courtesy, numbers, some copies. Each but those opens
    with a question of its own, so that they are not one cluster."""
    chance = random.Random(11)
    zh = [row["one"] for row in labelled("paws_x_zh.jsonl")]
    en = [row["text"] for row in labelled("presidio.jsonl")]
    for number in range(count):
        source = random.Random(number - 1) if number % 20 == 19 else random.Random(number)
        sentences = zh if number % 3 else en
        turns: list[Turn] = []
        for _ in range(2 + number % 3):
            turns.append(Turn(role=Role.USER, text="".join(source.sample(sentences, 1 + (not turns)))))
            turns.append(Turn(role=Role.ASSISTANT, text="".join(source.sample(sentences, 2))))
        if number % 2:
            turns += [
                Turn(role=Role.USER, text="好的，谢谢你。"),
                Turn(role=Role.ASSISTANT, text="不客气，祝您愉快！"),
            ]
        if chance.random() < 0.1:
            turns.append(Turn(role=Role.USER, text=f"打1380013{chance.randrange(10000):04d}找我"))
        yield Conversation(
            id=f"g{number}",
            source="bench",
            external_id=str(number),
            started_at=1e9 + number * 600,
            updated_at=1e9 + number * 600,
            turns=tuple(turns),
        )


def speed(full: bool) -> list[BenchResult]:
    """Import, filters, split and dataset in one go; then the review of what came out."""
    count = 100_000 if full else 5_000
    with tempfile.TemporaryDirectory() as folder, MemoryStore(Path(folder) / "memory" / "memory.db") as store:
        talks = list(_talks(count)) if count <= 10_000 else _talks(count)
        with _Peak() as peak:
            began = time.perf_counter()
            store.add(talks, "bench", "bench")
            build_corpus(store, Settings())
            window = open_window(store, time.time())
            assert_no_overlap(store, window)
            write_dataset(store, Workspace(Path(folder)), "bench")
            rate = count / (time.perf_counter() - began)
        with ReviewStore(store.path) as review:
            page = _p95(lambda: review.page("", chance.randrange(count), 60))
            ids = review.ids()
            verdict = _p95(lambda: review.decide(chance.choice(ids), "rejected"))
    note = f"{count:,} generated conversations"
    rows = [
        asked("corpus.speed", rate, 2_000, f"import, filters, split, overlap check and dataset; {note}", unit="conversations/s"),
        compare("corpus.review.page", ours=page * 1e3, baseline=50, target=1.0, unit="ms", lower_is_better=True, notes=f"p95 of a page of 60 at a random place; {note}"),
        compare("corpus.review.verdict", ours=verdict * 1e3, baseline=50, target=1.0, unit="ms", lower_is_better=True, notes=f"p95 until a verdict is on the disk; {note}"),
    ]  # fmt: skip
    if full:
        rows.append(compare("corpus.memory", ours=peak.megabytes, baseline=500, target=1.0, unit="MB", lower_is_better=True, notes=f"peak of the process and its helpers; {note}"))  # fmt: skip
    return rows


class _Peak:
    """The most memory that this process and those it started held together, looked at every 50 ms."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> _Peak:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(0.05):
            held = own.memory_info().rss
            for child in own.children(recursive=True):
                with suppress(psutil.Error):
                    held += child.memory_info().rss
            self.megabytes = max(self.megabytes, held / 1024**2)


chance = random.Random(2)


def _p95(call: Callable[[], object], times: int = 200) -> float:
    """Seconds that 95 % of the calls take at most."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[int(0.95 * times)]


BENCHMARKS = (
    Benchmark("corpus.low_value", "courtesy in labelled dialogues", low_value, 2.0),
    Benchmark("corpus.sensitive", "private spans in labelled rows, zh and en", sensitive, 2.0),
    Benchmark("corpus.near", "planted near duplicates, and sentences that only look alike", near, 10.0),
    Benchmark(
        "corpus.speed",
        "conversations a second from import to dataset; pages and verdicts of the review",
        speed,
        15.0,
    ),
)
