"""Groups of runs against a baseline, with verdicts that follow from the numbers."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.comparison.advice import advice
from ssgd_analysis.comparison.correlate import rank_correlations
from ssgd_analysis.comparison.exclusions import lacking_metrics, obstacle
from ssgd_analysis.comparison.flatness_tests import flatness_tests
from ssgd_analysis.comparison.groups import Group, find_runs, group_runs
from ssgd_analysis.comparison.members import Member, MemberGroup
from ssgd_analysis.comparison.metric_kinds import check_metric, is_flatness
from ssgd_analysis.comparison.outcomes import compare_outcomes
from ssgd_analysis.comparison.pairs import pairs_of
from ssgd_analysis.comparison.record import Comparison
from ssgd_analysis.comparison.run_metrics import Measurements
from ssgd_analysis.comparison.statistics import interval
from ssgd_analysis.comparison.values import MetricSource, missing_runs, seed_values
from ssgd_analysis.comparison.weight_groups import Weights, weight_groups
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS, all_metrics
from ssgd_analysis.problem import Problem
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

Groups = str | Path | Sequence[str | Path | MemberGroup] | Mapping[str, Weights | Sequence[Weights]]


def compare(
    groups: Groups,
    *,
    problem: Problem | None = None,
    test: Problem | None = None,
    model: str | None = None,
    data: str | None = None,
    loss: str | None = None,
    count: str | None = None,
    weights: str | None = None,
    stream: bool | None = None,
    trained_with: Mapping[str, str] | None = None,
    paired: bool = False,
    metrics: Sequence[str] = DEFAULT_METRICS,
    baseline: str | None = None,
    loss_tolerance: float = 0.1,
    match_loss: bool = False,
    match_by: str | None = None,
    correlate: bool = False,
    rule: VerdictRule | None = None,
    settings: MeasurementSettings | None = None,
    source: MetricSource | None = None,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare every group with its baseline, metric by metric, by a rule that is fixed beforehand.

    Two groups of runs are paired by seed; if they share no seed, all runs count. Groups whose mean
    train losses differ by more than the tolerance are ``not comparable``, because curvature depends
    on the loss; with ``match_loss`` the run that fits better is measured at the other's train loss.
    Groups that differ in data, model or loss are not comparable either. What has to be measured of
    a run is stored in its folder and found there the next time.

    Args:
        groups: runs, folders of runs, and groups from :func:`group_runs` or :func:`weight_groups`.
            Runs that are not finished are left out. Or label → weights of any origin, such as
            ``{"SGD": [model, …], "SAM": ["sam-0.pt", …]}``: models in memory, state dicts, files,
            runs; see :func:`weight_groups`, also for the next nine arguments.
        problem: the loss and the training examples that models in memory are measured on.
        test: the same on the test examples.
        model: reference of the model of weight files.
        data: the same of the data.
        loss: the same of the loss.
        count: the same of a function that counts the examples of a batch.
        weights: key of the weights in files that hold several sets.
        stream: read the data of files at every pass, instead of holding it.
        trained_with: label → method, as ``{"SAM": "sam:rho=0.05"}``.
        paired: the i-th weights of a group belong to the i-th of its baseline.
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
        folder: where measurements of weight files are stored; ``None``: nowhere.
        progress: is advanced at every metric that has to be measured.

    Raises:
        InputError: no finished run; an unknown metric or baseline; a setting that is out of range;
            a metric that every run refuses; weights that :func:`weight_groups` refuses; two groups
            of one name; or saved checkpoints or correlations asked of weights.

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
        >>> found = compare(folder, metrics=["test_accuracy", "sam"])
        >>> found.table[0]["rival"]
        's-sgd vs sgd'
        >>> [row["metric"] for row in found.rows()]  # sam can't decide: rescaling changes it
        ['sam', 'expected', 'adaptive_worst']
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
        paired=paired,
    )
    rule, settings = rule or VerdictRule(), settings or MeasurementSettings()
    optional: Collection[str] = METRICS if "all" in metrics else ()
    metrics = asked = all_metrics(metrics)
    for metric in metrics:
        check_metric(metric)
    if settings.normalize_logits and chosen.matching == "temperature":
        raise InputError(
            "normalized logits have no scale, and matching by temperature sets their scale: choose"
            " one of them"
        )
    belongs: dict[str, Any] = {
        "problem": problem, "test": test, "model": model, "data": data, "loss": loss,
        "count": count, "weights": weights, "stream": stream, "trained_with": trained_with,
    }  # fmt: skip
    every = _as_groups(groups, belongs, settings, folder, progress)
    _check_groups(every, chosen)
    flatness = [metric for metric in metrics if is_flatness(metric)]
    measured = source or _measuring(every, metrics, settings, progress)
    pairs = pairs_of(every, baseline, chosen.matching, measured.train_loss, by_order=paired)
    obstacles = [obstacle(pair, loss_tolerance) for pair in pairs]
    added = () if source else lacking_metrics(pairs, obstacles, flatness)
    if added:
        flatness, metrics, optional = [*flatness, *added], (*metrics, *added), {*optional, *added}
        measured = _measuring(every, metrics, settings, progress)
    summaries = [_summary(group, metrics, measured) for group in every]
    missing = missing_runs(every, metrics, measured, optional)
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
        correlations=_correlations(every, measured, asked) if correlate else None,
        values={group.name: seed_values(group, metrics, measured) for group in every},
        remarks=_remarks(every),
    )


def _as_groups(
    given: Groups,
    belongs: Mapping[str, Any],
    settings: MeasurementSettings,
    folder: Path | None,
    progress: Progress,
) -> list[MemberGroup]:
    """Groups as they are given, of weights under labels, or of the finished runs at some paths."""
    if isinstance(given, Mapping):
        return weight_groups(given, settings=settings, folder=folder, progress=progress, **belongs)
    if unused := [name for name, value in belongs.items() if value is not None]:
        raise InputError(f"{unused[0]}= belongs to weights: give them as {{label: [weights, …]}}")
    given = [given] if isinstance(given, str | Path) else given
    paths = [Path(one) for one in given if isinstance(one, str | Path)]
    groups = [one for one in given if not isinstance(one, str | Path)]
    if not paths and groups:
        return groups
    finished, unfinished = find_runs(paths)
    for run in unfinished:
        progress.warn(f"{run.folder} is not finished, and is left out")
    return [*group_runs(finished), *groups]


def _check_groups(groups: Sequence[MemberGroup], chosen: ComparisonSettings) -> None:
    """Refuse names that two groups share, and what groups of weights can't be asked for."""
    weights = [group for group in groups if not group.seeded]
    for group in groups:
        others = [other for other in groups if other is not group]
        taken = {name for other in others for name in (other.name, *_own_names(other, group))}
        if group.name in taken:
            raise InputError(
                f"two groups are called '{group.name}': give one of them another label"
            )
    if len(groups) == 1 and weights:
        raise InputError(
            f"there is only one group, {weights[0].name}: add another one to compare it with"
            " (--group LABEL=PATTERN, or runs)"
        )
    for group in weights:
        if chosen.matching == "checkpoints":
            next(iter(group.members.values())).saved_steps()  # says why there are none
        if chosen.correlate:
            raise InputError(
                f"--correlate needs runs, whose settings are known: leave out {group.name}"
            )


def _own_names(runs: MemberGroup, weights: MemberGroup) -> tuple[str, ...]:
    """What runs go by besides their name, which a label of weights would be mistaken for."""
    return (*runs.names, runs.method) if runs.seeded and not weights.seeded else ()


def _correlations(
    groups: Sequence[MemberGroup], source: MetricSource, metrics: Sequence[str]
) -> dict[str, Any]:
    runs = [group for group in groups if isinstance(group, Group)]  # all: the others are refused
    return rank_correlations(runs, source, metrics=metrics)


def _measuring(
    groups: Sequence[MemberGroup],
    metrics: Sequence[str],
    settings: MeasurementSettings,
    progress: Progress,
) -> Measurements:
    """Measurements that advance the progress."""
    members = sum(len(group.members) for group in groups)
    progress.start("measuring", members * sum(map(is_flatness, metrics)))

    def advance(member: Member, metric: str) -> None:
        progress.advance(1, f"{metric} of {member.name}")

    return Measurements(metrics, settings, advance)


def _summary(group: MemberGroup, metrics: Sequence[str], source: MetricSource) -> dict[str, Any]:
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
        "method": group.method or None,
        "seeds": list(group.members),
        "runs": [member.place for member in group.members.values()],
        "trained_with": _training(group),
        "metrics": summaries,
    }


def _remarks(groups: Sequence[MemberGroup]) -> list[str]:
    """What was assumed of the groups, and whose training is not known."""
    found = list(dict.fromkeys(text for group in groups for text in group.remarks))
    unknown = [group.name for group in groups if group.training is None]
    if unknown:
        found.append(
            f"It is not known what the weights of {', '.join(unknown)} were trained with, so"
            " metrics that the training lowered by design count, too (--trained-with"
            f" {unknown[0]}=METHOD says it)."
        )
    return found


def _training(group: MemberGroup) -> dict[str, Any] | None:
    """The method and its settings; ``None``: they are not known."""
    if group.training is None:
        return None
    settings = dataclasses.asdict(group.training.method_settings())
    return {"method": group.training.method, "settings": settings}
