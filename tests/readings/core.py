"""SGD, S-SGD, weight-noise injection and SAM, read slowly."""

import math

from torch import Tensor

from readings.base import Reading, Step, Weights, gradient, mean, moved, noise


def sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w)."""
    return gradient(weights, inputs, targets)


def s_sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """½ [∇L_B(w + n) + ∇L_B(w − n)]; with halves, B is another half at each point."""
    n = noise(weights, step, 0)
    plus = minus = slice(None)
    if step.settings.minibatch == "halves":
        middle = len(inputs) // 2
        plus, minus = slice(0, middle), slice(middle, None)
    return mean(
        gradient(moved(weights, n), inputs[plus], targets[plus]),
        gradient(moved(weights, n, -1), inputs[minus], targets[minus]),
    )


def wni(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + n)."""
    return gradient(moved(weights, noise(weights, step, 0)), inputs, targets)


def wni_2(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """½ [∇L_B(w + n) + ∇L_B(w + n′)], n and n′ independent."""
    return mean(
        gradient(moved(weights, noise(weights, step, 0)), inputs, targets),
        gradient(moved(weights, noise(weights, step, 1)), inputs, targets),
    )


def sam(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + ρ g/‖g‖), g = ∇L_B(w), the norm over all parameters."""
    slope = gradient(weights, inputs, targets)
    norm = math.sqrt(sum(float((part**2).sum()) for part in slope))
    ascent = [step.settings.rho * part / norm for part in slope]
    return gradient(moved(weights, ascent), inputs, targets)


NOISY = [
    {"noise_relative_to": "none", "noise_scale": 0.03},
    {"noise_schedule": "linear", "noise_end": 3.0},
]

READINGS = {
    "sgd": Reading(sgd, passes=1, zero={}),
    "s-sgd": Reading(
        s_sgd,
        passes=2,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[
            {"minibatch": "halves"},
            {"noise_scale": 0.5},
            {"noise_law": "gaussian", "noise_relative_to": "layer"},
            {"noise_law": "sphere"},
            {"noise_law": "sphere", "noise_relative_to": "layer"},
            {"noise_law": "uniform", "noise_relative_to": "weight"},
            {"noise_schedule": "sqrt", "noise_end": 0.5},
        ],
    ),
    "wni": Reading(wni, passes=1, zero={"noise_scale": 0.0}, random=True, variants=NOISY),
    "wni-2": Reading(
        wni_2,
        passes=2,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[{"noise_schedule": "cosine"}],
    ),
    "sam": Reading(sam, passes=2, zero={"rho": 0.0}, variants=[{"rho": 1.0}]),
}
