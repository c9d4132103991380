"""Which comparisons and which metrics do not count, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssgd_analysis.comparison.circular import circular
from ssgd_analysis.comparison.groups import problem_differences
from ssgd_analysis.comparison.networks import network_differences
from ssgd_analysis.comparison.pairs import Pair
from ssgd_analysis.flatness import METRICS, parse_metric
from ssgd_analysis.flatness.losses import losses_apart


@dataclass(frozen=True)
class Obstacle:
    """Why no metric can compare two groups.

    Args:
        kind: ``problem`` (data, model or loss differ), ``network`` (names or shapes of the
            tensors), ``losses`` (train losses differ), ``unknown losses``.
        why: the same with its numbers.
    """

    kind: str
    why: str


def obstacle(pair: Pair, tolerance: float) -> Obstacle | None:
    """What keeps every metric from comparing two groups; ``None`` where nothing does.

    Args:
        pair: the group and its baseline.
        tolerance: largest relative difference of their train losses that is still comparable.
    """
    if differ := problem_differences(pair.group.config, pair.baseline.config):
        why = "on different problems, flatness says nothing about the methods"
        return Obstacle("problem", f"the groups differ in {differ}: {why}")
    if differ := network_differences(*([c.run.final for c in side] for side in pair.sides)):
        why = "flatness is measured over different weights"
        return Obstacle("network", f"the networks differ in {differ}: {why}")
    a, b = pair.losses
    if math.isnan(a + b):
        why = "the train loss of some runs is not known, so it may differ"
        return Obstacle("unknown losses", why)
    if max(pair.loss_gap, pair.pair_gap) <= tolerance:
        return None
    why = losses_apart(a, b, tolerance)
    if pair.loss_gap <= tolerance:
        start = f"within pairs the train losses differ by {pair.pair_gap:.0%} on average"
        why = f"{start}, though the mean {why}"
    return Obstacle("losses", why)


def lacking_metrics(
    pairs: Sequence[Pair], obstacles: Sequence[Obstacle | None], metrics: Sequence[str]
) -> tuple[str, ...]:
    """The default metrics that count, where two comparable groups have no metric that counts.

    These are the metrics that :data:`METRICS` declares for comparisons (``compared``), that say
    which direction is flatter, and that no rescaling of the weights changes.

    Args:
        pairs: groups with their baselines.
        obstacles: of each pair.
        metrics: the flatness metrics that were asked for.
    """
    if not any(
        all(excluded_why(metric, pair)[0] for metric in metrics)
        for pair, found in zip(pairs, obstacles, strict=True)
        if found is None
    ):
        return ()
    return tuple(
        name
        for name, metric in METRICS.items()
        if metric.compared
        and metric.flatter
        and metric.invariant(metric.defaults)
        and name not in metrics
    )


def excluded_why(metric: str, pair: Pair) -> tuple[str, str]:
    """Why a metric does not count for the overall verdict, and the part that is circularity.

    Args:
        metric: name, maybe with settings.
        pair: the group and its baseline.

    Returns:
        Two texts; both are empty where the metric counts.
    """
    name, given = parse_metric(metric)
    entry = METRICS[name]
    settings = {**entry.defaults, **given}
    reasons = [circular(metric, group.config) for group in (pair.group, pair.baseline)]
    circle = "; ".join(filter(None, reasons))
    if circle:
        return f"circular: {circle}", circle
    if entry.flatter is None:
        return "it does not say which direction is flatter", ""
    if not entry.invariant(settings):
        return "rescaling the weights changes it although the function stays the same", ""
    return "", ""
