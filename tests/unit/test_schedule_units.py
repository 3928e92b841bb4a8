"""What launchd, systemd and cron are told, and when a run is due."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.runs import lock, runner
from engine.runs.history import load_view
from engine.runs.launch import create_run
from engine.runs.rundir import TRAIN_LOCK
from engine.runs.spec import RunKind, TrainParams, make_spec
from engine.scheduler import cron, launchd, systemd
from engine.scheduler.plan import (
    DAYS,
    By,
    Every,
    Schedule,
    due,
    load_schedule,
    make_schedule,
    missed,
    next_time,
    save_schedule,
)

STRANGE = "/home/li/我的 数据/100% \"real\" $HOME 'q'"


def schedule(workspace: str = "/home/li/h2q", **more: object) -> Schedule:
    base = Schedule(
        every=Every.WEEKLY,
        hour=3,
        minute=5,
        by=By.SYSTEMD,
        workspace=workspace,
        program=["/opt/h 2/bin/h2q-tui"],
        environment={"H2Q_SCHEDULED": "1"},
        installed_at=0.0,
    )
    return msgspec.structs.replace(base, **more)


def test_the_systemd_units_are_these() -> None:
    assert systemd.service(schedule()).splitlines() == [
        "[Unit]",
        "Description=h2q-tui trains on /home/li/h2q",
        "",
        "[Service]",
        "Type=oneshot",
        'Environment="H2Q_SCHEDULED=1"',
        'ExecStart="/opt/h 2/bin/h2q-tui" "train" "--run-once" "--data-dir" "/home/li/h2q" "--lang" "en" "--quiet"',
        "SuccessExitStatus=3",
        "TimeoutStartSec=infinity",
        "Nice=10",
    ]
    text = systemd.timer(schedule())
    assert "OnCalendar=Sun *-*-* 03:05:00\nPersistent=true\n" in text
    assert "WantedBy=timers.target" in text
    assert "OnCalendar=*-*-* 03:05:00\n" in systemd.timer(schedule(every=Every.DAILY))


def test_a_strange_path_reaches_systemd_whole() -> None:
    line = next(
        line for line in systemd.service(schedule(STRANGE)).splitlines() if line.startswith("ExecStart")
    )
    assert '"/home/li/我的 数据/100%% \\"real\\" $$HOME \'q\'"' in line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("workspace", ["/home/li/h2q", STRANGE])
def test_systemd_itself_finds_nothing_wrong(tmp_path: Path, workspace: str) -> None:
    told = schedule(workspace, program=["/bin/true"])
    (tmp_path / "h2q-tui-x.service").write_text(systemd.service(told), encoding="utf-8")
    (tmp_path / "h2q-tui-x.timer").write_text(systemd.timer(told), encoding="utf-8")
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ours = [line for line in (answer.stdout + answer.stderr).splitlines() if "h2q-tui-x" in line]
    assert ours == []


@pytest.mark.parametrize("workspace", ["/home/li/h2q", STRANGE])
def test_the_agents_of_launchd_are_property_lists(workspace: str) -> None:
    told = schedule(workspace, by=By.LAUNCHD)
    agents = [plistlib.loads(text) for text in launchd.agents(told).values()]
    assert (
        [agent["Label"] for agent in agents] == list(launchd.agents(told)) == list(launchd.labels(told.tag))
    )
    at_time, at_login = agents
    assert at_time["ProgramArguments"] == told.train
    assert at_time["ProgramArguments"][1:5] == ["train", "--run-once", "--data-dir", workspace]
    assert at_time["StartCalendarInterval"] == {"Hour": 3, "Minute": 5, "Weekday": 0}
    assert "RunAtLoad" not in at_time
    assert at_login["ProgramArguments"] == told.catch_up and at_login["RunAtLoad"] is True
    assert at_time["EnvironmentVariables"] == {"H2Q_SCHEDULED": "1"}
    assert at_time["StandardErrorPath"].startswith(workspace)


def test_the_days_of_launchd_and_cron_begin_with_sunday() -> None:
    for day, number in zip(DAYS, (1, 2, 3, 4, 5, 6, 0), strict=True):
        told = schedule(day=day)
        first = plistlib.loads(next(iter(launchd.agents(told).values())))
        assert first["StartCalendarInterval"]["Weekday"] == number
        assert cron.entries(told)[0].startswith(f"5 3 * * {number} ")
    daily = schedule(every=Every.DAILY)
    assert (
        "Weekday" not in plistlib.loads(next(iter(launchd.agents(daily).values())))["StartCalendarInterval"]
    )
    assert cron.entries(daily)[0].startswith("5 3 * * * ")


def test_the_lines_of_cron_reach_the_shell_whole() -> None:
    told = schedule(STRANGE)
    for line, words in zip(cron.entries(told), (told.train, told.catch_up), strict=True):
        command = line.split(maxsplit=1)[1] if line.startswith("@reboot") else line.split(maxsplit=5)[5]
        assert "%" not in command.replace("\\%", "")
        # What cron hands to the shell, and what the shell makes of it.
        assert shlex.split(command.replace("\\%", "%"))[:-3] == ["H2Q_SCHEDULED=1", *words]


TABS = st.text(alphabet=st.sampled_from("ab #*%\n0h2q-tui天"), max_size=60).map(
    lambda text: text if not text or text.endswith("\n") else text + "\n"
)


@given(TABS, TABS)
def test_everything_else_in_a_crontab_stays(before: str, after: str) -> None:
    lines = cron.entries(schedule())
    placed = cron.with_block(before, "aa", lines) + after
    assert cron.has_block(placed, "aa")
    assert cron.without_block(placed, "aa") == before + after
    replaced = cron.with_block(placed, "aa", ["@daily true"])
    assert cron.without_block(replaced, "aa") == before + after
    assert "@daily true" in replaced and lines[0] not in replaced
    assert not cron.has_block(placed, "bb")


def test_a_crontab_without_a_last_newline_keeps_its_last_line() -> None:
    assert cron.with_block("@daily a", "aa", ["@daily b"]).splitlines()[:2] == [
        "@daily a",
        "# h2q-tui aa begin",
    ]


def test_a_block_without_its_end_is_not_guessed_at() -> None:
    with pytest.raises(BadInput, match="without the line"):
        cron.without_block("# h2q-tui aa begin\n@daily mine\n", "aa")


@pytest.mark.parametrize("at", ["24:00", "3", "3:5", "03:60", "", "-1:00", "03:00:00", "三点"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, at: str) -> None:
    with pytest.raises(UsageProblem):
        make_schedule(Workspace(tmp_path), Every.DAILY, at, "sun", By.CRON, language="en", now=0.0)


def test_a_path_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    for name in ("a\nb", "a\\b"):
        with pytest.raises(BadInput):
            make_schedule(
                Workspace(tmp_path / name), Every.DAILY, "3:00", "sun", By.CRON, language="en", now=0.0
            )


def test_a_schedule_is_kept_and_its_words_are_absolute(tmp_path: Path) -> None:
    ws = Workspace(tmp_path / "我的 数据")
    made = make_schedule(ws, Every.WEEKLY, "3:05", "Sunday", By.CRON, language="zh", now=5.0)
    save_schedule(ws, made)
    assert load_schedule(ws) == made
    assert Path(made.program[0]).is_absolute() and made.day == "sun"
    assert made.train[-5:] == ["--data-dir", str(ws.root), "--lang", "zh", "--quiet"]
    save_schedule(ws, None)
    assert load_schedule(ws) is None
    ws.config.mkdir(exist_ok=True)
    (ws.config / "schedule.json").write_text("{")
    with pytest.raises(BadInput):
        load_schedule(ws)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(list(Every)),
    st.sampled_from(DAYS),
    st.integers(0, 23),
    st.integers(0, 59),
)
def test_now_lies_between_the_last_time_and_the_next(
    now: datetime, every: Every, day: str, hour: int, minute: int
) -> None:
    told = schedule(every=every, day=day, hour=hour, minute=minute)
    last, coming = due(told, now), next_time(told, now)
    assert last <= now < coming
    assert coming - last == timedelta(days=7 if every is Every.WEEKLY else 1)
    assert (last.hour, last.minute) == (hour, minute)
    assert every is Every.DAILY or DAYS[last.weekday()] == day


def test_a_missed_time_is_made_up_for_once() -> None:
    def at(text: str) -> float:
        return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))

    told = schedule(installed_at=at("2026-11-10 12:00"))
    sunday = at("2026-11-15 03:05")
    assert not missed(told, sunday - 60, None)
    assert missed(told, sunday + 3600, None)
    assert missed(told, sunday + 3600, at("2026-11-14 09:00"))
    assert not missed(told, sunday + 7200, sunday + 3600)
    assert not missed(schedule(installed_at=sunday + 60), sunday + 3600, None)
    assert missed(told, sunday + 7 * 86400, sunday)


@pytest.mark.parametrize(("scheduled", "code", "status"), [(True, 0, "skipped"), (False, 5, "failed")])
def test_a_scheduled_run_that_meets_another_one_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduled: bool, code: int, status: str
) -> None:
    ws = Workspace(tmp_path / "ws")
    run = create_run(ws, make_spec(ws.root, TrainParams(scheduled=scheduled, wait=False)))
    monkeypatch.setattr(runner, "KINDS", {RunKind.TRAIN: "tests.run_kinds:impatient"})
    held = lock.acquire(ws.runs / TRAIN_LOCK)
    assert held is not None
    try:
        assert runner.main(run.path) == code
    finally:
        os.close(held)
    finished = load_view(run).finished
    assert finished is not None and (str(finished.status), finished.exit_code) == (status, code)
    assert "training" in finished.error


@pytest.mark.parametrize(("scheduled", "code"), [(True, 0), (False, 3)])
def test_too_small_a_corpus_is_no_failure_of_a_scheduled_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduled: bool, code: int
) -> None:
    ws = Workspace(tmp_path / "ws")
    run = create_run(ws, make_spec(ws.root, TrainParams(scheduled=scheduled)))
    monkeypatch.setattr(runner, "KINDS", {RunKind.TRAIN: "tests.run_kinds:too_little"})
    assert runner.main(run.path) == code
    finished = load_view(run).finished
    assert finished is not None and (str(finished.status), finished.exit_code) == ("skipped", code)
    assert "49 of 50 pairs" in finished.error
