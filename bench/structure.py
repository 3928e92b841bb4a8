"""The structure in figures: floors, arrows, circles, class names. `make check` runs it and fails on a circle.

`python -m bench.structure` prints one line for each figure; `--strict` exits with 1 when packages import each
other, an import points upwards, files import each other in a circle, or a class name has two meanings. `--list`
names what stands behind each figure.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "tui")


@dataclass(frozen=True)
class Figure:
    """One line of the report; `members` stand behind it, and `bound` is the most that `--strict` accepts."""

    name: str
    value: int
    members: tuple[str, ...] = ()
    bound: int | None = None

    @property
    def met(self) -> bool:
        return self.bound is None or self.value <= self.bound


def main() -> int:
    """Prints the figures; 1 when `--strict` and a bound is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.structure", description=__doc__)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--list", action="store_true", help="name what stands behind each figure")
    options = parser.parse_args()
    figures = list(measure())
    for figure in figures:
        print(f"{figure.value:7,d}  {figure.name}" + ("" if figure.met else f"  (at most {figure.bound})"))
        for member in figure.members if options.list or (options.strict and not figure.met) else ():
            print(f"           {member}")
    return int(options.strict and not all(figure.met for figure in figures))


def measure() -> Iterator[Figure]:
    """Every figure of this checkout."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    arrows = {
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    full = [path for path in files if path.stat().st_size]
    floors = layers()
    yield Figure("files of engine and tui that hold code", len(full))
    yield Figure("lines in them", sum(len(path.read_text(encoding="utf-8").splitlines()) for path in full))
    yield Figure("floors of the layers contract", len(floors))
    for package in PACKAGES:
        mutual = sorted(mutual_pairs(arrows, package))
        yield Figure(f"pairs of {package} packages that import each other", len(mutual), tuple(mutual), 0)
    upward = sorted(upward_arrows(arrows, floors))
    yield Figure("imports that point upwards", len(upward), tuple(upward), 0)
    circles = [" ↔ ".join(sorted(circle)) for circle in strongly_connected(arrows)]
    yield Figure("circles of files", len(circles), tuple(circles), 0)
    homonyms = sorted(repeated_class_names(full))
    yield Figure("class names with two or more meanings", len(homonyms), tuple(homonyms), 0)
    single = sorted(imported_once(arrows))
    yield Figure("modules imported by exactly one other module", len(single), tuple(single))
    long = [f"{path.relative_to(ROOT)}: {lines}" for path in full if (lines := line_count(path)) > 500]
    yield Figure("files of more than 500 lines", len(long), tuple(long))


def line_count(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def layers() -> list[list[str]]:
    """The floors of the `layers` contract in pyproject.toml, from the top down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    contract = next(
        entry for entry in contracts if entry["type"] == "layers" and "engine.core" in entry["layers"]
    )
    return [[name.strip() for name in line.split("|")] for line in contract["layers"]]


def package_of(module: str) -> str:
    """The package directly below the root: `engine.corpus` for `engine.corpus.review.store`."""
    return ".".join(module.split(".")[:2])


def mutual_pairs(arrows: Iterable[tuple[str, str]], root: str) -> set[str]:
    """Pairs of packages directly below `root` that import each other."""
    between = {
        (package_of(importer), package_of(imported))
        for importer, imported in arrows
        if importer.startswith(f"{root}.") and imported.startswith(f"{root}.")
    }
    return {f"{a} ↔ {b}" for a, b in between if a < b and (b, a) in between}


def upward_arrows(arrows: Iterable[tuple[str, str]], floors: list[list[str]]) -> set[str]:
    """Imports from a floor to one above it, or to another package of the same floor."""
    height = {package: number for number, floor in enumerate(floors) for package in floor}
    found = set()
    for importer, imported in arrows:
        here, there = package_of(importer), package_of(imported)
        here, there = (name if name in height else name.partition(".")[0] for name in (here, there))
        if here != there and here in height and there in height and height[there] <= height[here]:
            found.add(f"{importer} → {imported}")
    return found


def strongly_connected(arrows: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Sets of two or more modules of which each reaches the others (Kosaraju)."""
    forwards: dict[str, list[str]] = defaultdict(list)
    backwards: dict[str, list[str]] = defaultdict(list)
    for importer, imported in sorted(arrows):
        forwards[importer].append(imported)
        backwards[imported].append(importer)
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted({*forwards, *backwards}):
        stack = [(start, iter(forwards[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            node, following = stack[-1]
            step = next((name for name in following if name not in seen), None)
            if step is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(step)
                stack.append((step, iter(forwards[step])))
    found, assigned = [], set[str]()
    for start in reversed(order):
        component, pending = set[str](), [start]
        while pending:
            node = pending.pop()
            if node not in assigned:
                assigned.add(node)
                component.add(node)
                pending += backwards[node]
        if len(component) > 1:
            found.append(component)
    return found


def repeated_class_names(files: Iterable[Path]) -> set[str]:
    """Names of classes at module level that stand in more than one file."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    return {f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1}


def imported_once(arrows: Iterable[tuple[str, str]]) -> set[str]:
    """Modules with exactly one importer."""
    importers: dict[str, set[str]] = defaultdict(set)
    for importer, imported in arrows:
        importers[imported].add(importer)
    return {f"{module} ← {next(iter(by))}" for module, by in importers.items() if len(by) == 1}


if __name__ == "__main__":
    sys.exit(main())
