"""Every message in a file of agents and chat programs is taken, an alternative, or counted by one reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_importers import read

EXPORTS = Path(__file__).parents[1] / "data" / "exports"

PARTS = {
    "gemini/Checkpoint sizes": (7, "attachment"),
    "gemini/Moja_dejavnost.html": (10, "attachment"),
    "gemini/MyActivity.json": (13, "attachment"),
    "gemini/aistudio_chunks.json": (3,),
    "gemini/conversation_1.txt": (7, "reasoning", "image"),
    "gemini/session-2026-04-27T01-55-5f0c.jsonl": (9, "reasoning", "tool message"),
    "agents/claude_code.jsonl": (27, "image"),
    "agents/copilot_events.jsonl": (10, "attachment", "reasoning"),
    "agents/rollout-2026-09-01T10-00-00-019a.jsonl": (16, "image"),
    "agents/state.vscdb": (12, "reasoning", "empty conversation", "entry of another shape"),
    "agents/vscode_chat.json": (9, "reasoning", "tool message"),
    "programs/20260801-10-00-00.json": (7, "reasoning"),
    "programs/Chef - 2026-08-01.jsonl": (8, "reasoning"),
    "programs/anythingllm_chats.json": (9, "attachment", "reasoning"),
    "programs/chat-export-1754000000000.json": (5, "attachment", "reasoning", "tool message"),
    "programs/copilot-activity-history.csv": (7,),
    "programs/doubao.json": (6, "reasoning"),
    "programs/jan/threads/jan_1704487430/messages.jsonl": (5, "reasoning", "tool message", "image"),
    "programs/kimi.json": (3, "attachment", "reasoning"),
    "programs/librechat.json": (7, "attachment"),
    "programs/lobechat.json": (7, "attachment", "reasoning"),
    "programs/ollama_db.sqlite": (9, "attachment", "reasoning", "empty conversation"),
    "programs/prod-grok-backend.json": (8, "attachment", "citation", "tool message"),
    "programs/tongyi.json": (2, "tool message"),
    "programs/yuanbao.json": (4, "citation", "reasoning", "tool message", "image"),
}
"""Messages and entries in each file, and the reasons that count parts of a message or whole conversations."""


@pytest.mark.parametrize("name", PARTS)
def test_what_is_read_and_what_is_left_out_adds_up(name: str) -> None:
    messages, *parts = PARTS[name]
    conversations, skipped = read(EXPORTS / name)
    turns = [turn for conversation in conversations for turn in conversation.turns if turn.role != "system"]
    whole = sum(count for reason, count in skipped.items() if reason not in parts)
    assert len(turns) + sum(len(turn.alternatives) for turn in turns) + whole == messages
