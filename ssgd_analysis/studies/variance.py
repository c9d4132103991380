"""The gradient-noise variance of a study's arms at the same weights and scales."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssgd_analysis import random_state
from ssgd_analysis.comparison.groups import PROBLEM
from ssgd_analysis.methods.noise_variance import noise_variance
from ssgd_analysis.methods.weight_noise import TIMING, WeightNoiseSettings
from ssgd_analysis.parallel import parallel
from ssgd_analysis.runs import Run, TrainConfig
from ssgd_analysis.runs.tensors import read_tensors
from ssgd_analysis.settings import declarations
from ssgd_analysis.studies.spec import Study
from ssgd_analysis.training.setup import prepare

WEIGHTS = ("initial", "final")


def noise_variances(
    study: Study,
    runs: Sequence[Path],
    *,
    jobs: int,
    configs: Mapping[str, TrainConfig] | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Variance over the noise of one step's gradient, for every arm, scale and kind of weights.

    Every arm is measured at the same weights, on the same minibatch: the initial and the final
    ones of the runs that are given; with its own settings, but for the size of the noise, which
    is the row's at any time of training. Ratios are means over those runs with their standard
    error.

    Args:
        study: gives arms, scales and draws; ``against`` is what ratios are of.
        runs: of the focus, one a seed.
        jobs: processes at once.
        configs: label → settings of each arm in these runs' setting, tuned ones included; arms
            that are not there are left out. Default: those of the study's first setting.
        on_done: is called after every run.

    Returns:
        Rows ``weights``, ``scale``, ``arm``, ``variance`` (mean over runs), ``ratio`` and
        ``ratio_error`` (to ``against``), ``n``, ``passes`` of a step.
    """
    arms = [arm for arm in study.arms if arm.has("noise_scale")]
    if configs is None:
        first = study.settings[0]
        configs = {arm.label: study.config(first, arm, study.seeds[0]) for arm in arms}
    found: dict[tuple[str, float, str], list[float]] = {}
    measured = [
        (folder, arm.label, _on_run(configs[arm.label], Run(folder).config()))
        for folder in runs
        for arm in arms
        if arm.label in configs
    ]
    calls = [
        (_of_run, (folder, label, config, study.variance_scales, study.variance_draws))
        for folder, label, config in measured
    ]
    by_run: dict[str, dict[tuple[str, float, str], float]] = {}
    for folder, values in parallel(calls, jobs):
        by_run.setdefault(folder, {}).update(values)
        on_done()
    for folder in runs:
        for key, value in by_run[str(folder)].items():
            found.setdefault(key, []).append(value)
    rows = []
    for (weights, scale, label), values in sorted(
        found.items(), key=lambda item: (WEIGHTS.index(item[0][0]), item[0][1])
    ):
        base = np.array(found.get((weights, scale, study.against), []))
        ratios = np.array(values) / base if len(base) == len(values) and base.all() else None
        rows.append(
            {
                "weights": weights,
                "scale": scale,
                "arm": label,
                "variance": float(np.mean(values)),
                "ratio": None if ratios is None else float(ratios.mean()),
                "ratio_error": None
                if ratios is None or len(ratios) < 2
                else float(ratios.std(ddof=1) / math.sqrt(len(ratios))),
                "n": len(values),
                "passes": _passes(_at_scale(configs[label], scale)),
            }
        )
    return rows


SHARED = (*PROBLEM, "seed", "batch_size", "device", "data_dir", "channels_last")


def _on_run(arm: TrainConfig, run: TrainConfig) -> TrainConfig:
    """An arm's settings on the weights and minibatch of another arm's run."""
    return dataclasses.replace(arm, **{name: getattr(run, name) for name in SHARED})


def _at_scale(config: TrainConfig, scale: float) -> TrainConfig:
    """The settings with noise of one size through the whole training."""
    declared = {each.name for each in declarations(config.method_class.Settings)}
    constant = {name: getattr(WeightNoiseSettings, name) for name in TIMING if name in declared}
    settings = {**config.settings, **constant, "noise_scale": scale}
    return dataclasses.replace(config, settings=settings)


def _passes(config: TrainConfig) -> float:
    """Of a step; without noise a method may take fewer."""
    return config.method_class.passes_per_step(config.method_settings())


def _of_run(
    folder: Path, label: str, config: TrainConfig, scales: Sequence[float], draws: int
) -> tuple[str, dict[tuple[str, float, str], float]]:
    """One arm at one run's weights, all scales."""
    found = {}
    for scale in scales:
        own = _at_scale(config, scale)
        with random_state.seeded(own.seed):
            parts = prepare(own)
            parts.model.train()
            size = parts.step_size
            (batch,) = parts.data.train.first(size).batches(size)
            for weights in WEIGHTS:
                if weights == "final":
                    parts.model.load_state_dict(read_tensors(Run(folder).final)[0])
                value = noise_variance(parts.method, batch, draws)
                found[weights, scale, label] = value["variance"]
    return str(folder), found
