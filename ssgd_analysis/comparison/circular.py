"""Metrics that measure what a method trained on: no evidence for it."""

from collections.abc import Mapping
from typing import Any

from ssgd_analysis.flatness import METRICS, parse_metric
from ssgd_analysis.flatness.metric import Perturbation
from ssgd_analysis.methods.trained_on import FILTER_NORM, TrainedOn
from ssgd_analysis.runs import TrainConfig

NEAR = 2.0  # radii within this factor are the same radius


def circular(metric: str, config: TrainConfig) -> str:
    """Why a metric is circular for a method as it was trained; empty where it is not.

    A metric whose law and radius a method trained on says that training worked, not that the
    minimum is flat in any other sense. The method's class says what it trained on, the metric
    what it perturbs. A method inside wrappers (``s-sgd+ema``) trained on what it trains on alone.

    Args:
        metric: name, with settings as ``expected:sigma=0.2,law=binary``.
        config: of the group.

    Example:
        >>> config = TrainConfig(method="sam", data="digits", model="mlp")
        >>> circular("sam:rho=0.05", config)
        'sam trained on a worst case at rho = 0.05'
    """
    name, given = parse_metric(metric)
    perturbs, settings = METRICS[name].perturbs, {**METRICS[name].defaults, **given}
    if perturbs is None:
        return ""
    method = config.method_class
    for trained_on in method.trained_on(config.method_settings(), config.schedule):
        if is_alike(perturbs, settings, trained_on):
            return f"{config.method} trained on {trained_on.words}"
    return ""


def is_alike(perturbs: Perturbation, settings: Mapping[str, Any], trained_on: TrainedOn) -> bool:
    """Whether a metric perturbs the weights as a method did in training, at a like radius.

    Args:
        perturbs: what the metric says of itself.
        settings: all settings of the metric.
        trained_on: what the method says of itself.
    """
    if perturbs.kind != trained_on.kind:
        return False
    if perturbs.kind == "gradient":
        return True
    if perturbs.kind == "noise":
        law, scale = perturbs.law or settings["law"], perturbs.scale or settings["scale"]
        if trained_on.scale == FILTER_NORM:  # as LPF-SGD's own metric measures it
            return bool(law == trained_on.law and (scale == "filter" or perturbs.law))
        if (law, scale) != (trained_on.law, trained_on.scale):
            return False
    elif settings.get("norm", "l2") != "l2":
        return False
    radius, low, high = settings[perturbs.radius], trained_on.low, trained_on.high
    return bool(high > 0 and low / NEAR <= radius <= high * NEAR)
