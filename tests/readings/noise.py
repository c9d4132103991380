"""The relatives of S-SGD that move the weights, read slowly.

As in ``base``, of the package only the stream of a draw and its unit numbers are used.
"""

import math
from typing import Any

import torch
from torch import Tensor

from readings.base import Reading, Step, Weights, gradient, mean, moved
from readings.core import NOISY, wni
from readings.core import _at as at_point
from readings.core import _no_noise as no_noise
from ssgd_analysis import seeds
from ssgd_analysis.weights import Noise


def unit_draws(weights: Weights, law: str, step: Step, draw: int = 0, number: int = -1) -> Weights:
    """Numbers of mean 0 and root mean square 1 for all weights, biases too."""
    number = step.number if number < 0 else number
    stream = seeds.derive(step.seed, "weight noise", number, draw)
    return Noise(law=law, scale="none").units(weights, torch.Generator().manual_seed(stream))


def _length(numbers: Tensor) -> float:
    return math.sqrt(sum(number * number for number in numbers.flatten().tolist()))


def alternating(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + n) at even steps; at odd ones ∇L_B(w − n) with the draw of the step before."""
    if step.number % 2 == 0 or no_noise(step):
        return wni(weights, inputs, targets, step)
    turned = Step(step.settings, seed=step.seed, number=step.number - 1, elapsed=step.elapsed)
    return at_point(weights, inputs, targets, turned, 0, -1)


# Gaussian noise by filters


def _grown(step: Step) -> float:
    """γ now: constant, along a line or along half a cosine to ``noise_end`` times itself."""
    settings, end = step.settings, step.settings.noise_end
    along = {
        "constant": 0.0,
        "linear": step.elapsed,
        "cosine": 0.5 - 0.5 * math.cos(math.pi * step.elapsed),
    }[settings.noise_schedule]
    return settings.noise_scale * ((1 - along) + along * end)


def filter_noise(weights: Weights, step: Step, draw: int = 0) -> Weights:
    """N(0, (γ‖w_f‖)²), f a row of a matrix, or a whole vector."""
    gamma, found = _grown(step), []
    for weight, unit in zip(weights, unit_draws(weights, "gaussian", step, draw), strict=True):
        if weight.ndim > 1:
            rows = zip(weight, unit, strict=True)
            found.append(torch.stack([gamma * _length(row) * numbers for row, numbers in rows]))
        else:
            found.append(gamma * _length(weight) * unit)
    return found


def _parts(inputs: Tensor, targets: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Consecutive parts of the minibatch; the first ones have one example more if need be."""
    found, begin = [], 0
    for number in range(count):
        end = begin + len(inputs) // count + (number < len(inputs) % count)
        found.append((inputs[begin:end], targets[begin:end]))
        begin = end
    return found


def _over_parts(
    weights: Weights, inputs: Tensor, targets: Tensor, step: Step, noises: list[Weights]
) -> Weights:
    """Each example counts the same; each part of the minibatch has its own noise."""
    total = [torch.zeros_like(weight) for weight in weights]
    for n, part in zip(noises, _parts(inputs, targets, len(noises)), strict=True):
        total = moved(total, gradient(moved(weights, n), *part), len(part[0]) / len(inputs))
    return total


def lpf_sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """1/M Σ_i ∇L_{B_i}(w + n_i)."""
    noises = [filter_noise(weights, step, draw) for draw in range(step.settings.ghost_batches)]
    return _over_parts(weights, inputs, targets, step, noises)


def rwp(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """α ∇L_B1(w + n) + (1 − α) ∇L_B2(w)."""
    return _mixed(weights, inputs, targets, step, filter_noise(weights, step))[0]


def _mixed(
    weights: Weights, inputs: Tensor, targets: Tensor, step: Step, n: Weights
) -> tuple[Weights, Weights]:
    alpha, half = step.settings.noisy_share, len(inputs) // 2
    noisy = gradient(moved(weights, n), inputs[:half], targets[:half])
    clean = gradient(weights, inputs[half:], targets[half:])
    return [alpha * a + (1 - alpha) * b for a, b in zip(noisy, clean, strict=True)], noisy


def _shrunk(weights: Weights, step: Step) -> Weights:
    """n / √(1 + ηS), or n / (1 + ηS)^¼; S is of a row, of a vector's entries each its own."""
    past = step.memory.get("S", [torch.zeros_like(weight) for weight in weights])
    root = math.sqrt if step.settings.shrink == "code" else lambda x: math.sqrt(math.sqrt(x))
    found = []
    for n, sums in zip(filter_noise(weights, step), past, strict=True):
        shrunk = torch.empty_like(n)
        for place in range(len(n)):
            shrunk[place] = n[place] / root(1 + step.settings.eta * float(sums[place].sum()))
        found.append(shrunk)
    return found


def _remember(weights: Weights, slopes: Weights, step: Step) -> None:
    """S ← βS + g², kept for every weight."""
    past = step.memory.get("S", [torch.zeros_like(weight) for weight in weights])
    beta = step.settings.beta
    step.memory["S"] = [beta * s + g * g for s, g in zip(past, slopes, strict=True)]


def arwp(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + n), n shrunk by past squared gradients."""
    slopes = gradient(moved(weights, _shrunk(weights, step)), inputs, targets)
    _remember(weights, slopes, step)
    return slopes


def m_arwp(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """λ ∇L_B1(w + n) + (1 − λ) ∇L_B2(w), n shrunk by past squared gradients at w + n."""
    direction, noisy = _mixed(weights, inputs, targets, step, _shrunk(weights, step))
    _remember(weights, noisy, step)
    return direction


# SmoothOut


def _half_width(step: Step) -> float:
    settings = step.settings
    return (
        settings.strength
        * {
            "constant": 1.0,
            "anneal": 1 / math.sqrt((1 + step.number) ** settings.anneal),
            "tanh": 0.5 + 0.5 * math.tanh(settings.tanh_scale * (step.elapsed - 0.5)),
        }[settings.smoothing]
    )


def _smoothing_noise(weights: Weights, step: Step, draw: int) -> Weights:
    """U(−a, a) or N(0, a²); times |w|; or a direction of length a‖w_f‖ for each filter."""
    settings, a = step.settings, _half_width(step)
    found = []
    for weight, unit in zip(
        weights, unit_draws(weights, settings.noise_law, step, draw), strict=True
    ):
        n = a * (unit / math.sqrt(3) if settings.noise_law == "uniform" else unit)
        if settings.adapt_type == "weight":
            n = n * weight.abs()
        if settings.adapt_type == "filter":
            rows = zip(n, weight, strict=True)
            n = torch.stack([row * (a * _length(w) / _length(row)) for row, w in rows])
        found.append(n)
    return found


def smoothout(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w + n), each ghost batch with its own n."""
    count = step.settings.ghost_batches
    noises = [_smoothing_noise(weights, step, draw) for draw in range(count)]
    return _over_parts(weights, inputs, targets, step, noises)


# NSO


def _sigma(step: Step) -> float:
    sigma = step.settings.noise_scale
    return {
        "constant": sigma,
        "rising": sigma * step.elapsed,
        "log-rising": math.exp((1 - step.elapsed) * math.log(1e-5) + step.elapsed * math.log(sigma))
        if sigma
        else 0.0,
    }[step.settings.noise_schedule]


def nso(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """λ g(w) + (1 − λ)/(2k) Σ_j [g(w + U_j) + g(w − U_j)]; one-sided (1 − λ)/k Σ_j g(w + U_j)."""
    settings, share = step.settings, step.settings.noisy_share
    total = [(1 - share) * slope for slope in gradient(weights, inputs, targets)]
    for draw in range(settings.pairs):
        u = [_sigma(step) * x for x in unit_draws(weights, settings.noise_law, step, draw)]
        slopes = gradient(moved(weights, u), inputs, targets)
        if settings.two_point:
            slopes = mean(slopes, gradient(moved(weights, u, -1), inputs, targets))
        total = moved(total, slopes, share / settings.pairs)
    return total


# Anti-PGD


def anti_pgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w), at weights that carry ξ_t."""
    return gradient(weights, inputs, targets)


def anti_pgd_after(before: Weights, after: Weights, step: Step) -> Weights:
    """The step's result + (ξ_{t+1} − ξ_t), ξ_0 = 0."""
    nothing = [torch.zeros_like(weight) for weight in before]
    last = step.memory.get("xi", nothing)
    draws = unit_draws(before, step.settings.noise_law, step, number=step.number + 1)
    fresh = step.memory["xi"] = [step.settings.noise_scale * draw for draw in draws]
    return [w + (new - old) for w, new, old in zip(after, fresh, last, strict=True)]


def anti_pgd_given_out(weights: Weights, memory: dict[str, Any], settings: Any) -> Weights:
    """z = w − ξ."""
    return moved(weights, memory["xi"], -1)


READINGS = {
    "alternating": Reading(
        alternating,
        passes=1,
        zero={"noise_scale": 0.0},
        random=True,
        variants=NOISY,
    ),
    "nso": Reading(
        nso,
        passes=2,
        total=5,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[
            {"noise_scale": 0.2, "noise_law": "laplace", "pairs": 3},
            {"noise_law": "binary", "two_point": False, "noise_scale": 0.1},
            {"noisy_share": 0.5, "noise_scale": 0.3},
            {"clean_pass": True, "noise_scale": 0.3},
            {"noise_schedule": "rising", "noise_scale": 1.0},
            {"noise_schedule": "log-rising", "noise_scale": 0.5},
        ],
    ),
    "smoothout": Reading(
        smoothout,
        passes=1,
        zero={"strength": 0.0},
        random=True,
        variants=[
            {"adapt_type": "filter", "strength": 0.2, "ghost_batches": 3},
            {"adapt_type": "weight", "strength": 0.3, "ghost_batches": 2},
            {"noise_law": "gaussian", "smoothing": "anneal", "strength": 0.1},
            {"smoothing": "tanh", "strength": 0.5, "tanh_scale": 2.0},
        ],
    ),
    "anti-pgd": Reading(
        anti_pgd,
        passes=1,
        zero={"noise_scale": 0.0},
        random=True,
        after=anti_pgd_after,
        given_out=anti_pgd_given_out,
        variants=[{"noise_law": "gaussian", "noise_scale": 0.2}],
    ),
    "lpf-sgd": Reading(
        lpf_sgd,
        passes=1,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[
            {"ghost_batches": 3, "noise_scale": 0.1},
            {"noise_schedule": "cosine", "noise_scale": 0.01},
            {"noise_schedule": "linear", "noise_scale": 0.05, "noise_end": 0.0},
        ],
    ),
    "rwp": Reading(
        rwp,
        passes=2,
        minibatches=2,
        random=True,
        variants=[{"noisy_share": 1.0, "noise_scale": 0.1}, {"noisy_share": 0.2}],
    ),
    "arwp": Reading(
        arwp,
        passes=1,
        zero={"noise_scale": 0.0},
        random=True,
        variants=[
            {"eta": 30.0, "beta": 0.5, "noise_scale": 0.1},
            {"eta": 30.0, "noise_scale": 0.1, "shrink": "paper", "noise_schedule": "constant"},
        ],
    ),
    "m-arwp": Reading(
        m_arwp,
        passes=2,
        minibatches=2,
        random=True,
        variants=[{"eta": 30.0, "beta": 0.5, "noise_scale": 0.1, "noisy_share": 0.7}],
    ),
}
