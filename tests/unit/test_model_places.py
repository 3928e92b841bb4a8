"""Names of models: every command finds the same one, wherever it lies, and says what there is when it finds none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.export.source import find_export_source
from engine.inference.backends.hf import HFModel
from engine.inference.backends.llama_cpp import LlamaCppModel
from engine.inference.loader import open_language_model
from engine.models.add import add_model
from engine.models.base_models import find_base, model_path
from engine.models.card import CARD_FILE, ModelCard, encode_card
from engine.models.catalog import list_all, list_bases
from engine.models.gguf import architectures, tokenizer
from engine.models.gguf.header import READ_ARCHITECTURES, READ_PRE_TOKENIZERS, read_summary
from engine.models.registry import in_use, list_models, list_outside, promote, remove_model, rollback
from engine.models.resolve import ModelKind, ModelOrigin, find_place
from tests.export_models import write_gguf
from tests.hf_models import write_hf
from tests.models import talk, write_tiny
from tests.ollama_store import OllamaStore
from tui.cli.main import main
from tui.tabs.chat.reader import read_models

Make = Callable[[Path, Workspace, pytest.MonkeyPatch], str]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf(tmp_path_factory.mktemp("hf") / "tiny")


@pytest.fixture(scope="module")
def gguf(directory: Path) -> Path:
    return write_gguf(directory.parent / "tiny.gguf", directory)


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub cache and no Ollama but those of the test."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def put_into_hub(hub: Path, identity: str, *, commit: str = "a" * 40, ref: bool = True) -> Path:
    """The folder of a snapshot in the layout of the hub's cache."""
    repository = hub / ("models--" + identity.replace("/", "--"))
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    if ref:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
    return snapshot


def _link_all(source: Path, snapshot: Path) -> None:
    """The files of `source` as the hub's cache has them: links to files that are named by their hash."""
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(exist_ok=True)
    for number, file in enumerate(sorted(source.iterdir()) if source.is_dir() else [source]):
        blob = blobs / f"{number:064x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)


def _by_path(directory: Path, gguf: Path, tmp: Path, ws: Workspace, kind: str) -> str:
    match kind:
        case "directory":
            return str(directory)
        case "GGUF file":
            return str(gguf)
        case "added directory":
            return add_model(ws, directory).reference
        case "added GGUF file":
            return add_model(ws, gguf, "mine").reference
        case "linked GGUF file":
            return add_model(ws, gguf, "linked", link=True).reference
        case "linked directory":
            return add_model(ws, directory, "linked-folder", link=True).reference
        case "file put into models":
            ws.models.mkdir(parents=True)
            (ws.models / "dropped.Q8_0.gguf").write_bytes(gguf.read_bytes())
            return "dropped.Q8_0"
        case "hub id":
            _link_all(directory, put_into_hub(tmp / "hub", "org/tiny"))
            return "org/tiny"
        case "hub id without a branch":
            _link_all(directory, put_into_hub(tmp / "hub", "org/old", ref=False))
            return "org/old"
        case "hub id of one GGUF file":
            _link_all(gguf, put_into_hub(tmp / "hub", "org/tiny-GGUF"))
            return "org/tiny-GGUF"
        case "GGUF file of a hub id":
            _link_all(gguf, put_into_hub(tmp / "hub", "org/more-GGUF"))
            return "org/more-GGUF/tiny.gguf"
        case "Ollama tag":
            OllamaStore(tmp / "ollama").put("tinyq", "0.1b", gguf.read_bytes())
            return "tinyq:0.1b"
        case "prefixed Ollama tag":
            OllamaStore(tmp / "ollama").put("tinyq", "latest", gguf.read_bytes())
            return "ollama:tinyq"
    raise AssertionError(kind)


KINDS = (
    "directory",
    "GGUF file",
    "added directory",
    "added GGUF file",
    "linked GGUF file",
    "linked directory",
    "file put into models",
    "hub id",
    "hub id without a branch",
    "hub id of one GGUF file",
    "GGUF file of a hub id",
    "Ollama tag",
    "prefixed Ollama tag",
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_trained_on_can_be_talked_to_judged_and_exported(
    directory: Path, gguf: Path, tmp_path: Path, ws: Workspace, kind: str
) -> None:
    name = _by_path(directory, gguf, tmp_path, ws, kind)
    base = find_base(ws, name)
    assert base.dimensions.hidden == 48
    model = open_language_model(ws, name)
    assert isinstance(model, LlamaCppModel if base.is_gguf else HFModel) and model.name == base.name
    judged = find_base(ws, str(model_path(ws, name)))
    assert (judged.sha256, judged.source.startswith("ollama:")) == (base.sha256, "Ollama" in kind)
    assert find_export_source(ws, name).base.sha256 == base.sha256
    # Its name in a card finds it again from another process.
    assert find_base(ws, base.source).sha256 == base.sha256
    assert find_base(ws, find_place(ws, name).reference).sha256 == base.sha256


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("directory", "GGUF file")])
def test_what_is_found_without_a_path_is_listed_with_its_figures(
    directory: Path, gguf: Path, tmp_path: Path, ws: Workspace, kind: str
) -> None:
    name = _by_path(directory, gguf, tmp_path, ws, kind)
    (row,) = list_bases(ws)
    assert find_base(ws, row.name).sha256 == find_base(ws, name).sha256
    assert row.architecture == "qwen3" and row.context == 512 and row.bytes > 10_000
    assert row.weight_format == "F32" and row.problem == ""


def test_a_relative_path_starts_where_it_is_told_to(directory: Path, ws: Workspace) -> None:
    place = find_place(ws, "tiny", directory.parent)
    assert (place.path, place.origin) == (directory.resolve(), ModelOrigin.PATH)
    assert find_place(ws, "./tiny.gguf", directory.parent).kind is ModelKind.GGUF


def test_a_name_of_the_workspace_comes_before_a_folder_of_the_same_name(
    directory: Path, ws: Workspace
) -> None:
    write_tiny(ws.models / "tiny", [talk("a", "b")], steps=1)
    assert find_place(ws, "tiny", directory.parent).kind is ModelKind.NATIVE
    assert find_place(ws, "./tiny", directory.parent).kind is ModelKind.HF


@pytest.mark.parametrize("asked", ["tinny", "tiny2", "other/tiny", "tinyq"])
def test_an_unknown_name_is_answered_with_the_nearest(
    gguf: Path, ws: Workspace, tmp_path: Path, asked: str
) -> None:
    add_model(ws, gguf, "tiny")
    with pytest.raises(BadInput, match=r"\(.*tiny.*\)") as caught:
        find_place(ws, asked)
    assert caught.value.hint == "h2q-tui models list"


@pytest.mark.parametrize(
    "asked, sentence",
    [("/nowhere/m.gguf", "does not exist"), ("./nowhere", "does not exist"), ("smollm2", "not fetched yet"), (".", "no model in this")],
)  # fmt: skip
def test_what_is_not_there_is_said(ws: Workspace, tmp_path: Path, asked: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        find_place(ws, asked, tmp_path)


def test_a_copied_model_stays_when_its_source_goes_and_a_linked_one_does_not(
    directory: Path, ws: Workspace, tmp_path: Path
) -> None:
    source = write_hf(tmp_path / "source")
    add_model(ws, source, "copied")
    add_model(ws, source, "linked", link=True)
    (source / "config.json").unlink()
    assert find_base(ws, "copied").parameters > 0
    with pytest.raises(BadInput, match="no model named linked"):
        find_base(ws, "linked")


def test_removing_a_link_leaves_the_model_itself(gguf: Path, directory: Path, ws: Workspace) -> None:
    for source in (gguf, directory):
        add_model(ws, source, "linked", link=True)
        remove_model(ws, "linked")
        assert source.exists() and list_bases(ws) == []
    add_model(ws, gguf, "copied")
    remove_model(ws, "copied")
    assert list(ws.models.iterdir()) == []


@pytest.mark.parametrize("name", ["tiny", "taken"])
def test_a_name_is_given_once(gguf: Path, ws: Workspace, name: str) -> None:
    write_tiny(ws.models / "taken", [talk("a", "b")], steps=1)
    add_model(ws, gguf)
    with pytest.raises(UsageProblem, match="already"):
        add_model(ws, gguf, name)


@pytest.mark.parametrize(
    "content", ["nothing", "a text file", "an empty folder", "pickles", "a config without weights"]
)
def test_what_is_no_model_is_not_added(ws: Workspace, tmp_path: Path, content: str) -> None:
    source = tmp_path / "source"
    if content == "a text file":
        source.write_text("GGU")
    elif content != "nothing":
        source.mkdir()
        if content != "an empty folder":
            (source / "config.json").write_text("{}")
        if content == "pickles":
            (source / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadInput):
        add_model(ws, source)
    assert not ws.models.exists() or list(ws.models.iterdir()) == []


def test_a_model_trained_elsewhere_is_listed_once_it_is_linked(ws: Workspace, tmp_path: Path) -> None:
    write_tiny(tmp_path / "outside", [talk("a", "b")], steps=1)
    add_model(ws, tmp_path / "outside", "friend", link=True)
    assert [card.name for card in list_models(ws)] == ["friend"]
    assert [row.kind for row in list_all(ws)] == [ModelKind.NATIVE]


def test_a_merged_adapter_that_was_added_stands_once_in_every_list_and_is_a_base(
    ws: Workspace, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "mine-hf"
    shutil.copytree(directory, merged)
    card = ModelCard(
        name="mine",
        mode="lora",
        base="tiny",
        created_at=1.0,
        parameters=9,
        context=64,
        languages=[],
        train_bytes=1,
        loss=1.0,
    )
    (merged / CARD_FILE).write_bytes(encode_card(card))
    add_model(ws, merged, "mine")
    add_model(ws, directory, "plain")
    assert [(row.name, row.kind, row.architecture) for row in list_all(ws)] == [
        ("mine", ModelKind.HF, "qwen3"),
        ("plain", ModelKind.HF, "qwen3"),
    ]
    assert [base.name for base in list_bases(ws)] == ["mine", "plain"]
    chats = read_models(ws)
    assert chats.names == ["mine", "plain"]
    assert not chats.is_small("mine")
    with pytest.raises(SystemExit):
        main(["models", "list", "--json", "--data-dir", str(ws.root)])
    listed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in (*listed["models"], *listed["bases"])] == ["mine", "plain"]


def test_a_model_that_was_written_outside_is_listed_once_and_can_be_in_use(
    ws: Workspace, tmp_path: Path
) -> None:
    write_tiny(ws.models / "mine", [talk("a", "b")], steps=1)
    for place in ("one/mine", "two/mine", "two/我的模型"):
        write_tiny(tmp_path / place, [talk("a", "b")], steps=1)
    names = [
        list_outside(ws, tmp_path / place) for place in ("one/mine", "two/mine", "two/mine", "two/我的模型")
    ]
    assert names == ["mine-2", "mine-3", "mine-3", "model"]
    assert list_outside(ws, ws.models / "mine") == "mine"
    assert {card.name for card in list_models(ws)} == {"mine", "mine-2", "mine-3", "model"}
    promote(ws, str(tmp_path / "two" / "mine"))
    assert in_use(ws) == "mine-3"
    with pytest.raises(UsageProblem, match="in use"):
        remove_model(ws, "mine-3")
    rollback(ws)
    remove_model(ws, "mine-3")
    assert (tmp_path / "two" / "mine" / "h2q.json").is_file()


def test_a_base_stays_while_an_adapter_needs_it(gguf: Path, ws: Workspace) -> None:
    base = find_base(ws, add_model(ws, gguf, "base").reference)
    card = {
        "name": "mine",
        "mode": "lora",
        "base_path": base.source,
        "created_at": 1,
        "parameters": 1,
        "context": 1,
    }
    (ws.adapters / "mine").mkdir(parents=True)
    (ws.adapters / "mine" / "h2q.json").write_text(json.dumps(card))
    with pytest.raises(UsageProblem, match="mine"):
        remove_model(ws, "base")


def test_the_hub_cache_is_where_its_variables_say(
    directory: Path, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variables, hub in (
        ({"HF_HOME": str(tmp_path / "home")}, tmp_path / "home" / "hub"),
        ({"XDG_CACHE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg" / "huggingface" / "hub"),
        ({"HOME": str(tmp_path / "user")}, tmp_path / "user" / ".cache" / "huggingface" / "hub"),
    ):
        for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        _link_all(directory, put_into_hub(hub, "org/tiny"))
        assert find_place(ws, "org/tiny").origin is ModelOrigin.HUB


@pytest.mark.parametrize("name", ["../x/y", "org/../..", "models--a/b", "a/b/c/d.gguf", "-a/b"])
def test_no_name_leaves_the_hub_cache(ws: Workspace, tmp_path: Path, name: str) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput):
        find_place(ws, name)


def test_the_light_table_of_formats_is_that_of_the_readers() -> None:
    assert set(READ_ARCHITECTURES) == set(architectures._READ)
    assert set(READ_PRE_TOKENIZERS) == set(tokenizer.PRE_TOKENIZERS)


def test_the_real_file_is_described(smollm2_gguf: Path) -> None:
    summary = read_summary(smollm2_gguf)
    assert summary.parameters == 134_515_008
    assert (summary.architecture, summary.quantization, summary.context) == ("llama", "Q4_1", 8192)
    assert summary.problem == ""
