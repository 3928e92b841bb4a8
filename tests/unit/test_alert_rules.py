"""The rules over readings, and the readings of a run from its journal: each kind of fault, and its neighbours that are none."""

from __future__ import annotations

import msgspec
import pytest

from engine.alerts import rules
from engine.alerts.faults import Fault, classify, last_error
from engine.alerts.machine_rules import GB, observe_machine
from engine.alerts.readings import AlertLevel, MachineReading, Observation, ObservationState, RunReading
from engine.alerts.redact import HIDDEN, redact
from engine.alerts.run_rules import observe_run
from engine.alerts.run_watch import RunWatch
from engine.alerts.run_words import WORDS
from engine.runs import events as e
from engine.runs.events import JournalRecord, RunStatus

NOW = 1_000_000.0
CALM = MachineReading(
    t=NOW, cpu_percent=97.0, cpu_others_percent=5.0, memory_percent=60.0, memory_available=6 * GB, swap_grown=0,
    oom_kills=0, disk_free=80 * GB, temperature_c=70.0, ollama=True,
)  # fmt: skip
WELL = RunReading(
    run_id="1128-a", kind="train", updated_at=NOW - 1, progressed_at=NOW - 2, status_at=NOW - 50_000, phase="native",
    step=500, max_steps=2000, usual_step_s=0.5, tokens_per_s=1000.0, usual_tokens_per_s=1020.0, loss=1.5, best_loss=1.4,
    used_mb=2000.0, budget_mb=4096.0,
)  # fmt: skip


def bad(observations: list[Observation]) -> dict[str, AlertLevel | None]:
    wanted = (ObservationState.BAD, ObservationState.HAPPENED)
    return {one.rule: one.level for one in observations if one.state in wanted}


def of_machine(machine: MachineReading, *runs: RunReading, firing: tuple[str, ...] = ()) -> set[str]:
    return set(bad(list(observe_machine(machine, runs, firing))))


def of_run(run: RunReading, now: float = NOW) -> set[str]:
    return set(bad(list(observe_run(run, now))))


def test_a_machine_and_a_run_that_are_well_raise_nothing() -> None:
    assert of_machine(CALM, WELL) == set()
    assert of_run(WELL) == set()


MACHINE_FAULTS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    # rule, what raises it, what is close to it and does not
    ("machine.cpu", {"cpu_others_percent": 91.0}, {"cpu_others_percent": 89.0}),
    ("machine.memory", {"memory_percent": 86.0}, {"memory_percent": 84.0}),
    ("machine.swap", {"swap_grown": 2 * GB}, {"swap_grown": GB // 2}),
    ("machine.oom", {"oom_kills": 1}, {"oom_kills": 0}),
    ("machine.disk", {"disk_free": 5 * GB - 1}, {"disk_free": 6 * GB}),
    ("machine.disk_soon", {"disk_full_in_s": 7000.0}, {"disk_full_in_s": 7300.0}),
    ("machine.heat", {"temperature_c": 95.0}, {"temperature_c": 94.0}),
    ("machine.heat", {"temperature_c": 86.0, "temperature_limit_c": 85.0}, {"temperature_c": 84.0, "temperature_limit_c": 85.0}),
    ("machine.battery", {"battery_percent": 19.0}, {"battery_percent": 21.0}),
    ("machine.ollama", {"ollama": False}, {"ollama": None}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "fault", "close"), MACHINE_FAULTS)
def test_faults_of_the_machine(rule: str, fault: dict[str, object], close: dict[str, object]) -> None:
    assert of_machine(msgspec.structs.replace(CALM, **fault), WELL) == {rule}
    assert of_machine(msgspec.structs.replace(CALM, **close), WELL) == set()


def test_a_value_on_the_bound_does_not_end_the_alert_that_it_raised() -> None:
    values: list[tuple[dict[str, float], dict[str, float], dict[str, float]]] = [
        ({"memory_percent": 86.0}, {"memory_percent": 82.0}, {"memory_percent": 79.0}),
        ({"disk_free": 4 * GB}, {"disk_free": 8 * GB}, {"disk_free": 11 * GB}),
        ({"temperature_c": 96.0}, {"temperature_c": 91.0}, {"temperature_c": 89.0}),
        ({"cpu_others_percent": 95.0}, {"cpu_others_percent": 85.0}, {"cpu_others_percent": 70.0}),
    ]
    for fault, mild, over in values:
        firing = tuple(of_machine(msgspec.structs.replace(CALM, **fault)))
        assert of_machine(msgspec.structs.replace(CALM, **mild), firing=firing) == set(firing)
        assert of_machine(msgspec.structs.replace(CALM, **over), firing=firing) == set()


def test_a_busy_processor_is_a_fault_only_when_others_use_it_or_the_training_slows_down() -> None:
    busy = msgspec.structs.replace(CALM, cpu_percent=99.0, cpu_others_percent=3.0)
    slow = msgspec.structs.replace(WELL, tokens_per_s=500.0)
    assert of_machine(busy, WELL) == set()
    assert of_machine(busy, slow) == {"machine.cpu"}
    idle = msgspec.structs.replace(CALM, cpu_percent=40.0, cpu_others_percent=3.0)
    assert of_machine(idle, slow) == set()


def test_what_this_machine_cannot_read_is_no_fault_and_ends_none() -> None:
    blind = MachineReading(t=NOW)
    observations = list(observe_machine(blind, [WELL], [rules.MACHINE_DISK.id]))
    assert [one.rule for one in observations if one.rule != rules.MACHINE_BATTERY.id] == []


@pytest.mark.parametrize(
    ("rule", "fault", "close"),
    [
        ("run.failed", {"status": RunStatus.FAILED, "finished_at": NOW}, {"status": RunStatus.STOPPED}),
        ("run.died", {"alive": False}, {"alive": False, "status": RunStatus.STOPPED}),
        ("run.silent", {"updated_at": NOW - 61}, {"updated_at": NOW - 59}),
        ("run.silent", {"updated_at": NOW - 151, "heartbeat_s": 30.0}, {"updated_at": NOW - 149, "heartbeat_s": 30.0}),
        ("run.stalled", {"progressed_at": NOW - 1801}, {"progressed_at": NOW - 1799}),
        (
            "run.stalled",
            {"progressed_at": NOW - 6001, "usual_step_s": 2000.0},
            {"progressed_at": NOW - 5999, "usual_step_s": 2000.0},
        ),
        ("run.diverged", {"divergence": "returned"}, {"rollbacks": 2}),
        ("run.diverged", {"rollbacks": 3}, {}),
        ("run.not_finite", {"not_finite": 2}, {"not_finite": 1}),
        ("run.loss_rises", {"loss": 2.2}, {"loss": 1.6}),
        ("run.loss_rises", {"loss": 0.42, "best_loss": 0.1}, {"loss": 0.3, "best_loss": 0.1}),
        ("run.checkpoint", {"checkpoint_error": "No space left on device"}, {}),
        ("run.budget", {"used_mb": 4300.0}, {"used_mb": 4100.0}),
        ("run.paused", {"status": RunStatus.PAUSED, "reason": "too hot"}, {"status": RunStatus.PAUSED}),
        ("run.slow", {"tokens_per_s": 590.0}, {"tokens_per_s": 700.0}),
        ("run.finished", {"status": RunStatus.DONE, "finished_at": NOW, "alive": False}, {"status": RunStatus.STOPPED, "finished_at": NOW}),
        ("run.verdict", {"verdict_at": NOW, "decision": "keep"}, {"decision": ""}),
    ],
)  # fmt: skip
def test_faults_of_a_run(rule: str, fault: dict[str, object], close: dict[str, object]) -> None:
    assert of_run(msgspec.structs.replace(WELL, **fault)) == {rule}
    assert of_run(msgspec.structs.replace(WELL, **close)) == set()


@pytest.mark.parametrize("status", [RunStatus.PAUSED, RunStatus.QUEUED])
def test_a_run_that_waits_is_not_stalled(status: RunStatus) -> None:
    assert of_run(msgspec.structs.replace(WELL, status=status, progressed_at=NOW - 9999)) == set()


def test_a_laptop_that_slept_raises_no_alert_about_the_time_that_nobody_was_awake() -> None:
    slept = msgspec.structs.replace(WELL, updated_at=NOW - 8 * 3600, progressed_at=NOW - 8 * 3600)
    assert of_run(slept) == {"run.silent", "run.stalled"}
    assert of_run(msgspec.structs.replace(slept, awake_since=NOW - 10)) == set()


def test_a_run_that_is_over_ends_what_was_said_of_it_at_work() -> None:
    over = msgspec.structs.replace(
        WELL, status=RunStatus.FAILED, alive=False, finished_at=NOW, updated_at=NOW - 999
    )
    states = {one.rule: one.state for one in observe_run(over, NOW)}
    assert states["run.failed"] is ObservationState.BAD
    assert states["run.silent"] is ObservationState.MOOT and states["run.died"] is ObservationState.MOOT
    again = msgspec.structs.replace(over, resumed=True)
    assert {one.rule: one.state for one in observe_run(again, NOW)}["run.failed"] is ObservationState.GOOD


def test_a_run_out_of_memory_is_critical_and_one_with_bad_input_is_not() -> None:
    failed = msgspec.structs.replace(WELL, status=RunStatus.FAILED, finished_at=NOW)
    memory = bad(list(observe_run(msgspec.structs.replace(failed, fault="memory"), NOW)))
    data = bad(list(observe_run(msgspec.structs.replace(failed, fault="data"), NOW)))
    assert memory == {"run.failed": AlertLevel.CRITICAL} and data == {"run.failed": None}


# The journal as readings


def step(number: int, *, loss: float | None = 1.0, speed: float = 1000.0, phase: str = "native") -> e.Step:
    return e.Step(
        phase=phase, step=number, max_steps=1000, loss=loss, finite=loss is not None, lr=0.1, tokens=number,
        tokens_per_s=speed,
    )  # fmt: skip


def watched(*events: tuple[float, e.Event]) -> RunWatch:
    watch = RunWatch("1128-a")
    for seq, (t, event) in enumerate([(0.0, e.Started(pid=1, program="0")), *events]):
        watch.apply(JournalRecord(seq, t, event))
    return watch


def test_a_speed_that_falls_is_compared_with_what_is_usual_in_this_phase() -> None:
    steps = [(float(t), step(t, speed=1000.0 if t < 600 else 500.0)) for t in range(1, 700)]
    reading = watched(*steps).reading(700.0, alive=True)
    assert reading.tokens_per_s == 500.0 and reading.usual_tokens_per_s == 1000.0
    assert reading.slow_since is not None and 595 <= reading.slow_since <= 605
    assert of_run(reading, 700.0) == {"run.slow"}
    new_phase = watched(*steps, (701.0, step(1, phase="scratch", speed=500.0))).reading(701.0, alive=True)
    assert new_phase.usual_tokens_per_s is None


def test_a_failing_checkpoint_is_forgotten_once_one_is_written() -> None:
    failed = e.CheckpointFailed(phase="native", step=5, reason="No space left on device")
    written = e.CheckpointWritten(phase="native", step=9, path="c", seconds=0.1, bytes=9)
    assert of_run(watched((1.0, step(5)), (2.0, failed)).reading(3.0, alive=True), 3.0) == {"run.checkpoint"}
    assert of_run(watched((2.0, failed), (3.0, written)).reading(4.0, alive=True), 4.0) == set()


def test_a_rollback_counts_until_the_training_is_well_past_it() -> None:
    back = e.RecoveryAction(phase="native", step=100, cause="divergence", action="returned", back_to=80)
    steps = [(float(n), step(n)) for n in range(90, 101)]
    assert "run.diverged" in of_run(watched(*steps, (101.0, back)).reading(102.0, alive=True), 102.0)
    later = [(101.0 + n, step(80 + n)) for n in range(1, 260)]
    assert of_run(watched(*steps, (101.0, back), *later).reading(361.0, alive=True), 361.0) == set()


def test_skipped_batches_are_no_divergence() -> None:
    skipped = e.RecoveryAction(phase="native", step=7, cause="spike", action="skipped")
    assert of_run(watched((1.0, step(6)), (2.0, skipped)).reading(3.0, alive=True), 3.0) == set()


def test_a_loss_that_is_not_finite_twice_in_a_row_is_told_and_ends_with_the_next_that_is() -> None:
    lost = e.RecoveryAction(phase="native", step=7, cause="not finite", action="discarded")
    twice = watched((1.0, step(6)), (2.0, lost), (3.0, lost))
    assert of_run(twice.reading(4.0, alive=True), 4.0) == {"run.not_finite"}
    twice.apply(JournalRecord(9, 4.0, step(8)))
    assert of_run(twice.reading(5.0, alive=True), 5.0) == set()


def test_a_resumed_run_is_no_longer_failed() -> None:
    failed = e.Finished(status=RunStatus.FAILED, exit_code=5, error="out of memory")
    run = watched((1.0, failed))
    assert of_run(run.reading(2.0, alive=False, fault="memory"), 2.0) == {"run.failed"}
    run.apply(JournalRecord(3, 3.0, e.Started(pid=2, program="0")))
    states = {one.rule: one.state for one in observe_run(run.reading(4.0, alive=True), 4.0)}
    assert states["run.failed"] is ObservationState.GOOD


# Tracebacks


def traceback(error: str, *before: str) -> str:
    frames = 'Traceback (most recent call last):\n  File "/x/train.py", line 7, in step\n    self.go()\n'
    mark = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    return mark.join(f"{frames}{one}" for one in (*before, error)) + "\n"


FAULTS: list[tuple[Fault, str]] = [
    (Fault.MEMORY, "MemoryError"),
    (Fault.MEMORY, "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    (Fault.MEMORY, "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB for an array"),
    (Fault.DEVICE, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15 GiB"),
    (Fault.DEVICE, "RuntimeError: MPS backend out of memory (MPS allocated: 9.0 GB, other allocations: 1.0 GB)."),
    (Fault.DEVICE, "torch.AcceleratorError: CUDA error: device-side assert triggered"),
    (Fault.DEVICE, "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    (Fault.DISK, "OSError: [Errno 28] No space left on device: '/x/model.safetensors'"),
    (Fault.DISK, "sqlite3.OperationalError: database or disk is full"),
    (Fault.FILES, "OSError: [Errno 24] Too many open files: '/x'"),
    (Fault.PERMISSION, "PermissionError: [Errno 13] Permission denied: '/x'"),
    (Fault.PERMISSION, "OSError: [Errno 30] Read-only file system: '/x'"),
    (Fault.MODULE, "ModuleNotFoundError: No module named 'peft'"),
    (Fault.MODULE, "ImportError: cannot import name 'x' from 'transformers'"),
    (Fault.MODULE, "OSError: libgomp.so.1: cannot open shared object file: No such file or directory"),
    (Fault.CONNECTION, "ConnectionRefusedError: [Errno 111] Connection refused"),
    (Fault.CONNECTION, "engine.core.errors.ServiceUnreachable: Ollama 没有响应"),
    (Fault.CONNECTION, "engine.runs.network_guard.NetworkBlocked: 任务离线运行：已拦截对 huggingface.co 的连接"),
    (Fault.CONNECTION, "httpx.ReadTimeout: timed out"),
    (Fault.CONNECTION, "TimeoutError"),
    (Fault.CONNECTION, "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='x', port=443): Max retries exceeded"),
    (Fault.EMPTY, "UnboundLocalError: cannot access local variable 'current_batch' where it is not associated with a value"),
    (Fault.EMPTY, "ValueError: num_samples should be a positive integer value, but got num_samples=0"),
    (Fault.EMPTY, "engine.core.errors.NotEnoughData: 49 of 50 pairs"),
    (Fault.DIVERGED, "engine.core.errors.RunFailed: training failed at step 7: it diverged again after 3 rollbacks"),
    (Fault.DATABASE, "sqlite3.DatabaseError: database disk image is malformed"),
    (Fault.CHECKPOINT, "ValueError: checkpoint native-000020 is damaged: the hash does not match"),
    (Fault.SHAPE, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x16 and 8x8)"),
    (Fault.SHAPE, "RuntimeError: Error(s) in loading state_dict for Net: size mismatch for w"),
    (Fault.DATA, "FileNotFoundError: [Errno 2] No such file or directory: '/x'"),
    (Fault.DATA, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xb0 in position 3: invalid start byte"),
    (Fault.DATA, "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge"),
    (Fault.DATA, "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    (Fault.SETTINGS, "engine.core.errors.UsageProblem: max_steps takes a whole number"),
    (Fault.OTHER, "ZeroDivisionError: division by zero"),
    (Fault.OTHER, "KeyError: 'out'"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_a_traceback_has_its_kind(fault: Fault, error: str) -> None:
    log = (
        "step 1\nTraceback of a library that is none\n"
        + traceback("ValueError: earlier, handled")
        + "step 2\n"
    )
    assert classify(log + traceback(error) + "the run failed\n") is fault
    # The cause that is known wins over what was made of it.
    assert classify(traceback("engine.core.errors.RunFailed: the run failed", error)) is fault
    assert classify(traceback("KeyError: 'state'", error)) is fault


def test_the_line_of_an_exception_is_found_behind_its_frames_and_notes() -> None:
    log = traceback("ValueError: two\nlines of text") + "afterwards: a line with a colon\n"
    assert last_error(log) == ("ValueError", "two")
    assert last_error("nothing here: no traceback\n") == ("", "")


def test_without_a_traceback_what_the_run_said_itself_decides() -> None:
    said = "the run failed with an internal error (MemoryError: no) → less engine.log"
    assert classify("", said) is Fault.MEMORY
    assert classify("", "out of memory; a smaller batch needs less") is Fault.MEMORY


# Secrets


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv",
        "ghp_Ab3dEf6hIj9kLm2nOp5qRs8tUvWx1yZz22",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=693a91f6-7aoc-4bc4-97a0-0ec2sifa5aaa",
        "https://oapi.dingtalk.com/robot/send?access_token=66ab9c1fd2e34f57",
        "Authorization: Bearer abcdef0123456789abcdef",
        "smtp://me:hunter2hunter2@smtp.126.com",
        "password=Tr0ub4dor&3x",
        "授权码：QWERTYUIOPASDFGH",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nAb3dEf6hIj9kLm2n\n-----END RSA PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_secrets_are_removed_from_what_is_sent(secret: str) -> None:
    text = f"step 812: sending with {secret} failed\nstep 813: loss 1.2"
    hidden = redact(text)
    value = secret.split("key=")[-1].split("token=")[-1].split("Bearer ")[-1].split("：")[-1]
    assert value not in hidden and HIDDEN in hidden
    assert "step 813: loss 1.2" in hidden


def test_a_secret_of_ours_is_removed_wherever_it_stands() -> None:
    assert redact("token=Ab3dEf6hIj9kLm2nOp5qRs8tUv password: Ab3dEf6hIj9kLm2n!").count(HIDDEN) == 2
    assert redact("code abcd1234 and xabcd1234x", ["abcd1234"]) == f"code {HIDDEN} and x{HIDDEN}x"


def test_an_ordinary_log_stays_as_it_is() -> None:
    text = "step 812: loss 1.612, lr 0.0143, 28.4k tok/s\ncheckpoint of step 800 in 0.4 s\ntoken 17 of 2048"
    assert redact(text) == text


@pytest.mark.parametrize("decision", ["promote", "keep", "inconclusive"])
def test_a_verdict_is_said_in_words(decision: str) -> None:
    title = WORDS["run.verdict"]({"decision": decision, "sentence": "13 % better"}, "a")[0]
    assert title.startswith("verdict: ") and decision not in title.split()
