"""`h2q-tui export`: files, measurements, errors and Ollama."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.core.errors import BadInput, RunFailed, UsageProblem
from engine.core.files import atomic_file, check_free_space
from engine.core.paths import Workspace
from engine.export import cost
from engine.export.quant import Quant
from engine.export.report import exports_of
from engine.models.card import Lineage, read_card
from engine.models.gguf.model import open_gguf
from engine.models.ollama.create import create_model, modelfile, server_version
from engine.models.weights import MergedWeights, SafetensorsWeights, read_adapter
from tests.export_models import write_arch, write_gguf, write_lora
from tests.hf_models import tiny_tokenizer
from tests.models import copy_model, talk, write_tiny
from tests.ollama_server import ollama_server
from tui.cli.main import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, knowing: Path) -> Workspace:
    ws = Workspace(tmp_path_factory.mktemp("export") / "ws")
    copy_model(knowing, ws.models / "small", mode="native", base="scratch-1")
    return ws


@pytest.fixture(autouse=True)
def little_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "TOKENS_NATIVE", 4000)


@pytest.fixture
def ws(made: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(made.root, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


def export(ws: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """(exit code, the JSON document)."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["export", *words, "--json", "--lang", "en", "--data-dir", str(ws.root)])
    text = capsys.readouterr().out
    return int(left.value.code or 0), json.loads(text) if text else None


def test_the_report_has_the_cost_of_quantization_and_pruning(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = export(ws, capsys, "small", "--to", "gguf", "--quant", "q4_0", "--prune", "0.3")
    path = Path(report["path"])
    assert code == 0
    assert path == ws.root / "exports" / "small-pruned30-q4_0.gguf"
    assert report["bytes"] == path.stat().st_size
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["nll"] - report["nll_base"] == pytest.approx(report["cost"])
    assert report["cost"] != 0
    assert report["measured"][0]["bytes"] > 3000
    assert report["parity"]["conversations"] == report["parity"]["same_ids"] == 20
    assert report["parity"]["max_logit_difference"] < 0.3
    assert report["card"]["base"] == "scratch-1"
    beside = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert beside["cost"] == report["cost"]
    assert (ws.training / "Modelfile_small").read_text() == f"FROM {path}\nPARAMETER num_ctx 256\n"
    assert open_gguf(path).context == 256


def test_full_precision_costs_nothing(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    _code, report = export(
        ws, capsys, "small", "--to", "gguf", "--quant", "f32", "--output", str(ws.root / "o")
    )
    assert report["path"] == str(ws.root / "o" / "small-f32.gguf")
    assert abs(report["cost"]) < 1e-6
    assert report["parity"]["max_logit_difference"] < 1e-2
    assert report["parity"]["same_best"] == report["parity"]["positions"]


def test_a_native_model_loads_in_transformers_with_the_same_logits_and_ids(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engine.models.chatml import render
    from engine.models.native_format import load_model

    code, report = export(ws, capsys, "small", "--to", "hf", "--no-measure")
    folder = Path(report["path"])
    assert code == 0 and report["nll"] is None
    loading: Any = AutoModelForCausalLM
    loaded = loading.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours, _card = load_model(ws.models / "small")
    messages = talk("你好 e\u0301 😀", "好")
    rendered = render(messages)
    asked = [{"role": m.role, "content": m.content} for m in messages]
    assert _ids(tokenizer, asked) == rendered.ids
    ids = torch.tensor([rendered.ids])
    with torch.inference_mode():
        assert torch.allclose(loaded(ids).logits, ours(ids), atol=1e-4)
    assert loaded.generation_config.eos_token_id == [258, 256]
    card = read_card(folder)
    assert card.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    # The export is a native model again.
    again, _report = export(ws, capsys, str(folder), "--to", "gguf", "--no-measure")
    assert again == 0


def test_the_merged_weights_equal_those_of_peft(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = write_arch(ws.root.parent / "base", "qwen3", tied=True)
    loading: Any = AutoModelForCausalLM
    make: Any = get_peft_model
    adapted = make(loading.from_pretrained(base), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.1)
    adapter = ws.adapters / "mine"
    adapted.save_pretrained(adapter)
    before = (adapter / "adapter_model.safetensors").read_bytes()
    code, report = export(ws, capsys, "mine", "--to", "hf", "--quant", "f32")
    assert code == 0 and abs(report["cost"]) < 1e-6
    expected = adapted.merge_and_unload().state_dict()
    found = load_file(Path(report["path"]) / "model.safetensors")
    assert "lm_head.weight" not in found
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name
    assert (adapter / "adapter_model.safetensors").read_bytes() == before
    assert tiny_tokenizer()("你好")["input_ids"] == _tokenizer(Path(report["path"]))("你好")["input_ids"]

    code, report = export(ws, capsys, "mine", "--to", "gguf", "--adapter", "--no-measure")
    assert code == 0 and report["format"] == "gguf-adapter"
    assert Path(report["path"]).stat().st_size < 60_000
    code, report = export(ws, capsys, "mine", "--to", "gguf", "--quant", "f16")
    assert report["parity"]["same_ids"] == 20 and report["parity"]["max_logit_difference"] < 1e-2


def _ids(tokenizer: Any, asked: list[dict[str, str]]) -> list[int]:
    found: list[int] = tokenizer.apply_chat_template(asked, tokenize=True, return_dict=True)["input_ids"]
    return found


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (
            ["nothing", "--to", "gguf"],
            2,
            "no model named nothing in the workspace, the Hugging Face cache or Ollama (small)",
        ),
        (["small", "--to", "onnx"], 2, "hf, gguf, ollama"),
        (["small", "--to", "gguf", "--quant", "q2_k"], 2, "q8_0"),
        (["small", "--to", "hf", "--quant", "q8_0"], 2, "f32, f16, bf16"),
        (["small", "--to", "gguf", "--prune", "1.5"], 2, "--prune"),
        (["small", "--to", "gguf", "--adapter"], 2, "not an adapter"),
        (["small", "--to", "ollama", "--ollama-name", "小模型"], 2, "letters"),
        (["small", "--to", "ollama"], 4, "does not answer"),
    ],
)
def test_an_impossible_export_fails_with_one_error_and_no_files(
    ws: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], code: int,
    error: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    found, report = export(ws, capsys, *words)
    assert found == code
    assert error in report["error"]
    assert not list(ws.root.glob("exports/*"))


def test_damaged_weights_are_not_exported(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    file = ws.models / "small" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    code, report = export(ws, capsys, "small", "--to", "gguf")
    assert code == 2 and "hash differs" in report["error"]
    file.write_bytes(b"\xff" * 100)
    code, report = export(ws, capsys, "small", "--to", "gguf")
    assert code == 2
    assert not list(ws.root.glob("exports/*.gguf"))


def _unknown_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["pre_tokenizer"] = {"type": "Whitespace"}
    file.write_text(json.dumps(stored), encoding="utf-8")


UNWRITABLE: dict[str, Callable[[Workspace, Path], list[str]]] = {
    "architecture": lambda _ws, to: [str(write_arch(to, "olmo2"))],
    "biases": lambda _ws, to: [str(write_arch(to, "qwen3", attention_bias=True))],
    "rope": lambda _ws, to: [
        str(write_arch(to, "llama", rope={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}))
    ],
    "tokenizer": lambda _ws, to: [str(write_arch(to, "llama")), "--quant", "q8_0"],
    "type of an adapter": lambda ws, to: [
        str(write_gguf(ws.models / "tiny.gguf", write_arch(to, "qwen3")) and write_lora(ws, "mine", seed=1).name),
        "--adapter", "--quant", "q4_0",
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", list(UNWRITABLE))
def test_what_gguf_cannot_hold_is_refused_before_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    ws = Workspace(tmp_path / "ws")
    words = UNWRITABLE[what](ws, tmp_path / "model")
    if what == "tokenizer":
        _unknown_tokenizer(tmp_path / "model")
    code, report = export(ws, capsys, *words, "--to", "gguf")
    assert code == 2 and report["error"]
    assert not ws.runs.exists() or list(ws.runs.iterdir()) == []


@pytest.mark.parametrize(
    ("millions", "tokens"), [(1, 4000), (50, 4000), (135, 2963), (500, 1000), (8_000, 1000)]
)
def test_a_large_model_is_measured_on_fewer_tokens(millions: int, tokens: int) -> None:
    assert cost.token_limit(millions * 1_000_000) == tokens


def test_a_full_disk_is_reported_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(RunFailed, match="GB are free") as problem:
        check_free_space(tmp_path, 1 << 30)
    assert problem.value.hint == "df -h"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), atomic_file(path) as new:
        new.write_bytes(b"half")
        raise OSError(28, "disk full")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.gguf"]


def test_a_foreign_folder_is_not_replaced(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    place = ws.root / "exports" / "small-hf"
    place.mkdir(parents=True)
    (place / "letter.txt").write_text("dear")
    code, _report = export(ws, capsys, "small", "--to", "hf", "--no-measure")
    assert code == 2 and (place / "letter.txt").read_text() == "dear"


def test_only_earlier_exports_are_replaced(
    ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    (folder / "small-hf").mkdir(parents=True)
    (folder / "small-hf" / "config.json").write_text("{}")
    (folder / "small-q8_0.gguf").write_bytes(b"of somebody else")
    (folder / "small-f16.json").write_text('{"notes": "mine"}')
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for words, error in (
        (["hf"], "something else"),
        (["gguf", "--quant", "q8_0"], "not an export"),
        (["gguf"], "not an export"),
    ):
        code, report = export(ws, capsys, "small", "--to", *words, "--no-measure", "--output", str(folder))
        assert code == 2 and error in report["error"]
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    for words in (["hf"], ["gguf"]):
        for _time in range(2):
            code, _report = export(
                ws, capsys, "small", "--to", *words, "--no-measure", "--output", str(tmp_path / "new")
            )
            assert code == 0


def test_an_output_that_is_not_a_folder_is_reported(
    ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    for to in ("hf", "gguf"):
        code, report = export(
            ws, capsys, "small", "--to", to, "--no-measure", "--output", str(tmp_path / "file")
        )
        assert code == 2 and "is not a folder" in report["error"]


def test_a_model_is_uploaded_to_ollama_only_once(
    ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blobs").mkdir()
    with ollama_server(tmp_path / "blobs") as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        words = ["small", "--to", "ollama", "--no-measure", "--system", '你是"小Q"', "--ollama-name", "me:v1"]
        code, report = export(ws, capsys, *words)
        assert (code, report["ollama"]) == (0, "me:v1")
        body = state.models["me:v1"]
        assert body["files"] == {"small-f16.gguf": f"sha256:{report['sha256']}"}
        assert (body["system"], body["parameters"]) == ('你是"小Q"', {"num_ctx": 256})
        assert state.blob(f"sha256:{report['sha256']}").read_bytes() == Path(report["path"]).read_bytes()
        assert state.requests == ["GET /api/version", "HEAD", "POST /api/blobs", "POST /api/create"]
        # The same file is not uploaded twice.
        export(ws, capsys, *words)
        assert state.requests[4:] == ["GET /api/version", "HEAD", "POST /api/create"]
        state.fail_with = "unsupported architecture"
        code, report = export(ws, capsys, *words)
        assert code == 2 and "unsupported architecture" in report["error"]


def test_exports_of_a_forgotten_conversation_are_found(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    lineage = Lineage(conversations=["told"])
    write_tiny(ws.models / "knows", [talk("a", "b")], steps=1, lineage=lineage)
    paths = [
        export(ws, capsys, name, "--to", kind, "--no-measure")[1]["path"]
        for name in ("knows", "small")
        for kind in ("gguf", "hf")
    ]
    assert exports_of(ws, ["told"]) == sorted(paths[:2])
    (ws.exports / "broken.json").write_text("{")
    Path(paths[0]).unlink()
    assert exports_of(ws, ["told", "else"]) == [paths[1]]


def test_an_adapter_trained_on_an_ollama_tag_is_exported_onto_that_tag(
    ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    gguf = write_gguf(tmp_path / "base.gguf", write_arch(tmp_path / "base", "qwen3", tied=True), Quant.Q8_0)
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    store = tmp_path / "store"
    (store / "blobs").mkdir(parents=True)
    gguf.rename(store / "blobs" / f"sha256-{digest}")
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": 1}
    manifest.write_text(json.dumps({"layers": [layer]}))
    monkeypatch.setenv("OLLAMA_MODELS", str(store))

    make: Any = get_peft_model
    adapted = make(
        open_gguf(store / "blobs" / f"sha256-{digest}").load(torch.float32),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.1)
    adapted.peft_config["default"].base_model_name_or_path = "ollama:tiny:1b"
    adapted.save_pretrained(ws.adapters / "mine")
    (tmp_path / "blobs").mkdir()
    with ollama_server(tmp_path / "blobs") as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        code, report = export(ws, capsys, "mine", "--to", "ollama")
        assert code == 0 and report["format"] == "gguf-adapter"
        assert state.models["mine"]["from"] == "tiny:1b"
        assert list(state.models["mine"]["adapters"]) == ["mine-adapter-f16.gguf"]
    # llama.cpp evaluated the file of the tag with the adapter on it.
    assert report["parity"]["same_ids"] == 20
    assert report["parity"]["same_best"] >= 5
    lines = (ws.training / "Modelfile_mine").read_text().splitlines()
    assert lines[:2] == ["FROM tiny:1b", f"ADAPTER {report['path']}"]
    code, report = export(ws, capsys, "ollama:tiny:1b", "--to", "hf", "--no-measure")
    assert code == 0 and report["name"] == "tiny-1b" and report["quant"] == "bf16"
    assert _tokenizer(Path(report["path"]))("你好")["input_ids"] == tiny_tokenizer()("你好")["input_ids"]


def test_an_adapter_is_created_in_ollama_from_its_base_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blobs").mkdir()
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"GGUF adapter")
    digest = hashlib.sha256(b"GGUF adapter").hexdigest()
    with ollama_server(tmp_path / "blobs") as (address, state):
        monkeypatch.setenv("OLLAMA_HOST", address)
        told: list[str] = []
        create_model("mine", {"a.gguf": gguf}, {"a.gguf": digest}, adapter_of="qwen3:0.6b", step=told.append)
        assert state.models["mine"]["from"] == "qwen3:0.6b"
        assert state.models["mine"]["adapters"] == {"a.gguf": f"sha256:{digest}"}
        assert told[-1] == "success"
        with pytest.raises(RunFailed, match="digest mismatch"):
            create_model("mine", {"a.gguf": gguf}, {"a.gguf": "0" * 64})
    with pytest.raises(UsageProblem, match="another machine"):
        monkeypatch.setenv("OLLAMA_HOST", "192.0.2.7:11434")
        server_version()


def test_a_modelfile_survives_ollamas_parser() -> None:
    text = modelfile(
        "/a b/x.gguf",
        adapter=Path("/c.gguf"),
        system='说"""停"""\u3000全角👩\u200d👩 \x1b[31m',
        parameters={"num_ctx": 2048, "stop": ["<|im_end|>", "x"]},
    )
    assert text.splitlines() == [
        'FROM "/a b/x.gguf"',
        "ADAPTER /c.gguf",
        "PARAMETER num_ctx 2048",
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER stop x",
        "SYSTEM \"\"\"说'''停''' 全角👩👩 [31m\"\"\"",
    ]


def test_adapters_other_than_plain_lora_are_rejected(tmp_path: Path) -> None:
    base = SafetensorsWeights(write_arch(tmp_path / "base", "qwen3"))
    for config in (
        {"peft_type": "IA3"},
        {"peft_type": "LORA", "use_dora": True},
        {"peft_type": "LORA", "bias": "all"},
        {"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"},
        {"peft_type": "LORA", "init_lora_weights": "olora"},
        {"peft_type": "LORA", "init_lora_weights": "LoftQ"},
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(BadInput, match="plain LoRA"):
            read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(BadInput, match="broken"):
        read_adapter(tmp_path)
    from engine.models.weights import LoraPair

    with pytest.raises(BadInput, match="does not fit"):
        MergedWeights(base, {"model.layers.9.x.weight": LoraPair(torch.zeros(1, 1), torch.zeros(1, 1), 1.0)})


def test_an_export_stops_on_request(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.runs import launch
    from engine.runs.events import JournalRecord, StageChanged
    from engine.runs.kinds import ExportParams
    from engine.runs.rundir import RunDir
    from engine.runs.spec import make_spec

    found: list[RunDir] = []

    def see(record: JournalRecord) -> None:
        if isinstance(record.event, StageChanged) and record.event.name == "cost":
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    spec = make_spec(ws.root, ExportParams(name="small", to="gguf"))
    assert launch.run_in_foreground(ws, spec, see, on_start=found.append) == 130
    assert not list(ws.root.glob("exports/.*"))
