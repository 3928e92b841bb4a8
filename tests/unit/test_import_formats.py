"""Each importer on a real file of its program, and on damaged files."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.formats import FORMATS, detect_format, find_importer
from engine.memory.importers.programs import mindx
from engine.memory.importers.readers import files, json_stream
from engine.memory.records import Conversation, Embedding, SummaryPoint
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.unit.test_importers import read, role_texts

EXPORTS = Path(__file__).parents[1] / "data" / "exports"

FORMAT_OF = {
    "agents/claude_code.jsonl": "claude_code",
    "agents/copilot_events.jsonl": "copilot_cli",
    "agents/rollout-2026-09-01T10-00-00-019a.jsonl": "codex",
    "agents/state.vscdb": "cursor",
    "agents/vscode_chat.json": "vscode",
    "agents/vscode_chat.jsonl": "vscode",
    "1752000000000.conversation.json": "lmstudio",
    "chat-5d0c6c7e.json": "lechat",
    "chatbox-exported-data.json": "chatbox",
    "chatgpt_2026.json": "chatgpt",
    "cherry_data.json": "cherry",
    "claude_2026.json": "claude",
    "claude_conversations.json": "claude",
    "completions.jsonl": "completion",
    "crosswoz.json": "crosswoz",
    "datasets/oasst_messages.jsonl": "oasst",
    "datasets/oasst_trees.jsonl": "oasst",
    "datasets/preferences.jsonl": "preference",
    "deepseek_conversations.json": "deepseek",
    "gemini/Checkpoint sizes": "aistudio",
    "gemini/aistudio_chunks.json": "aistudio",
    "gemini/Moja_dejavnost.html": "gemini",
    "gemini/MyActivity.json": "gemini",
    "gemini/conversation_1.txt": "gemini_workspace",
    "gemini/session-2026-04-27T01-55-5f0c.jsonl": "gemini_cli",
    "llamacpp_conversations.json": "llamacpp",
    "llamacpp_conversations.jsonl": "llamacpp",
    "llm-0.27.logs.db": "llm",
    "llm-0.36-fragments.logs.db": "llm",
    "llm-0.36.logs.db": "llm",
    "mindx/data/sessions/session_1772819966123456789.json": "mindx",
    "mindx/data/vectors/MANIFEST": "mindx",
    "nextchat-backup.json": "nextchat",
    "openwebui_0.11.json": "openwebui",
    "openwebui_chats.json": "openwebui",
    "people/_chat.txt": "whatsapp",
    "people/WhatsApp Chat with Bo.txt": "whatsapp",
    "people/chat.db": "imessage",
    "people/chatlab.json": "chatlab",
    "people/chatlab.jsonl": "chatlab",
    "people/qq.txt": "chat_text",
    "people/qq/chunks/chunk_0001.jsonl": "qq",
    "people/qq_chat.json": "qq",
    "people/telegram_account.json": "telegram",
    "people/telegram_chat.json": "telegram",
    "people/wechat_memotrace.csv": "wechat",
    "people/wechat_pywxdump.csv": "wechat",
    "people/wechat_weflow.json": "chatlab",
    "programs/20260801-10-00-00.json": "textgen",
    "programs/Chef - 2026-08-01.jsonl": "sillytavern",
    "programs/Chef_persistent.json": "textgen",
    "programs/anythingllm_chats.csv": "anythingllm",
    "programs/anythingllm_chats.json": "anythingllm",
    "programs/chat-export-1754000000000.json": "qwen",
    "programs/copilot-activity-history.csv": "copilot",
    "programs/doubao.json": "doubao",
    "programs/jan/threads/jan_1704487430/messages.jsonl": "jan",
    "programs/kimi.json": "kimi",
    "programs/librechat.json": "librechat",
    "programs/librechat_tree.json": "librechat",
    "programs/lobechat.json": "lobechat",
    "programs/ollama_db.sqlite": "ollama",
    "programs/prod-grok-backend.json": "grok",
    "programs/tongyi.json": "qwen",
    "programs/yuanbao.json": "yuanbao",
    "transcript.chatml.txt": "chatml",
    "webui.db": "openwebui",
}


@pytest.mark.parametrize(("name", "format_"), FORMAT_OF.items())
def test_the_format_of_each_program_is_detected(name: str, format_: str) -> None:
    assert detect_format(EXPORTS / name) == format_


def test_claude_reads_the_newest_branch_without_thinking() -> None:
    (first, second), skipped = read(EXPORTS / "claude_conversations.json")
    assert role_texts(first) == [("user", "什么是检查点？"), ("assistant", "检查点是训练状态的快照。")]
    assert (first.external_id, first.title, first.updated_at) == ("0001", "合成示例", 1751771427.0)
    assert role_texts(second) == [
        ("user", "How often should I write a checkpoint?\n\nlog.txt\nstep 1"),
        ("assistant", "As often as you can afford to lose work.\nEvery 200 steps is common."),
        ("user", "And how large?"),
        ("assistant", "Three times the weights, with the optimizer."),
    ]
    assert second.turns[1].alternatives == ("Every step.",)
    assert skipped == {
        "reasoning": 2,
        "tool message": 2,
        "message of another branch": 1,
        "empty conversation": 1,
    }


def test_deepseek_reads_requests_and_responses_of_the_newest_branch() -> None:
    (conversation,), skipped = read(EXPORTS / "deepseek_conversations.json")
    assert role_texts(conversation) == [
        ("user", "检查点是什么？"),
        ("assistant", "某一步时的权重和优化器状态。"),
        ("user", "要多大？"),
        ("assistant", "约为权重的三倍。"),
    ]
    assert conversation.turns[1].alternatives == ("训练状态的快照。",)
    assert conversation.started_at == pytest.approx(1756692000.123)
    assert skipped == {"tool message": 1, "reasoning": 1, "attachment": 1, "empty conversation": 1}


def test_open_webui_export_and_database_give_the_same_conversations() -> None:
    exported, skipped = read(EXPORTS / "openwebui_chats.json")
    stored, also_skipped = read(EXPORTS / "webui.db")
    assert sorted(exported, key=lambda c: c.id) == sorted(stored, key=lambda c: c.id)
    assert (
        skipped
        == also_skipped
        == {
            "reasoning": 1,
            "attachment": 1,
            "tool message": 1,
            "unknown role: narrator": 1,
        }
    )
    assert role_texts(exported[0]) == [
        ("user", "内存不够怎么办？"),
        ("assistant", "减小批量，或用梯度累积。"),
        ("user", "梯度累积慢吗？"),
        ("assistant", "几乎不慢。"),
    ]
    assert exported[0].turns[1].alternatives == ("加内存。",)
    assert role_texts(exported[1])[0] == ("user", "Hi there, what is a token?")


def test_lm_studio_reads_the_selected_version() -> None:
    (conversation,), skipped = read(EXPORTS / "1752000000000.conversation.json")
    assert role_texts(conversation) == [
        ("system", "Be brief."),
        ("user", "What is a checkpoint?"),
        ("assistant", "A snapshot of the training state."),
        ("user", "And how large is it?"),
        ("assistant", "About three times the weights."),
    ]
    assert conversation.turns[2].alternatives == ("An old answer.",)
    assert (conversation.external_id, conversation.started_at, conversation.updated_at) == (
        "1752000000000",
        1752000000,
        1752000110,
    )
    assert skipped == {"attachment": 1, "reasoning": 1, "message of another branch": 1, "tool message": 2}


def test_cherry_studio_joins_blocks_and_reads_the_selected_answer(tmp_path: Path) -> None:
    backup = tmp_path / "cherry-studio.202507060310.zip"
    with zipfile.ZipFile(backup, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(EXPORTS / "cherry_data.json", "data.json")
        archive.writestr("Data/Files/x.png", b"x")
    (first, old), skipped = read(backup)
    assert role_texts(first) == [
        ("user", "检查点是什么？"),
        ("assistant", "某一步时的权重。"),
        ("user", "怎么写？"),
        ("assistant", "像这样：\n\n```python\nsave()\n```"),
    ]
    assert (first.title, first.turns[1].alternatives) == ("检查点", ("训练状态的快照。",))
    assert role_texts(old) == [("user", "旧版消息在这里吗？"), ("assistant", "在 content 里。")]
    assert skipped == {
        "image": 1,
        "reasoning": 2,
        "failed answer": 1,
        "empty conversation": 1,
        "attachment": 1,
    }


def test_a_cherry_studio_database_backup_is_bad_input(tmp_path: Path) -> None:
    backup = tmp_path / "cherry.zip"
    with zipfile.ZipFile(backup, "w") as archive:
        archive.writestr("IndexedDB/file__0.indexeddb.leveldb/CURRENT", b"x")
    with MemoryStore(tmp_path / "memory.db") as store, pytest.raises(BadInput, match="Cherry Studio"):
        import_paths(store, [backup])


def test_chatbox_threads_are_conversations_and_forks_alternatives() -> None:
    (thread, session, old), skipped = read(EXPORTS / "chatbox-exported-data.json")
    assert (thread.external_id, thread.title, session.external_id) == ("c1/th1", "第一段", "c1")
    assert role_texts(thread) == [("user", "先问一个问题"), ("assistant", "请问。")]
    assert role_texts(session)[1:] == [("user", "检查点要存在哪里？"), ("assistant", "存在本地磁盘。")]
    assert session.turns[2].alternatives == ("存在内存里。",)
    assert role_texts(old) == [("user", "Is the old form read?"), ("assistant", "It is.")]
    assert skipped == {
        "image": 1,
        "reasoning": 1,
        "tool message": 1,
        "failed answer": 1,
        "empty conversation": 1,
    }


def test_nextchat_sessions_are_dated_by_their_last_update() -> None:
    (conversation,), skipped = read(EXPORTS / "nextchat-backup.json")
    assert [role for role, _text in role_texts(conversation)] == ["system", "user", "assistant", "user"]
    assert (conversation.title, conversation.updated_at, conversation.turns[1].time) == (
        "学习率",
        1751771418.0,
        None,
    )
    assert skipped == {"hidden message": 1, "image": 1, "failed answer": 1, "empty conversation": 1}


def test_crosswoz_roles_are_mapped_and_others_counted() -> None:
    (first, second), skipped = read(EXPORTS / "crosswoz.json")
    assert role_texts(first) == [
        ("user", "你好，想吃人均五十到一百的馆子。"),
        ("assistant", "推荐您去河边小馆，人均六十元。"),
    ]
    assert (first.external_id, len(second.turns)) == ("391", 2)
    assert skipped == {"unknown role: judge": 1}
    assert len(read(EXPORTS / "crosswoz.json", judge="system")[0][1].turns) == 3


@pytest.mark.parametrize("version", ["0.27", "0.36"])
def test_llm_conversations_are_read_from_both_schemas(version: str) -> None:
    (first, second), skipped = read(EXPORTS / f"llm-{version}.logs.db")
    assert role_texts(first) == [
        ("system", "简短回答。"),
        ("user", "什么是检查点？"),
        ("assistant", "检查点是训练状态的快照。"),
        ("user", "多久写一次？"),
        ("assistant", "按能丢多少步来定。"),
    ]
    assert first.title == "什么是检查点？" and first.started_at is not None
    assert role_texts(second) == [("user", "Hello?"), ("assistant", "Hi.")]
    assert skipped == {}


def test_prompt_and_completion_may_be_texts_or_messages() -> None:
    (first, labelled, listed), skipped = read(EXPORTS / "completions.jsonl")
    assert role_texts(first) == [("user", "什么是轮次？"), ("assistant", "完整看一遍数据。")]
    assert role_texts(labelled) == [("user", "在吗"), ("assistant", "好")]
    assert role_texts(listed) == [("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hello.")]
    assert skipped == {"row without an answer": 1}


def test_a_system_message_begins_the_next_chatml_conversation() -> None:
    (first, second), skipped = read(EXPORTS / "transcript.chatml.txt")
    assert role_texts(first) == [
        ("system", "简短回答。"),
        ("user", "什么是学习率？"),
        ("assistant", "每一步走多远。\n\n太大会发散。"),
    ]
    assert role_texts(second) == [("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hello.")]
    assert skipped == {"unknown role: narrator": 1}


def test_mindx_dialogue_points_become_conversations_with_embeddings() -> None:
    items = list(find_importer("mindx").read(EXPORTS / "mindx/data/vectors/MANIFEST", ImportOptions()))
    conversations = [item for item in items if isinstance(item, Conversation)]
    points = {item.id[-19:]: item for item in items if isinstance(item, SummaryPoint)}
    assert role_texts(conversations[0]) == [
        ("user", "检查点要隔多久写一次？"),
        ("assistant", "按能丢多少步来定，例如每两百步。\n写在后台。"),
    ]
    assert role_texts(conversations[1])[1] == ("assistant", "可以，请贴出来。")
    merged = points["1772819968123456789"]
    assert merged.created_at == pytest.approx(1772819968.123)
    assert (points["1772819971123456789"].content, len(points)) == ("新的内容。", 3)
    vectors = [item for item in items if isinstance(item, Embedding)]
    assert [(len(item.vector), item.embedder) for item in vectors] == [(64, "mindx-16")] * 4


def test_importing_a_mindx_folder_twice_adds_nothing(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        first = import_paths(store, [EXPORTS / "mindx"])
        again = import_paths(store, [EXPORTS / "mindx"])
        vectors = store.connection.execute("SELECT embedder, length(vector) FROM embeddings").fetchall()
        rows = store.connection.execute("SELECT keywords FROM memory_points ORDER BY id").fetchall()
    assert (first.added, first.points, first.skipped) == (3, 3, {"index of a skill": 2})
    assert (again.added, again.points, again.unchanged, again.conversations) == (0, 0, 6, 3)
    assert [tuple(row) for row in vectors] == [("mindx-16", 64)] * 4
    assert json.loads(rows[0][0]) == ["训练", "过拟合"]


def test_a_forgotten_memory_point_loses_its_embedding_and_is_not_reimported(tmp_path: Path) -> None:
    with MemoryStore(tmp_path / "memory.db") as store:
        import_paths(store, [EXPORTS / "mindx"])
        (point,) = store.point_ids_containing("过拟合的")
        assert store.forget([point]).ids == [point]
        vectors = store.connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0]
        assert not any("早停".encode() in file.read_bytes() for file in tmp_path.glob("memory.db*"))
        again = import_paths(store, [EXPORTS / "mindx"])
        assert (store.stats().points, vectors, again.skipped["forgotten earlier"]) == (2, 3, 1)
        assert store.connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0] == 3
        assert import_paths(store, [EXPORTS / "mindx"], again=True).points == 1


def test_points_of_a_failed_import_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "mindx"
    shutil.copytree(EXPORTS / "mindx", folder)
    with MemoryStore(tmp_path / "memory.db") as store:
        with pytest.raises(BadInput, match="no such file"):
            import_paths(store, [folder / "data/vectors", folder / "data/z.json"])
        for table in ("memory_points", "embeddings", "conversations", "imports"):
            assert store.connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] == 0


OWNER_WITHOUT_A_NAME = (
    "chat.db",
    "wechat_weflow.json",
    "chatlab.jsonl",
    "wechat_pywxdump.csv",
    "chatlab.json",
)


def test_an_unreadable_file_in_a_folder_is_reported_and_the_others_are_imported(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    shutil.copytree(EXPORTS, folder)
    (folder / "notes.txt").write_bytes("用户：你好".encode("gb18030"))
    (folder / "half.json").write_text('[{"messages": [', encoding="utf-8")
    (folder / "other.db").write_bytes((EXPORTS / "webui.db").read_bytes()[:700])
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [folder], options=ImportOptions(me="Ann"))
        assert store.stats().points == report.points == 3
    assert {file.format for file in report.files} == set(FORMAT_OF.values())
    assert {reason for reason in report.skipped if "file" in reason} == {
        "file that cannot be read: half.json:1",
        "file that cannot be read: notes.txt:1",
        "file of another kind",
        *(f"file that cannot be read: people/{name}" for name in OWNER_WITHOUT_A_NAME),
    }
    hints = [file.hint for file in report.unread if "Nobody here is called Ann" in file.reason]
    assert len(hints) == len(OWNER_WITHOUT_A_NAME)
    assert not any("--me" in hint for hint in hints)


def test_a_database_in_use_is_read_with_its_wal(tmp_path: Path) -> None:
    path = tmp_path / "webui.db"
    shutil.copyfile(EXPORTS / "webui.db", path)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL").fetchall()
    writer.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    chat = json.dumps(
        {"messages": [{"role": "user", "content": "new?"}, {"role": "assistant", "content": "yes"}]}
    )
    writer.execute("INSERT INTO chat VALUES ('n', 'u', 't', NULL, 0, 5, 6, ?, 0, '{}', NULL)", (chat,))
    writer.commit()
    writer.execute("BEGIN IMMEDIATE")
    assert detect_format(path) == "openwebui"
    assert len(read(path)[0]) == 3
    writer.rollback()
    writer.close()
    before = sorted(item.name for item in tmp_path.iterdir())
    assert len(read(path)[0]) == 3
    assert sorted(item.name for item in tmp_path.iterdir()) == before == ["webui.db"]


def test_unsupported_databases_are_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "webui.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE chat (id, title)")
    for name in ("openwebui", "llm"):
        with pytest.raises(BadInput, match=r"Unsupported database version .*(chat\.chat|responses\.id)"):
            read(path, name)
    with pytest.raises(BadInput, match="no supported program"):
        detect_format(path)
    data = (EXPORTS / "webui.db").read_bytes()
    path.write_bytes(data[:3000] + bytes(1000) + data[4000:6000])
    with pytest.raises(BadInput, match=r"webui\.db"):
        read(path, "openwebui")


JSON_FORMATS = sorted({FORMAT_OF[name] for name in FORMAT_OF if name.endswith((".json", ".jsonl"))})


@pytest.mark.parametrize("name", [*JSON_FORMATS, "chatml", "llm"])
def test_bad_files_leave_memory_unchanged(tmp_path: Path, name: str) -> None:
    cut = tmp_path / "cut.zip"
    with zipfile.ZipFile(tmp_path / "complete.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", (EXPORTS / "claude_conversations.json").read_bytes())
    cut.write_bytes((tmp_path / "complete.zip").read_bytes()[:400])
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", b"[" + b" " * 20_000_000)
    (tmp_path / "page.json").write_text("<!DOCTYPE html><html></html>", encoding="utf-8")
    (tmp_path / "bytes.json").write_bytes(b'{"a": "\xff\xfe"}')
    (tmp_path / "empty.json").write_bytes(b"")
    with MemoryStore(tmp_path / "memory.db") as store:
        for file in (cut, bomb, *(tmp_path / f"{stem}.json" for stem in ("page", "bytes", "empty"))):
            for format_ in (name, "auto"):
                with pytest.raises(BadInput, match=file.name):
                    import_paths(store, [file], format_=format_)
        assert store.count() == store.connection.execute("SELECT COUNT(*) FROM imports").fetchone()[0] == 0


LOGS = frozenset(("claude_code", "codex", "copilot_cli", "gemini_cli", "jan", "sillytavern", "vscode"))
"""Programs append to these files as they run: half a line at their end is left out."""


@pytest.mark.parametrize("file", [name for name in FORMAT_OF if name.endswith((".json", ".jsonl"))])
def test_truncated_exports_are_rejected(tmp_path: Path, file: str) -> None:
    data = (EXPORTS / file).read_bytes()
    path = tmp_path / Path(file).name
    for end in range(1, len(data) - 2, max(1, len(data) // 40)):
        path.write_bytes(data[:end])
        try:
            read(path, FORMAT_OF[file])
        except BadInput as error:
            assert path.name in str(error)
        else:
            assert file.endswith(".jsonl")
            assert FORMAT_OF[file] in LOGS or data[end - 1 : end + 1] in (b"}\n", b"\n{")


def test_one_object_over_the_limit_is_read_member_by_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogue = {"messages": [{"role": "usr", "content": "问" * 50}, {"role": "sys", "content": "答" * 50}]}
    path = tmp_path / "train.json"
    path.write_text(json.dumps({str(n): dialogue for n in range(300)}), encoding="utf-8")
    monkeypatch.setattr(json_stream, "MAX_VALUE", 20_000)
    monkeypatch.setattr(files, "_READ_BYTES", 4_000)
    assert detect_format(path) == "crosswoz"
    assert len(read(path)[0]) == 300
    for start, end in (('{"1": "', '"}'), ('[{"chat_messages": "', '"}]')):
        path.write_text(start + "x" * 100_000 + end, encoding="utf-8")
        with pytest.raises(BadInput, match="longer than"):
            detect_format(path)


@pytest.mark.parametrize("file", ["cherry_data.json", "nextchat-backup.json", "chatbox-exported-data.json"])
def test_a_backup_over_the_limit_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    export = json.loads((EXPORTS / file).read_bytes())
    before = len(read(EXPORTS / file)[0])
    conversations: list[Any]
    if file.startswith("cherry"):
        conversations = export["indexedDB"]["topics"]
        export["indexedDB"]["message_blocks"] += [
            {"id": f"x{n}", "type": "main_text", "content": "答" * 100} for n in range(300)
        ]
    elif file.startswith("nextchat"):
        conversations = export["chat-next-web-store"]["sessions"]
    else:
        session = next(value for key, value in export.items() if key.startswith("session:"))
        conversations = export.setdefault("chat-sessions", [session])
    more = conversations[0]
    conversations += [{**more, "id": f"{more.get('id')}-{n}"} for n in range(60)]
    path = tmp_path / file
    path.write_text(json.dumps(export, ensure_ascii=False), encoding="utf-8")
    expected = [role_texts(conversation) for conversation in read(path)[0]]
    assert len(expected) >= before + 60
    limit = 1 + max(
        len(json.dumps(conversation, ensure_ascii=False))
        for conversation in [*conversations, *_locals(export)]
    )
    assert path.stat().st_size > 3 * limit
    monkeypatch.setattr(json_stream, "MAX_VALUE", limit + 200)
    monkeypatch.setattr(files, "_READ_BYTES", 256)
    assert [role_texts(conversation) for conversation in read(path)[0]] == expected


def _locals(export: dict[str, Any]) -> list[Any]:
    """The values that are parsed as one, in addition to the conversations."""
    return [
        value
        for key, value in export.items()
        if key not in ("indexedDB", "chat-next-web-store", "chat-sessions")
    ]


def test_every_format_has_a_test_file() -> None:
    others = {"alpaca", "sharegpt", "openai", "text", "gemini_api"}
    assert set(FORMATS) == set(FORMAT_OF.values()) | others


# Properties: exports with arbitrary mutations.

scalars: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just([]) | st.just({})
)


def mutated(value: Any, draw: st.DataObject, left: list[int]) -> Any:
    """`value` with up to `left[0]` parts replaced, dropped or moved."""
    if left[0] <= 0:
        return value
    if draw.draw(st.integers(0, 9)) == 0:
        left[0] -= 1
        return draw.draw(scalars | st.just(value) | st.lists(st.just(value), max_size=2))
    if isinstance(value, dict):
        return {key: mutated(inner, draw, left) for key, inner in value.items()}
    return [mutated(inner, draw, left) for inner in value] if isinstance(value, list) else value


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), file=st.sampled_from([name for name in FORMAT_OF if name.endswith(".json")]))
def test_mutated_exports_give_conversations_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, file: str
) -> None:
    path = tmp_path_factory.mktemp("m") / Path(file).name
    export = json.loads((EXPORTS / file).read_bytes())
    path.write_text(json.dumps(mutated(export, data, [6])), encoding="utf-8")
    for format_ in (FORMAT_OF[file], None):
        try:
            read(path, format_)
        except BadInput as error:
            assert path.name in str(error)


@settings(max_examples=30, deadline=None)
@given(
    file=st.sampled_from([name for name in FORMAT_OF if name.endswith((".db", ".vscdb", ".sqlite"))]),
    places=st.lists(st.tuples(st.integers(16, 8000), st.integers(1, 255)), max_size=8),
    cut=st.integers(100, 60_000),
)
def test_damaged_databases_give_conversations_or_bad_input(
    tmp_path_factory: pytest.TempPathFactory, file: str, places: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("s") / Path(file).name
    damaged = bytearray((EXPORTS / file).read_bytes())
    for place, by in places:
        damaged[place] ^= by
    path.write_bytes(damaged[:cut])
    try:
        read(path, FORMAT_OF[file])
    except BadInput as error:
        assert path.name in str(error)


memory_values = st.recursive(
    scalars,
    lambda inner: st.dictionaries(
        st.sampled_from(
            ["metadata", "memory_point", "content", "summary", "keywords", "vector", "created_at"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)


@given(memory_values, st.text(max_size=12), st.binary(max_size=20))
def test_any_memory_point_is_imported_or_counted(value: Any, key: str, raw: bytes) -> None:
    for data in (json.dumps(value).encode(), raw):
        for name in (f"memory_{key}", key):
            assert list(mindx.point_items(name, data))
