"""What the Chat tab reads from the workspace and writes to memory; every function blocks: call it in a thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engine.chats.record import SOURCE, ChatRecord
from engine.chats.store import ChatStore
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.memory.records import ImportItem, Replaced
from engine.memory.store import MemoryStore
from engine.models.card import ModelCard
from engine.models.catalog import ListedModel, beside, list_bases, trained_models
from engine.models.ollama.running import installed_models
from engine.models.registry import in_use
from engine.models.resolve import ModelOrigin, adapter_on, find_place, split_adapter
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

    @property
    def general(self) -> str:
        """The model for questions that are not about the person: the base of the one in use, else another base; "" for
        none."""
        card = next((card for card in self.cards if card.name == self.in_use), None)
        others = [name for name in self.names if name != self.in_use]
        wished = [card.base] if card is not None and card.base else []
        known = [*(base.name for base in self.bases), *(OLLAMA + tag for tag in self.tags)]
        return next((name for name in (*wished, *known, *wished) if name in others), "")

    def is_small(self, name: str) -> bool:
        """Whether it is a model trained here from scratch, which imitates style; adapters and Ollama's models
        converse."""
        card = next((card for card in self.cards if card.name == name), None)
        return card is not None and card.mode in ("scratch", "native")


def read_models(workspace: Workspace) -> ChatModels:
    """Reads the model cards and the headers of the bases, and asks Ollama for its tags."""
    problem = ""
    try:
        used = in_use(workspace) or ""
    except BadInput as error:
        used, problem = "", str(error)
    served = installed_models()
    trained = trained_models(workspace)
    bases = beside(trained, list_bases(workspace))
    # Ollama talks with every model it has; a file of its store is read here where its kind is known.
    tags = [base.name for base in bases if base.origin is ModelOrigin.OLLAMA and not base.problem]
    return ChatModels(
        [model.card for model in trained if model.card is not None],
        [base for base in bases if base.origin is not ModelOrigin.OLLAMA and not base.problem],
        list(dict.fromkeys([*served, *tags])),
        used,
        problem,
    )


def keep_in_memory(workspace: Workspace, record: ChatRecord) -> str:
    """Stores the kept exchanges of a chat in memory, in place of what was kept of it before.

    Returns the id of the conversation; the next corpus build finds it. Raises H2QError and OSError.
    """
    conversation = record.kept_conversation()
    if not conversation.turns:
        # Taken back before it was written.
        return record.memory_id
    items: list[ImportItem] = [conversation]
    if record.memory_id and record.memory_id != conversation.id:
        items.append(Replaced(id=record.memory_id, by=conversation.id))
    with uninterruptible(), MemoryStore(workspace.memory_db) as store:
        store.add(items, SOURCE, SOURCE, again=True)
    return conversation.id


def take_from_memory(workspace: Workspace, record: ChatRecord) -> str:
    """Takes back what was kept of a chat, except what is still marked as kept.

    Returns the id of the conversation that is left, "" for none. Raises H2QError and OSError.
    """
    conversation = record.kept_conversation()
    with uninterruptible(), MemoryStore(workspace.memory_db) as store:
        if record.memory_id:
            store.forget([record.memory_id])
        if conversation.turns:
            store.add([conversation], SOURCE, SOURCE, again=True)
    return conversation.id if conversation.turns else ""


def find_named_model(workspace: Workspace, name: str) -> str:
    """What `name` (a name, tag, path, or BASE + ADAPTER) stands for, as a name for the inference service.

    Raises BadInput with the nearest names there are.
    """
    adapter, base = split_adapter(name.strip())
    place = find_place(workspace, adapter)
    return adapter_on(place.reference, find_place(workspace, base).reference) if base else place.reference


def erased_anything(store: ChatStore, record: ChatRecord) -> bool:
    """Writes a chat into the history. True when `memory forget` had erased exchanges of it meanwhile. Raises OSError."""
    with uninterruptible():
        return store.save(record, time.time())
