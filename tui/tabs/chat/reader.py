"""What the Chat tab reads from the workspace and writes to memory; every function blocks: call it in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard
from engine.models.catalog import ListedModel, list_bases
from engine.models.ollama.running import installed_models
from engine.models.registry import in_use, list_models
from engine.models.resolve import ModelOrigin
from tui.host.shutdown import uninterruptible
from tui.tabs.chat.pick_model import OLLAMA


@dataclass(frozen=True)
class ChatModels:
    """The models to chat with."""

    cards: Sequence[ModelCard] = ()
    bases: Sequence[ListedModel] = ()
    """Models that were not trained here, without Ollama's."""
    tags: Sequence[str] = ()
    """Models of an Ollama on this machine."""
    in_use: str = ""
    """Name of the model in use, "" for none."""
    problem: str = ""

    @property
    def names(self) -> list[str]:
        return [
            *(card.name for card in self.cards),
            *(base.name for base in self.bases),
            *(OLLAMA + tag for tag in self.tags),
        ]

    def is_small(self, name: str) -> bool:
        """Whether it is a model trained here from scratch, which imitates style; adapters and Ollama's models
        converse."""
        card = next((card for card in self.cards if card.name == name), None)
        return card is not None and not card.base_path


def read_models(workspace: Workspace) -> ChatModels:
    """Reads the model cards and the headers of the bases, and asks Ollama for its tags."""
    problem = ""
    try:
        used = in_use(workspace) or ""
    except BadInput as error:
        used, problem = "", str(error)
    served = installed_models()
    bases = list_bases(workspace)
    # Ollama talks with every model it has; a file of its store is read here where its kind is known.
    tags = [base.name for base in bases if base.origin is ModelOrigin.OLLAMA and not base.problem]
    return ChatModels(
        list_models(workspace),
        [base for base in bases if base.origin is not ModelOrigin.OLLAMA and not base.problem],
        list(dict.fromkeys([*served, *tags])),
        used,
        problem,
    )


def keep_conversation(workspace: Workspace, conversation: Conversation) -> None:
    """Stores a chat in memory, where the next corpus build finds it. Raises H2QError and OSError."""
    with uninterruptible(), MemoryStore(workspace.memory_db) as store:
        store.add([conversation], "chat", "chat")
