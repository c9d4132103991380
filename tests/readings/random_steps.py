"""Methods that put their noise into steps, gradients or labels, read slowly."""

import math

import torch
from torch import Tensor

from readings.base import Reading, Step, Weights, gradient, moved
from ssgd_analysis import seeds


def _normals(weights: Weights, step: Step, *names: object) -> Weights:
    """Standard normal numbers for all weights, from a named stream of the step."""
    generator = seeds.generator(step.seed, *names)
    return [torch.empty_like(weight).normal_(generator=generator) for weight in weights]


def entropy_sgd(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """w − μ, μ a running mean of L Langevin steps x′ from w, with Nesterov momentum."""
    settings, count = step.settings, step.settings.inner_steps
    size = len(inputs) // count
    gamma = settings.gamma * (1 + settings.scoping) ** step.number
    x = mu = weights
    speed = [torch.zeros_like(weight) for weight in weights]
    for i in range(count):
        here = slice(i * size, (i + 1) * size)
        slopes = gradient(x, inputs[here], targets[here])
        speed = [settings.inner_momentum * v + g for v, g in zip(speed, slopes, strict=True)]
        ahead = moved(slopes, speed, settings.inner_momentum)
        normals = _normals(weights, step, "langevin", step.number, i)
        x = [
            a
            - settings.inner_lr
            * (d - gamma * (w - a) + settings.noise / math.sqrt(0.5 * settings.inner_lr) * n)
            for a, d, w, n in zip(x, ahead, weights, normals, strict=True)
        ]
        keep = settings.average
        mu = [keep * m + (1 - keep) * a for m, a in zip(mu, x, strict=True)]
    return moved(weights, mu, -1)


def plain(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w)."""
    return gradient(weights, inputs, targets)


def heated(before: Weights, after: Weights, step: Step) -> Weights:
    """The step's result + √(2 η T) N(0, I)."""
    size = math.sqrt(2 * step.lr * step.settings.temperature)
    return moved(after, _normals(before, step, "langevin", step.number), size)


def gradient_noise(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w) + N(0, η / (1 + t)^γ)."""
    size = math.sqrt(step.settings.eta / (1 + step.number) ** step.settings.gamma)
    normals = _normals(weights, step, "gradient noise", step.number)
    return moved(gradient(weights, inputs, targets), normals, size)


def label_noise(weights: Weights, inputs: Tensor, targets: Tensor, step: Step) -> Weights:
    """∇L_B(w) for labels of which each is, with probability p, one of the two others."""
    generator = seeds.generator(step.seed, "labels", step.number)
    chances = torch.rand(len(targets), generator=generator).tolist()
    further = torch.randint(1, 3, (len(targets),), generator=generator).tolist()
    labels = [
        (label + places) % 3 if chance < step.settings.flip else label
        for label, chance, places in zip(targets.tolist(), chances, further, strict=True)
    ]
    return gradient(weights, inputs, torch.tensor(labels))


READINGS = {
    "entropy-sgd": Reading(
        entropy_sgd,
        passes=20,
        minibatches=20,
        random=True,
        variants=[
            {"inner_steps": 3, "gamma": 0.5, "scoping": 0.2, "noise": 0.05},
            {"inner_steps": 2, "inner_momentum": 0.0, "inner_lr": 0.5, "average": 0.3},
        ],
    ),
    "sgld": Reading(
        plain,
        passes=1,
        zero={"temperature": 0.0},
        random=True,
        after=heated,
        variants=[{"temperature": 0.1}],
    ),
    "gradient-noise": Reading(
        gradient_noise,
        passes=1,
        zero={"eta": 0.0},
        random=True,
        variants=[{"eta": 0.3, "gamma": 0.0}],
    ),
    "label-noise-sgd": Reading(
        label_noise,
        passes=1,
        zero={"flip": 0.0},
        random=True,
        variants=[{"flip": 1.0}],
    ),
}
