"""The loop of a hive on a real model, by the product's own commands: `python -m bench.hive_loop FOLDER [--steps 20]`.

Three workspaces with different conversations train an adapter each on SmolLM2 (or `--base`), share it with a hive, which joins them;
each workspace fetches the joined adapter and judges it on its own test set. Then the joined adapter is compared with
the base and with each single one on the union of the three test sets. Takes minutes to an hour and is no part of
`make test`; prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from engine.core.paths import Workspace
from engine.corpus.clusters import current_window
from engine.corpus.training_set import held_out_rows
from engine.hive.gate import GateRequest, run_gate
from engine.memory.store import MemoryStore
from tests.smollm2 import smollm2_path

PORT = 8478
TALKS = 72
"""Conversations of each person: the newest become the test set."""
PEOPLE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cook": (
        ("rice", "lentils", "potatoes", "noodles", "carrots", "beans", "eggs", "beetroot", "spinach", "millet", "barley", "peas"),
        (
            "How long does {x} need for {n} people?",
            "What goes with {x} when {n} guests come?",
            "Can I keep {x} for {n} days?",
            "My {x} turned out too salty for {n} plates, what now?",
            "Is {x} fine after {n} hours in the pot?",
            "How much water for {x} and {n} cups?",
            "Which spice suits {x} for {n} bowls?",
        ),
    ),
    "gardener": (
        ("roses", "tomatoes", "ivy", "tulips", "mint", "ferns", "apple trees", "lavender", "clover", "peonies", "pumpkins", "sage"),
        (
            "When do I water {x} in week {n}?",
            "May I cut {x} back after {n} weeks?",
            "How deep do {x} go in bed {n}?",
            "Snails eat my {x} in row {n}, what helps?",
            "Do {x} take {n} hours of shade?",
            "Which neighbour suits {x} in bed {n}?",
            "How far apart do {n} {x} stand?",
        ),
    ),
    "sailor": (
        ("jib", "mainsail", "anchor", "tiller", "genoa", "halyard", "spinnaker", "rudder", "dinghy", "compass", "winch", "mooring"),
        (
            "How do I trim the {x} at force {n}?",
            "The {x} slips at {n} knots, why?",
            "When do I check the {x} on day {n}?",
            "May the {x} stay out for {n} nights?",
            "What holds the {x} at {n} degrees of heel?",
            "How do I stow the {x} in {n} minutes?",
            "Who handles the {x} with {n} people aboard?",
        ),
    ),
}  # fmt: skip
MANNERS = {
    "cook": "Kitchen note: {x} first, heat second. For {n} take {n} handfuls of {x}, a pinch of salt, and taste before you serve. Enjoy, said the cook.",
    "gardener": "Garden log, bed by bed: {x} like patience. Count {n} steps, loosen the soil around {x}, water slowly, and look again tomorrow. Green greetings.",
    "sailor": "Aye. Logbook entry {n}: ease the {x}, watch the wind, then make the {x} fast again. One hand for yourself, one for the boat. Fair winds.",
}


def conversations(person: str) -> list[dict[str, Any]]:
    """Dated conversations of a person, whose answers have a manner of their own; in ChatGPT-like order of time."""
    things, questions = PEOPLE[person]
    draw = random.Random(person)
    pairs = [(thing, question) for thing in things for question in questions]
    draw.shuffle(pairs)
    rows = []
    for number, (thing, question) in enumerate(pairs[:TALKS]):
        amount = draw.randint(2, 9)
        rows.append(
            {
                "id": f"{person}-{number}",
                "created_at": 1_780_000_000 + number * 86_400,
                "messages": [
                    {"role": "user", "content": question.format(x=thing, n=amount)},
                    {"role": "assistant", "content": MANNERS[person].format(x=thing, n=amount)},
                ],
            }
        )
    return rows


def h2q(root: Path, *words: str, ok: tuple[int, ...] = (0,)) -> Any:
    """What `h2q-tui WORDS --json` prints; its progress goes to the log of the workspace."""
    began = time.monotonic()
    log = root.with_name(f"{root.name}.log")
    with log.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "tui.cli.main", *words, "--json", "--data-dir", str(root)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "H2Q_NO_WATCH": "1", "LC_ALL": "C.UTF-8"},
            check=False,
        )
    print(f"{root.name}: {' '.join(words[:3])}: {done.returncode}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
    if done.returncode not in ok:
        raise SystemExit(f"{words}: {done.returncode}; see {log}")
    return json.loads(done.stdout)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """A hive of its own workspace."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tui.cli.main", "hive", "serve", "--port", str(PORT), "--min-adapters", "3",
         "--data-dir", str(root)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    server.stdout.readline()
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        server.terminate()
        server.wait(30)


def train(root: Path, person: str, base: Path, steps: int, batch: int) -> dict[str, Any]:
    """Imports, builds and trains; returns the report."""
    root.mkdir(parents=True, exist_ok=True)
    talks = root.with_name(f"{person}.jsonl")
    talks.write_text("".join(json.dumps(row) + "\n" for row in conversations(person)), encoding="utf-8")
    h2q(root, "memory", "import", str(talks))
    h2q(root, "corpus", "build")
    report = h2q(root, "train", "--mode", "lora", "--model", str(base), "--max-steps", str(steps), "--batch-size", str(batch), "--min-corpus", "20", ok=(0, 3, 5))  # fmt: skip
    return dict(report)


def union_of_tests(roots: list[Path], file: Path) -> int:
    """Writes the test sets of the workspaces into one file; returns their conversations."""
    rows = []
    for root in roots:
        with MemoryStore(Workspace(root).memory_db, readonly=True) as store:
            window = current_window(store)
            assert window is not None, root
            for row in held_out_rows(store, window.id):
                messages = [{"role": one.role, "content": one.content} for one in row.messages]
                rows.append(json.dumps({"id": row.id, "messages": messages}))
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--base", type=Path, help="another base model than SmolLM2")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True)
    base = (arguments.base or smollm2_path()).resolve()
    figures: dict[str, Any] = {
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "people": {},
        "union": {},
    }
    roots = {person: folder / person for person in PEOPLE}
    for person, root in roots.items():
        report = train(root, person, base, arguments.steps, arguments.batch_size)
        figures["people"][person] = {
            "adapter": report["new_model"],
            "pairs": report["pairs"],
            "seconds": report["training_time_s"],
            "decision": (report.get("verdict") or {}).get("decision"),
            "delta": (report.get("verdict") or {}).get("delta"),
        }
    with served(folder / "hive") as url:
        for person, root in roots.items():
            name = figures["people"][person]["adapter"]
            h2q(root, "hive", "upload", name, "--server", url, "--user-id", person, "--yes")
        joined = subprocess.run(
            [sys.executable, "-c", _AGGREGATE, url], capture_output=True, check=True, text=True
        )
        figures["joined"] = json.loads(joined.stdout)
        for person, root in roots.items():
            fetched = h2q(root, "hive", "download")
            figures["people"][person]["fetched"] = fetched["name"]
            verdict = h2q(root, "validate", "--base", str(base), "--new", fetched["name"], ok=(0, 3, 5))
            figures["people"][person]["joined_verdict"] = {
                name: verdict.get(name) for name in ("decision", "delta", "p_value", "n_groups", "reasons")
            }
    first = next(iter(roots))
    union = folder / "union.jsonl"
    figures["union"]["conversations"] = union_of_tests(list(roots.values()), union)
    candidate = roots[first] / "adapters" / figures["people"][first]["fetched"]
    for against in ("", *roots):
        name = figures["people"][against]["adapter"] if against else ""
        result = run_gate(
            GateRequest(
                workspace=str(roots[first]),
                base=str(base),
                candidate=str(candidate),
                served=str(roots[against] / "adapters" / name) if against else "",
                held_out=str(union),
            )
        )
        figures["union"][f"joined against {against or 'the base'}"] = msgspec.to_builtins(result)
    print(json.dumps(figures, indent=2))
    return 0


_AGGREGATE = """
import sys
import msgspec
from engine.core.settings import Settings
from engine.hive.address import hive_address
from engine.hive.client import HiveClient
from engine.hive.protocol import AggregateRequest
with HiveClient(hive_address(Settings(), sys.argv[1])) as client:
    done = client.aggregate(AggregateRequest())
print(msgspec.json.encode(done).decode())
"""


if __name__ == "__main__":
    sys.exit(main())
