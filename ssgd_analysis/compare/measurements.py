"""A metric of a run, out of its history or measured once and kept beside it."""

import dataclasses
import hashlib
import inspect
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssgd_analysis.compare.sources import fingerprint
from ssgd_analysis.errors import WorkError, unknown
from ssgd_analysis.files import make_folder, read_json, write_json
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.training import Run
from ssgd_analysis.training.checkpoint import load_checkpoint

HISTORY_METRICS = (
    "test_accuracy",
    "train_accuracy",
    "test_loss",
    "train_loss",
    "val_accuracy",
    "val_loss",
    "weight_norm",
    "gradients",
)


def check_metric(name: str) -> None:
    """Refuse a name that is neither a flatness metric nor in the history.

    Raises:
        InputError: with the nearest name.
    """
    if name not in METRICS and name not in HISTORY_METRICS:
        raise unknown("metric", name, [*HISTORY_METRICS, *METRICS])


def measured(
    run: Run,
    metric: str,
    *,
    step: int | None = None,
    split: str = "train",
    samples: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    data_dir: Path | None = None,
) -> float | None:
    """A metric of a finished run at a kept step (default: the final weights).

    What had to be computed is kept in the run's folder ``measurements/`` and read from there
    the next time, as long as weights, settings, version and the code of model, data and loss are
    the same. The random numbers
    are those of ``seed`` plus the run's own seed: the same for all methods, so that pairs share
    them, and independent between seeds.

    Raises:
        InputError: an unknown metric, or nothing kept at that step.
    """
    check_metric(metric)
    history = run.history()
    if metric in HISTORY_METRICS:
        known = zip(history, run.recorded(metric), strict=True)
        values = [value for record, value in known if step in (None, record["step"])]
        return values[-1] if values else None
    at = history[-1]["step"] if step is None else step
    path = run.checkpoints().get(at)
    name = f"{metric}-{split}-{samples or 'all'}-seed{seed}-step-{at:08d}"
    kept = run.folder / "measurements" / f"{name}.json"
    content = path.read_bytes() if path else b""
    config = run.config()
    key = {
        "problem": {name: fingerprint(getattr(config, name)) for name in ("model", "data", "loss")},
        "data": [config.label_noise, config.val, config.seed],
        "weights": hashlib.blake2b(content, digest_size=8).hexdigest(),
        "metric": f"{metric}{inspect.signature(METRICS[metric].measure)}",
        "version": version("ssgd-analysis"),
    }
    if kept.is_file():
        found = read_json(kept)
        if isinstance(found, dict) and found.get("key") == key:
            return found["value"]
    checkpoint = load_checkpoint(f"{run.folder}@{at}", device=device, data_dir=data_dir)
    problem = checkpoint.problem(split, samples=samples)
    problem.check()
    result = METRICS[metric].measure(
        problem.model, problem.loss, problem.batches, seed=seed + config.seed
    )
    _keep(kept, {"key": key, **dataclasses.asdict(result)})
    return result.value


def _keep(path: Path, record: dict[str, Any]) -> None:
    json.dumps(record)  # a metric must return plain values
    try:
        make_folder(path.parent)
        write_json(path, record)
    except (WorkError, ValueError):  # a read-only run can still be compared
        return
