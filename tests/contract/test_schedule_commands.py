"""`schedule` as a user runs it, with fake cron and systemd programs on the PATH that record their calls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.paths import Workspace
from engine.runs.kinds import TrainParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from tui.cli import main

CRONTAB = """#!/bin/sh
if [ "$1" = -l ]; then
  [ -e "$H2Q_TEST/refuse" ] && { echo "you ($USER) are not allowed" >&2; exit 1; }
  [ -e "$H2Q_TEST/crontab" ] || { echo "no crontab for li" >&2; exit 1; }
  cat "$H2Q_TEST/crontab"
else
  cat > "$H2Q_TEST/crontab"
fi
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$H2Q_TEST/systemctl"
[ -e "$H2Q_TEST/refuse" ] && [ "$2" = enable ] && { echo "Failed to connect to bus" >&2; exit 1; }
exit 0
"""
LOGINCTL = """#!/bin/sh
cat "$H2Q_TEST/linger"
"""
OTHERS = "MAILTO=li\n# 注释 100%\n*/5 * * * * true\n"

Run = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder and a PATH without any service manager; `put` adds a program."""
    (tmp_path / "bin").mkdir()
    for name in ("cat", "sh"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("H2Q_TEST", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


@pytest.fixture
def h2q(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, code: int = 0, after: tuple[str, ...] = ()) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.main([*arguments, "--data-dir", str(home / "我的 工作区"), "--lang", "en", "--json", *after])
        out = capsys.readouterr()
        assert left.value.code == code, out
        return json.loads(out.out)

    return run


def put(home: Path, name: str, text: str) -> None:
    file = home / "bin" / name
    file.write_text(text)
    file.chmod(0o755)


def units(home: Path) -> list[str]:
    folder = home / ".config" / "systemd" / "user"
    return sorted(file.name.rpartition(".")[2] for file in folder.iterdir()) if folder.is_dir() else []


def test_cron_gets_a_block_and_other_entries_are_unchanged(home: Path, h2q: Run) -> None:
    put(home, "crontab", CRONTAB)
    (home / "crontab").write_text(OTHERS)
    status = h2q("schedule", "weekly", "--at", "03:00")
    assert (status["schedule"]["by"], status["places"], status["present"]) == ("cron", ["crontab"], True)
    text = (home / "crontab").read_text()
    assert text.startswith(OTHERS) and "0 3 * * 0 H2Q_SCHEDULED=1 " in text and "@reboot" in text
    h2q("schedule", "daily", "--at", "4:30")
    assert (home / "crontab").read_text().count("begin") == 1
    assert "30 4 * * * " in (home / "crontab").read_text()
    shown = h2q("schedule", "show")
    assert shown["next_at"].endswith("T04:30") and shown["last_run"] == ""
    assert h2q("schedule", "remove") == {"removed": ["crontab"]}
    assert (home / "crontab").read_text() == OTHERS
    assert h2q("schedule", "show")["schedule"] is None
    assert h2q("schedule", "remove") == {"removed": []}


def test_a_first_crontab_is_created(home: Path, h2q: Run) -> None:
    put(home, "crontab", CRONTAB)
    h2q("schedule", "daily")
    assert (home / "crontab").read_text().startswith("# h2q-tui ")


def test_a_crontab_that_cannot_be_read_is_never_written(home: Path, h2q: Run) -> None:
    put(home, "crontab", CRONTAB)
    (home / "crontab").write_text(OTHERS)
    (home / "refuse").touch()
    status = h2q("schedule", "daily", code=4)
    assert "not allowed" in status["error"]
    assert (home / "crontab").read_text() == OTHERS


def test_systemd_is_preferred_and_lingering_is_noted(home: Path, h2q: Run) -> None:
    put(home, "crontab", CRONTAB)
    put(home, "systemctl", SYSTEMCTL)
    put(home, "loginctl", LOGINCTL)
    (home / "linger").write_text("no\n")
    status = h2q("schedule", "weekly", "--day", "mon")
    assert status["schedule"]["by"] == "systemd" and units(home) == ["service", "timer"]
    assert any("loginctl enable-linger" in note for note in status["notes"])
    assert "--user enable --now" in (home / "systemctl").read_text()
    (home / "linger").write_text("yes\n")
    assert not any("linger" in note.lower() for note in h2q("schedule", "show")["notes"])
    # A schedule with another service manager replaces this one.
    h2q("schedule", "weekly", "--by", "cron")
    assert units(home) == [] and "disable --now" in (home / "systemctl").read_text()
    assert h2q("schedule", "show")["places"] == ["crontab"]


def test_a_failing_systemd_leaves_no_units(home: Path, h2q: Run) -> None:
    put(home, "systemctl", SYSTEMCTL)
    (home / "refuse").touch()
    assert "Failed to connect to bus" in h2q("schedule", "weekly", code=4)["error"]
    assert units(home) == []
    assert h2q("schedule", "show")["schedule"] is None


def test_a_failing_systemd_leaves_the_previous_schedule(home: Path, h2q: Run) -> None:
    put(home, "systemctl", SYSTEMCTL)
    put(home, "crontab", CRONTAB)
    h2q("schedule", "weekly", "--by", "cron", "--at", "05:10")
    before = (home / "crontab").read_text()
    put(home, "systemctl", SYSTEMCTL.replace('[ -e "$H2Q_TEST/refuse" ]', "true"))
    assert "Failed to connect" in h2q("schedule", "weekly", "--by", "systemd", code=4)["error"]
    assert (home / "crontab").read_text() == before
    shown = h2q("schedule", "show")
    assert (shown["schedule"]["by"], shown["present"], units(home)) == ("cron", True, [])


def test_ollama_variables_of_the_shell_are_forwarded(
    home: Path, h2q: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(home, "crontab", CRONTAB)
    monkeypatch.setenv("OLLAMA_MODELS", "/mnt/大 盘/100%")
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    h2q("schedule", "daily")
    assert "OLLAMA_MODELS='/mnt/大 盘/100\\%' " in (home / "crontab").read_text()
    assert "OLLAMA_HOST" not in (home / "crontab").read_text()


def test_a_deleted_timer_is_reported(home: Path, h2q: Run) -> None:
    put(home, "systemctl", SYSTEMCTL)
    status = h2q("schedule", "weekly")
    for place in status["places"]:
        Path(place).unlink()
    shown = h2q("schedule", "show")
    assert (shown["present"], shown["next_at"]) == (False, None)
    assert "no longer exists" in shown["notes"][0]


def test_a_machine_without_a_service_manager_is_an_error(h2q: Run) -> None:
    assert "no launchd" in h2q("schedule", "weekly", code=4)["error"]


@pytest.mark.parametrize("arguments", [["--at", "25:00"], ["--day", "someday"], ["--by", "at"]])
def test_invalid_schedule_options_are_rejected(home: Path, h2q: Run, arguments: list[str]) -> None:
    put(home, "crontab", CRONTAB)
    assert h2q("schedule", "weekly", *arguments, code=2)["exit_code"] == 2
    assert not (home / "crontab").exists()


def test_a_missed_run_is_caught_up_once(home: Path, h2q: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, "crontab", CRONTAB)
    assert h2q("schedule", "catch-up") == {"missed": False}
    h2q("schedule", "daily")
    assert h2q("schedule", "catch-up") == {"missed": False}

    file = home / "我的 工作区" / "config" / "schedule.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "installed_at": time.time() - 3 * 86400}))
    ran: list[Any] = []

    def execute(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        ran.append((path, arguments, environment["H2Q_SCHEDULED"]))
        ws = Workspace(home / "我的 工作区")
        create_run(ws, make_spec(ws.root, TrainParams(scheduled=True)))
        print("{}")

    monkeypatch.setattr("os.execve", execute)
    h2q("schedule", "catch-up")
    ((path, arguments, scheduled),) = ran
    assert (path, scheduled) == (saved["program"][0], "1")
    assert arguments[len(saved["program"]) :][:4] == ["train", "--run-once", "--data-dir", saved["workspace"]]
    assert h2q("schedule", "catch-up") == {"missed": False}
    assert len(ran) == 1
    assert h2q("schedule", "show")["last_run"]


def test_a_scheduled_run_is_marked(home: Path, h2q: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, "crontab", CRONTAB)
    h2q("schedule", "daily")
    monkeypatch.setenv("H2Q_SCHEDULED", "1")
    status = h2q("train", "--run-once", "--mode", "native")
    assert h2q("schedule", "show")["last_run"] == status["run_id"]
    assert h2q("schedule", "show")["last_status"] == "skipped"


def test_a_reset_removes_the_schedule(home: Path, h2q: Run) -> None:
    put(home, "crontab", CRONTAB)
    (home / "crontab").write_text(OTHERS)
    h2q("schedule", "daily")
    h2q("reset", "--all", "--yes")
    assert (home / "crontab").read_text() == OTHERS


def test_options_after_two_dashes_are_passed_to_every_run(home: Path, h2q: Run) -> None:
    put(home, "crontab", CRONTAB)
    status = h2q("schedule", "weekly", after=("--", "--max-minutes", "60", "--recipe", "fast"))
    assert status["command"][-4:] == ["--max-minutes", "60", "--recipe", "fast"]
    assert "--max-minutes 60 --recipe fast" in (home / "crontab").read_text()
    assert h2q("schedule", "show")["command"] == status["command"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-minutes", "soon"], "a number is needed"),
        (["--no-such"], "no option --no-such"),
        (["--run-once"], "--run-once is set by the schedule"),
        (["tonight"], "unexpected argument tonight"),
    ],
)
def test_invalid_train_options_are_rejected_before_anything_is_written(
    home: Path, h2q: Run, flags: list[str], message: str
) -> None:
    put(home, "crontab", CRONTAB)
    status = h2q("schedule", "daily", after=("--", *flags), code=2)
    assert message in status["error"]
    assert not (home / "crontab").exists()
