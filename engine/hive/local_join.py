"""`hive aggregate` on folders of this machine: adapters with their cards, joined into a folder that the program knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from engine.core.errors import UsageProblem
from engine.core.files import write_bytes
from engine.core.i18n import _
from engine.core.outputs import ADAPTER_FOLDER, check_output_folder
from engine.hive.aggregation.join import join_adapters
from engine.hive.aggregation.terms import Contribution, JoinOptions, JoinReport
from engine.models.card import CARD_FILE, Lineage, ModelCard, encode_card, read_card


def aggregate_folders(
    folders: Sequence[Path],
    output: Path,
    options: JoinOptions,
    *,
    weights: Sequence[float] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> JoinReport:
    """Joins the adapters in `folders` into `output`; the version of the report is its name.

    Args:
        weights: one for each folder; without them conversations that each was trained on, where all cards say it.

    Raises UsageProblem, also for an output that holds something else or is one of the folders, NotEnoughData, OSError.
    """
    if weights and len(weights) != len(folders):
        raise UsageProblem(
            _("there are {adapters} adapters and {weights} weights").format(
                adapters=len(folders), weights=len(weights)
            ),
            hint="h2q-tui hive aggregate --help",
        )
    check_output_folder(output, ADAPTER_FOLDER)
    if any(folder.resolve() == output.resolve() for folder in folders):
        raise UsageProblem(_("the output is one of the adapters that are joined"))
    cards = [_card(folder) for folder in folders]
    counts = [len(card.lineage.conversations) if card is not None else 0 for card in cards]
    samples = list(weights) or ([float(count) for count in counts] if all(counts) else [1.0] * len(folders))
    names = _names(folders)
    contributions = [Contribution(*one) for one in zip(names, folders, samples, strict=True)]
    joined = join_adapters(
        contributions,
        output,
        options,
        on_progress,
        add_files=lambda folder, report: _add_card(
            folder,
            output.name,
            [card for name, card in zip(names, cards, strict=True) if name in _used(report)],
            report,
        ),
    )
    return msgspec.structs.replace(joined, version=output.name)


def _used(report: JoinReport) -> set[str]:
    return {one.adapter for one in report.adapters}


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders, those that several have with their parents."""
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UsageProblem(_("the same adapter is named twice"))
    return names


def _card(folder: Path) -> ModelCard | None:
    try:
        return read_card(folder)
    except (OSError, msgspec.DecodeError):
        return None


def _add_card(folder: Path, name: str, cards: Sequence[ModelCard | None], report: JoinReport) -> None:
    """Writes a card that names everything that the adapters were trained on; none where one of them has none."""
    known = [card for card in cards if card is not None]
    if len(known) < len(cards) or len({(card.base_sha256, card.base_format) for card in known}) > 1:
        return
    first = known[0]
    card = ModelCard(
        name=name,
        mode=first.mode,
        base=first.base,
        first=first.first,
        base_path=first.base_path,
        base_sha256=first.base_sha256,
        base_format=first.base_format,
        created_at=time.time(),
        parameters=report.parameters,
        context=min(card.context for card in known),
        languages=sorted({language for card in known for language in card.languages}),
        train_bytes=sum(card.train_bytes for card in known),
        weights_sha256=report.sha256,
        lineage=Lineage(
            conversations=sorted({id_ for card in known for id_ in card.lineage.conversations}),
            clusters=sorted({id_ for card in known for id_ in card.lineage.clusters}),
            newest_conversation=max(
                (card.lineage.newest_conversation for card in known if card.lineage.newest_conversation),
                default=None,
            ),
        ),
    )
    write_bytes(folder / CARD_FILE, encode_card(card))
