"""A metric of a run: read from its history, or measured once and stored in its folder."""

import contextlib
import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from ssgd_analysis.code_hash import code_hash
from ssgd_analysis.comparison.matching import (
    Scaled,
    check_cross_entropy,
    normalize_logits,
    temperature,
)
from ssgd_analysis.comparison.metric_kinds import HISTORY_METRICS, check_metric
from ssgd_analysis.comparison.pairs import recorded_loss
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.flatness import METRICS, parse_metric
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs import Run
from ssgd_analysis.runs.checkpoint import Checkpoint, load_checkpoint
from ssgd_analysis.settings.comparison import MeasurementSettings
from ssgd_analysis.store import KeyedStore


def measure_run(
    run: Run,
    metrics: Sequence[str],
    settings: MeasurementSettings,
    *,
    step: int | None = None,
    target: float | None = None,
    on_measured: Callable[[str], None] = lambda metric: None,
    on_refused: Callable[[str, str], None] | None = None,
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
        on_measured: is called with every metric that had to be computed.
        on_refused: is called with a metric that this run lacks or refuses, and the reason; default:
            it is an error.

    Returns:
        Metric → value; ``None``: not in the history, refused, or no temperature reaches the
        target.

    Raises:
        InputError: an unknown metric; and where refusals are errors: no checkpoint of that step, a
            metric that does not apply, or logits to be scaled although the loss is not
            cross-entropy.
    """
    for metric in metrics:
        check_metric(metric)
    history = run.history()

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
                recorded = zip(history, run.recorded(metric), strict=True)
                values = [value for record, value in recorded if step in (None, record["step"])]
                found[metric] = values[-1] if values else None
    at = history[-1]["step"] if step is None else step
    store = KeyedStore(run.folder / "measurements")
    missing: list[tuple[str, str, dict[str, Any]]] = []
    context: MetricContext | None = None
    for metric in metrics:
        if metric not in found:
            with trying(metric):
                entry, key = _entry(run, metric, settings, at, target)
                stored = store.read(entry, key)
                if stored is not None:
                    found[metric] = stored["value"]
                else:
                    missing.append((metric, entry, key))
    if missing:
        with trying(*(metric for metric, _, _ in missing)):
            context = _context(run, settings, at, target)
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
                store.write(entry, key, dataclasses.asdict(result))
            found[metric] = result.value
            on_measured(metric)
    return found


def train_loss(run: Run, settings: MeasurementSettings, step: int | None = None) -> float:
    """The mean train loss of a run at a step, with normalised logits if metrics use them."""
    if not settings.normalize_logits:
        return recorded_loss(run, step)
    checkpoint = _checkpoint(run, settings, run.history()[-1]["step"] if step is None else step)
    return _changed(checkpoint.problem("train"), run, normalize=True).mean_loss()


def _entry(
    run: Run, metric: str, settings: MeasurementSettings, step: int, target: float | None
) -> tuple[str, dict[str, Any]]:
    """The name of a measurement's entry in the store, and all that its value depends on."""
    name, own = parse_metric(metric)
    path = run.checkpoints().get(step)
    content = path.read_bytes() if path else b""
    config = run.config()
    key = {
        "problem": {name: code_hash(getattr(config, name)) for name in ("model", "data", "loss")},
        "data": [config.label_noise, config.val, config.seed],
        "weights": hashlib.blake2b(content, digest_size=8).hexdigest(),
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


def _checkpoint(run: Run, settings: MeasurementSettings, step: int) -> Checkpoint:
    name = f"{run.folder}@{step}"
    return load_checkpoint(name, device=settings.device, data_dir=settings.data_dir)


def _context(
    run: Run, settings: MeasurementSettings, step: int, target: float | None
) -> MetricContext | None:
    """The problem with its outputs as asked for; ``None``: no temperature reaches the target."""
    checkpoint = _checkpoint(run, settings, step)
    problem = checkpoint.problem(settings.split, samples=settings.samples)
    problem.check()
    degrees = None
    if target is not None:
        check_cross_entropy(run.config().loss, "scaling logits to a train loss")
        degrees = temperature(checkpoint.problem("train"), target)
        if degrees is None:
            return None
    changed = _changed(problem, run, degrees=degrees, normalize=settings.normalize_logits)
    return MetricContext(changed, settings.seed + run.config().seed)


def _changed(
    problem: Problem, run: Run, *, degrees: float | None = None, normalize: bool = False
) -> Problem:
    """The problem with scaled or normalised outputs (not both), or unchanged."""
    model = problem.model
    if degrees is not None and degrees != 1:
        model = Scaled(model, degrees)
    if normalize:
        check_cross_entropy(run.config().loss, "normalising logits")
        model = normalize_logits(problem)
    if model is problem.model:
        return problem
    return Problem(model, problem.loss, problem.batches, count=problem.count)
