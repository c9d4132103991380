"""The metrics that were asked for, each with its value or with why there is none."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ssgd_analysis.errors import InputError, OutOfTimeError, WorkError, first_line
from ssgd_analysis.flatness import METRICS, Measurement, parse_metric
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.curve import curve_on
from ssgd_analysis.progress import SILENT, Progress


def measure_metrics(
    context: MetricContext,
    metrics: Sequence[str],
    *,
    optional: bool = False,
    curves: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Plain values of each metric's measurement.

    Args:
        context: the problem; its deadline holds for the metrics.
        metrics: names with settings.
        optional: one that this problem does not have is ``None`` with the reason ``why``, as one
            that the time did not allow always is.
        curves: over the radii too, where there is a radius.
        progress: shows each.

    Raises:
        InputError: a metric that this problem does not have, unless optional.
        WorkError: a value that is not finite, unless optional.
    """
    progress.start("metrics", len(metrics))
    measured = {}
    for text in metrics:
        name, settings = parse_metric(text)
        metric = METRICS[name]
        try:
            measured[text] = dataclasses.asdict(metric.on(context, **settings))
        except (InputError, WorkError) as error:
            if not (optional or isinstance(error, OutOfTimeError)):
                raise type(error)(f"metric {name}: {error}") from error
            measured[text] = {
                "value": None,
                "stderr": None,
                "settings": settings,
                "why": first_line(error),
            }
            progress.warn(f"metric {name}: {first_line(error)}")
        else:
            if curves and metric.radius:
                measured[text]["curve"] = _curve(context, name, settings, progress)
        progress.advance(note=text)
    return measured


def _curve(
    context: MetricContext, name: str, settings: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """A metric over its radii; ``None`` at those where there is no value."""
    radii = METRICS[name].grid(settings)
    points: list[Measurement | None] = []
    for radius in radii:
        try:
            points += [found for _, found in curve_on(context, name, [radius], **settings)]
        except (InputError, WorkError) as error:
            progress.warn(f"metric {name} at {radius:g}: {first_line(error)}")
            points.append(None)
    return {
        "over": METRICS[name].radius,
        "radii": list(radii),
        "values": [None if found is None else found.value for found in points],
        "stderr": [None if found is None else found.stderr for found in points],
    }
