"""Which comparisons and which metrics do not count, and why."""

import math

from ssgd_analysis.comparison.circular import circular
from ssgd_analysis.comparison.groups import problem_differences
from ssgd_analysis.comparison.networks import network_differences
from ssgd_analysis.comparison.pairs import Pair
from ssgd_analysis.flatness import METRICS, parse_metric


def incomparable_why(pair: Pair, tolerance: float) -> str:
    """Why no metric can compare two groups, in words; empty where they are comparable.

    Args:
        pair: the group and its baseline.
        tolerance: largest relative difference of their train losses that is still comparable.
    """
    if differ := problem_differences(pair.group.config, pair.baseline.config):
        return (
            f"the groups differ in {differ}: on different problems, flatness says nothing about the"
            " methods"
        )
    if differ := network_differences(*([c.run.final for c in side] for side in pair.sides)):
        return f"the networks differ in {differ}: flatness is measured over different weights"
    a, b = pair.losses
    if math.isnan(a + b):
        return "the train loss of some runs is not known, so it may differ"
    if max(pair.loss_gap, pair.pair_gap) <= tolerance:
        return ""
    apart = f"train losses {a:.4g} and {b:.4g} differ by {pair.loss_gap:.0%}"
    if pair.loss_gap <= tolerance:
        apart = (
            f"within pairs the train losses differ by {pair.pair_gap:.0%} on average, though the"
            f" mean {apart}"
        )
    return (
        f"{apart}, and at most {tolerance:.0%} is allowed: at different train losses, flatness says"
        " nothing about the methods (`compare --match-loss` measures checkpoints of equal train"
        " loss, for runs that were trained with --save-every; `compare --match-by temperature`"
        " scales the logits)"
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
