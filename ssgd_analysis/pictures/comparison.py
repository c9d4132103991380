"""Pictures of a comparison: differences, verdicts, metric against metric, correlations."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ssgd_analysis.pictures.correlations import correlation_panels
from ssgd_analysis.plots import (
    Effect,
    coefficient_figure,
    forest_figure,
    metric_scatter,
    save_figure,
    verdict_table,
)
from ssgd_analysis.plots.style import DOUBLE

KINDS = ("differences", "verdicts", "scatter", "correlations")
MOST = 6  # metrics that are drawn against each other

SeedValues = Mapping[str, Mapping[str, list[float]]]


def comparison_pictures(
    out: Path,
    result: dict[str, Any],
    values: SeedValues,
    names: Mapping[str, str],
    *,
    only: Collection[str] = KINDS,
) -> dict[str, list[Path]]:
    """Draw ``differences``, ``verdicts``, ``scatter`` and ``correlations``, if there are any.

    Args:
        out: an existing folder.
        result: of ``compare``.
        values: group → metric → each seed's value.
        names: metric → its name in pictures.
        only: draw these kinds only.

    Returns:
        Name → paths (PNG, PDF).

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    figures = comparison_figures(result, values, names)
    return {name: save_figure(figures[name], out / name) for name in figures if name in only}


def comparison_figures(
    result: dict[str, Any], values: SeedValues, names: Mapping[str, str]
) -> dict[str, Figure]:
    """The figures of :func:`comparison_pictures` by name.

    Args:
        result: of ``compare``.
        values: group → metric → each seed's value.
        names: metric → its name in pictures.
    """
    figures: dict[str, Figure] = {}
    if effects := relative_effects(result, names):
        baselines = {test["baseline"] for test in result["tests"]}
        baseline = baselines.pop() if len(baselines) == 1 else ""
        figures["differences"] = forest_figure(effects, baseline=baseline, width=DOUBLE)
        figures["verdicts"] = verdict_table(effects, width=DOUBLE)
    points = scatter_points(result, values, names)
    if points and len(next(iter(points.values()))) > 1:
        figures["scatter"] = metric_scatter(points, width=DOUBLE)
    if panels := correlation_panels(result.get("correlations"), names):
        figures["correlations"] = coefficient_figure(panels, width=DOUBLE)
    return figures


def relative_effects(
    result: dict[str, Any], names: Mapping[str, str]
) -> dict[str, dict[str, Effect]]:
    """Metric → group → the tested difference as a fraction of the baseline's mean."""
    groups = {g["name"]: g["metrics"] for g in result["groups"]}
    effects: dict[str, dict[str, Effect]] = {}
    for test in result["tests"]:
        size = _size(test, groups[test["baseline"]].get(test["metric"], {}).get("mean"))
        relative = test["difference"] is not None and size is not None
        interval = test["ci95"]
        margin = test.get("margin")
        label = names.get(test["metric"], test["metric"])
        effects.setdefault(label, {})[test["group"]] = Effect(
            test["difference"] / size if relative else None,
            (interval[0] / size, interval[1] / size) if relative and interval else None,
            test["verdict"],
            circular=bool(test.get("circular")),
            margin=margin / size if relative and margin else None,
        )
    return effects


def _size(test: Mapping[str, Any], mean: float | None) -> float | None:
    """Size of the baseline's mean, at the checkpoints that were compared."""
    if test.get("relative") and test["difference"]:
        return abs(test["difference"] / test["relative"])
    return abs(mean) if mean else None


def scatter_points(
    result: dict[str, Any], values: SeedValues, names: Mapping[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Group → metric → a value a seed; accuracy last, so that it is the lowest row of panels."""
    metrics = list(dict.fromkeys(m for group in result["groups"] for m in group["metrics"]))
    present = [m for m in metrics if any(own.get(m) for own in values.values())]
    last = [m for m in present if m == "test_accuracy"]
    chosen = [m for m in present if m not in last][: MOST - len(last)] + last
    points = {}
    for group in result["groups"]:
        seeds, own = len(group["seeds"]), values[group["name"]]
        points[group["name"]] = {
            # where a run lacks the value it is unknown which one, so the others are left out too
            names.get(m, m): own[m] if len(own.get(m, [])) == seeds else [math.nan] * seeds
            for m in chosen
        }
    return points
