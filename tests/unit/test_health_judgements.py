"""The judgements of the preflight on recorded readings: each passes, warns, fails or says that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from engine.health import (
    clock,
    disk,
    embedding,
    integrity,
    libraries,
    machine,
    privacy,
    services,
    terminal,
    versions,
)
from engine.health import workspace_data as data
from engine.health.grades import GB, Grade, Judgement, NotKnown
from engine.health.preflight import CHECKS, judge_sqlite

PASS, WARN, FAIL, UNKNOWN = Grade.PASS, Grade.WARN, Grade.FAIL, Grade.UNKNOWN
NOW = datetime(2026, 11, 29, 15, 0, tzinfo=UTC).timestamp()
DAY = 86400.0
OURS = "/usr/bin/python -m engine watch /home/u/.h2q"
WEB = "/home/u/.local/bin/h2q-tui hive serve --host 0.0.0.0"
OLLAMA_SERVES = "/usr/local/bin/ollama serve"
OLLAMA = "http://127.0.0.1:11434"
TORCH_GOMP = ("libgomp", "/v/lib/python3.11/site-packages/torch/lib/libgomp.so.1")
SKLEARN_GOMP = ("libgomp", "/v/lib/python3.11/site-packages/scikit_learn.libs/libgomp-e985bcbb.so.1.0.0")
BREW_OMP = ("libomp", "/opt/homebrew/Cellar/libomp/18.1.4/lib/libomp.dylib")
TORCH_OMP = ("libomp", "/Users/m/py3.12/lib/python3.12/site-packages/torch/lib/libomp.dylib")
NO_GOMP = "ImportError: libgomp.so.1: cannot open shared object file: No such file or directory"
LEAKY = {"tcp": "blocked", "udp": "open", "name": "blocked", "loopback": "open"}


def listener(address: str, port: int, pid: int | None, command: str) -> services.Listener:
    return services.Listener(address, port, pid, tuple(command.split()))


def private(path: str, mode: int, owner: int = 1000, *, secret: bool = False) -> privacy.FileMode:
    return privacy.FileMode(path, mode, owner, secret)


def secrets(*files: privacy.FileMode) -> privacy.SecretsReading:
    return privacy.SecretsReading(1000, files)


def backups(
    *days: float, conversations: bool = True, damaged: int = 0, weekly: bool = True
) -> data.BackupsReading:
    dates = tuple(NOW - age * DAY for age in days)
    return data.BackupsReading(NOW, conversations, weekly, dates, damaged)


def swaps(
    *rows: tuple[str, int], zswap: bool | None = None, memory: int = 8 * GB
) -> machine.CompressionReading:
    return machine.CompressionReading("Linux", memory, rows, zswap)


def mac(mode: int) -> machine.CompressionReading:
    return machine.CompressionReading("Darwin", 16 * GB, compressor_mode=mode)


def mps(
    chip: str = "Apple M1 Pro", torch: str = "2.13.0", ratio: str = "", metal: str = ""
) -> versions.MpsReading:
    return versions.MpsReading("Darwin" if chip else "Linux", chip, torch, ratio, metal)


def ollama(version: str = "", needed: str = "", **more: Any) -> services.OllamaReading:
    return services.OllamaReading(OLLAMA, more.pop("installed", True), needed, version, **more)


def in_tmux(term: str, colorterm: str, tmux: terminal.Tmux | None) -> terminal.ColoursReading:
    return terminal.ColoursReading(term, colorterm, no_color=False, inside="tmux", tmux=tmux)


def bare(term: str, colorterm: str = "", **more: Any) -> terminal.ColoursReading:
    return terminal.ColoursReading(
        term, colorterm, more.pop("no_color", False), more.pop("inside", ""), **more
    )


def corpus(
    groups: frozenset[str] | None, setting: str = "ollama:bge-m3", **counts: int
) -> embedding.LanguagesReading:
    return embedding.LanguagesReading(setting, counts, groups)


CASES: Mapping[str, tuple[tuple[Any, Grade, str], ...]] = {
    "python": (
        (machine.PythonReading((3, 11, 7), "/usr/bin/python3"), PASS, "3.11.7"),
        (machine.PythonReading((3, 9, 2), "/usr/bin/python3"), FAIL, "3.11"),
    ),
    "platform": (
        (machine.SystemReading("Darwin", "25.6.0", "arm64"), PASS, "25.6.0"),
        (machine.SystemReading("FreeBSD", "14.1", "amd64"), FAIL, "FreeBSD"),
    ),
    "cores": (
        (machine.CoresReading(4, 0.5), PASS, "4"),
        (machine.CoresReading(1, 0.1), WARN, "one core"),
        (machine.CoresReading(2, 9.7), WARN, "9.7"),
    ),
    "memory": (
        (machine.MemoryReading(16 * GB, 9 * GB), PASS, "9.0 of 16.0"),
        (machine.MemoryReading(16 * GB, GB), WARN, "1.0"),
        (machine.MemoryReading(16 * GB, 9 * GB, limit=GB), FAIL, "2 GB"),
        (machine.MemoryReading(64 * GB, 60 * GB, limit=4 * GB), PASS, "4.0 of 4.0"),
    ),
    "compression": (
        (swaps(("/dev/zram0", 2 * GB)), PASS, "zram, 2.0"),
        (swaps(("/dev/dm-1", 4 * GB), zswap=True), PASS, "zswap, before 4.0"),
        (swaps(("/swapfile", 4 * GB), zswap=False), PASS, "not compressed"),
        (swaps(), WARN, "neither"),
        (swaps(zswap=True), WARN, "neither"),
        (swaps(memory=32 * GB), PASS, "neither"),
        (mac(4), PASS, "compressor_mode 4"),
        (mac(2), PASS, "compressor_mode 2"),
        (mac(1), WARN, "compressor_mode 1"),
    ),
    "disk": (
        (disk.DiskReading("/h", 20 * GB), PASS, "20.0"),
        (disk.DiskReading("/h", 4 * GB), WARN, "4.0"),
        (disk.DiskReading("/h", 0), FAIL, "0.5 GB"),
    ),
    "locks": (
        (disk.LocksReading("/h", "ext4", works=True), PASS, "ext4"),
        (disk.LocksReading("/h", "apfs", works=True), PASS, "apfs"),
        (disk.LocksReading("/h", "nfs4", works=True), WARN, "network"),
        (disk.LocksReading("/Volumes/nas", "smbfs", works=True), WARN, "network"),
        (disk.LocksReading("/h", "nfs4", works=None, error="EBADF"), WARN, "network"),
        (disk.LocksReading("/h", "overlay", works=True), WARN, "container"),
        (disk.LocksReading("/h", "exfat", works=True), WARN, "permissions"),
        (disk.LocksReading("/h", "nfs", works=False, error="ENOLCK"), FAIL, "ENOLCK"),
        (disk.LocksReading("/h", "fuse.odd", works=False), FAIL, "flock"),
        (disk.LocksReading("/h", "", works=None, error="EACCES"), UNKNOWN, "EACCES"),
    ),
    "clock": (
        (clock.ClockReading(NOW, NOW - 60, synchronised=True), PASS, "synchronised"),
        (clock.ClockReading(NOW, NOW + 60, synchronised=True), PASS, "synchronised"),
        (clock.ClockReading(NOW, 0.0, synchronised=None), PASS, "not known"),
        (clock.ClockReading(NOW, 0.0, synchronised=False), WARN, "not synchronised"),
        (clock.ClockReading(NOW, NOW + DAY, synchronised=True), WARN, "set back"),
        (clock.ClockReading(3600.0, 0.0, synchronised=False), FAIL, "before this program"),
    ),
    "torch": (
        (libraries.TorchReading("2.13.0+cpu", libraries.Probe("cpu", 2)), PASS, "on cpu, 2 threads"),
        (libraries.TorchReading("", libraries.Probe()), FAIL, "not installed"),
        (
            libraries.TorchReading("2.13.0", libraries.Probe(error="OSError: undefined symbol: x")),
            FAIL,
            "symbol",
        ),
        (libraries.TorchReading("2.13.0", libraries.Probe(error=NO_GOMP)), FAIL, "libgomp"),
    ),
    "openmp": (
        (libraries.Probe("cpu", 2, (TORCH_GOMP,)), PASS, "1 copy of libgomp is loaded: torch"),
        (libraries.Probe("cpu", 2, (TORCH_GOMP, SKLEARN_GOMP)), PASS, "torch, scikit_learn"),
        (libraries.Probe("cpu", 2, ()), PASS, "none"),
        (libraries.Probe("mps", 8, (TORCH_OMP, BREW_OMP)), WARN, "libomp"),
        (
            libraries.Probe("cpu", 2, (TORCH_GOMP, ("libiomp", "/opt/intel/libiomp5.so"))),
            WARN,
            "libgomp + libiomp",
        ),
        (libraries.Probe(error=NO_GOMP), FAIL, "libgomp is missing"),
        (libraries.Probe(error="OSError: undefined symbol: x"), UNKNOWN, "does not load"),
        (libraries.Probe("cpu", 2, None), UNKNOWN, "does not say"),
    ),
    "llama": (
        (libraries.LlamaReading("2026.10.11549"), PASS, "2026.10"),
        (libraries.LlamaReading(""), WARN, "not installed"),
        (libraries.LlamaReading("2026.10.11549", NO_GOMP), WARN, "libgomp"),
        (libraries.LlamaReading("2026.10.11549", "ImportError: undefined symbol: x"), WARN, "undefined"),
        (libraries.LlamaReading("2026.8.10252"), WARN, "outside its memory"),
    ),
    "mps": (
        (mps(chip="", torch="2.13.0"), PASS, "memory limit"),
        (mps(chip="Apple M4", torch="2.13.0"), PASS, "memory limit"),
        (mps(torch="2.14.0"), PASS, "memory limit"),
        (mps(metal="1"), PASS, "memory limit"),
        (mps(), WARN, "193487"),
        (mps(chip="Apple M2 Max"), WARN, "M2 Max"),
        (mps(chip="", ratio="0.0"), WARN, "0.0 disables"),
        (mps(chip="", ratio="0"), WARN, "0 disables"),
        (mps(chip="", ratio="0.7"), PASS, "memory limit"),
    ),
    "versions": (
        (
            {"peft": "0.21.2", "transformers": "5.23.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
            PASS,
            "2.13.0+cpu",
        ),
        ({}, PASS, "–"),
        ({"peft": "0.17.1", "transformers": "5.12.1"}, FAIL, "HybridCache"),
        ({"peft": "0.17.1", "transformers": "4.57.1"}, PASS, "0.17.1"),
        ({"peft": "0.18.0", "transformers": "5.12.1"}, PASS, "0.18.0"),
        ({"torch": "2.6.0", "transformers": "5.10.2"}, FAIL, "float8_e8m0fnu"),
        ({"torch": "2.2.2+cpu", "numpy": "2.0.2", "transformers": "4.40"}, FAIL, "numpy 1"),
        ({"torch": "2.2.2", "numpy": "1.26.4"}, PASS, "1.26.4"),
        ({"torch": "2.0.0", "safetensors": "0.6.1"}, FAIL, "uint64"),
        ({"torch": "2.3.1", "safetensors": "0.6.1"}, PASS, "0.6.1"),
        ({"torch": "2.0.0", "safetensors": "0.6.2"}, PASS, "0.6.2"),
    ),
    "accelerate": (
        ({}, PASS, "optional"),
        ({"accelerate": "1.9.0"}, PASS, "1.9.0"),
        ({"accelerate": "1.10.2"}, PASS, "1.10.2"),
        ({"accelerate": "1.8.1"}, WARN, "current_batch"),
        ({"accelerate": "0.34.0.dev0"}, WARN, "current_batch"),
    ),
    "packages": (
        (integrity.RequirementsReading(66), PASS, "66 packages"),
        (
            integrity.RequirementsReading(
                66, (integrity.Unmet("transformers", "tokenizers<=0.23.0", "0.24.1"),)
            ),
            FAIL,
            "transformers needs tokenizers<=0.23.0, installed is 0.24.1",
        ),
        (
            integrity.RequirementsReading(66, (integrity.Unmet("h2q-tui", "rensa>=0.5", ""),)),
            FAIL,
            "rensa>=0.5, which is not installed",
        ),
        (integrity.RequirementsReading(66, broken=("numpy>=2",)), FAIL, "metadata of numpy"),
    ),
    "files": (
        (integrity.FilesReading(66, 24202, 1650), PASS, "24202 files"),
        (integrity.FilesReading(66, 24202, 1650, changed={"peft": "peft/x.py"}), WARN, "peft (peft/x.py)"),
        (integrity.FilesReading(66, 24202, 1650, unrecorded=("numpy",)), WARN, "numpy"),
        (integrity.FilesReading(66, 24202, 0, missing={"torch": "torch/lib/libc10.so"}), FAIL, "libc10"),
    ),
    "sqlite": (((3, 40, 1), PASS, "3.40.1"), ((3, 31, 1), FAIL, "3.31.1")),
    "terminal": (
        (terminal.TerminalReading(False), PASS, "pipe"),
        (terminal.TerminalReading(True, "xterm-256color", 80, 24, "UTF-8"), PASS, "80×24"),
        (terminal.TerminalReading(True, "dumb", 80, 24, "UTF-8"), WARN, "dumb"),
        (terminal.TerminalReading(True, "", 80, 24, "UTF-8"), WARN, "cannot display"),
        (terminal.TerminalReading(True, "xterm", 40, 10, "UTF-8"), WARN, "60×20"),
        (terminal.TerminalReading(True, "xterm", 80, 24, "ANSI_X3.4-1968"), WARN, "UTF-8"),
    ),
    "colours": (
        (bare("xterm-256color", "truecolor"), PASS, "16 million"),
        (bare("xterm-256color"), PASS, "256"),
        (bare("xterm", no_color=True), PASS, "NO_COLOR"),
        (bare("", is_terminal=False), PASS, "no terminal"),
        (bare("xterm"), WARN, "16 colours"),
        (bare("linux"), WARN, "16 colours"),
        (bare("screen", inside="screen"), WARN, "GNU screen"),
        (
            in_tmux("tmux-256color", "", terminal.Tmux(("256", "title"), "xterm-256color")),
            PASS,
            "256",
        ),
        (
            in_tmux("tmux-256color", "truecolor", terminal.Tmux(("256", "RGB"), "foot")),
            PASS,
            "16 mill",
        ),
        (
            in_tmux("tmux-256color", "truecolor", terminal.Tmux(("256",), "xterm")),
            WARN,
            "reduces",
        ),
        (in_tmux("screen", "", terminal.Tmux(("256",), "xterm")), WARN, "at most 16"),
        (in_tmux("screen-256color", "", None), UNKNOWN, "tmux"),
    ),
    "logout": (
        (terminal.LogoutReading("Darwin"), PASS, "continue"),
        (terminal.LogoutReading("Linux", kills=True, scopes=True), PASS, "continue"),
        (terminal.LogoutReading("Linux", kills=True, scopes=False), WARN, "logind"),
    ),
    "workspace": (
        (data.WorkspaceReading("/h", exists=True), PASS, "/h"),
        (data.WorkspaceReading("/h", exists=False), PASS, "first use"),
        (data.WorkspaceReading("/h", True, "/h/runs", 1000, 1000), FAIL, "/h/runs cannot be written"),
        (data.WorkspaceReading("/h", True, "/h/runs", 0, 1000), FAIL, "another user (0)"),
        (data.WorkspaceReading("/h", True, "/h", 1000, 1000, read_only=True), FAIL, "reading alone"),
        (data.WorkspaceReading("/h", False, "/", 0, 1000), FAIL, "/ cannot be written"),
    ),
    "store": (
        (data.StoreReading("/m", 705), PASS, "705"),
        (data.StoreReading("/m", exists=False), PASS, "empty"),
        (data.StoreReading("/m", damage="wrong # of entries in index"), FAIL, "damaged"),
    ),
    "backups": (
        (backups(3.0, 10.0), PASS, "2 backups, the newest 3 days"),
        (backups(3.0, weekly=False), PASS, "off"),
        (backups(conversations=False), PASS, "nothing"),
        (backups(), WARN, "none"),
        (backups(30.0), WARN, "30 days"),
        (backups(damaged=2), WARN, "damaged"),
        (backups(-400.0), WARN, "ahead of now"),
        (backups(-400.0, 3.0), WARN, "ahead of now"),
    ),
    "secrets": (
        (secrets(private("/h/config/secrets.json", 0o600, secret=True)), PASS, "only you"),
        (secrets(private("/h/memory", 0o700)), PASS, "none"),
        (secrets(private("/h/config/h2q.toml", 0o644)), WARN, "0644"),
        (secrets(private("/h/memory", 0o700, owner=0)), WARN, "another user"),
        (secrets(private("/h/config/secrets.json", 0o640, secret=True)), FAIL, "0640"),
        (secrets(private("/h/config/secrets.json", 0o600, owner=0, secret=True)), FAIL, "another user"),
    ),
    "offline": (
        ({"tcp": "blocked", "udp": "blocked", "name": "blocked", "loopback": "open"}, PASS, "3 kinds"),
        (LEAKY, FAIL, "udp"),
        ({"tcp": "TimeoutError: timed out", "loopback": "open"}, FAIL, "tcp"),
        ({"tcp": "blocked", "loopback": "OSError: [Errno 99]"}, FAIL, "99"),
    ),
    "embedder": (
        (embedding.EmbedderReading("bge-m3 in Ollama"), PASS, "bge-m3"),
        (embedding.EmbedderReading("", "There is no embedder: /x", "h2q-tui paths"), WARN, "/x"),
    ),
    "languages": (
        (corpus(None, setting=""), PASS, "no embedder"),
        (corpus(frozenset({"en", "zh"}), en=30, zh=70), PASS, "zh 70%, en 30%"),
        (corpus(frozenset({"en"}), en=97, zh=3), PASS, "en 97%"),
        (corpus(frozenset({"en"}), en=30, zh=70), WARN, "nothing apart in zh"),
        (corpus(None, setting="ollama:all-minilm", zh=9, en=1), WARN, "made for English"),
        (corpus(None, setting="models/bge-small-en-v1.5", zh=9), WARN, "made for English"),
        (corpus(None, setting="ollama:nomic-embed-text-v2-moe", zh=9), UNKNOWN, "not measured"),
        (corpus(None, setting="ollama:all-minilm", en=9), UNKNOWN, "not measured"),
        (corpus(None), UNKNOWN, "not been built"),
    ),
    "text": (
        (data.TextReading(0, 0), PASS, "none"),
        (data.TextReading(2, 3_000_000), PASS, "2 files, 3.0 MB"),
    ),
    "models": (
        (data.ModelsReading(0, ""), PASS, "none in use"),
        (data.ModelsReading(3, "m1"), PASS, "m1 in use"),
    ),
    "cache": (
        (None, PASS, "none"),
        (disk.CacheReading("/c", 3 * GB, 0, free=50 * GB), PASS, "3.0 GB"),
        (disk.CacheReading("/c", 30 * GB, 2 * GB, free=50 * GB), WARN, "2.0 GB"),
        (disk.CacheReading("/c", 30 * GB, 0, free=4 * GB), WARN, "more than is free"),
        (disk.CacheReading("/c", 3 * GB, 0, complete=False, free=9 * GB), PASS, "at least"),
    ),
    "ollama": (
        (ollama("0.30.1"), PASS, "0.30.1"),
        (ollama("0.17.1"), PASS, "0.17.1"),
        (ollama(installed=False, problem="Connection refused"), PASS, "optional"),
        (ollama(problem="Connection refused"), PASS, "Connection refused"),
        (ollama("0.12.6", ours=True), PASS, "h2q-tui ollama serve"),
        (ollama("0.9.6"), WARN, "CVE-2026-7482"),
        (ollama("0.1.30"), WARN, "CVE-2024-37032"),
        (ollama(problem="Connection refused", needed="embedder = ollama:bge-m3"), WARN, "bge-m3"),
        (ollama(problem="no answer within 1.5 s", hangs=True), WARN, "1.5"),
        (
            services.OllamaReading("", True, "", problem="OLLAMA_HOST is another machine (x)"),
            WARN,
            "another machine",
        ),
    ),
    "reboot": (
        (services.BootReading("", False, True, None), PASS, "no setting"),
        (services.BootReading("embedder = ollama:x", True, False, None), PASS, "not installed"),
        (services.BootReading("embedder = ollama:x", True, True, "system"), PASS, "with the machine"),
        (services.BootReading("embedder = ollama:x", True, True, "user"), PASS, "login"),
        (services.BootReading("embedder = ollama:x", True, True, ""), WARN, "reboot"),
        (services.BootReading("embedder = ollama:x", True, True, None), UNKNOWN, "service manager"),
    ),
    "listening": (
        ((), PASS, "nothing"),
        ((listener("127.0.0.1", 5000, 7, OURS),), PASS, "127.0.0.1:5000"),
        ((listener("::1", 5000, 7, OURS),), PASS, "[::1]:5000"),
        ((listener("0.0.0.0", 22, None, ""),), PASS, "nothing"),
        ((listener("0.0.0.0", 8765, 7, WEB),), WARN, "h2q-tui hive serve (process 7)"),
        ((listener("::", 8765, 7, WEB),), WARN, "[::]:8765"),
        ((listener("192.168.1.4", 5001, 7, OURS),), WARN, "192.168.1.4:5001"),
        ((listener("::", 11434, None, ""),), WARN, "Ollama"),
        ((listener("0.0.0.0", 8080, 9, OLLAMA_SERVES),), WARN, "Ollama"),
        ((listener("127.0.0.1", 11434, 9, OLLAMA_SERVES),), PASS, "nothing"),
    ),
    "linger": (
        (services.LingerReading("", None), PASS, "no schedule"),
        (services.LingerReading("cron", None), PASS, "cron"),
        (services.LingerReading("systemd", True), PASS, "without a login"),
        (services.LingerReading("systemd", False), WARN, "lingering"),
        (services.LingerReading("systemd", None), UNKNOWN, "systemd"),
    ),
    "runs": (
        (data.RunsReading(), PASS, "no run"),
        (data.RunsReading(alive=("1129-1",)), PASS, "1129-1 is running"),
        (data.RunsReading(dead=("1129-2",)), WARN, "1129-2 died"),
    ),
}
"""Check → its readings, the grade of each, and a piece of the detail."""
JUDGES: Mapping[str, Callable[[Any], Judgement]] = {check.id: check.judge for check in CHECKS}
FLAT = [(id_, *case) for id_, cases in CASES.items() for case in cases]


def judged(id_: str, reading: Any) -> Judgement:
    try:
        return JUDGES[id_](reading)
    except NotKnown as problem:
        return Judgement(UNKNOWN, problem.reason, problem.hint)


@pytest.mark.parametrize(
    ("id_", "reading", "grade", "said"), FLAT, ids=[f"{row[0]}-{row[2]}-{n}" for n, row in enumerate(FLAT)]
)
def test_a_reading_is_judged(id_: str, reading: Any, grade: Grade, said: str) -> None:
    finding = judged(id_, reading)
    assert (finding.grade, said in finding.detail) == (grade, True), finding.detail


def test_every_check_has_readings_and_what_can_fail_is_seen_to_fail() -> None:
    assert set(CASES) == set(JUDGES)
    assert judge_sqlite((3, 35)).grade is PASS


NO_COMMAND = {"clock", "cores", "memory", "python", "platform", "sqlite", "terminal", "files", "openmp"}
"""Checks with a warning or failure for which no command helps."""


@pytest.mark.parametrize(("id_", "reading", "grade", "said"), FLAT)
def test_what_is_not_in_order_comes_with_a_command(id_: str, reading: Any, grade: Grade, said: str) -> None:
    finding = judged(id_, reading)
    if finding.fix is not None:
        assert finding.hint == finding.fix.hint and finding.fix.change, "the hint is what --fix runs"
    if grade in (WARN, FAIL) and id_ not in NO_COMMAND:
        assert finding.hint, finding.detail
    assert not finding.detail.endswith(".")


@pytest.mark.parametrize(("id_", "reading", "grade", "said"), FLAT)
def test_a_fix_says_whether_it_leaves_the_workspace(id_: str, reading: Any, grade: Grade, said: str) -> None:
    fix = judged(id_, reading).fix
    if fix is not None:
        assert fix.outside == (id_ not in ("secrets", "backups", "workspace"))


@pytest.mark.parametrize(
    ("id_", "reading", "hint"),
    [
        ("torch", libraries.TorchReading("2.13.0", libraries.Probe(error=NO_GOMP)), "libgomp1"),
        ("torch", libraries.TorchReading("2.13.0+cpu", libraries.Probe(error="OSError: x")), "torch==2.13.0"),
        ("llama", libraries.LlamaReading("2026.10.11549", NO_GOMP), "libgomp1"),
        ("llama", libraries.LlamaReading("2026.10.11549", "ImportError: x"), "xllamacpp==2026.10.11549"),
        ("openmp", libraries.Probe("mps", 8, (TORCH_OMP, BREW_OMP)), "brew uninstall libomp"),
        ("openmp", libraries.Probe("cpu", 8, (TORCH_GOMP, ("libomp", "/usr/lib/libomp.so"))), ""),
        ("ollama", ollama(problem="refused", needed="embedder = ollama:x"), "ollama serve"),
        ("ollama", ollama(problem="refused", needed="embedder = ollama:x", installed=False), "ollama"),
        ("backups", backups(-400.0), "backup create"),
        ("backups", backups(-400.0, 3.0), "backup list"),
        ("store", data.StoreReading("/m", 705), ""),
        ("store", data.StoreReading("/m", 0), "h2q-tui sample"),
        ("workspace", data.WorkspaceReading("/h", True, "/h/a b", 0, 1000), "chown -R 1000 '/h/a b'"),
        ("workspace", data.WorkspaceReading("/h", True, "/h/runs", 1000, 1000), "chmod -R u+rwX /h/runs"),
        ("workspace", data.WorkspaceReading("/h", False, "/", 0, 1000), "h2q-tui --data-dir ~/h2q check"),
        ("mps", mps(), "export PYTORCH_MPS_PREFER_METAL=1"),
        ("accelerate", {"accelerate": "1.8.1"}, "accelerate>=1.9"),
        ("versions", {"peft": "0.17.1", "transformers": "5.12.1"}, "peft>=0.18"),
        (
            "cache",
            disk.CacheReading("/c d", 30 * GB, 2 * GB, free=50 * GB),
            "cache prune --cache-dir '/c d' --yes",
        ),
        ("languages", corpus(None), "h2q-tui corpus build"),
    ],
)
def test_the_command_fits_the_cause(id_: str, reading: Any, hint: str) -> None:
    found = judged(id_, reading).hint
    assert hint in found if hint else not found


def test_what_hangs_is_not_started_again() -> None:
    assert "serve" not in judged("ollama", ollama(problem="no answer within 1.5 s", hangs=True)).hint
    absent = judged("ollama", ollama(problem="refused", needed="embedder = ollama:x", installed=False))
    assert absent.hint != "ollama serve"
