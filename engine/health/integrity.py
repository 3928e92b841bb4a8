"""Whether the installed packages are whole: what each requires is there, and their files are those of their RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.health.grades import Grade, Judgement, NotKnown, fixable, passes, warns
from engine.health.versions import install_fix, installed_version

ROOT_PACKAGE = "h2q-tui"
HASH_S = 1.5
"""Time for hashes; sizes of all files are compared before."""
_HASHED_AT_MOST = 4 << 20
"""Larger files are compared by their size alone."""
_SHOWN = 3


class Unmet(NamedTuple):
    """A requirement that is not fulfilled."""

    by: str
    """The package that has it."""
    requirement: str
    """As that package writes it, without its marker."""
    installed: str
    """Version; "" when it is not installed."""


class RequirementsReading(NamedTuple):
    packages: int
    unmet: tuple[Unmet, ...] = ()
    broken: tuple[str, ...] = ()
    """Packages whose metadata cannot be read, as they are required: "numpy>=2"."""


def read_requirements(_ws: Workspace) -> RequirementsReading:
    """Follows the requirements of this program as pip's `check` does, without pip."""
    found, unmet, broken = _closure()
    return RequirementsReading(len(found), tuple(unmet), tuple(broken))


def _closure() -> tuple[dict[str, metadata.Distribution], list[Unmet], list[str]]:
    """The installed packages that this program needs, by their normalised names; raises NotKnown."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name
    except ImportError:
        raise NotKnown(_("the package {name} is missing").format(name="packaging")) from None
    try:
        root = metadata.distribution(ROOT_PACKAGE)
    except metadata.PackageNotFoundError:
        raise NotKnown(_("{name} is not installed as a package").format(name=ROOT_PACKAGE)) from None
    found: dict[str, metadata.Distribution] = {ROOT_PACKAGE: root}
    unmet, broken = dict[Unmet, None](), list[str]()
    waiting: list[tuple[str, str]] = [(ROOT_PACKAGE, "")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        try:
            lines = found[name].requires or []
        except (OSError, UnicodeDecodeError, ValueError, KeyError):
            broken.append(name)
            continue
        for line in lines:
            try:
                wanted = Requirement(line)
                if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
                    continue
            except InvalidRequirement:
                broken.append(name)
                break
            key = str(canonicalize_name(wanted.name))
            plain = f"{wanted.name}{wanted.specifier}"
            version = installed_version(wanted.name)
            if not version:
                if _is_there(wanted.name):
                    broken.append(plain)
                else:
                    unmet[Unmet(name, plain, "")] = None
                continue
            if wanted.specifier and not wanted.specifier.contains(version, prereleases=True):
                unmet[Unmet(name, plain, version)] = None
            found[key] = metadata.distribution(wanted.name)
            for step in ((key, ""), *((key, extra_) for extra_ in wanted.extras)):
                if step not in seen:
                    seen.add(step)
                    waiting.append(step)
    return found, list(unmet), list(dict.fromkeys(broken))


def _is_there(name: str) -> bool:
    """Whether a package is installed at all, whatever its metadata is worth."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def judge_requirements(reading: RequirementsReading) -> Judgement:
    if reading.broken:
        text = _("the metadata of {names} cannot be read").format(names=_(", ").join(reading.broken[:_SHOWN]))
        return fixable(Grade.FAIL, text, install_fix(*reading.broken[:_SHOWN], over=True))
    if not reading.unmet:
        n = reading.packages
        return passes(
            n_(
                "{n} package, and what it requires",
                "{n} packages, and each has what it requires",
                n,
            ).format(n=n)
        )
    parts = []
    for row in reading.unmet[:_SHOWN]:
        text = (
            _("{by} needs {requirement}, installed is {version}")
            if row.installed
            else _("{by} needs {requirement}, which is not installed")
        )
        parts.append(text.format(by=row.by, requirement=row.requirement, version=row.installed))
    wanted = dict.fromkeys(row.requirement for row in reading.unmet[:_SHOWN])
    return fixable(Grade.FAIL, _("; ").join(parts), install_fix(*wanted))


class RecordedFile(NamedTuple):
    """A line of RECORD that has a hash or a size."""

    path: str
    digest: str
    """`sha256=…`, urlsafe base64 without padding; "" without one."""
    size: int | None


class FilesReading(NamedTuple):
    packages: int
    files: int
    hashed: int
    missing: Mapping[str, str] = {}
    """Package → the first of its files that is missing or shorter than recorded."""
    changed: Mapping[str, str] = {}
    """Package → the first of its files that has other content."""
    unrecorded: tuple[str, ...] = ()
    """Packages without a readable RECORD (of a distribution's package manager, or damaged)."""


def read_files(_ws: Workspace, hash_s: float = HASH_S) -> FilesReading:
    """Compares the files of all packages that this program needs: sizes, and hashes while the time lasts."""
    found, _unmet, _broken = _closure()
    missing, changed = dict[str, str](), dict[str, str]()
    unrecorded, count = list[str](), 0
    small: list[tuple[int, str, Path, RecordedFile]] = []
    for name, package in sorted(found.items()):
        rows = _recorded(package)
        if rows is None:
            unrecorded.append(name)
            continue
        for row in rows:
            path = Path(str(package.locate_file(row.path)))
            count += 1
            try:
                size = path.stat().st_size
            except OSError:
                missing.setdefault(name, row.path)
                continue
            if row.size is not None and size < row.size:
                missing.setdefault(name, row.path)
            elif row.size is not None and size != row.size:
                changed.setdefault(name, row.path)
            elif row.digest and size <= _HASHED_AT_MOST:
                small.append((size, name, path, row))
    hashed, end = 0, time.monotonic() + hash_s
    # Compiled libraries first: their damage shows as a crash, that of a text as an error.
    for _size, name, path, row in sorted(small, key=lambda item: (".so" not in item[3].path, item[0])):
        if time.monotonic() > end:
            break
        hashed += 1
        if not has_digest(path, row.digest):
            changed.setdefault(name, row.path)
    return FilesReading(len(found), count, hashed, missing, changed, tuple(unrecorded))


def _recorded(package: metadata.Distribution) -> list[RecordedFile] | None:
    """The lines of a package's RECORD; None without a readable one."""
    try:
        text = package.read_text("RECORD")
    except (OSError, UnicodeDecodeError):
        return None
    return None if text is None else parse_record(text)


def parse_record(text: str) -> list[RecordedFile] | None:
    """The lines of a RECORD that have a hash; None for a text that is none (PEP 376: path, hash, size)."""
    rows = []
    try:
        for row in csv.reader(text.splitlines()):
            if not row:
                continue
            if len(row) != 3 or not row[0]:
                return None
            path, digest, size = row
            if digest:
                rows.append(RecordedFile(path, digest, int(size) if size else None))
    except (csv.Error, ValueError):
        return None
    return rows


def has_digest(path: Path, recorded: str) -> bool:
    """Whether a file has the hash of its RECORD line; True for an algorithm that is not known here."""
    name, _equals, value = recorded.partition("=")
    if name not in ("sha256", "sha384", "sha512"):
        return True
    try:
        digest = hashlib.new(name, path.read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == value.rstrip("=")


def judge_files(reading: FilesReading) -> Judgement:
    if reading.missing:
        text = _("files are missing or cut short: {names}").format(names=_named(reading.missing.items()))
        return fixable(Grade.FAIL, text, install_fix(*pinned(reading.missing), again=True))
    if reading.changed:
        text = _("files have changed since they were installed: {names}").format(
            names=_named(reading.changed.items())
        )
        return fixable(Grade.WARN, text, install_fix(*pinned(reading.changed), again=True))
    text = _("{files} files of {packages} packages are whole ({hashed} compared by hash)").format(
        files=reading.files, packages=reading.packages, hashed=reading.hashed
    )
    if reading.unrecorded:
        names = _(", ").join(reading.unrecorded[:_SHOWN])
        return warns(_("{detail}; without a list of files: {names}").format(detail=text, names=names))
    return passes(text)


def _named(rows: Iterable[tuple[str, str]]) -> str:
    return _(", ").join(f"{name} ({path})" for name, path in list(rows)[:_SHOWN])


def pinned(names: Iterable[str]) -> list[str]:
    """`name==version` of installed packages, so that an installation changes no version."""
    return [
        f"{name}=={version}" if (version := installed_version(name)) else name
        for name in list(names)[:_SHOWN]
    ]
