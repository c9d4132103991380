"""The values of a metric, run by run, and the runs that lack it, with the reason."""

import math
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeGuard

from ssgd_analysis.comparison.members import Member, MemberGroup
from ssgd_analysis.comparison.pairs import MemberCheckpoint
from ssgd_analysis.errors import InputError


class MetricSource(Protocol):
    """Where a comparison gets its numbers from.

    :class:`ssgd_analysis.comparison.Measurements` reads and measures them.
    """

    def __call__(
        self, member: Member, metric: str, step: int | None = None, target: float | None = None
    ) -> float | None:
        """The metric of a member of a group.

        Args:
            member: a run, or other weights.
            metric: its name, maybe with settings.
            step: of a checkpoint; ``None``: the final weights.
            target: train loss that the logits are scaled to; ``None``: they stay.

        Returns:
            ``None`` where there is no value.
        """

    def why(self, member: Member, metric: str) -> str:
        """Why a member has no value of a metric; empty where it was not refused."""

    def train_loss(self, member: Member, step: int | None = None) -> float:
        """The train loss of a member at a step; NaN where it is not known."""


def seed_values(
    group: MemberGroup, metrics: Sequence[str], source: MetricSource
) -> dict[str, list[float]]:
    """Metric → its finite values at the final weights, in the order of the seeds."""
    return {
        metric: [value for one in group.members.values() if _finite(value := source(one, metric))]
        for metric in metrics
    }


def missing_runs(
    groups: Sequence[MemberGroup],
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
            (group, member)
            for group in groups
            for member in group.members.values()
            if not _finite(source(member, metric))
        ]
        reasons = [source.why(member, metric) for _, member in without_value]
        every = len(reasons) == sum(len(group.members) for group in groups)
        if reasons and all(reasons) and every and metric not in optional:
            raise InputError(reasons[0])
        missing += [
            {
                "group": group.name,
                "run": member.place,
                "metric": metric,
                "why": reason or member.why_missing(metric),
            }
            for (group, member), reason in zip(without_value, reasons, strict=True)
        ]
    return missing


def paired_values(
    sides: tuple[list[MemberCheckpoint], list[MemberCheckpoint]],
    metric: str,
    source: MetricSource,
    paired: bool,
) -> tuple[tuple[list[float], list[float]], list[MemberCheckpoint]]:
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


def without(without_value: Sequence[MemberCheckpoint], metric: str, source: MetricSource) -> str:
    """Which runs are left out, in words; runs with the same reason together."""
    reasons: dict[str, list[str]] = {}
    for checkpoint in without_value:
        reason = source.why(checkpoint.member, metric)
        reasons.setdefault(reason, []).append(checkpoint.member.name)
    parts = [", ".join(names) + f" ({why})" * bool(why) for why, names in reasons.items()]
    return f"{metric} is missing or not finite in some runs: {'; '.join(parts)}" if parts else ""


def _values(
    checkpoints: Sequence[MemberCheckpoint], metric: str, source: MetricSource
) -> list[float | None]:
    """One value a run; ``None`` where it is missing or not finite."""
    found = [source(c.member, metric, c.step, c.target) for c in checkpoints]
    return [value if _finite(value) else None for value in found]


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
