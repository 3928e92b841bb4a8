"""What the model in training writes: it costs little time, changes no step, and goes with its source."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.core.chat import ChatMessage
from engine.core.i18n import set_language
from engine.core.paths import Workspace
from engine.models.base_models import find_base
from engine.models.chat_template import ChatTemplate
from engine.models.hf import load_chat_template
from engine.models.native_format import load_model
from engine.models.token_bytes import token_bytes
from engine.pipeline.erase_files import erase_files
from engine.pipeline.erased_text import ErasedText
from engine.pipeline.own_question import best_question
from engine.runs.context import RunContext
from engine.runs.events import Log, ModelSample
from engine.runs.kinds import TrainMode, TrainParams
from engine.training import samples as samples_module
from engine.training.lora.train import train_lora
from engine.training.native import train_native
from engine.training.recipe import Phase
from engine.training.samples import ModelSamples, SamplePrompt
from engine.training.scratch import train_scratch
from tests.unit.test_lora import recipe as lora_recipe
from tests.unit.test_lora import rows
from tests.unit.training_run import events, new_run, text_file, tiny
from tui.tabs.train.samples import sample_rows

QUESTION = "How do I make tea?"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples after each step, whatever they cost."""
    monkeypatch.setattr(samples_module, "TIME_SHARE", 1e9)
    monkeypatch.setattr(samples_module, "GROWTH", 0.0)


def run_with(root: Path, every_s: float) -> RunContext:
    return new_run(root, TrainParams(mode=TrainMode.SCRATCH, settings={"sample_every": every_s}))


def train(root: Path, phase: Phase, every_s: float, hf: Path) -> tuple[RunContext, str]:
    """A short training of a phase; its run and the hash of the trained weights."""
    root.mkdir(exist_ok=True)
    ctx, out = run_with(root, every_s), root / "out"
    text = text_file(root)
    if phase is Phase.SCRATCH:
        return ctx, train_scratch(ctx, tiny(), [text], name="m", out=out).weights_sha256
    if phase is Phase.NATIVE:
        train_scratch(run_with(root / "base", 0), tiny(), [text], name="b", out=root / "b")
        load_model(root / "b")
        recipe, data = tiny(Phase.NATIVE), rows(root)
        card = train_native(ctx, recipe, root / "b", data, [text], name="m", out=out, question=QUESTION)
        return ctx, card.weights_sha256
    found = find_base(Workspace(root), str(hf))
    card = train_lora(ctx, lora_recipe(), found, rows(root), name="m", out=out, question=QUESTION)
    return ctx, card.weights_sha256


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("phase", list(Phase))
def test_a_training_with_samples_computes_the_same_weights(
    tmp_path: Path, phase: Phase, knowing_hf: Path
) -> None:
    quiet, expected = train(tmp_path / "without", phase, 0.0, knowing_hf)
    ctx, weights = train(tmp_path / "with", phase, 1e-9, knowing_hf)
    assert weights == expected
    assert events(quiet, ModelSample) == []
    found = events(ctx, ModelSample)
    assert {sample.step for sample in found} >= {0, 1, 6}, "before the first step, between steps, at the end"
    assert {sample.own for sample in found} == {True, False}
    assert all(sample.prompt and len(sample.text) <= 48 * 16 for sample in found)
    if phase is not Phase.SCRATCH:
        assert {sample.prompt for sample in found if sample.own} == {QUESTION}


def no_text(_model: object, _prompt: Sequence[int], _until: float) -> str:
    return "x"


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("engine.training.samples.time.perf_counter", clock)
    return clock


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 60.0), st.floats(0.001, 30.0), st.integers(1, 3))
def test_samples_take_a_small_share_of_the_time_and_their_number_stays_bounded(
    step_s: float, token_s: float, prompts: int
) -> None:
    clock, emitted = Clock(), list[object]()

    def slow(_model: object, _prompt: Sequence[int], until: float) -> str:
        for number in range(48):
            if number >= 16 and clock.now >= until:
                break
            clock.now += token_s
        return "x"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.samples.time.perf_counter", clock)
        ctx = _Journal(emitted)
        writer = ModelSamples(ctx, "lora", [SamplePrompt("a", (1,))] * prompts, slow)  # type: ignore[arg-type]
        began, model = clock.now, nn.Linear(1, 1)
        for step in range(2000):
            clock.now += step_s
            writer.emit_if_due(model, step)
    passed = clock.now - began
    taken = passed - 2000 * step_s
    assert taken <= samples_module.TIME_SHARE * passed + 17 * token_s, "one sample may be paid back later"
    assert len(emitted) <= 400


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 60.0), st.floats(0.01, 30.0), st.floats(0.5, 1.0))
def test_a_sample_whose_time_is_known_waits_until_its_share_has_room(
    step_s: float, token_s: float, known: float
) -> None:
    """A short run of a slow model writes nothing; with a time that was guessed too low, one sample is above."""
    clock, emitted, shares = Clock(), list[object](), list[float]()

    def slow(_model: object, _prompt: Sequence[int], until: float) -> str:
        for number in range(48):
            if number >= 16 and clock.now >= until:
                break
            clock.now += token_s
        return "x"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.samples.time.perf_counter", clock)
        writer = ModelSamples(_Journal(emitted), "lora", [SamplePrompt("a", (1,))], slow)  # type: ignore[arg-type]
        writer.expected_s = 16 * token_s * known
        began, model = clock.now, nn.Linear(1, 1)
        for step in range(2000):
            clock.now += step_s
            writer.emit_if_due(model, step)
            passed = clock.now - began
            taken = passed - (step + 1) * step_s
            shares.append(taken - samples_module.TIME_SHARE * passed)
    allowed = token_s + 16 * token_s * (1 - known)
    assert max(shares) <= allowed
    assert emitted or passed * samples_module.TIME_SHARE < 16 * token_s


def test_the_first_sample_of_a_large_model_is_expected_to_take_what_it_takes() -> None:
    """Seconds in the journals of five runs on SmolLM2-135M, two of them next to other work."""
    measured = sorted((1.926, 2.391, 2.736, 2.989, 3.243))
    expected = samples_module.expected_seconds(2 * 134.5e6, layers=30)
    assert measured[2] < expected < 2 * measured[0]


class _Journal:
    """The part of a run that samples use."""

    def __init__(self, emitted: list[object]) -> None:
        self.emitted = emitted
        self.settings = new_settings()

    def emit(self, event: object) -> None:
        self.emitted.append(event)


def new_settings() -> object:
    from engine.core.settings import Settings

    return Settings(sample_every=1.0)


def test_a_failing_sample_ends_the_samples_and_not_the_run(tmp_path: Path, clock: Clock) -> None:
    def fails(_model: object, _prompt: Sequence[int], _until: float) -> str:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    ctx, model = run_with(tmp_path, 1.0), nn.Linear(1, 1)
    writer = ModelSamples(ctx, "native", [SamplePrompt("a", (1,))], fails)
    for step in range(3):
        clock.now += 1000
        writer.emit_if_due(model, step)
        assert model.training
    assert events(ctx, ModelSample) == []
    assert [line.text for line in events(ctx, Log)] == ["no more samples in this run: RuntimeError"]


def test_the_random_numbers_of_a_training_are_not_drawn(tmp_path: Path, clock: Clock) -> None:
    def draws(_model: object, _prompt: Sequence[int], _until: float) -> str:
        torch.rand(5)
        return "x"

    ctx, model = run_with(tmp_path, 1.0), nn.Linear(1, 1)
    writer = ModelSamples(ctx, "native", [SamplePrompt("a", (1,))], draws)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    clock.now += 1000
    assert writer.emit_if_due(model, 1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_that_gives_no_numbers_writes_nothing(tmp_path: Path) -> None:
    def nan(_tokens: Sequence[int]) -> torch.Tensor:
        return torch.full((5,), float("nan"))

    assert samples_module._follow(nan, [1], 9, frozenset(), 1e18) == ([], False)


def test_the_cache_gives_what_the_whole_prefix_gives(tmp_path: Path) -> None:
    ctx = run_with(tmp_path, 0.0)
    train_scratch(ctx, tiny(), [text_file(tmp_path)], name="m", out=tmp_path / "m")
    model = load_model(tmp_path / "m")[0].eval()
    prompt, seen = list(b"abc"), list[int]()

    def whole(tokens: Sequence[int]) -> torch.Tensor:
        seen.extend(tokens)
        with torch.no_grad():
            logits: torch.Tensor = model(torch.tensor([seen]))[0, -1]
        return logits

    with torch.no_grad():
        text = samples_module.complete_bytes(model, prompt, 1e18)
    ids, ended = samples_module._follow(whole, prompt, samples_module.BYTES, frozenset((256, 258)), 1e18)
    written = bytes(id_ for id_ in ids if id_ < 256).decode("utf-8", "replace").replace("\ufffd", "")
    assert text == samples_module._marked(written, ended=ended)


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> ChatTemplate:
    return load_chat_template(find_base(Workspace(tmp_path_factory.mktemp("ws")), str(knowing_hf)))


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60))
def test_the_table_of_bytes_decodes_as_the_tokenizer_does(tiny_chat: ChatTemplate, text: str) -> None:
    table = token_bytes(tiny_chat)
    assert table is not None
    ids = tiny_chat.encode(text)
    assert table.decode(ids).replace("\ufffd", "") == tiny_chat.decode(ids).replace("\ufffd", "")


def test_the_table_decodes_a_real_vocabulary_in_a_few_megabytes(tmp_path: Path, smollm2_gguf: Path) -> None:
    chat = load_chat_template(find_base(Workspace(tmp_path), str(smollm2_gguf)))
    table = token_bytes(chat)
    assert table is not None
    assert len(table._data) + table._ends.nbytes < 4_000_000
    for text in ("def f(x):\n    return x**2  # 你好", "naïve café — “so” 👍🏽", "\t  a\n\n b"):
        assert table.decode(chat.encode(text)) == chat.decode(chat.encode(text)) == text


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([], ""),
        (["short", "x" * 500, "two\nlines of text here"], ""),
        (
            ["How do I make tea?", "What is the best way to learn to swim?", "x" * 159],
            "What is the best way to learn to swim?",
        ),
    ],
)
def test_a_question_of_one_line_and_a_good_length_is_chosen(texts: list[str], chosen: str) -> None:
    assert best_question(texts) == chosen


def test_a_sample_of_an_erased_question_is_erased_with_its_answer(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    secret, other = "Where did I hide the key of the shed?", "Hello! Who are you?"
    for step, (prompt, text) in enumerate(itertools.product((secret, other), ("Under the pot.",))):
        ctx.emit(ModelSample(phase="native", step=step, prompt=prompt, text=text, own=prompt == secret))
    assert ctx.run_dir.events_path in erase_files(Workspace(tmp_path), ErasedText(["c1"], [secret]))
    found = events(ctx, ModelSample)
    assert [(sample.prompt, sample.text) for sample in found] == [("", ""), (other, "Under the pot.")]


def test_the_tokens_of_a_prompt_are_those_that_chat_sends(tmp_path: Path, tiny_chat: ChatTemplate) -> None:
    table = token_bytes(tiny_chat)
    writer = samples_module.adapter_samples(
        run_with(tmp_path, 1.0), "lora", ["zh"], QUESTION, tiny_chat, table
    )
    assert [prompt.text for prompt in writer._prompts] == [QUESTION, "你好！你是谁？"]
    asked = [ChatMessage(role="user", content=QUESTION)]
    assert list(writer._prompts[0].ids) == tiny_chat.prompt(asked)


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("phase", list(Phase))
def test_the_question_that_is_set_stands_in_for_the_held_out_one(
    tmp_path: Path, phase: Phase, knowing_hf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, bool | int | float | str] = {"sample_every": 1e-9, "sample_question": "Who am I?"}
    monkeypatch.setattr(
        "tests.unit.test_samples.run_with",
        lambda root, _every: new_run(root, TrainParams(mode=TrainMode.SCRATCH, settings=asked)),
    )
    ctx, _weights = train(tmp_path, phase, 1e-9, knowing_hf)
    assert {sample.prompt for sample in events(ctx, ModelSample) if sample.own} == {"Who am I?"}
    assert not any("Who am I?" in line.text for line in events(ctx, Log))


@pytest.mark.parametrize(("stop", "text"), [(3, "aaa"), (None, "a" * 12 + "…")])
def test_a_completion_that_the_model_does_not_end_is_marked(stop: int | None, text: str) -> None:
    count = 0

    def next_logits(_tokens: Sequence[int]) -> torch.Tensor:
        nonlocal count
        count += 1
        return torch.full((256,), -1e9).index_fill(0, torch.tensor([0 if count - 1 == stop else 97]), 0.0)

    ids, ended = samples_module._follow(next_logits, [1], 12, frozenset((0,)), float("inf"))
    assert samples_module._marked(bytes(ids).decode(), ended=ended) == text


@pytest.mark.parametrize("width", [30, 53])
def test_a_long_prompt_is_cut_with_an_ellipsis_in_each_language(width: int) -> None:
    sample = ModelSample(
        phase="lora",
        step=107,
        prompt="Running in the dark along the river: head torch or vest?" * 2,
        text="x",
        seconds=0.1,
    )
    for language in ("en", "zh"):
        set_language(language)
        try:
            head = sample_rows([sample], width)[0]
        finally:
            set_language("en")
        assert head.plain.endswith("…")
        assert head.cell_length <= width
