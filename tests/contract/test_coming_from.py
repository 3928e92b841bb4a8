"""The "coming from" table of the README: rows of built features name existing commands and files."""

from __future__ import annotations

import re

import pytest

from tests.contract.commands import problem_of
from tests.contract.readme import ENGLISH, ROOT, Row, rows

ROWS = rows(ENGLISH)
BUILT = [row for row in ROWS if row.built]
ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]+")


def sources() -> str:
    files = [file for folder in ("engine", "tui") for file in (ROOT / folder).rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.there[:60])
def test_a_built_row_names_existing_commands(row: Row) -> None:
    lines = [code for code in row.code if code.startswith("h2q-tui")]
    assert [problem for line in lines if (problem := problem_of(line))] == []


def test_a_row_marked_as_not_built_is_not_built() -> None:
    stale = []
    for row in ROWS:
        lines = [code for code in row.code if code.startswith("h2q-tui")]
        # `memory import DIR` and `train` exist; their marked rows are about inputs that are not supported yet.
        specific = [line for line in lines if line not in ("h2q-tui memory import DIR", "h2q-tui train")]
        modes = [line for line in specific if "--mode" not in line]
        if not row.built and modes and all(problem_of(line) == "" for line in modes):
            stale.append(row.there)
    assert stale == []


def test_files_of_built_rows_are_named_in_the_code() -> None:
    code = sources()
    missing = []
    for row in BUILT:
        for name in row.code:
            if name.startswith(("h2q-tui", "make")) or len(name) < 3:
                continue
            if ENVIRONMENT.fullmatch(name):
                fragments = [] if name.startswith("OMP_") else [name]
            else:
                last = name.rstrip("/").rpartition("/")[2]
                fragments = [part for part in re.split(r"<[^>]+>|\*", last) if len(part) > 2]
            missing += [f"{name}: {part}" for part in fragments if part not in code]
    assert missing == []


def test_every_make_target_of_the_table_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {code.split()[1] for row in BUILT for code in row.code if code.startswith("make ")}
    assert named and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


@pytest.mark.parametrize(
    "promise",
    [
        "mindx train --run-once", "--mode message", "--mode lora", "--model qwen3:0.6b", "--min-corpus", "--data-dir",
        "--config config/models.json", "--training-dir", "--workspace", "train_data_", "Modelfile_", "report_",
        "models.json.backup", "last_training.json", "--check-only", "--monitor-only", "--no-monitor",
        "mac_mini_streaming_status.json", "agi_mac_mini_status.json", "agi_mac_mini_report.json", "max_memory_gb",
        "memory_buffer_gb", "streaming_batch_size", "micro_batch_size", "gradient_accumulation_steps",
        "data_chunk_size", "max_cached_chunks", "update_interval", "resource_check_interval", "num_worker_threads",
        "--mode train --epochs", "--mode evolve --cycles", "--data_dir", "--mode demo", "--mode interactive",
        "training_data/*.txt", "training_checkpoints/", "training_log.json", "evolution_stats.json",
        "h2q_trained_model.pt", "--create-sample", "--output", "--no-4bit", "--adapter", "--system", "--host",
        "--reload", "--server URL", "--user-id", "--status", "--download", "/api/v1/aggregate", "registry.json",
        "preemptive_fixes.py", "setup_notifications.py quick", "test_notification.py quick", "run_rl_swarm_mac.sh",
        "real_time_monitor.py", "notification_config.json", "localhost:5000", "fix_mac_accelerate.py",
    ],
)  # fmt: skip
def test_every_feature_of_the_earlier_systems_has_a_row(promise: str) -> None:
    assert any(promise in row.there for row in ROWS)
