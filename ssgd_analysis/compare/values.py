"""The values of a metric, run by run; and the runs that lack it, with the reason."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ssgd_analysis.compare.groups import Group
from ssgd_analysis.compare.pairs import RunCheckpoint
from ssgd_analysis.errors import InputError
from ssgd_analysis.runs import Run

Measure = Callable[..., float | None]  # (run, metric, step[, target])
Why = Callable[[Run, str], str]  # (run, metric): why the measure is None


def seed_values(group: Group, metrics: Sequence[str], measure: Measure) -> dict[str, list[float]]:
    """Metric → its values at the final weights, seed by seed; left out: what is not finite."""
    found = {
        metric: [measure(run, metric, None) for run in group.runs.values()] for metric in metrics
    }
    return {
        metric: [v for v in values if v is not None and math.isfinite(v)]
        for metric, values in found.items()
    }


def missing_runs(
    groups: Sequence[Group],
    metrics: Sequence[str],
    measure: Measure,
    why: Why,
    optional: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The runs that lack a metric at their final weights, and why.

    Raises:
        InputError: every run refused a metric that is not optional: so it is no matter of one run.
    """
    missing = []
    for metric in metrics:
        lacking = [
            (group, run)
            for group in groups
            for run in group.runs.values()
            if not _finite(measure(run, metric, None))
        ]
        reasons = [why(run, metric) for _, run in lacking]
        every = len(reasons) == sum(len(group.runs) for group in groups)
        if reasons and all(reasons) and every and metric not in optional:
            raise InputError(reasons[0])
        missing += [
            {
                "group": group.name,
                "run": str(run.folder),
                "metric": metric,
                "why": reason or "it is not there or not finite",
            }
            for (group, run), reason in zip(lacking, reasons, strict=True)
        ]
    return missing


def _values(places: Sequence[RunCheckpoint], metric: str, measure: Measure) -> list[float | None]:
    """One value a run; ``None`` where it is missing or not finite."""
    found = [
        measure(place.run, metric, place.step)
        if place.target is None
        else measure(place.run, metric, place.step, place.target)
        for place in places
    ]
    return [value if _finite(value) else None for value in found]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def known_values(
    places: tuple[list[RunCheckpoint], list[RunCheckpoint]],
    metric: str,
    measure: Measure,
    paired: bool,
) -> tuple[tuple[list[float], list[float]], list[RunCheckpoint]]:
    """Both sides' values without the runs, or by pairs the pairs, that lack one; and these runs.

    Args:
        places: of both sides, by pairs in the same order.
        metric: its name.
        measure: gives its value at a place.
        paired: whether the i-th places of both belong together.
    """
    a, b = (_values(side, metric, measure) for side in places)
    lacking = [
        place
        for side, values in zip(places, (a, b), strict=True)
        for place, value in zip(side, values, strict=True)
        if value is None
    ]
    if paired:
        both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        return ([x for x, _ in both], [y for _, y in both]), lacking
    return ([x for x in a if x is not None], [y for y in b if y is not None]), lacking


def without(lacking: Sequence[RunCheckpoint], metric: str, why: Why) -> str:
    """Which runs are left out, in words; runs of one reason together."""
    reasons: dict[str, list[str]] = {}
    for place in lacking:
        reasons.setdefault(why(place.run, metric), []).append(place.run.folder.name)
    parts = [", ".join(names) + f" ({why})" * bool(why) for why, names in reasons.items()]
    return f"{metric} is missing or not finite in some runs: {'; '.join(parts)}" if parts else ""
