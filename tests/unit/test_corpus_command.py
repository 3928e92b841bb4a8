"""`h2q-tui corpus` on the command line: JSON, decisions, exports, broken files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from tests.cli import run_cli
from tests.corpus_store import conversation, distinct, memory


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    result = run_cli(*arguments)
    return result.code, result.out, result.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    talks = [distinct(n, at=1e9 + n) for n in range(70)]
    talks += [
        conversation(
            "p",
            "我的邮箱是a@b.com，怎么改？",
            "在设置里点账户，再点邮箱，填上新的地址即可。",
            "谢谢",
            "不客气",
            at=1e8,
        ),
        conversation("l", "谢谢", "不客气"),
    ]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
    return tmp_path


def test_stats_has_the_documented_fields(folder: Path) -> None:
    code, out, _err = run("corpus", "stats", "--json", "--data-dir", str(folder))
    figures = json.loads(out)
    assert code == 0
    wanted = {
        "collected",
        "dropped",
        "redacted",
        "duplicates",
        "pending",
        "accepted",
        "rejected",
        "train",
        "test",
    }
    assert wanted <= figures.keys()
    assert (figures["collected"], figures["dropped"], figures["accepted"]) == (72, {"low_value": 1}, 71)
    assert (figures["train"], figures["test"], figures["redacted"]) == (51, 20, 1)


def test_decisions_are_listed_undone_and_redone(folder: Path) -> None:
    def do(*words: str) -> str:
        code, out, err = run("corpus", *words, "--data-dir", str(folder))
        assert code == 0, err
        return out

    listed = json.loads(do("list", "--filter", "state:accepted", "--limit", "2", "--json"))
    ids = [row["id"] for row in listed["rows"]]
    assert listed["total"] == 71
    assert do("reject", *ids, "--reason", "dull") == "2 rejected\n"
    assert json.loads(do("stats", "--json"))["rejected"] == 2
    assert do("undo") == "2 decisions undone\n"
    assert do("redo") == "2 decisions redone\n"
    assert do("accept", "--filter", "state:rejected") == "2 accepted\n"
    (dropped,) = json.loads(do("list", "--filter", "state:dropped", "--json"))["rows"]
    do("restore", dropped["id"])
    assert "accepted" in do("show", dropped["id"])


def test_a_filter_shows_its_count_before_it_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def do(*words: str) -> tuple[int, str, str]:
        return run("corpus", *words, "--data-dir", str(folder))

    assert do("reject", "--filter", "state:accepted", "--dry-run") == (0, "71 would be rejected\n", "")
    monkeypatch.setattr("sys.stdin", _Terminal("n\ny\n"))
    code, _out, err = do("reject", "--filter", "state:accepted")
    assert code != 0 and "Reject 71 conversations?" in err
    assert json.loads(do("stats", "--json")[1])["rejected"] == 0
    assert do("reject", "--filter", "state:accepted")[1].strip() == "71 rejected"
    assert do("accept", "--filter", "state:rejected", "--yes") == (0, "71 accepted\n", "")


@pytest.mark.parametrize("line", ["-stge:near", "stage:bogus", "len>abc", "lang:zh -state:done"])
@pytest.mark.parametrize("words", [["reject", "--filter"], ["list", "--filter"], ["rule", "--"]])
def test_an_invalid_filter_decides_nothing(folder: Path, words: list[str], line: str) -> None:
    given = [words[0], "--data-dir", str(folder)]
    given += ["--", line] if words[1] == "--" else [f"--filter={line}"]
    code, _out, err = run("corpus", *given)
    assert code == 2 and "is not part of a filter" in err
    stats = run("corpus", "stats", "--json", "--data-dir", str(folder))[1]
    assert json.loads(stats)["rejected"] == 0


def test_full_width_characters_in_a_filter_are_accepted(folder: Path) -> None:
    def total(line: str) -> int:
        out = run("corpus", "list", f"--filter={line}", "--json", "--data-dir", str(folder))[1]
        return int(json.loads(out)["total"])

    for wide, narrow in (
        ("lang：ZH", "lang:zh"),
        ("len＞40", "len>40"),
        ("－state：Accepted", "-state:accepted"),
    ):
        assert total(wide) == total(narrow) > 0


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("format_", ["messages", "alpaca", "sharegpt", "prompt-completion"])
def test_exports_are_redacted_and_mask_small_talk(folder: Path, format_: str) -> None:
    file = folder / f"out.{format_}"
    code, out, _err = run(
        "corpus",
        "export",
        "--format",
        format_,
        "--output",
        str(file),
        "--json",
        "--data-dir",
        str(folder),
    )
    assert code == 0 and json.loads(out)["conversations"] == 71
    text = file.read_text("utf-8")
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    assert len(rows) == json.loads(out)["rows"] == 71
    assert "a@b.com" not in text and "‹EMAIL›" in text
    if format_ in ("alpaca", "prompt-completion"):
        assert "不客气" not in {row.get("output", row.get("completion")) for row in rows}
    if format_ == "messages":
        polite = next(row for row in rows if len(row["messages"]) == 4)
        assert [message.get("weight") for message in polite["messages"]] == [None, None, None, 0]
    assert json.loads((folder / "dataset_info.json").read_text("utf-8"))["out"]["file_name"] == file.name


def test_scan_prints_one_document_with_a_row_for_each_input(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    texts = [
        "谢谢！",
        "电话13800138000打不通",
        "今天天气很好，我们去公园散步吧。",
        "今天天气很好,我们去公园散步吧",
    ]
    file.write_text(
        "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)), "utf-8"
    )
    seen = {}
    for stage in ("low_value", "sensitive", "near"):
        code, out, _err = run("corpus", "scan", str(file), "--stage", stage, "--json")
        assert code == 0
        seen[stage] = json.loads(out)["rows"]
        assert [row["id"] for row in seen[stage]] == [0, 1, 2, 3]
        assert all(row.keys() == {"id", "action", "reason", "score", "spans", "twin"} for row in seen[stage])
    assert [row["action"] for row in seen["low_value"]] == ["drop", "keep", "keep", "keep"]
    assert seen["sensitive"][1]["spans"] == [{"type": "PHONE", "start": 2, "end": 13}]
    assert [(row["action"], row["twin"]) for row in seen["near"]][2:] == [("keep", None), ("drop", 2)]


@pytest.mark.parametrize("line", ['{"id": 1}', "[]", "{", '{"id": 1, "text": 5}', "\x00"])
def test_a_broken_row_is_reported_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1, "text": "x"}\n\n' + line + "\n", "utf-8")
    code, _out, err = run("corpus", "scan", str(file), "--stage", "near")
    assert code == 2 and f"{file}, line 3" in err and "Traceback" not in err


def test_missing_input_is_one_sentence(tmp_path: Path) -> None:
    for words in (
        ("scan", str(tmp_path / "none.jsonl"), "--stage", "near"),
        ("scan", str(tmp_path), "--stage", "colour"),
        ("export", "--format", "yaml"),
        ("show", "zzz"),
        ("accept",),
        ("list", "--order", "random"),
    ):
        code, _out, err = run("corpus", *words, "--data-dir", str(tmp_path / "w"))
        assert code == 2 and err.count("\n") <= 3 and "Traceback" not in err


def test_edits_flags_and_rules(folder: Path) -> None:
    def do(*words: str, code: int = 0) -> str:
        got, out, err = run("corpus", *words, "--data-dir", str(folder))
        assert got == code, err
        return out if code == 0 else err

    do("edit", "c00003", "--turn", "2", "--text", "这就是它的新意思。")
    assert "{+" in do("show", "c00003", "--diff") and "(edited)" in do("show", "c00003")
    assert do("edit", "c00003", "--turn", "2", "--text", "这就是它的新意思。") == "nothing changed\n"
    assert "has no turn 9" in do("edit", "c00003", "--turn", "9", "--text", "x", code=2)
    assert do("flag", "c00003", "c00004") == "2 flagged\n"
    assert json.loads(do("list", "--filter", "flag:", "--json"))["total"] == 2
    assert do("flag", "--filter", "flag:", "--off") == "2 flags removed\n"
    assert do("rule", "source:test -lang:xx") == "rule added; it rejects 71 conversations\n"
    assert do("rules") == "source:test -lang:xx\n"
    assert do("undo") == "72 decisions undone\n"
    assert do("rules") == "no rules\n"
