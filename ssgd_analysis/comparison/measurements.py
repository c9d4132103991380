"""A metric of a group's member: known already, or measured once and stored."""

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from ssgd_analysis.comparison.matching import (
    Scaled,
    check_cross_entropy,
    normalize_logits,
    temperature,
)
from ssgd_analysis.comparison.members import Member, RunMember
from ssgd_analysis.comparison.metric_kinds import HISTORY_METRICS, check_metric
from ssgd_analysis.comparison.pairs import recorded_loss
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.flatness import METRICS, parse_metric
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs import Run
from ssgd_analysis.settings.comparison import MeasurementSettings


def measure_run(
    run: Run,
    metrics: Sequence[str],
    settings: MeasurementSettings,
    *,
    step: int | None = None,
    target: float | None = None,
) -> dict[str, float | None]:
    """Metrics of a finished run at a saved step (default: the final weights), sharing their work.

    What had to be computed is stored in the run's folder ``measurements/`` and read from there the
    next time, as long as weights, settings, version and the code of model, data and loss are the
    same.

    Args:
        run: the run.
        metrics: names of the history, and of flatness metrics, maybe with settings.
        settings: split, seed, ….
        step: of a saved checkpoint.
        target: logits are divided by the temperature that brings the train loss up to this.

    Returns:
        Metric → value; ``None``: not in the history, or no temperature reaches the target.

    Raises:
        InputError: an unknown metric, no checkpoint of that step, a metric that does not apply, or
            logits to be scaled although the loss is not cross-entropy.
    """
    return measure_member(RunMember(run), metrics, settings, step=step, target=target)


def measure_member(
    member: Member,
    metrics: Sequence[str],
    settings: MeasurementSettings,
    *,
    step: int | None = None,
    target: float | None = None,
    on_measured: Callable[[str], None] = lambda metric: None,
    on_refused: Callable[[str, str], None] | None = None,
) -> dict[str, float | None]:
    """The same of any member of a group; what is computed goes to its store, if it has one.

    Args:
        member: a run, or other weights.
        metrics: as for :func:`measure_run`.
        settings: the same.
        step: the same.
        target: the same.
        on_measured: is called with every metric that had to be computed.
        on_refused: is called with a metric that this member lacks or refuses, and the reason;
            default: it is an error.

    Returns:
        Metric → value; ``None``: not known, refused, or no temperature reaches the target.

    Raises:
        InputError: an unknown metric; and as for :func:`measure_run` where refusals are errors.
    """
    for metric in metrics:
        check_metric(metric)
    at = member.step(step)  # a damaged run is an error, not a missing value

    @contextlib.contextmanager
    def trying(*tried: str) -> Iterator[None]:
        """Record a refusal as a missing value, if refusals are not errors."""
        try:
            yield
        except (InputError, WorkError) as error:
            if on_refused is None:
                raise
            for name in tried:
                found[name] = None
                on_refused(name, first_line(error))

    found: dict[str, float | None] = {}
    for metric in metrics:
        if metric in HISTORY_METRICS:
            with trying(metric):
                found[metric] = member.outcome(metric, step)
    store = member.store
    missing: list[tuple[str, str, dict[str, Any]]] = []
    context: MetricContext | None = None
    for metric in metrics:
        if metric not in found:
            with trying(metric):
                entry, key = _entry(member, metric, settings, at, target)
                stored = None if store is None else store.read(entry, key)
                if stored is not None:
                    found[metric] = stored["value"]
                else:
                    missing.append((metric, entry, key))
    if missing:
        with trying(*(metric for metric, _, _ in missing)):
            context = _context(member, settings, at, target)
    for metric, entry, key in missing:
        if metric in found:  # refused with the others
            continue
        if context is None:
            found[metric] = None
            continue
        with trying(metric):
            name, own = parse_metric(metric)
            result = METRICS[name].on(context, **own)
            with contextlib.suppress(InputError, WorkError):  # a read-only run can be compared too
                if store is not None:
                    store.write(entry, key, dataclasses.asdict(result))
            found[metric] = result.value
            on_measured(metric)
    return found


def train_loss(member: Member, settings: MeasurementSettings, step: int | None = None) -> float:
    """The mean train loss of a member at a step, with normalised logits if metrics use them."""
    if not settings.normalize_logits:
        return recorded_loss(member, step)
    problem = member.open(settings, step).problem("train")
    return _changed(problem, member, normalize=True).mean_loss()


def _entry(
    member: Member,
    metric: str,
    settings: MeasurementSettings,
    step: int,
    target: float | None,
) -> tuple[str, dict[str, Any]]:
    """The name of a measurement's entry in the store, and all that its value depends on."""
    name, own = parse_metric(metric)
    key = {
        **member.key(step),
        "metric": f"{name}{inspect.signature(METRICS[name])}",
        "settings": own,
        "outputs": [target, settings.normalize_logits],
        "version": version("ssgd-analysis"),
    }
    scaled = "" if target is None else f"-loss{target:.6g}"
    scaled += "-normalized" if settings.normalize_logits else ""
    text = re.sub(r"[^\w.=,+-]", "_", metric)
    examples = f"{settings.split}-{settings.samples or 'all'}"
    return f"{text}-{examples}-seed{settings.seed}-step-{step:08d}{scaled}", key


def _context(
    member: Member, settings: MeasurementSettings, step: int, target: float | None
) -> MetricContext | None:
    """The problem with its outputs as asked for; ``None``: no temperature reaches the target."""
    opened = member.open(settings, step)
    problem = opened.problem(settings.split, samples=settings.samples)
    problem.check()
    degrees = None
    if target is not None:
        check_cross_entropy(member.loss, "scaling logits to a train loss")
        degrees = temperature(opened.problem("train"), target)
        if degrees is None:
            return None
    changed = _changed(problem, member, degrees=degrees, normalize=settings.normalize_logits)
    return MetricContext(changed, settings.seed + member.seed)


def _changed(
    problem: Problem, member: Member, *, degrees: float | None = None, normalize: bool = False
) -> Problem:
    """The problem with scaled or normalised outputs (not both), or unchanged."""
    model = problem.model
    if degrees is not None and degrees != 1:
        model = Scaled(model, degrees)
    if normalize:
        check_cross_entropy(member.loss, "normalising logits")
        model = normalize_logits(problem)
    if model is problem.model:
        return problem
    return Problem(model, problem.loss, problem.batches, count=problem.count)
