"""How long programs waited for a resource, as the system reports it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def stalled_percent(resource: str = "memory", root: Path = Path("/")) -> float:
    """Share of the last 10 s in which at least one program waited for "cpu", "memory" or "io", in percent.

    Pressure stall information (PSI) of Linux. Its `full` line is useless here: a computing run never waits.
    Raises OSError, KeyError or ValueError where the kernel does not provide it.
    """
    lines = (root / "proc/pressure" / resource).read_text(encoding="ascii").splitlines()
    fields = dict(field.split("=") for line in lines if line.startswith("some") for field in line.split()[1:])
    return float(fields["avg10"])


def macos_pressure_level(command: str = "/usr/sbin/sysctl") -> int:
    """1 normal, 2 warning, 4 critical. Raises OSError or ValueError where the system does not provide it."""
    output = subprocess.run(
        [command, "-n", "kern.memorystatus_vm_pressure_level"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return int(output.stdout)
