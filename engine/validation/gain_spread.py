"""How much the gain differs between the clusters of a report: what the next test can detect follows from it. Imports
nothing heavy."""

from __future__ import annotations

from statistics import fmean, stdev

from engine.validation.report import ValidationReport


def gain_deviation(report: ValidationReport) -> float | None:
    """Standard deviation of the relative gain between the clusters of a report; None where it is unknown."""
    sums: dict[str, tuple[float, float, float]] = {}
    for case in report.cases:
        bytes_, base, new = sums.get(case.cluster, (0.0, 0.0, 0.0))
        sums[case.cluster] = (
            bytes_ + case.bytes,
            base + case.bytes * case.base,
            new + case.bytes * case.new,
        )
    means = [(base / bytes_, new / bytes_) for bytes_, base, new in sums.values() if bytes_]
    if len(means) < 2:
        return None
    level = fmean(base for base, _new in means)
    return stdev(base - new for base, new in means) / level or None if level else None
