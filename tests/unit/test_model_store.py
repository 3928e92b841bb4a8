"""The workspace's own model store: what is written, what is refused, and what a change leaves behind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, H2QError
from engine.core.paths import Workspace
from engine.export.create_model import CreateRequest, create_model, human_number
from engine.export.gguf_writer import write_gguf_adapter
from engine.export.served_details import show_model
from engine.models.base_models import find_base
from engine.models.catalog import list_all
from engine.models.gguf.header import read_summary
from engine.models.gguf.model import open_gguf
from engine.models.ollama.layout import manifest_path
from engine.models.ollama.model_store import ModelExists, ModelStore, UnknownModel
from engine.models.resolve import ModelOrigin, find_place
from engine.models.weights import LoraPair
from tests.export_models import write_arch, write_gguf

TURNS = [ChatMessage(role="user", content="hi\nFROM /etc"), ChatMessage(role="assistant", content='a """ b')]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_gguf(folder / "base.gguf", write_arch(folder / "hf", "llama"))


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    return Workspace(tmp_path / "ws")


def make(ws: Workspace, request: CreateRequest) -> list[str]:
    return list(create_model(ws, request))


def put(ws: Workspace, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    ModelStore(ws).put_blob(digest, [data[:7], data[7:]])
    return digest


def entries(ws: Workspace) -> set[str]:
    """Every file of the store except its lock."""
    return {str(path.relative_to(ws.ollama)) for path in ws.ollama.rglob("*") if path.is_file()} - {".lock"}


def write_adapter(folder: Path, base: Path, width: int | None = None) -> Path:
    opened = open_gguf(base)
    name = "model.layers.0.self_attn.q_proj.weight"
    hidden = width or opened.config.hidden_size
    pair = LoraPair(torch.ones(2, hidden), torch.ones(64, 2), 1.0)
    write_gguf_adapter(folder / "adapter.gguf", opened.config, {name: pair}, name="a")
    return folder / "adapter.gguf"


def test_a_created_model_is_found_by_every_command_with_what_it_was_made_of(
    ws: Workspace, gguf: Path
) -> None:
    statuses = make(
        ws,
        CreateRequest(
            "mine", from_=str(gguf), messages=TURNS, system="Be kind.", parameters={"num_ctx": 777}
        ),
    )
    assert statuses[-2:] == ["writing manifest", "success"]
    assert find_place(ws, "mine").origin is ModelOrigin.SERVER
    base = find_base(ws, "mine")
    assert (base.system, base.served_context) == ("Be kind.", 777)
    assert [(one.role, one.content) for one in base.messages] == [(one.role, one.content) for one in TURNS]
    assert base.path.samefile(gguf)
    assert [row.name for row in list_all(ws) if row.origin is ModelOrigin.SERVER] == ["mine:latest"]
    shown = show_model(ws, ModelStore(ws).find("mine"))
    assert shown["details"]["family"] == "llama" and shown["model_info"]["general.architecture"] == "llama"
    assert shown["template"] == open_gguf(gguf).chat_template
    assert shown["messages"] == [{"role": one.role, "content": one.content} for one in TURNS]


def test_a_model_from_another_takes_over_what_the_request_does_not_replace(ws: Workspace, gguf: Path) -> None:
    make(ws, CreateRequest("one", from_=str(gguf), messages=TURNS, system="A", parameters={"num_ctx": 512}))
    make(ws, CreateRequest("two:v1", from_="one", system="B", parameters={"temperature": 0.5}))
    stored = ModelStore(ws).find("two:v1")
    assert stored.system == "B" and stored.parameters == {"num_ctx": 512, "temperature": 0.5}
    assert len(stored.messages) == 2 and stored.details["parent_model"] == "one"
    # The base is one blob for both.
    assert len({path for path in entries(ws) if path.startswith("blobs")}) == 1 + 1 + 2 + 2 + 2


@pytest.mark.parametrize("quant", ["f16", "q8_0", "Q4_0"])
def test_a_model_is_quantized_as_it_is_created(ws: Workspace, gguf: Path, quant: str) -> None:
    make(ws, CreateRequest("small", from_=str(gguf), quantize=quant))
    assert read_summary(find_base(ws, "small").path).quantization == quant.upper()


def test_uploaded_files_become_a_model_with_its_adapter(ws: Workspace, gguf: Path, tmp_path: Path) -> None:
    model, adapter = put(ws, gguf.read_bytes()), put(ws, write_adapter(tmp_path, gguf).read_bytes())
    make(ws, CreateRequest("up", files={"m.gguf": model}, adapters={"a.gguf": adapter}))
    base = find_base(ws, "up")
    assert base.lora is not None and base.lora.read_bytes() == (tmp_path / "adapter.gguf").read_bytes()


def test_an_uploaded_hugging_face_directory_is_converted(ws: Workspace, tmp_path: Path) -> None:
    folder = write_arch(tmp_path / "hf", "qwen3")
    files = {path.name: put(ws, path.read_bytes()) for path in folder.iterdir()}
    make(ws, CreateRequest("up", files=files))
    assert read_summary(find_base(ws, "up").path).architecture == "qwen3"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (CreateRequest("a"), "neither is given"),
        (CreateRequest("a b", from_="BASE"), "not a valid Ollama name"),
        (CreateRequest("../a", from_="BASE"), "not a valid Ollama name"),
        (CreateRequest("a", from_="nothing-there"), "nothing-there"),
        (CreateRequest("a", from_="BASE", quantize="q4_K_M"), "q4_K_M is not made here"),
        (CreateRequest("a", from_="BASE", template="{{ .Prompt }}"), "templates in Go"),
        (CreateRequest("a", from_="BASE", parameters={"num_ctx": -1}), "num_ctx"),
        (CreateRequest("a", from_="BASE", messages=[ChatMessage(role="boss", content="x")]), "boss"),
        (CreateRequest("a", files={"m": "sha256:" + "0" * 64}), "not uploaded"),
        (CreateRequest("a", files={"m": "sha256:xyz"}), "not a digest"),
        (CreateRequest("a", files={"../m": "sha256:" + "0" * 64}), "without folders"),
        (CreateRequest("a", files={"m": "TRUNCATED"}), "truncated"),
        (CreateRequest("a", files={"m": "TEXT"}), "not a GGUF file"),
        (CreateRequest("a", files={"m": "MODEL"}, adapters={"x": "OTHER"}), "does not fit its base model"),
        (CreateRequest("a", files={"m": "MODEL"}, adapters={"x": "MODEL"}), "not a LoRA adapter"),
        (CreateRequest("a", files={"m": "FITTING"}), "not one GGUF model"),
    ],
)
def test_what_cannot_be_created_is_refused_in_a_sentence_and_leaves_the_store_as_it_was(
    ws: Workspace, gguf: Path, tmp_path: Path, request_: CreateRequest, words: str
) -> None:
    make(ws, CreateRequest("kept", from_=str(gguf)))
    contents = {
        "MODEL": gguf.read_bytes(),
        "TRUNCATED": gguf.read_bytes()[:-100],
        "TEXT": b"hello",
        "FITTING": write_adapter(tmp_path, gguf).read_bytes(),
        "OTHER": write_adapter(tmp_path, gguf, width=96).read_bytes(),
    }
    used = {*request_.files.values(), *request_.adapters.values()} & contents.keys()
    digests = {name: put(ws, contents[name]) for name in used}
    filled = CreateRequest(
        request_.model,
        from_=str(gguf) if request_.from_ == "BASE" else request_.from_,
        files={name: digests.get(value, value) for name, value in request_.files.items()},
        adapters={name: digests.get(value, value) for name, value in request_.adapters.items()},
        messages=request_.messages,
        template=request_.template,
        parameters=request_.parameters,
        quantize=request_.quantize,
    )
    before = entries(ws)
    with pytest.raises(H2QError, match=words) as caught:
        make(ws, filled)
    assert caught.value.exit_code == 2
    assert entries(ws) == before
    assert [one.tag for one in ModelStore(ws).tags()] == ["kept:latest"]


def test_a_name_that_is_taken_is_replaced_only_when_that_is_asked_for(ws: Workspace, gguf: Path) -> None:
    make(ws, CreateRequest("mine", from_=str(gguf), system="first"))
    with pytest.raises(ModelExists, match="mine"):
        make(ws, CreateRequest("mine", from_=str(gguf), system="second", replace=False))
    assert ModelStore(ws).find("mine").system == "first"
    make(ws, CreateRequest("mine", from_=str(gguf), system="second"))
    assert ModelStore(ws).find("mine").system == "second"
    # Nothing is left of the first.
    assert not any(path.read_bytes() == b"first" for path in (ws.ollama / "blobs").iterdir())


def test_an_upload_that_is_not_what_its_digest_says_leaves_nothing(ws: Workspace) -> None:
    store = ModelStore(ws)
    with pytest.raises(BadInput, match="digest mismatch, expected"):
        store.put_blob(f"sha256:{'0' * 64}", [b"other"])
    assert entries(ws) == set()


def test_deleting_removes_what_no_other_model_needs(ws: Workspace, gguf: Path) -> None:
    store = ModelStore(ws)
    make(ws, CreateRequest("one", from_=str(gguf), system="shared"))
    store.copy("one", "other")
    make(ws, CreateRequest("two", from_="one", messages=TURNS))
    store.delete("one")
    with pytest.raises(UnknownModel):
        store.find("one")
    assert find_base(ws, "other").system == find_base(ws, "two").system == "shared"
    store.delete("two")
    assert not any(b"FROM /etc" in path.read_bytes() for path in (ws.ollama / "blobs").iterdir())
    store.delete("other")
    assert entries(ws) == set()
    assert gguf.is_file()
    with pytest.raises(UnknownModel):
        store.delete("other")


def test_an_upload_without_a_model_is_swept_after_a_day(ws: Workspace, gguf: Path) -> None:
    store = ModelStore(ws)
    make(ws, CreateRequest("mine", from_=str(gguf)))
    digest = put(ws, b"never used")
    with store.locked():
        assert store.sweep() == 0
        later = store.blob(digest).stat().st_mtime + 90_000
        assert store.sweep(now=later) == 1
    assert find_base(ws, "mine").parameters and not store.has_blob(digest)


def test_a_broken_manifest_hides_no_other_model_and_keeps_its_blobs(ws: Workspace, gguf: Path) -> None:
    store = ModelStore(ws)
    make(ws, CreateRequest("good", from_=str(gguf)))
    make(ws, CreateRequest("bad", from_=str(gguf), system="kept"))
    path = store.find("bad").path
    path.write_bytes(path.read_bytes()[:-2])
    assert [one.tag for one in store.tags()] == ["good:latest"]
    with pytest.raises(BadInput, match="broken"):
        find_base(ws, "bad")
    store.delete("good")
    assert any(path.read_bytes() == b"kept" for path in (ws.ollama / "blobs").iterdir())


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (1_500, "2K"), (134_515_008, "134.52M"), (7 * 10**9, "7B"), (1_540_000_000, "1.5B")],
)
def test_parameters_are_written_as_ollama_writes_them(count: int, text: str) -> None:
    assert human_number(count) == text


@pytest.mark.parametrize(
    "tag", ["../x/y:z", "..", "a/../b", "../../x", "./x/y", "x/..:y", "/etc/x", "a//b", "-x/y/z:t"]
)
def test_no_name_leaves_the_folder_of_the_manifests(tmp_path: Path, tag: str) -> None:
    assert manifest_path(tmp_path, tag) is None


@pytest.mark.parametrize("at", range(1, 6))
def test_a_creation_that_ends_at_any_write_leaves_the_old_model_whole_and_nothing_beside_it(
    ws: Workspace, gguf: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    make(ws, CreateRequest("mine", from_=str(gguf), system="first"))
    before, calls, replace = entries(ws), 0, Path.replace

    def stopped(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stopped)
    request = CreateRequest(
        "mine", from_=str(gguf), system="second", messages=TURNS, parameters={"num_ctx": 99}
    )
    with pytest.raises(KeyboardInterrupt):
        make(ws, request)
    monkeypatch.setattr(Path, "replace", replace)
    assert find_base(ws, "mine").system == "first"
    store = ModelStore(ws)
    with store.locked():
        store.sweep(now=store.find("mine").modified_at + 1e6)
    assert entries(ws) == before
    make(ws, request)
    assert find_base(ws, "mine").system == "second"
