"""The two models of a validation, whatever they are made of: each cuts, reads and answers in its own way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.inference.backends.hf import HFModel
from engine.inference.backends.native import Answering, NativeModel
from engine.models.adapters import attach_adapter
from engine.models.base_models import BaseModel, adapter_card, find_base
from engine.models.chat_template import ChatTemplate
from engine.models.chatml import MaskedTokens
from engine.models.hf import base_format, load_base_as, load_chat_template
from engine.models.native_format import load_model
from engine.models.resolve import ModelKind, kind_of
from engine.models.transformer import Transformer
from engine.validation import nll
from engine.validation.cases import Case, GeneralBlock, HeldOutLike, cut_cases

CONTEXT = 1024
"""Tokens of a window for bases that see more: training windows are no longer either."""

Step = Callable[[int], None]


class Subject(Protocol):
    """A model that is judged."""

    @property
    def name(self) -> str: ...

    @property
    def context(self) -> int:
        """Bytes or tokens of a window."""
        ...

    def cases(self, held: Sequence[HeldOutLike], context: int) -> list[Case]:
        """The held-out conversations as this model reads them, in windows of at most `context`."""
        ...

    def score_cases(self, cases: Sequence[Case], step: Step | None = None) -> list[float]:
        """NLL per scored byte of each case, nats; NaN where the model gives none."""
        ...

    def score_general(self, blocks: Sequence[GeneralBlock], step: Step | None = None) -> list[float]:
        """NLL per byte of each block, nats."""
        ...

    @contextmanager
    def answering(self) -> Iterator[Answering]:
        """The model as it answers in a chat."""
        ...


@dataclass(frozen=True)
class NativeSubject:
    """One of our own models: bytes are tokens."""

    name: str
    model: Transformer

    @property
    def context(self) -> int:
        return self.model.config.context

    def cases(self, held: Sequence[HeldOutLike], context: int) -> list[Case]:
        return cut_cases(held, context)

    def score_cases(self, cases: Sequence[Case], step: Step | None = None) -> list[float]:
        return nll.score_cases(self.model, cases, step=step)

    def score_general(self, blocks: Sequence[GeneralBlock], step: Step | None = None) -> list[float]:
        return nll.score_general(self.model, blocks, step=step)

    @contextmanager
    def answering(self) -> Iterator[Answering]:
        yield NativeModel(self.model)


@dataclass(frozen=True)
class HFSubject:
    """A Hugging Face model or an adapter on it. Two of one base share it."""

    name: str
    model: HFModel
    adapter: str | None = None
    """Name of the adapter in the shared model; None: the base alone."""
    longest: int = field(default=CONTEXT)

    @property
    def chat(self) -> ChatTemplate:
        return self.model.chat

    @property
    def context(self) -> int:
        return min(self.model.context, self.longest)

    def cases(self, held: Sequence[HeldOutLike], context: int) -> list[Case]:
        def cut(messages: Sequence[ChatMessage], length: int) -> list[MaskedTokens]:
            try:
                return self.chat.windows(messages, length)
            except BadInput:  # the template does not take it; training left such ones out, too
                return []

        return cut_cases(held, context, cut)

    def score_cases(self, cases: Sequence[Case], step: Step | None = None) -> list[float]:
        found = []
        with self._active():
            for case in cases:
                total = 0.0
                for window in case.windows:
                    total += self.model.nll(window.ids, window.loss_mask)
                    if step is not None:
                        step(len(window.ids))
                found.append(total / case.bytes if math.isfinite(total) else math.nan)
        return found

    def score_general(self, blocks: Sequence[GeneralBlock], step: Step | None = None) -> list[float]:
        found = []
        with self._active():
            for block in blocks:
                ids = self.chat.encode(b"".join(block.chunks).decode("utf-8", "ignore"))
                total = size = 0.0
                for at in range(0, len(ids), self.context):
                    piece = ids[at : at + self.context]
                    total += self.model.nll(piece, [True] * len(piece))
                    size += len(self.chat.decode(piece[1:]).encode("utf-8", "ignore"))
                found.append(total / size if size and math.isfinite(total) else math.nan)
                if step is not None:
                    step(len(ids))
        return found

    @contextmanager
    def answering(self) -> Iterator[Answering]:
        with self._active():
            yield self.model

    def _active(self) -> Any:
        """The shared model as this subject."""
        peft = self.model.model
        if not hasattr(peft, "peft_config"):
            return nullcontext()
        if self.adapter is None:
            return peft.disable_adapter()
        peft.set_adapter(self.adapter)
        for parameter in peft.parameters():
            parameter.requires_grad = False
        return nullcontext()


def load_subjects(ws: Workspace, base: Path, new: Path) -> tuple[Subject, Subject]:
    """Both models; a base that both stand on is loaded once. Raises BadInput for a broken one."""
    if ModelKind.NATIVE in (kind_of(base), kind_of(new)):
        return _single(ws, base), _single(ws, new)
    first, second = find_base(ws, str(base)), find_base(ws, str(new))
    if first.path != second.path:
        return _single(ws, base), _single(ws, new)
    return _pair(first, second)


def _pair(first: BaseModel, second: BaseModel) -> tuple[Subject, Subject]:
    card = next(
        (card for one in (second, first) if one.adapter is not None and (card := adapter_card(one.adapter))),
        None,
    )
    inner = load_base_as(first, base_format(first, card))
    peft = inner
    names: list[str | None] = []
    for number, one in enumerate((first, second)):
        if one.adapter is None:
            names.append(None)
        elif peft is inner:
            peft = attach_adapter(inner, one.adapter)
            names.append("default")
        else:
            peft.load_adapter(str(one.adapter), adapter_name=f"other{number}", torch_device="cpu")
            names.append(f"other{number}")
    shared = HFModel(peft, load_chat_template(first), first.dimensions.context)
    longest = card.context if card is not None else CONTEXT
    old, fresh = (
        HFSubject(one.adapter.name if one.adapter is not None else second.name, shared, name, longest)
        for one, name in zip((first, second), names, strict=True)
    )
    return old, fresh


def _single(ws: Workspace, folder: Path) -> Subject:
    if kind_of(folder) is ModelKind.NATIVE:
        return _native(folder)
    base = find_base(ws, str(folder))
    name = "default" if base.adapter is not None else None
    return HFSubject(folder.name, HFModel.load(base), name)


def _native(folder: Path) -> NativeSubject:
    model, card = load_model(folder)
    return NativeSubject(card.name, model)
