"""Metrics that measure what a method trained on: no evidence for it."""

import math
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.flatness import METRICS, resolve
from ssgd_analysis.flatness.metric import Perturbation
from ssgd_analysis.runs import TrainConfig

NEAR = 2.0  # radii within this factor are the same radius

ADAPTIVE_METHODS = {"asam"}
# Gaussian noise in proportion to each filter's norm, as LPF-SGD's own measure has it: relative to
# the rms its size is another in each layer, so that no radius can be told from it
FILTER_NORM = {"lpf-sgd", "rwp", "arwp", "m-arwp"}


@dataclass(frozen=True)
class Noise:
    """The weight noise that a method took gradients at.

    Args:
        law: as S-SGD's ``noise_law``.
        scale: as S-SGD's ``noise_relative_to``.
        low: its smallest size over training.
        high: its largest size.
    """

    law: str
    scale: str
    low: float
    high: float


def circular(metric: str, config: TrainConfig) -> str:
    """Why a metric is circular for a method as it was trained; empty where it is not.

    A metric whose law and radius a method trained on says that training worked, not that the
    minimum is flat in any other sense. A method inside wrappers (``s-sgd+ema``) trained on what it
    trains on alone.

    Args:
        metric: name, with settings as ``expected:sigma=0.2,law=binary``.
        config: of the group.
    """
    name, given = resolve(metric)
    return trained_on(name, {**METRICS[name].defaults, **given}, config)


def trained_on(name: str, own: dict[str, Any], config: TrainConfig) -> str:
    """The same of a metric's name with all its settings."""
    method, perturbs = config.method.partition("+")[0], METRICS[name].perturbs
    what = perturbs and (
        _noise(perturbs, own, method, config)
        or _ascent(perturbs, own, method, config.settings)
        or _entropy(perturbs, own, method, config.settings)
    )
    return f"{config.method} trained on {what}" if what else ""


def _noise(perturbs: Perturbation, own: dict[str, Any], method: str, config: TrainConfig) -> str:
    if perturbs.kind != "noise":
        return ""
    law, scale = perturbs.law or own["law"], perturbs.scale or own["scale"]
    settings = config.settings
    if method in FILTER_NORM:
        alike = law == "gaussian" and (scale == "filter" or bool(perturbs.law))
        gamma = settings["noise_scale"] * settings.get("noisy_share", 1.0)
        return "gaussian noise in proportion to filter norms" if alike and gamma else ""
    noise = noise_of(method, settings, getattr(config, "schedule", "constant"))
    if noise is None or (law, scale) != (noise.law, noise.scale):
        return ""
    if not _near(own[perturbs.radius], noise.low, noise.high):
        return ""
    return f"{law} noise relative to {scale} at c = {noise.high:g}"


def noise_of(method: str, settings: dict[str, Any], lr_schedule: str) -> Noise | None:
    """The weight noise of a method, as S-SGD would name it; ``None`` where there is none.

    Args:
        method: without its wrappers.
        settings: all of the method's.
        lr_schedule: of the learning rate.
    """
    if method == "smoothout":
        return _smoothout(settings)
    if "noise_scale" not in settings or settings.get("noisy_share", 1.0) == 0:
        return None
    if settings.get("noise_start", 0.0) >= settings.get("noise_stop", 1.0):
        return None
    schedule, end = settings.get("noise_schedule", "constant"), settings.get("noise_end", 1.0)
    if schedule == "constant" or (schedule == "lr" and lr_schedule == "constant"):
        end = 1.0
    elif schedule in ("lr", "rising", "log-rising"):
        end = 0.0
    low, high = sorted((settings["noise_scale"], settings["noise_scale"] * end))
    return Noise(
        settings.get("noise_law", "gaussian"), settings.get("noise_relative_to", "none"), low, high
    )


def _smoothout(settings: dict[str, Any]) -> Noise:
    """Its ``a`` is a half-width, or makes the filter's norm exact, which is the sphere's law."""
    size = settings["strength"]
    low = size if settings["smoothing"] == "constant" else 0.0
    if settings["adapt_type"] == "filter":
        return Noise("sphere", "filter", low, size)
    factor = 1 / math.sqrt(3) if settings["noise_law"] == "uniform" else 1.0
    return Noise(settings["noise_law"], settings["adapt_type"], low * factor, size * factor)


def _ascent(
    perturbs: Perturbation, own: dict[str, Any], method: str, settings: dict[str, Any]
) -> str:
    """SAM and its kin are known by their radius ρ."""
    if "rho" not in settings:
        return ""
    if perturbs.kind == "gradient" and method == "gradient-penalty" and settings["alpha"]:
        return "the norm of the gradient"
    adaptive = method in ADAPTIVE_METHODS or bool(settings.get("adaptive", False))
    kind = "adaptive ascent" if adaptive else "ascent"
    rho, least = settings["rho"], settings["rho"]
    if settings.get("rho_schedule", "constant") != "constant":
        least = min(rho, settings["rho_min"])
    ball = own.get("norm", "l2") == "l2"
    if perturbs.kind == kind and ball and _near(own[perturbs.radius], least, max(rho, least)):
        return f"a worst case at rho = {rho:g}"
    return ""


def _entropy(
    perturbs: Perturbation, own: dict[str, Any], method: str, settings: dict[str, Any]
) -> str:
    """Entropy-SGD, whose γ grows without end where there is scoping."""
    if perturbs.kind != "entropy" or method != "entropy-sgd":
        return ""
    gamma = settings["gamma"]
    most = math.inf if settings.get("scoping", 0.0) else gamma
    return "the local entropy" if _near(own[perturbs.radius], gamma, most) else ""


def _near(radius: float, low: float, high: float) -> bool:
    """Within a factor of the radii that were trained on; none was where both are zero."""
    return high > 0 and low / NEAR <= radius <= high * NEAR
