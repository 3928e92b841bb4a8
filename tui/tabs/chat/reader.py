"""What the Chat tab reads from the workspace and writes to memory; every function blocks: call it in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard
from engine.models.ollama.running import installed_models
from engine.models.registry import in_use, list_models
from tui.host.shutdown import uninterruptible
from tui.tabs.chat.pick_model import OLLAMA


@dataclass(frozen=True)
class ChatModels:
    """The models to chat with."""

    cards: Sequence[ModelCard] = ()
    tags: Sequence[str] = ()
    """Models of an Ollama on this machine."""
    in_use: str = ""
    """Name of the model in use, "" for none."""
    problem: str = ""

    @property
    def names(self) -> list[str]:
        return [card.name for card in self.cards] + [OLLAMA + tag for tag in self.tags]

    def is_small(self, name: str) -> bool:
        """Whether it is a model trained here from scratch, which imitates style; adapters and Ollama's models
        converse."""
        card = next((card for card in self.cards if card.name == name), None)
        return card is not None and not card.base_path


def read_models(workspace: Workspace) -> ChatModels:
    """Reads the model cards and asks Ollama for its tags."""
    problem = ""
    try:
        used = in_use(workspace) or ""
    except BadInput as error:
        used, problem = "", str(error)
    return ChatModels(list_models(workspace), installed_models(), used, problem)


def keep_conversation(workspace: Workspace, conversation: Conversation) -> None:
    """Stores a chat in memory, where the next corpus build finds it. Raises H2QError and OSError."""
    with uninterruptible(), MemoryStore(workspace.memory_db) as store:
        store.add([conversation], "chat", "chat")
