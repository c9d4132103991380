"""The values of a metric, run by run, and the runs that lack it, with the reason."""

import math
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeGuard

from ssgd_analysis.comparison.groups import Group
from ssgd_analysis.comparison.pairs import RunCheckpoint
from ssgd_analysis.errors import InputError
from ssgd_analysis.runs import Run


class MetricSource(Protocol):
    """Where a comparison gets its numbers from.

    :class:`ssgd_analysis.comparison.Measurements` reads and measures them.
    """

    def __call__(
        self, run: Run, metric: str, step: int | None = None, target: float | None = None
    ) -> float | None:
        """The metric of a run.

        Args:
            run: the run.
            metric: its name, maybe with settings.
            step: of a checkpoint; ``None``: the final weights.
            target: train loss that the logits are scaled to; ``None``: they stay.

        Returns:
            ``None`` where there is no value.
        """

    def why(self, run: Run, metric: str) -> str:
        """Why a run has no value of a metric; empty where it was not refused."""

    def train_loss(self, run: Run, step: int | None = None) -> float:
        """The train loss of a run at a step; NaN where it is not known."""


def seed_values(
    group: Group, metrics: Sequence[str], source: MetricSource
) -> dict[str, list[float]]:
    """Metric → its finite values at the final weights, in the order of the seeds."""
    return {
        metric: [value for run in group.runs.values() if _finite(value := source(run, metric))]
        for metric in metrics
    }


def missing_runs(
    groups: Sequence[Group],
    metrics: Sequence[str],
    source: MetricSource,
    optional: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The runs that lack a metric at their final weights, and why.

    Raises:
        InputError: every run refused a metric that is not optional.
    """
    missing = []
    for metric in metrics:
        without_value = [
            (group, run)
            for group in groups
            for run in group.runs.values()
            if not _finite(source(run, metric))
        ]
        reasons = [source.why(run, metric) for _, run in without_value]
        every = len(reasons) == sum(len(group.runs) for group in groups)
        if reasons and all(reasons) and every and metric not in optional:
            raise InputError(reasons[0])
        missing += [
            {
                "group": group.name,
                "run": str(run.folder),
                "metric": metric,
                "why": reason or "it was not recorded, or is not finite",
            }
            for (group, run), reason in zip(without_value, reasons, strict=True)
        ]
    return missing


def paired_values(
    sides: tuple[list[RunCheckpoint], list[RunCheckpoint]],
    metric: str,
    source: MetricSource,
    paired: bool,
) -> tuple[tuple[list[float], list[float]], list[RunCheckpoint]]:
    """Both sides' values, without the runs (of pairs: the pairs) that lack one; and these runs.

    Args:
        sides: the checkpoints of both sides, of pairs in the same order.
        metric: its name.
        source: gives its values.
        paired: whether the i-th checkpoints of both sides belong together.
    """
    a, b = (_values(side, metric, source) for side in sides)
    without_value = [
        checkpoint
        for side, values in zip(sides, (a, b), strict=True)
        for checkpoint, value in zip(side, values, strict=True)
        if value is None
    ]
    if paired:
        both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
        return ([x for x, _ in both], [y for _, y in both]), without_value
    return ([x for x in a if x is not None], [y for y in b if y is not None]), without_value


def without(without_value: Sequence[RunCheckpoint], metric: str, source: MetricSource) -> str:
    """Which runs are left out, in words; runs with the same reason together."""
    reasons: dict[str, list[str]] = {}
    for checkpoint in without_value:
        reason = source.why(checkpoint.run, metric)
        reasons.setdefault(reason, []).append(checkpoint.run.folder.name)
    parts = [", ".join(names) + f" ({why})" * bool(why) for why, names in reasons.items()]
    return f"{metric} is missing or not finite in some runs: {'; '.join(parts)}" if parts else ""


def _values(
    checkpoints: Sequence[RunCheckpoint], metric: str, source: MetricSource
) -> list[float | None]:
    """One value a run; ``None`` where it is missing or not finite."""
    found = [source(c.run, metric, c.step, c.target) for c in checkpoints]
    return [value if _finite(value) else None for value in found]


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
