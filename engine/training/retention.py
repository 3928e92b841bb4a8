"""Which checkpoints stay, as a pure function of what is there, and whether there is room for another."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.i18n import _

HOUR_S = 3600.0
RESERVE_MB = 256
RESERVE_SHARE = 0.02
"""Room that checkpoints leave on a disk: the smaller of both. A full disk would stop the journal, too."""


@dataclass(frozen=True)
class Retention:
    """How many checkpoints of a phase are kept beside the best one and the one to return to."""

    last: int = 2
    """The newest ones, 1 or more."""
    hourly: int = 24
    """The newest one of each of so many hours before; 0: none."""


@dataclass(frozen=True)
class Kept:
    """What decides about one checkpoint."""

    path: Path
    saved_at: float | None
    """Seconds since the epoch; None when it cannot be read."""
    evaluation: float | None
    """Its loss on the general set; None without one."""


def keep(found: Sequence[Kept], rule: Retention, good: str) -> list[Path]:
    """Those of `found` (newest first, whole ones only) that stay, in the order of their worth.

    The newest ones come first, then the one named `good`, the best, and one of each hour.
    """
    paths = [one.path for one in found[: max(1, rule.last)]]
    paths += [one.path for one in found if one.path.name == good]
    judged = [(one.evaluation, place) for place, one in enumerate(found) if one.evaluation is not None]
    paths += [found[place].path for _loss, place in sorted(judged)[:1]]
    hours: dict[int, Path] = {}
    for one in found:
        if one.saved_at is not None:
            hours.setdefault(int(one.saved_at // HOUR_S), one.path)
    paths += [hours[hour] for hour in sorted(hours, reverse=True)[: rule.hourly]]
    return list(dict.fromkeys(paths))


def reserve(total: int) -> int:
    """Bytes that stay free on a disk of `total` bytes."""
    return min(RESERVE_MB << 20, int(RESERVE_SHARE * total))


def check_room(folder: Path, size: int) -> None:
    """Raises OSError (ENOSPC) with a sentence when a checkpoint of `size` bytes would fill the disk."""
    disk = shutil.disk_usage(folder)
    need = size + reserve(disk.total)
    if disk.free < need:
        raise OSError(
            errno.ENOSPC,
            _("the disk is nearly full: {free} MB are free, a checkpoint needs {need} MB").format(
                free=disk.free >> 20, need=-(-need >> 20)
            ),
        )
