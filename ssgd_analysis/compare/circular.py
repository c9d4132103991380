"""Metrics that measure what a method trained on: no evidence for it."""

from typing import Any

from ssgd_analysis.flatness import METRICS, resolve
from ssgd_analysis.training import TrainConfig

NEAR = 2.0  # radii within this factor are the same radius

# metric → the setting that is its radius, for each kind of thing that methods train on
NOISE = {
    "expected": "sigma",
    "symmetric_gap": "c",
    "asymmetry": "c",
    "noise_robustness": "sigma",
    "lpf": "sigma",
}
ASCENT = {"sam": "rho", "worst_case": "rho", "m_sharpness": "rho"}
ADAPTIVE = {"adaptive_worst": "rho"}
ENTROPY = {"local_entropy": "gamma"}
ADAPTIVE_METHODS = {"asam"}
# methods by another name for what they train on than S-SGD's settings have
LAWS = {"lpf-sgd": ("gaussian", "none"), "anti-pgd": ("gaussian", "none")}


def circular(metric: str, config: TrainConfig) -> str:
    """Why a metric is circular for a method as it was trained; empty where it is not.

    A metric whose law and radius a method trained on says that training worked, not that the
    minimum is flat in any other sense. Methods are known by what they set: a noise scale (S-SGD,
    WNI, WNI-2), a radius ρ (SAM and its kin), a γ (Entropy-SGD).

    Args:
        metric: name, with settings as ``expected:sigma=0.2,law=binary``.
        config: of the group.
    """
    name, given = resolve(metric)
    return trained_on(name, {**METRICS[name].measure.defaults, **given}, config)


def trained_on(name: str, own: dict[str, Any], config: TrainConfig) -> str:
    """The same of a metric's name with all its settings."""
    method, settings = config.method.split("+")[0], config.settings
    if name in NOISE and "noise_scale" in settings:
        law, scale = LAWS.get(method, ("", ""))
        law = settings.get("noise_law", law)
        scale = settings.get("noise_relative_to", scale)
        same = _law(name, own) == (law, scale)
        most = settings["noise_scale"]
        end = 1.0
        if settings.get("noise_schedule", "constant") != "constant":
            end = settings.get("noise_end", 1.0)
        low, high = sorted((most, most * end))
        if same and _near(own[NOISE[name]], low, high):
            return f"{method} trained on {law} noise relative to {scale} at c = {most:g}"
    if "rho" in settings:
        adaptive = method in ADAPTIVE_METHODS or bool(settings.get("adaptive", False))
        radii = ADAPTIVE if adaptive else ASCENT
        rho = settings["rho"]
        ball = own.get("norm", "l2") == "l2"
        if name in radii and ball and _near(own[radii[name]], rho, rho):
            return f"{method} trained on a worst case at rho = {rho:g}"
    if name in ENTROPY and method.startswith("entropy"):
        gamma = settings.get("gamma")
        if gamma is None or _near(own["gamma"], gamma, gamma):
            return f"{method} trained on the local entropy"
    return ""


def _law(name: str, own: dict[str, Any]) -> tuple[str, str]:
    if name == "lpf":
        return "gaussian", "none"
    return own["law"], own["scale"]


def _near(radius: float, low: float, high: float) -> bool:
    """Within a factor of the radii that were trained on; none was where both are zero."""
    return high > 0 and low / NEAR <= radius <= high * NEAR
