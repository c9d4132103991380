"""Groups of runs against a baseline, with verdicts that follow from the numbers."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.comparison.advice import advice
from ssgd_analysis.comparison.correlate import rank_correlations
from ssgd_analysis.comparison.exclusions import lacking_metrics, obstacle
from ssgd_analysis.comparison.flatness_tests import flatness_tests
from ssgd_analysis.comparison.groups import Group, find_runs, group_runs
from ssgd_analysis.comparison.metric_kinds import check_metric, is_flatness
from ssgd_analysis.comparison.outcomes import compare_outcomes
from ssgd_analysis.comparison.pairs import pairs_of
from ssgd_analysis.comparison.record import Comparison
from ssgd_analysis.comparison.run_metrics import Measurements
from ssgd_analysis.comparison.statistics import interval
from ssgd_analysis.comparison.values import MetricSource, missing_runs, seed_values
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS, all_metrics
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.settings.comparison import (
    ComparisonSettings,
    MeasurementSettings,
    VerdictRule,
)

DEFAULT_METRICS = (
    "test_accuracy",
    "train_loss",
    *(name for name, metric in METRICS.items() if metric.compared),
)


def compare(
    groups: str | Path | Sequence[str | Path] | Sequence[Group],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    baseline: str | None = None,
    loss_tolerance: float = 0.1,
    match_loss: bool = False,
    match_by: str | None = None,
    correlate: bool = False,
    rule: VerdictRule | None = None,
    settings: MeasurementSettings | None = None,
    source: MetricSource | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare every group with its baseline, metric by metric, by a rule that is fixed beforehand.

    Two groups are paired by seed; if they share no seed, all runs count. Groups whose mean train
    losses differ by more than the tolerance are ``not comparable``, because curvature depends on
    the loss; with ``match_loss`` the run that fits better is measured at the other's train loss.
    Groups that differ in data, model or loss are not comparable either. What has to be measured is
    stored in the runs' folders and found there the next time.

    Args:
        groups: runs, folders of runs, or groups from :func:`group_runs`. Runs that are not
            finished are left out.
        metrics: flatness metrics, maybe with settings as ``expected:sigma=0.2``, names of the
            history, and ``all``: every flatness metric, where a run may lack any. If none of them
            counts for some groups, the default ones that count are measured too, unless there is a
            ``source``.
        baseline: method, label or name of a group; default ``sgd``, or else the first group.
        loss_tolerance: largest allowed difference of train losses, relative to the larger one.
        match_loss: compare at equal train loss.
        match_by: ``checkpoints`` takes the saved checkpoint whose train loss is nearest;
            ``temperature`` takes the final weights and scales the logits. Implies ``match_loss``,
            which alone means ``checkpoints``.
        correlate: also compute the rank correlations of metrics with test error.
        rule: when a method is called flatter.
        settings: of the measurements: split, samples, seed, device.
        source: gives the metrics; default: :class:`Measurements` with these settings.
        progress: is advanced at every metric that has to be measured.

    Raises:
        InputError: no finished run; an unknown metric or baseline; a setting that is out of range;
            or a metric that every run refuses.

    Example:
        >>> import tempfile
        >>> from ssgd_analysis import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp())
        >>> for seed in (0, 1):
        ...     for method in ("sgd", "s-sgd"):
        ...         config = TrainConfig(
        ...             method=method, data="two_moons", model="mlp", epochs=1, seed=seed
        ...         )
        ...         _ = train(config, folder / f"{method}-{seed}")
        >>> found = compare(folder, metrics=["test_accuracy", "lambda_max"])
        >>> found.table[0]["rival"]
        's-sgd vs sgd'
        >>> [row["metric"] for row in found.rows()]
        ['lambda_max']
        >>> print(repr(found).splitlines()[1].split())
        ['against', 'sgd', 'metric', 'difference', 'p', '(Holm)', 'verdict']
    """
    chosen = ComparisonSettings(
        metrics=list(metrics),
        baseline=baseline,
        loss_tolerance=loss_tolerance,
        match_loss=match_loss,
        match_by=match_by,
        correlate=correlate,
    )
    rule, settings = rule or VerdictRule(), settings or MeasurementSettings()
    optional: Collection[str] = METRICS if "all" in metrics else ()
    metrics = all_metrics(metrics)
    for metric in metrics:
        check_metric(metric)
    if settings.normalize_logits and chosen.matching == "temperature":
        raise InputError(
            "normalized logits have no scale, and matching by temperature sets their scale: choose"
            " one of them"
        )
    groups = _as_groups(groups, progress)
    flatness = [metric for metric in metrics if is_flatness(metric)]
    measured = source or _measuring(groups, metrics, settings, progress)
    pairs = pairs_of(groups, baseline, chosen.matching, measured.train_loss)
    obstacles = [obstacle(pair, loss_tolerance) for pair in pairs]
    added = () if source else lacking_metrics(pairs, obstacles, flatness)
    if added:
        flatness, metrics, optional = [*flatness, *added], (*metrics, *added), {*optional, *added}
        measured = _measuring(groups, metrics, settings, progress)
    summaries = [_summary(group, metrics, measured) for group in groups]
    missing = missing_runs(groups, metrics, measured, optional)
    tests, overall = flatness_tests(pairs, obstacles, flatness, measured, rule=rule)
    outcomes = [metric for metric in metrics if not is_flatness(metric)]
    return Comparison(
        groups=summaries,
        missing=missing,
        tests=tests,
        overall=overall,
        outcomes=compare_outcomes(pairs, outcomes, measured, rule),
        notes={m: note for m in flatness if (note := METRICS[m.partition(":")[0]].note)},
        rule=rule,
        loss_tolerance=loss_tolerance,
        matched_by=chosen.matching or None,
        normalized_logits=settings.normalize_logits,
        compared=bool(pairs),
        added=added,
        advice=advice(pairs, obstacles, normalized_logits=settings.normalize_logits),
        correlations=rank_correlations(groups, measured, metrics=metrics) if correlate else None,
        values={group.name: seed_values(group, metrics, measured) for group in groups},
    )


def _as_groups(
    given: str | Path | Sequence[str | Path] | Sequence[Group], progress: Progress
) -> list[Group]:
    """Groups as they are given, or those of the finished runs at some paths."""
    if isinstance(given, str | Path):
        given = [given]
    groups = [one for one in given if isinstance(one, Group)]
    paths = [Path(one) for one in given if not isinstance(one, Group)]
    if groups and paths:
        raise InputError("compare either groups or folders of runs, not both at once")
    if groups:
        return groups
    finished, unfinished = find_runs(paths)
    for run in unfinished:
        progress.warn(f"{run.folder} is not finished, and is left out")
    return group_runs(finished)


def _measuring(
    groups: Sequence[Group],
    metrics: Sequence[str],
    settings: MeasurementSettings,
    progress: Progress,
) -> Measurements:
    """Measurements that advance the progress."""
    runs = sum(len(group.runs) for group in groups)
    progress.start("measuring", runs * sum(map(is_flatness, metrics)))
    return Measurements(
        metrics,
        settings,
        lambda run, metric: progress.advance(1, f"{metric} of {run.folder.name}"),
    )


def _summary(group: Group, metrics: Sequence[str], source: MetricSource) -> dict[str, Any]:
    summaries: dict[str, dict[str, Any]] = {}
    for metric, values in seed_values(group, metrics, source).items():
        found = interval(values) if values else None
        summaries[metric] = {
            "mean": found.mean if found else None,
            "ci95": found.ci95 if found else None,
            "n": found.n if found else 0,
        }
    return {
        "name": group.name,
        "method": group.config.method,
        "seeds": list(group.runs),
        "runs": [str(run.folder) for run in group.runs.values()],
        "metrics": summaries,
    }
