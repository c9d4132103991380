"""A metric of a run, out of its history or measured once and kept beside it."""

import contextlib
import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssgd_analysis.compare.matching import Scaled, check_cross_entropy, normalized, temperature
from ssgd_analysis.compare.metric_kinds import HISTORY_METRICS, check_metric
from ssgd_analysis.compare.pairs import recorded_loss
from ssgd_analysis.compare.sources import fingerprint
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.flatness import METRICS, resolve
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.problem import Problem
from ssgd_analysis.runs import Run
from ssgd_analysis.runs.checkpoint import Checkpoint, load_checkpoint
from ssgd_analysis.store import KeyedStore


@dataclass(frozen=True)
class MeasureSettings:
    """How metrics are measured.

    Args:
        split: examples to measure on.
        samples: the first of them; default all.
        seed: plus the run's own seed: the random numbers are the same for all methods, so that
            pairs share them, and independent between seeds.
        device: where.
        data_dir: for data files.
        normalize: outputs of standard deviation one over the classes, example by example.
    """

    split: str = "train"
    samples: int | None = None
    seed: int = 0
    device: str = "cpu"
    data_dir: Path | None = None
    normalize: bool = False


def measured(
    run: Run,
    metric: str,
    *,
    step: int | None = None,
    target: float | None = None,
    **how: Any,
) -> float | None:
    """A metric of a finished run; see :func:`measure_all`.

    Args:
        run: the run.
        metric: name, with settings as ``expected:sigma=0.2,law=binary``.
        step: of a kept checkpoint; default: the final weights.
        target: train loss to which the logits are scaled.
        how: fields of :class:`MeasureSettings`.
    """
    return measure_all(run, [metric], MeasureSettings(**how), step=step, target=target)[metric]


def measure_all(
    run: Run,
    metrics: Sequence[str],
    how: MeasureSettings,
    *,
    step: int | None = None,
    target: float | None = None,
    on_measured: Callable[[str], None] = lambda metric: None,
    on_refused: Callable[[str, str], None] | None = None,
) -> dict[str, float | None]:
    """Metrics of a finished run at a kept step (default: the final weights), sharing their work.

    What had to be computed is kept in the run's folder ``measurements/`` and read from there
    the next time, as long as weights, settings, version and the code of model, data and loss are
    the same.

    Args:
        run: the run.
        metrics: names of the history, and of flatness metrics, maybe with settings.
        how: split, seed, ….
        step: of a kept checkpoint.
        target: logits are divided by the temperature that brings the train loss up to this.
        on_measured: told of every metric that had to be computed.
        on_refused: told of a metric that this run lacks or refuses, and why; default: an error.

    Returns:
        Metric → value; ``None``: not in the history, refused, or no temperature reaches the
        target.

    Raises:
        InputError: an unknown metric; and where refusals are errors: nothing kept at that step, a
            metric that does not apply, or logits to be scaled of a run whose loss is not
            cross-entropy.
    """
    for metric in metrics:
        check_metric(metric)
    history = run.history()

    @contextlib.contextmanager
    def trying(*tried: str) -> Iterator[None]:
        """What is refused within is missing, not the end of everything."""
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
                known = zip(history, run.recorded(metric), strict=True)
                values = [value for record, value in known if step in (None, record["step"])]
                found[metric] = values[-1] if values else None
    at = history[-1]["step"] if step is None else step
    store = KeyedStore(run.folder / "measurements")
    missing: list[tuple[str, str, dict[str, Any]]] = []
    context: MetricContext | None = None
    for metric in metrics:
        if metric not in found:
            with trying(metric):
                entry, key = _entry(run, metric, how, at, target)
                stored = store.read(entry, key)
                if stored is not None:
                    found[metric] = stored["value"]
                else:
                    missing.append((metric, entry, key))
    if missing:
        with trying(*(metric for metric, _, _ in missing)):
            context = _context(run, how, at, target)
    for metric, entry, key in missing:
        if metric in found:  # refused with the others
            continue
        if context is None:
            found[metric] = None
            continue
        with trying(metric):
            name, settings = resolve(metric)
            result = METRICS[name].on(context, **settings)
            with contextlib.suppress(InputError, WorkError):  # a read-only run can be compared too
                store.write(entry, key, dataclasses.asdict(result))
            found[metric] = result.value
            on_measured(metric)
    return found


def train_loss(run: Run, how: MeasureSettings, step: int | None = None) -> float:
    """The mean train loss of a run at a step, of normalised logits if metrics are of those."""
    if not how.normalize:
        return recorded_loss(run, step)
    checkpoint = _checkpoint(run, how, run.history()[-1]["step"] if step is None else step)
    return _changed(checkpoint.problem("train"), run, normalize=True).mean_loss()


def _entry(
    run: Run, metric: str, how: MeasureSettings, step: int, target: float | None
) -> tuple[str, dict[str, Any]]:
    """The name of a measurement's entry in the store, and all that its value depends on."""
    name, settings = resolve(metric)
    path = run.checkpoints().get(step)
    content = path.read_bytes() if path else b""
    config = run.config()
    key = {
        "problem": {name: fingerprint(getattr(config, name)) for name in ("model", "data", "loss")},
        "data": [config.label_noise, config.val, config.seed],
        "weights": hashlib.blake2b(content, digest_size=8).hexdigest(),
        "metric": f"{name}{inspect.signature(METRICS[name])}",
        "settings": settings,
        "outputs": [target, how.normalize],
        "version": version("ssgd-analysis"),
    }
    scaled = "" if target is None else f"-loss{target:.6g}"
    scaled += "-normalized" if how.normalize else ""
    text = re.sub(r"[^\w.=,+-]", "_", metric)
    entry = f"{text}-{how.split}-{how.samples or 'all'}-seed{how.seed}-step-{step:08d}{scaled}"
    return entry, key


def _checkpoint(run: Run, how: MeasureSettings, step: int) -> Checkpoint:
    return load_checkpoint(f"{run.folder}@{step}", device=how.device, data_dir=how.data_dir)


def _context(
    run: Run, how: MeasureSettings, step: int, target: float | None
) -> MetricContext | None:
    """The problem with its outputs as wanted; ``None``: no temperature reaches the target."""
    checkpoint = _checkpoint(run, how, step)
    problem = checkpoint.problem(how.split, samples=how.samples)
    problem.check()
    degrees = None
    if target is not None:
        check_cross_entropy(run.config().loss, "scaling logits to a train loss")
        degrees = temperature(checkpoint.problem("train"), target)
        if degrees is None:
            return None
    changed = _changed(problem, run, degrees=degrees, normalize=how.normalize)
    return MetricContext(changed, how.seed + run.config().seed)


def _changed(
    problem: Problem, run: Run, *, degrees: float | None = None, normalize: bool = False
) -> Problem:
    """The problem with scaled or normalised outputs (not both), or as it is."""
    model = problem.model
    if degrees is not None and degrees != 1:
        model = Scaled(model, degrees)
    if normalize:
        check_cross_entropy(run.config().loss, "normalising logits")
        model = normalized(problem)
    if model is problem.model:
        return problem
    return Problem(model, problem.loss, problem.batches, count=problem.count)
