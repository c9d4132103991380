"""Does flatness go with accuracy? Rank correlations of metrics with error, over runs."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.comparison.granulated import granulated
from ssgd_analysis.comparison.groups import PROBLEM, REPEATS, Group
from ssgd_analysis.comparison.kendall import Correlation, kendall, mean_kendall
from ssgd_analysis.runs import Run, TrainConfig

Measure = Callable[[Run, str, int | None], float | None]

OUTCOMES = {
    "test_error": "1 − test accuracy",
    "test_loss": "test loss (there is no accuracy)",
    "loss_gap": "test loss − train loss",
    "error_gap": "train accuracy − test accuracy",
}
CONVENTION = "positive where a larger metric goes with a larger error or gap"


@dataclass(frozen=True)
class RunPoint:
    """A run of the sweep.

    Args:
        run: the run.
        group: name of its group.
        config: its settings.
    """

    run: Run
    group: str
    config: TrainConfig


def rank_correlations(
    groups: Sequence[Group], measure: Measure, *, metrics: Sequence[str]
) -> dict[str, Any]:
    """Kendall's τ of every metric with test error and generalisation gap, at the final weights.

    Four views: within a group only the seed varies; within a method the hyper-parameters too;
    over all runs the method too; and the granulated coefficient holds all settings but one fixed.
    Runs of different problems (data, model, loss) are never pooled.

    Args:
        groups: from :func:`ssgd_analysis.comparison.group_runs`.
        measure: gives a metric of a run (at ``None``: its final weights), ``None``: unknown.
        metrics: any; those of the test set are left out, as the error is made of them.

    Returns:
        ``convention``, ``outcomes`` (name → what it is), ``tau`` (rows of ``metric``,
        ``outcome``, ``scope``: ``group``, ``within groups``, ``method`` or ``all``, ``name``,
        ``tau``, ``ci95``, ``n``, ``units``, ``why``) and ``granulated`` (rows of ``metric``,
        ``outcome``, ``scope``, ``name``, ``psi``, ``ci95``, ``n``, ``axes``, ``why``).
    """
    points = [
        RunPoint(run, group.name, dataclasses.replace(group.config, seed=seed))
        for group in groups
        for seed, run in group.runs.items()
    ]
    outcomes = _outcomes(points, measure)
    metrics = [metric for metric in dict.fromkeys(metrics) if not metric.startswith("test_")]
    taus: list[dict[str, Any]] = []
    conditional: list[dict[str, Any]] = []
    for metric in metrics:
        values = {id(point): _finite(measure(point.run, metric, None)) for point in points}
        for outcome, errors in outcomes.items():
            measured = [
                (point, x, y)
                for point in points
                if (x := values[id(point)]) is not None and (y := errors[id(point)]) is not None
            ]
            scope_keys = {"metric": metric, "outcome": outcome}
            taus += [{**scope_keys, **row} for row in _taus(points, measured)]
            conditional += [{**scope_keys, **row} for row in _granulated(points, measured)]
    return {
        "convention": CONVENTION,
        "outcomes": {name: OUTCOMES[name] for name in outcomes},
        "tau": taus,
        "granulated": conditional,
    }


def varying(configs: Sequence[TrainConfig]) -> list[dict[str, Any]]:
    """The settings that vary among runs, by name, for each run.

    A method's own settings are axes among runs of one method. Of several methods those that they
    do not share belong to the method: no run could differ in the method alone.
    """
    flat = []
    for config in configs:
        fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in REPEATS}
        own = fields.pop("settings")
        del fields["label"]  # a name
        flat.append((fields, own))
    shared = set.intersection(*[set(own) for _, own in flat]) if flat else set()
    several = len({fields["method"] for fields, _ in flat}) > 1
    whole = []
    for fields, own in flat:
        point = {**fields, **{key: own[key] for key in own if key in shared or not several}}
        if several:
            rest = sorted((key, own[key]) for key in own if key not in shared)
            point["method"] = (fields["method"], *rest)
        whole.append(point)
    names = [name for name in (whole[0] if whole else ()) if _varies(name, whole)]
    return [{name: point[name] for name in names} for point in whole]


def _varies(name: str, points: Sequence[dict[str, Any]]) -> bool:
    return len({repr(point[name]) for point in points}) > 1


def _outcomes(points: Sequence[RunPoint], measure: Measure) -> dict[str, dict[int, float | None]]:
    """Outcome → run → value; outcomes that no run has are left out."""
    found: dict[str, dict[int, float | None]] = {name: {} for name in OUTCOMES}
    for point in points:
        names = ("test_accuracy", "train_accuracy", "test_loss", "train_loss")
        right, fitted, loss, train = (_finite(measure(point.run, name, None)) for name in names)
        key = id(point)
        found["test_error"][key] = _minus(1.0, right)
        found["test_loss"][key] = loss
        found["loss_gap"][key] = _minus(loss, train)
        found["error_gap"][key] = _minus(fitted, right)
    if any(value is not None for value in found["test_error"].values()):
        del found["test_loss"]
    return {name: own for name, own in found.items() if any(v is not None for v in own.values())}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _minus(one: float | None, other: float | None) -> float | None:
    # rounded, so that equal differences of accuracies are ties
    return None if one is None or other is None else round(one - other, 12)


PointValues = Sequence[tuple[RunPoint, float, float]]


def _taus(points: Sequence[RunPoint], measured: PointValues) -> list[dict[str, Any]]:
    rows = []
    for problem, everything in _split(points, measured, _problem).items():
        groups = _split([p for p in points if _problem(p) == problem], everything, _group)
        suffix = f" ({problem})" if len({_problem(p) for p in points}) > 1 else ""
        for name, members in groups.items():
            rows.append(_row("group", name, kendall(_xs(members), _ys(members))))
        inside = [(_xs(m), _ys(m), [p.config.seed for p, _, _ in m]) for m in groups.values()]
        rows.append(_row("within groups", "within groups" + suffix, mean_kendall(inside)))
        methods = _split([p for p in points if _problem(p) == problem], everything, _method)
        for name, members in methods.items():
            rows.append(_row("method", name + suffix, _pooled(members)))
        if len(methods) > 1:
            rows.append(_row("all", "all methods" + suffix, _pooled(everything)))
    return rows


def _pooled(members: PointValues) -> Correlation:
    """τ over runs of several settings: these and the seeds are the units of the interval."""
    settings = [point.group for point, _, _ in members]
    if len(set(settings)) == 1:
        return kendall(_xs(members), _ys(members))
    seeds = [point.config.seed for point, _, _ in members]
    return kendall(_xs(members), _ys(members), {"settings": settings, "seeds": seeds})


def _granulated(points: Sequence[RunPoint], measured: PointValues) -> list[dict[str, Any]]:
    rows = []
    for problem, everything in _split(points, measured, _problem).items():
        suffix = f" ({problem})" if len({_problem(p) for p in points}) > 1 else ""
        methods = _split([p for p in points if _problem(p) == problem], everything, _method)
        scopes = [("method", name, members) for name, members in methods.items()]
        if len(methods) > 1:
            scopes.append(("all", "all methods", everything))
        for scope, name, members in scopes:
            found = granulated(
                varying([point.config for point, _, _ in members]),
                _xs(members),
                _ys(members),
                [point.config.seed for point, _, _ in members],
            )
            rows.append({"scope": scope, "name": name + suffix, **dataclasses.asdict(found)})
    return rows


def _row(scope: str, name: str, found: Correlation) -> dict[str, Any]:
    return {"scope": scope, "name": name, **dataclasses.asdict(found)}


def _split(
    points: Sequence[RunPoint], measured: PointValues, key: Callable[[RunPoint], str]
) -> dict[str, list[tuple[RunPoint, float, float]]]:
    """Measured runs by a key; keys without one stay, so that their absence is reported."""
    found: dict[str, list[tuple[RunPoint, float, float]]] = {key(point): [] for point in points}
    for entry in measured:
        found[key(entry[0])].append(entry)
    return found


def _problem(point: RunPoint) -> str:
    return ", ".join(str(getattr(point.config, name)) for name in PROBLEM)


def _group(point: RunPoint) -> str:
    return point.group


def _method(point: RunPoint) -> str:
    return point.config.method


def _xs(members: PointValues) -> list[float]:
    return [x for _, x, _ in members]


def _ys(members: PointValues) -> list[float]:
    return [y for _, _, y in members]
