"""The relatives of S-SGD that move the weights, read slowly."""

from torch import Tensor

from readings.base import Reading, Step, Weights, gradient, moved, noise


def alternating(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + n) at even steps; at odd ones ∇L_B(w − n) with the draw of the step before."""
    if step.number % 2 == 0:
        return gradient(moved(weights, noise(weights, step, 0)), inputs, targets)
    before = Step(step.settings, seed=step.seed, number=step.number - 1, elapsed=step.elapsed)
    return gradient(moved(weights, noise(weights, before, 0), -1), inputs, targets)


READINGS = {
    "alternating": Reading(
        alternating,
        passes=1,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[
            {"noise_law": "gaussian", "noise_relative_to": "none", "noise_scale": 0.05},
            {"noise_schedule": "linear", "noise_end": 3.0},
        ],
    ),
}
