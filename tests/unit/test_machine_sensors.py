"""Core groups, graphics processors, macmon and power: from files and outputs as real machines have them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.machine.accelerators import GpuSample, NvidiaGpus
from engine.machine.core_groups import CoreGroup, apple_groups, find_core_groups, parse_cores
from engine.machine.macmon import parse_macmon, run_macmon
from engine.machine.power import PowerMeter

RECORDED = Path(__file__).parents[1] / "data" / "machine"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


CPU = "sys/devices/system/cpu"
GROUPS: dict[str, tuple[dict[str, str], int, dict[str, tuple[int, ...]]]] = {
    "one kind of core": ({}, 4, {"all": (0, 1, 2, 3)}),
    "Intel with two kinds": (
        {"sys/devices/cpu_core/cpus": "0-3\n", "sys/devices/cpu_atom/cpus": "4-5,7\n"},
        8,
        {"performance": (0, 1, 2, 3), "efficiency": (4, 5, 7)},
    ),
    "ARM with three capacities": (
        {f"{CPU}/cpu{n}/cpu_capacity": f"{c}\n" for n, c in enumerate([250, 250, 760, 1024])},
        4,
        {"performance": (2, 3), "efficiency": (0, 1)},
    ),
    "ARM with one capacity": (
        {f"{CPU}/cpu{n}/cpu_capacity": "1024\n" for n in range(2)},
        2,
        {"all": (0, 1)},
    ),
    "two NUMA nodes": (
        {
            "sys/devices/system/node/node0/cpulist": "0-1,4\n",
            "sys/devices/system/node/node1/cpulist": "2-3\n",
        },
        5,
        {"node0": (0, 1, 4), "node1": (2, 3)},
    ),
    "one NUMA node": ({"sys/devices/system/node/node0/cpulist": "0-1\n"}, 2, {"all": (0, 1)}),
    "a node without cores": (
        {"sys/devices/system/node/node0/cpulist": "0-1\n", "sys/devices/system/node/node1/cpulist": "\n"},
        2,
        {"all": (0, 1)},
    ),
    "eight nodes": (
        {f"sys/devices/system/node/node{n}/cpulist": f"{n}\n" for n in range(8)},
        8,
        {"all": tuple(range(8))},
    ),
    "a damaged list": (
        {"sys/devices/cpu_core/cpus": "x-\n", "sys/devices/cpu_atom/cpus": "4-5\n"},
        6,
        {"all": tuple(range(6))},
    ),
}


@pytest.mark.parametrize("case", GROUPS.values(), ids=GROUPS)
def test_cores_are_grouped_as_the_kernel_names_them(case: Any, tmp_path: Path) -> None:
    files, count, expected = case
    found = find_core_groups(count, write(tmp_path, files), "linux")
    assert {group.id: group.cores for group in found} == expected


@pytest.mark.parametrize(
    ("names", "count", "efficiency"),
    [
        (("Apple M1", 4, 4), 8, (0, 1, 2, 3)),
        (("Apple M4 Pro", 10, 4), 14, (0, 1, 2, 3)),
        (("Apple M2 Ultra", 16, 8), 24, (0, 1, 2, 3, 12, 13, 14, 15)),
        (("Intel(R) Core(TM) i7", None, None), 8, None),
        (("Apple M1 in a virtual machine", 4, 4), 4, None),
    ],
)
def test_an_apple_processor_numbers_the_efficiency_cores_of_a_die_first(
    names: tuple[str, int | None, int | None], count: int, efficiency: tuple[int, ...] | None
) -> None:
    brand, fast, slow = names
    values = {"machdep.cpu.brand_string": brand}
    if fast is not None:
        values |= {"hw.perflevel0.logicalcpu": str(fast), "hw.perflevel1.logicalcpu": str(slow)}
    found = apple_groups(values, count)
    assert (found[1].cores if found else None) == efficiency
    assert not found or sorted(found[0].cores + found[1].cores) == list(range(count))
    assert all(isinstance(group, CoreGroup) for group in found)


@given(st.lists(st.integers(min_value=0, max_value=300), unique=True))
def test_a_list_of_the_kernel_is_read_as_it_is_written(cores: list[int]) -> None:
    cores.sort()
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    text = ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
    assert list(parse_cores(text + "\n")) == cores


# macmon, recorded on a MacBook with its earlier format, and the example of its present one


@pytest.mark.parametrize(
    ("name", "busy", "gpu_heat", "heat", "power"),
    [("macmon-2025.json", 1.3, 44.81, 40.84, 10.27), ("macmon-2026.json", 9.0, 36.95, 43.74, 5.88)],
)
def test_both_formats_of_macmon_are_read(
    name: str, busy: float, gpu_heat: float, heat: float, power: float
) -> None:
    found = parse_macmon((RECORDED / name).read_text(encoding="utf-8"))
    assert found.gpu.busy_percent == busy
    assert found.gpu.temperature_c == pytest.approx(gpu_heat, abs=0.01)
    assert found.temperature_c == pytest.approx(heat, abs=0.01)
    assert found.power_w == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "Error: no sensors", "7"])
def test_what_is_not_an_answer_of_macmon_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_macmon(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"gpu_usage": [338], "temp": [], "sys_power": "x"}',
        '{"gpu_usage": [338, null], "temp": {"cpu_temp_avg": 0.0}, "sys_power": 0.0}',
        '{"gpu_usage": 0.5, "temp": null, "all_power": true}',
    ],
)
def test_what_macmon_does_not_say_is_unknown(text: str) -> None:
    found = parse_macmon(text)
    assert (found.gpu, found.temperature_c, found.power_w) == (GpuSample(name="Apple"), None, None)


def test_macmon_is_run_for_one_sample_and_its_last_line_counts(tmp_path: Path) -> None:
    command = tmp_path / "macmon"
    line = (RECORDED / "macmon-2026.json").read_text(encoding="utf-8").strip()
    command.write_text(f"#!/bin/sh\n[ \"$*\" = 'pipe -s 1 -i 200' ] || exit 2\necho '{line}'\n")
    command.chmod(0o755)
    assert run_macmon(str(command)).gpu.busy_percent == 9.0
    command.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ValueError):
        run_macmon(str(command))


# NVML, with the names and units of nvidia-ml-py 13.615


class NvmlProblem(Exception):
    pass


def nvml(**refused: bool) -> ModuleType:
    """NVML with one processor; it refuses the functions named in `refused`, as a MIG slice or one with shared memory does."""
    module = ModuleType("nvml_of_a_test")
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87, memory=40),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=150754820096, free=100, used=42_000_000_000),
        "nvmlDeviceGetPowerUsage": 312_500,
        "nvmlDeviceGetTemperature": 61,
    }

    def make(name: str, value: Any) -> Any:
        def call(*_arguments: object) -> Any:
            if refused.get(name):
                raise NvmlProblem(name)
            return value

        return call

    for name, value in answers.items():
        setattr(module, name, make(name, value))
    module.NVMLError, module.NVML_TEMPERATURE_GPU = NvmlProblem, 0  # type: ignore[attr-defined]
    return module


def gpus(monkeypatch: pytest.MonkeyPatch, **refused: bool) -> list[GpuSample]:
    monkeypatch.setitem(sys.modules, "nvml_of_a_test", nvml(**refused))
    return NvidiaGpus("nvml_of_a_test").read()


def test_an_nvidia_processor_is_read_in_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus(monkeypatch) == [
        GpuSample(
            name="H200",
            busy_percent=87.0,
            memory_used=42_000_000_000,
            memory_total=150754820096,
            temperature_c=61.0,
            power_w=312.5,
        )
    ]


@pytest.mark.parametrize("field", ["UtilizationRates", "MemoryInfo", "PowerUsage", "Temperature"])
def test_a_figure_that_nvml_refuses_is_unknown_and_the_others_stay(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = gpus(monkeypatch, **{f"nvmlDeviceGet{field}": True})
    unknown = {name for name in GpuSample.__struct_fields__ if getattr(found, name) is None}
    assert (
        unknown
        == {
            "UtilizationRates": {"busy_percent"},
            "MemoryInfo": {"memory_used", "memory_total"},
            "PowerUsage": {"power_w"},
            "Temperature": {"temperature_c"},
        }[field]
    )


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_without_a_driver_there_is_no_processor(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus(monkeypatch, **{function: True}) == []
    assert NvidiaGpus("no_such_module").read() == []


# Power

RAPL = "sys/class/powercap/intel-rapl:0"


def test_watts_are_the_growth_of_the_energy_counter_also_where_it_starts_again(tmp_path: Path) -> None:
    now = [0.0]
    files = {f"{RAPL}/energy_uj": "1000000", f"{RAPL}/max_energy_range_uj": "100000000"}
    files |= {f"{RAPL}:0/energy_uj": "7"}  # the cores of the package, which are in it already
    meter = PowerMeter(write(tmp_path, files), clock=lambda: now[0])
    assert meter.read() is None
    now[0] = 2.0
    write(tmp_path, {f"{RAPL}/energy_uj": "31000000", f"{RAPL}:0/energy_uj": "20000007"})
    assert meter.read() == pytest.approx(15.0)
    now[0] = 12.0
    write(tmp_path, {f"{RAPL}/energy_uj": "1000000"})
    assert meter.read() == pytest.approx(7.0)


BATTERY = "sys/class/power_supply/BAT0"
POWER: dict[str, tuple[dict[str, str], float | None]] = {
    "nothing": ({}, None),
    "a sensor": ({"sys/class/hwmon/hwmon1/power1_input": "24500000"}, 24.5),
    "a battery that is drawn from": (
        {f"{BATTERY}/status": "Discharging\n", f"{BATTERY}/power_now": "11250000"},
        11.25,
    ),
    "one that tells its current": (
        {
            f"{BATTERY}/status": "Discharging\n",
            f"{BATTERY}/current_now": "1000000",
            f"{BATTERY}/voltage_now": "12000000",
        },
        12.0,
    ),
    "one that is charged": ({f"{BATTERY}/status": "Charging\n", f"{BATTERY}/power_now": "30000000"}, None),
    "a counter that cannot be read": ({f"{RAPL}/energy_uj": "secret"}, None),
}


@pytest.mark.parametrize("case", POWER.values(), ids=POWER)
def test_power_is_read_where_the_kernel_shows_it(case: Any, tmp_path: Path) -> None:
    files, watts = case
    found = PowerMeter(write(tmp_path, files)).read()
    assert found == (None if watts is None else pytest.approx(watts))
