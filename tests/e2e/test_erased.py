"""Erased is erased: a marker that went through every command is in no byte of the workspace after `memory forget`.

Every command is either used here or listed with the reason why no text of a conversation gets through it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from bench.damaged_memory import WORDS
from engine.core.paths import Workspace
from engine.corpus.training_set import write_dataset
from engine.memory.store import MemoryStore
from engine.runs.rundir import list_runs
from tests.cli import CliResult, run_cli
from tests.leftover_texts import places_with
from tui.cli.main import build

MARKER = "ZEBRAQUARTZ"
FILE_MARKER = "Affair-with-Quokka"
SPOKEN = "Мой секрет"
"""Not ASCII: JSON escapes it."""
USED = {
    "memory import", "memory add", "memory forget", "memory list", "corpus build", "corpus edit", "corpus undo",
    "corpus redo", "corpus reject", "corpus accept", "corpus rule", "corpus export", "corpus threshold", "corpus scan",
    "corpus flag", "corpus preview", "backup create", "backup restore", "runs list", "runs show",
}  # fmt: skip
NO_TEXT = {
    "demo": "uses the shipped sample",
    "check": "writes nothing",
    "monitor": "writes nothing",
    "sample": "writes the shipped sample outside the workspace",
    "paths": "writes nothing",
    "reset": "deletes; has a test of its own",
    "train": "writes a dataset, a report, a journal and logs, which are written below without the training",
    "evolve": "writes datasets, journals and reports of the kinds that `train` writes",
    "validate": "writes a report of the kind that `train` writes",
    "promote": "writes the name of a model",
    "verdicts list": "only reads",
    "verdicts show": "only reads",
    "verdicts export": "writes what a report holds; test_verdict_export erases it",
    "rollback": "writes the name of a model",
    "chat": "keeps chats, which test_chats and test_chat_tab erase",
    "export": "writes weights and figures",
    "hive aggregate": "writes weights and figures",
    "hive upload": "sends weights and figures; writes names, hashes and ids",
    "hive status": "writes an address",
    "hive list": "writes an address",
    "hive download": "writes weights of others",
    "backup list": "writes nothing",
    "memory stats": "writes nothing",
    "memory show": "writes nothing",
    "corpus stats": "writes nothing",
    "corpus list": "writes nothing",
    "corpus show": "writes nothing",
    "corpus restore": "writes a decision as `corpus accept` does",
    "corpus patterns": "writes nothing",
    "corpus rules": "writes nothing",
    "runs attach": "writes nothing",
    "runs pause": "writes the name of a command",
    "runs resume": "continues a run",
    "runs stop": "writes the name of a command",
    "runs checkpoint": "writes the name of a command",
    "runs set": "writes settings",
    "models list": "writes nothing",
    "models show": "writes nothing",
    "models fetch": "writes a model of others",
    "models add": "writes a model of others",
    "models remove": "deletes",
    "schedule weekly": "writes the options of a training",
    "schedule daily": "writes the options of a training",
    "schedule show": "writes nothing",
    "schedule remove": "deletes",
    "schedule catch-up": "trains as `train` does",
    "hive serve": "keeps adapters and figures of others; no text of a conversation",
    "hive token create": "writes a name and a hash",
    "hive token list": "writes nothing",
    "hive token revoke": "writes a name",
    "ollama serve": "keeps nothing of a chat; the turns of a created model, which test_erase_served erases",
    "web": "shows the app, and writes what the app does",
    "notify setup": "writes addresses and keys",
    "notify test": "sends a fixed sentence",
    "notify import": "writes addresses and keys",
    "notify channels": "writes nothing",
    "notify remove": "deletes",
    "notify list": "writes nothing",
    "notify outbox": "writes nothing",
    "notify ack": "writes the name of an alert",
    "notify mute": "writes the name of an alert",
}


def commands() -> Iterator[str]:
    def walk(command: object, names: tuple[str, ...]) -> Iterator[str]:
        children = getattr(command, "commands", None)
        if children is None:
            yield " ".join(names)
            return
        for name, child in children.items():
            yield from walk(child, (*names, name))

    return walk(typer.main.get_command(build()), ())


def test_every_command_is_used_or_passes_no_text_on() -> None:
    assert sorted(commands()) == sorted(USED | NO_TEXT.keys())


def rows(number: int) -> list[dict[str, object]]:
    words = WORDS[:12]
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": f"How does the {words[n % 12]} number {n} of part {number} work, and why?",
                },
                {
                    "role": "assistant",
                    "content": f"It works by the {words[(n * 5) % 12]}, {n * 37 + number} times a day.",
                },
            ]
        }
        for n in range(30)
    ]


def secret_rows() -> list[dict[str, object]]:
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": f"My safe is opened by {MARKER}.\n{SPOKEN} {MARKER}; call +86 13812345678, please?",
                },
                {"role": "assistant", "content": f"I shall remember {MARKER} and tell nobody about it."},
                {"role": "user", "content": MARKER},
                {"role": "assistant", "content": f"Yes: {MARKER}"},
            ]
        },
        {
            "title": f"About {MARKER}",
            "messages": [
                {"role": "user", "content": "What did I say about the secret of the safe?"},
                {"role": "assistant", "content": f"{SPOKEN}: the word {MARKER} opens it."},
            ],
        },
    ]


class Session:
    """Commands on one workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ws = Workspace(folder / "ws")

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> CliResult:
        result = run_cli(*words, "--data-dir", str(self.ws.root))
        assert result.code in codes, (words, result)
        return result

    def json(self, *words: str) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.run(*words, "--json").out)
        return value


@pytest.fixture
def seeded(tmp_path: Path) -> Session:
    """A workspace in which the marker went through every command that passes a text on."""
    session = Session(tmp_path)
    plain = tmp_path / "plain.jsonl"
    plain.write_text("\n".join(map(json.dumps, rows(1))), encoding="utf-8")
    secret = tmp_path / f"{FILE_MARKER}.jsonl"
    secret.write_text("\n".join(map(json.dumps, secret_rows())), encoding="utf-8")
    archive = tmp_path / f"{FILE_MARKER}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(f"{FILE_MARKER}/chat.jsonl", secret.read_bytes())
    session.run("memory", "import", str(plain))
    session.run("memory", "import", str(secret))
    session.run("memory", "import", str(archive))
    session.run("memory", "import", str(secret), "--map", f"{MARKER}=user")
    secret.write_text("{broken", encoding="utf-8")
    session.run("memory", "import", str(secret), codes=(2, 5))
    session.run(
        "memory", "add", "--user", f"Remember {MARKER}", "--assistant", "Done.", "--title", f"{MARKER} again"
    )
    session.run("corpus", "build")
    ids = [row["id"] for row in session.json("memory", "list", "--match", MARKER)["conversations"]]  # type: ignore[attr-defined]
    session.run("corpus", "edit", ids[0], "--turn", "1", "--text", f"edited with {MARKER}", codes=(0, 2))
    session.run("corpus", "undo")
    session.run("corpus", "redo")
    session.run("corpus", "reject", ids[0], "--reason", f"it names {MARKER}")
    session.run("corpus", "accept", *ids)
    session.run("corpus", "flag", *ids)
    session.run("corpus", "rule", f"{MARKER} stage:near", codes=(0, 2))
    session.run("corpus", "rule", MARKER)
    session.run("corpus", "undo")
    session.run("corpus", "rule", f"{MARKER} len>9")
    session.run("corpus", "rule", f"{MARKER} len>9", "--off")
    other = next(row["id"] for row in session.json("memory", "list")["conversations"] if row["id"] not in ids)  # type: ignore[attr-defined]
    session.run("corpus", "reject", other, "--reason", f"like {MARKER}")
    session.run("corpus", "edit", other, "--turn", "1", "--text", f"never {MARKER}")
    session.run("corpus", "undo")
    session.run("corpus", "threshold", "0.7")
    session.run("corpus", "build")
    for format_ in ("messages", "alpaca", "sharegpt", "prompt-completion"):
        session.run("corpus", "export", "--format", format_)
    session.run("corpus", "scan", str(plain), codes=(0, 1, 2))
    session.run("corpus", "preview", ids[0])
    session.run("backup", "create")
    with MemoryStore(session.ws.memory_db) as store:
        write_dataset(store, session.ws, "seeded")
    session.run("backup", "restore", "--yes")
    session.run("runs", "list")
    session.run("runs", "show", "latest")
    _write_logs(session.ws)
    return session


def _write_logs(workspace: Workspace) -> None:
    """What processes write when something goes wrong, and what a report and a journal quote."""
    quoted = f'ValueError: {{"content": {json.dumps(SPOKEN)} {MARKER} opens}}'
    run = list_runs(workspace)[0]
    with run.log_path.open("a", encoding="utf-8") as log:
        log.write(f"Traceback\n  {quoted}\n")
    (workspace.runs / ".service.log").write_text(f"unknown model: {secret_text()!r}", encoding="utf-8")
    (workspace.root / "app.log").write_text(f"KeyError: {secret_text()!r}", encoding="utf-8")
    answer = {"question": MARKER, "wanted": f"Yes: {MARKER}", "base": "yes", "new": "no"}
    report = {
        "validation": {
            "verdict": {"decision": "keep"},
            "cases": [],
            "answers": [answer, {"question": "kept?"}],
        }
    }
    (workspace.training / "report_x.json").write_text(json.dumps(report), encoding="utf-8")
    with run.events_path.open("a", encoding="utf-8") as journal:
        for number, text in enumerate((secret_text()[:40], f"the answer was: {secret_text()}")):
            record = {
                "v": 1,
                "seq": 10**6 + number,
                "t": 1.0,
                "kind": "log",
                "data": {"level": "info", "text": text},
            }
            journal.write(json.dumps(record) + "\n")


def secret_text() -> str:
    messages = secret_rows()[0]["messages"]
    assert isinstance(messages, list)
    return str(messages[0]["content"])


def test_nothing_of_it_is_left_after_forget(seeded: Session) -> None:
    wanted = [MARKER, FILE_MARKER, SPOKEN]
    before = places_with(seeded.ws.root, wanted)
    for part in (
        "memory.db",
        "backups",
        "runs",
        "training/export",
        "training/report",
        "app.log",
        ".service.log",
    ):
        assert any(part in place for place in before), (part, before)
    assert len([place for place in before if "training/export" in place]) == 4, before

    report = seeded.json("memory", "forget", "--match", MARKER, "--yes")

    assert places_with(seeded.ws.root, wanted) == []
    assert report["left"] == []
    assert len(report["runs"]) >= 4  # type: ignore[arg-type]
    assert seeded.json("memory", "stats")["conversations"] == 30
    kept = json.loads((seeded.ws.training / "report_x.json").read_text(encoding="utf-8"))
    assert kept["validation"]["answers"] == [{"question": "kept?"}]
    for name, count in (("alpaca", 20), ("messages", 20)):
        (path,) = (seeded.ws.training / "export").glob(f"*{name}*")
        text = path.read_text(encoding="utf-8")
        exported = json.loads(text) if path.suffix == ".json" else text.splitlines()
        assert len(exported) >= count
    seeded.run("corpus", "build")
    seeded.run("check", codes=(0, 1, 2, 5))


@pytest.mark.parametrize("everything", [False, True])
def test_nothing_of_it_is_left_after_reset(seeded: Session, everything: bool) -> None:
    seeded.run("reset", "--yes", *(["--all"] if everything else []))
    if everything:
        assert not seeded.ws.root.exists() or not any(seeded.ws.root.iterdir())
        return
    left = places_with(seeded.ws.root, [MARKER, FILE_MARKER, SPOKEN])
    assert left and all(place.startswith(("memory/", "backups/")) for place in left), left


def test_what_the_person_wrote_is_named_and_kept(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.run("memory", "add", "--user", f"Remember {MARKER}", "--assistant", "Done.")
    own = session.ws.training_data / "own.txt"
    own.write_text(f"my notes on {MARKER}", encoding="utf-8")
    assert session.json("memory", "forget", "--match", MARKER, "--yes")["left"] == [str(own)]
    assert own.exists()
