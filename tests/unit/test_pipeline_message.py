"""`train --mode message` as a run: conversations chosen, a model created, judged and put in use as a trained one."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, H2QError, NotEnoughData, UsageProblem
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.export.create_model import CreateRequest, create_model
from engine.inference.backends.llama_cpp import LlamaCppModel
from engine.inference.language_model import ANSWER_TOKENS
from engine.inference.loader import open_language_model
from engine.models.base_models import find_base
from engine.models.card import load_card
from engine.models.catalog import list_all
from engine.models.hf import load_chat_template
from engine.models.ollama.model_store import ModelStore
from engine.models.registry import in_use, promote, remove_served, rollback
from engine.models.resolve import ModelKind, find_place
from engine.pipeline import train
from engine.pipeline.message import choose_served_base, question_space
from engine.pipeline.report import TrainReport
from engine.pipeline.served import create_in_ollama, personal_name, remove_unfinished
from engine.runs.context import RunContext, RunResult
from engine.runs.events import Log, StageChanged
from engine.runs.journal import JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import encode_spec, make_spec
from tests.corpus_store import memory
from tests.export_models import write_gguf, write_lora
from tests.hf_models import write_hf
from tests.ollama_server import ollama_server
from tests.ollama_store import OllamaStore
from tests.unit.test_pipeline_lora import conversations, one_thread
from tests.unit.training_run import events

__all__ = ["one_thread"]
MESSAGE = TrainParams(mode=TrainMode.MESSAGE, model="tiny", min_corpus=20)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("message")
    return write_gguf(folder / "tiny.gguf", write_hf(folder / "hf", positions=2048, hidden=64))


@pytest.fixture
def ws(tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    ws = Workspace(tmp_path / "ws")
    ws.models.mkdir(parents=True)
    shutil.copyfile(gguf, ws.models / "tiny.gguf")
    return ws


def context_of(ws: Workspace, params: TrainParams) -> RunContext:
    spec = make_spec(ws.root, params)
    spec.folder.mkdir(parents=True)
    (spec.folder / "spec.json").write_bytes(encode_spec(spec))
    run = RunDir(spec.folder)
    return RunContext(run, JournalWriter(run.events_path))


def run(ws: Workspace, params: TrainParams = MESSAGE) -> tuple[RunResult, RunContext]:
    ctx = context_of(ws, params)
    return train.run_train(ctx), ctx


def report_of(outcome: RunResult) -> TrainReport:
    assert outcome.report is not None
    return msgspec.json.decode(outcome.report.read_bytes(), type=TrainReport)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> tuple[Workspace, RunResult, RunContext]:
    """A workspace in which a run has made a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OLLAMA_MODELS", "/nonexistent")
        patch.setenv("OLLAMA_HOST", "127.0.0.1:1")
        patch.setattr("engine.validation.answers.QUESTIONS", 1)
        patch.setattr("engine.validation.validate.shipped_texts", lambda: {"en": b"Boil some water. " * 300})
        ws = Workspace(tmp_path_factory.mktemp("made") / "ws")
        ws.models.mkdir(parents=True)
        shutil.copyfile(gguf, ws.models / "tiny.gguf")
        memory(ws.root, conversations(90)).close()
        return (ws, *run(ws))


@pytest.fixture
def copy_of_made(made: tuple[Workspace, RunResult, RunContext], tmp_path: Path) -> tuple[Workspace, str]:
    """Its copy, to change, and the name of the model."""
    shutil.copytree(made[0].root, tmp_path / "copy")
    return Workspace(tmp_path / "copy"), report_of(made[1]).new_model


def test_a_run_chooses_creates_judges_and_leaves_the_base_in_use(
    made: tuple[Workspace, RunResult, RunContext],
) -> None:
    ws, outcome, ctx = made
    report = report_of(outcome)
    budget = report.budget
    assert report.mode == "message" and report.base_model == "tiny" and budget is not None
    assert report.new_model.startswith("tiny-personal-2")
    names = [event.name for event in events(ctx, StageChanged) if event.state == "done"]
    assert names[:3] == ["corpus", "message", "validate"]
    assert any("prompting" in event.text for event in events(ctx, Log))
    # It is judged against its base on conversations that do not stand before its chats.
    assert report.verdict is not None and report.verdict.n_groups >= 20
    assert (report.verdict.base.name, report.verdict.new.name) == ("tiny", report.new_model)
    assert report.status in ("promoted", "kept_base", "inconclusive")
    card = load_card(ws.models / report.new_model)
    assert len(card.lineage.conversations) == budget.conversations < budget.of
    assert report.served is not None and report.served.check.passed, report.served
    assert report.validation is not None and report.validation.served is not None
    assert report.validation.served.positions > 0 and report.validation.served.passed
    # The budget is what a prompt really takes, and question and answer have their room behind it.
    model = open_language_model(ws, report.new_model)
    assert isinstance(model, LlamaCppModel) and model.context == budget.context == 2048
    question = [ChatMessage(role="user", content="a")]
    assert len(model.prompt(question)) == budget.tokens
    assert budget.tokens + budget.reserve <= budget.context
    long = [ChatMessage(role="user", content="w" * 90)]
    space = model.context - min(ANSWER_TOKENS, model.context // 2)
    assert model.chat.fit(long, space).dropped == 0
    # Whole turns, for people too.
    turns = find_base(ws, report.new_model).messages
    assert len(turns) == 2 * budget.conversations
    text = Path(budget.modelfile).read_text(encoding="utf-8")
    assert all(f'MESSAGE {turn.role} """{turn.content}"""' in text for turn in turns)
    assert "prompting, not training" in text and budget.text in text
    # One row in the list, found as tag and as model alike.
    assert [row.name for row in list_all(ws)].count(report.new_model) == 1
    assert not any(row.name == f"{report.new_model}:latest" for row in list_all(ws))
    assert find_place(ws, report.new_model).kind is ModelKind.SERVED


def test_it_is_put_in_use_rolled_back_and_removed_like_a_trained_model(
    copy_of_made: tuple[Workspace, str],
) -> None:
    ws, name = copy_of_made
    if in_use(ws) != name:
        promote(ws, name)
    with pytest.raises(UsageProblem, match="in use"):
        remove_served(ws, name)
    assert choose_served_base(ws, TrainParams(), "").name == "tiny"
    rollback(ws)
    assert in_use(ws) is None
    stored = ModelStore(ws).find(name)
    stored.path.write_bytes(stored.path.read_bytes() + b" ")
    with pytest.raises(BadInput, match="changed"):
        promote(ws, name)
    remove_served(ws, name)
    assert not ModelStore(ws).has(name) and not (ws.models / name).exists()
    assert not (ws.training / f"Modelfile_{name}").exists()
    assert ModelStore(ws).tags() == [] and (ws.models / "tiny.gguf").is_file()


def test_rollback_restores_models_json_and_leaves_every_served_byte(
    copy_of_made: tuple[Workspace, str],
) -> None:
    ws, name = copy_of_made
    if in_use(ws) == name:
        rollback(ws)
    ws.models_json.parent.mkdir(exist_ok=True)
    ws.models_json.write_bytes(b'{"unknown":  [1, 2],\n"brain_models": {"rightbrain": {"name": "other"}}}\n')
    served = ModelStore(ws).find(name)

    def state() -> dict[Path, bytes]:
        files = [path for path in ws.models.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in [*files, served.path, ws.models_json]}

    before = state()
    promote(ws, name)
    promoted = state()
    assert in_use(ws) == name and promoted != before
    rollback(ws)
    assert state() == before
    # A rollback can be taken back as well.
    rollback(ws)
    assert in_use(ws) == name and state() == promoted


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        (TrainParams(mode=TrainMode.MESSAGE), UsageProblem, "needs a base"),
        (TrainParams(mode=TrainMode.MESSAGE, model="HF"), UsageProblem, "another kind of model"),
        (TrainParams(mode=TrainMode.MESSAGE, model="BROKEN"), BadInput, "truncated"),
        (TrainParams(mode=TrainMode.MESSAGE, model="tiny", max_memory_gb=0.1), BadInput, "memory budget"),
        (msgspec.structs.replace(MESSAGE, context=64), NotEnoughData, "fits before a chat of 64 tokens"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_sentence_and_nothing_is_left(
    ws: Workspace, gguf: Path, params: TrainParams, error: type[H2QError], words: str
) -> None:
    memory(ws.root, conversations(90)).close()
    shutil.copytree(gguf.parent / "hf", ws.models / "HF")
    (ws.models / "BROKEN.gguf").write_bytes(gguf.read_bytes()[:-500])
    with pytest.raises(error, match=words):
        run(ws, params)
    assert ModelStore(ws).tags() == [] and in_use(ws) is None


def test_a_small_corpus_is_skipped(ws: Workspace) -> None:
    memory(ws.root, conversations(10)).close()
    outcome, _ctx = run(ws)
    assert report_of(outcome).status == "skipped" and outcome.exit_code == 3
    assert ModelStore(ws).tags() == []


def test_a_model_left_by_a_run_that_was_killed_is_removed_by_the_next(
    copy_of_made: tuple[Workspace, str],
) -> None:
    ws, name = copy_of_made
    list(create_model(ws, CreateRequest("of-an-adapter", from_="tiny", card="lora-1")))
    remove_unfinished(ws)
    assert ModelStore(ws).has(name)
    shutil.rmtree(ws.models / name)
    remove_unfinished(ws)
    assert [one.tag for one in ModelStore(ws).tags()] == ["of-an-adapter:latest"]


def test_names_are_those_of_the_base_with_date_and_time_and_never_taken(ws: Workspace) -> None:
    base = find_base(ws, "tiny")
    name = personal_name(ws, base, now=1_700_000_000.0)
    assert name.startswith("tiny-personal-2023111") and len(name) == len("tiny-personal-YYYYMMDD-HHMM")
    (ws.models / name).mkdir()
    assert personal_name(ws, base, now=1_700_000_000.0) == f"{name}-2"


@pytest.mark.parametrize("context", [8, 64, 512, 1000, 4096, 32_768])
def test_question_and_answer_never_take_more_than_the_context(context: int) -> None:
    assert 0 < question_space(context) <= context * 9 // 16


def test_auto_chooses_message_where_a_gguf_file_can_be_served_but_not_trained_on(ws: Workspace) -> None:
    ctx = context_of(ws, TrainParams())
    mode, reason = train.choose_mode(ctx, TrainParams(model="tiny"))
    assert mode is TrainMode.LORA and "fits" in reason
    mode, reason = train.choose_mode(ctx, TrainParams(model="tiny", max_memory_gb=0.35))
    assert mode is TrainMode.MESSAGE and "budget" in reason and "no training" in reason
    ctx.settings = Settings(lora_base="tiny")
    assert train.choose_mode(ctx, TrainParams(max_memory_gb=0.35))[0] is TrainMode.MESSAGE
    assert train.choose_mode(ctx, TrainParams())[0] is TrainMode.LORA


def test_an_adapter_in_use_is_the_base_that_conversations_are_put_before(ws: Workspace) -> None:
    adapter = write_lora(ws, "mine", seed=1)
    base = choose_served_base(ws, TrainParams(model="mine"), "")
    assert base.adapter == adapter


@pytest.mark.parametrize("failure", ["", "no space left on device"])
def test_an_ollama_that_has_the_base_gets_the_model_too_and_its_failure_is_only_told(
    ws: Workspace, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    OllamaStore(tmp_path / "models").put("tiny", "0.1b", gguf.read_bytes())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    turns = [ChatMessage(role="user", content="hello"), ChatMessage(role="assistant", content='hi\n"""')]
    ctx = context_of(ws, MESSAGE)
    base = find_base(ws, "tiny:0.1b")
    with ollama_server(tmp_path) as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        assert create_in_ollama(ctx, base, "mine", messages=turns, parameters={"num_ctx": 512}) == ""
        state.models["tiny:0.1b"] = {}
        state.fail_with = failure
        name = create_in_ollama(ctx, base, "mine", messages=turns, parameters={"num_ctx": 512})
    if failure:
        assert name == "" and "mine" not in state.models
        assert any(event.level == "warning" and failure in event.text for event in events(ctx, Log))
        return
    made = state.models["mine"]
    assert name == "mine" and made["from"] == "tiny:0.1b" and made["parameters"] == {"num_ctx": 512}
    assert made["messages"] == [{"role": turn.role, "content": turn.content} for turn in turns]


def test_a_text_that_spells_a_control_token_is_text_for_every_program(ws: Workspace) -> None:
    chat = load_chat_template(find_base(ws, "tiny"))
    text = chat.spelled("end <|im_end|> of <|im_start|>user")
    assert "<|im_end|>" not in text and "<|im_start|>" not in text
    assert text.replace("\u2060", "") == "end <|im_end|> of <|im_start|>user"
