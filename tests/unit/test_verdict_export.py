"""A verdict as files: Markdown whose texts stay texts, JSON, and samples with the keys of lm-evaluation-harness."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest

from engine.core.chat import Role
from engine.core.errors import UsageProblem
from engine.core.paths import Workspace
from engine.memory.records import Conversation, Turn
from engine.pipeline.erase_files import erase_files
from engine.pipeline.erased_text import ErasedText
from engine.validation.report import AnswerPair, BlindVote, ValidationReport, decode_report
from engine.validation.summary_text import plain_sentences
from engine.validation.verdict_export import export_verdict, verdict_folder
from engine.validation.votes import case_key, new_is_left, remove_vote, save_vote
from tests.tui.validation_reports import make_report

SAMPLE_KEYS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
}  # fmt: skip
"""What lm_eval/evaluator.py puts into a sample, before its metrics."""
NASTY = "```\n# not a title\n<script>`` | * _ [x](y)\n````"


def told(id_: str) -> Conversation:
    turns = (Turn(role=Role.USER, text="怎么?"), Turn(role=Role.ASSISTANT, text=f"the answer of {id_}"))
    return Conversation(id=id_, source="text", turns=turns)


def report_with(*texts: str) -> ValidationReport:
    answers = [
        AnswerPair(question=t, wanted=t, base=t, new=t, conversation=f"c{n}") for n, t in enumerate(texts)
    ]
    return msgspec.structs.replace(make_report(), answers=answers)


def test_samples_have_the_keys_and_sums_of_the_harness(tmp_path: Path) -> None:
    report = report_with("q", "问")
    files = export_verdict(report, tmp_path / "out", told)
    assert {path.parent.name for path in files} == {"out", "native-1", "native-2"}
    for name, side in (("native-1", "base"), ("native-2", "new")):
        results = json.loads(next((tmp_path / "out" / name).glob("results_*.json")).read_text())
        assert results["model_name"] == name
        for task in ("h2q_held_out", "h2q_answers"):
            lines = next((tmp_path / "out" / name).glob(f"samples_{task}_*.jsonl")).read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            assert (
                results["n-samples"][task]["effective"] == len(rows) == (6 if task == "h2q_held_out" else 2)
            )
            for number, row in enumerate(rows):
                assert set(row) >= SAMPLE_KEYS and set(row["metrics"]) <= set(row)
                assert row["doc_id"] == number and row["arguments"]["gen_args_0"]["arg_0"]
                assert all(isinstance(said, str) for said in row["resps"][0] + row["filtered_resps"])
        nats = sum(getattr(case, side) * case.bytes for case in report.cases)
        bits = nats / sum(case.bytes for case in report.cases) / math.log(2)
        assert results["results"]["h2q_held_out"]["bits_per_byte,none"] == pytest.approx(bits)
    assert decode_report((tmp_path / "out" / "verdict.json").read_bytes()) == report


def test_no_text_ends_its_fence(tmp_path: Path) -> None:
    export_verdict(report_with(NASTY), tmp_path / "out", lambda _id: None)
    lines = (tmp_path / "out" / "verdict.md").read_text().splitlines()
    assert lines.count("`````text") == 4 and lines.count("`````") == 4


def test_an_export_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    report = make_report()
    export_verdict(report, tmp_path / "out", told)
    export_verdict(report, tmp_path / "out", told)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name in ("mine", "file", "link"):
        with pytest.raises(UsageProblem):
            export_verdict(report, tmp_path / name, told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "mine", "out"]
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    "place", ["letter.txt", "folder/letter.txt", "{model}/letter.txt", "{model}/samples_x.jsonl/letter.txt"]
)
def test_an_export_with_something_foreign_in_it_is_left_alone(tmp_path: Path, place: str) -> None:
    export_verdict(make_report(), tmp_path / "out", told)
    model = next(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    letter = tmp_path / "out" / place.format(model=model)
    letter.parent.mkdir(exist_ok=True)
    letter.write_text("dear")
    with pytest.raises(UsageProblem, match="holds something else"):
        export_verdict(make_report(), tmp_path / "out", told)
    assert letter.read_text() == "dear"


@pytest.mark.parametrize("name", ["", "..", "a/b", "ollama:qwen3:0.6b", "/abs/path"])
def test_model_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    report = make_report()
    base = msgspec.structs.replace(report.verdict.base, name=name)
    report = msgspec.structs.replace(report, verdict=msgspec.structs.replace(report.verdict, base=base))
    for path in export_verdict(report, tmp_path / "out", told):
        assert path.resolve().is_relative_to((tmp_path / "out").resolve()) and path.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_an_export_that_quotes_an_erased_conversation_goes(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    secret = "my grandmother's recipe for plum dumplings with poppy seed"
    export_verdict(report_with(secret), verdict_folder(ws, make_report()), told)
    other = msgspec.structs.replace(report_with("something else"), run_id="other", cases=[])
    export_verdict(other, verdict_folder(ws, other), told)
    erase_files(ws, ErasedText(["c77"], [secret]))
    assert [path.name for path in (ws.exports / "verdicts").iterdir()] == ["other"]


def test_what_a_person_put_beside_such_an_export_stays_unless_it_quotes_the_conversation(
    tmp_path: Path,
) -> None:
    ws = Workspace(tmp_path)
    secret = "my grandmother's recipe for plum dumplings with poppy seed"
    folder = verdict_folder(ws, make_report())
    export_verdict(report_with(secret), folder, told)
    inner = next(entry for entry in folder.iterdir() if entry.is_dir())
    (folder / "thesis.tex").write_text("the table of chapter 3")
    (inner / "plot.py").write_text("import matplotlib")
    (folder / "quote.txt").write_text(secret)
    erase_files(ws, ErasedText(["c77"], [secret]))
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert left == sorted(["thesis.tex", f"{inner.name}/plot.py"])


def test_a_vote_replaces_the_one_before_and_leaves_unknown_fields(tmp_path: Path) -> None:
    file = tmp_path / "report_1.json"
    content = {
        "later": [1],
        "validation": json.loads(msgspec.json.encode(make_report())) | {"later": {"x": 1}},
    }
    file.write_text(json.dumps(content))
    save_vote(file, BlindVote(conversation="#1", choice="new", at=1.0))
    save_vote(file, BlindVote(conversation="#2", choice="base", at=2.0))
    save_vote(file, BlindVote(conversation="#1", choice="equal", at=3.0))
    saved = json.loads(file.read_text())
    assert [(vote["conversation"], vote["choice"]) for vote in saved["validation"]["votes"]] == [
        ("#2", "base"),
        ("#1", "equal"),
    ]
    assert saved["later"] == [1] and saved["validation"]["later"] == {"x": 1}
    report = decode_report(json.dumps(saved["validation"]).encode())
    assert "Blind votes: 0 for the new model, 1 for the base, 1 equal." in plain_sentences(report)
    remove_vote(file, "#1")
    remove_vote(file, "#2")
    assert json.loads(file.read_text())["validation"] == content["validation"] | {"votes": []}


def test_the_key_of_a_case_does_not_depend_on_other_cases() -> None:
    report = report_with("a", "b")
    assert [case_key(report, number) for number in (1, 2)] == ["c0", "c1"]
    assert case_key(make_report(), 1) == "#1"
    assert {new_is_left("r", f"c{n}") for n in range(20)} == {True, False}
