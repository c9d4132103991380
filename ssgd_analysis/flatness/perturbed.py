"""Losses at random perturbations in antithetic pairs, shared by all metrics that ask for them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.weights import Noise


@dataclass(frozen=True)
class AntitheticLosses:
    """Mean losses of all examples, and accuracies, at w, w + z and w − z.

    Args:
        clean: loss at w.
        plus: at w + z, shape (draws,).
        minus: at w − z, shape (draws,).
        drops: accuracy at w less its mean at w + z and w − z, shape (draws,); ``None`` where the
            targets are no class labels.
    """

    clean: float
    plus: np.ndarray
    minus: np.ndarray
    drops: np.ndarray | None = None

    @property
    def even(self) -> np.ndarray:
        """½[L(w + z) + L(w − z)] − L(w) of each draw: ½ zᵀHz and higher even orders."""
        return (self.plus + self.minus) / 2 - self.clean

    @property
    def odd(self) -> np.ndarray:
        """½[L(w + z) − L(w − z)] of each draw: ⟨∇L, z⟩ and higher odd orders."""
        return (self.plus - self.minus) / 2


def weight_noise(law: str, scale: str) -> Noise:
    """Noise by its names in settings; ``element`` is another name of ``weight``.

    Raises:
        InputError: an unknown law or scale.
    """
    return Noise(law=law, scale="weight" if scale == "element" else scale)


def pairs(
    context: MetricContext, noise: Noise, sigma: float, draws: int, *, vectors: bool = True
) -> AntitheticLosses:
    """Losses at w ± z, z = sigma × ``noise`` on every parameter; made once a context.

    The raw noise of draw i is the same for every model, law's scale and sigma (common random
    numbers): the stream ``"perturbations"``, parameter by parameter, draw by draw.

    Args:
        context: the problem.
        noise: law and scale.
        sigma: its size.
        draws: how many pairs.
        vectors: whether parameters with fewer than two axes (biases, normalisation) move too;
            their noise is drawn either way.

    Raises:
        InputError: a negative or infinite sigma, or fewer than 2 draws.
        WorkError: a loss is not finite.
    """
    if not 0 <= sigma < math.inf or draws < 2:
        raise InputError(f"noise scale {sigma} should be ≥ 0 and finite, draws {draws} ≥ 2")
    key = ("pairs", noise, sigma, draws, vectors)
    return context.cached(key, lambda: _pairs(context, noise, sigma, draws, vectors))


def s_sgd_pairs(
    context: MetricContext, c: float, law: str, scale: str, exclude: str, draws: int
) -> tuple[AntitheticLosses, dict[str, Any]]:
    """The pairs of the noise that S-SGD trains with, and the settings that fix it.

    Raises:
        InputError: a negative c, fewer than 2 draws, an unknown law, scale or ``exclude``.
        WorkError: a loss is not finite.
    """
    if exclude not in ("1d", "none"):
        raise InputError(f"exclude '{exclude}' should be 1d or none")
    noise = weight_noise(law, scale)
    settings = {
        "c": c,
        "law": law,
        "scale": noise.scale,
        "exclude": exclude,
        "draws": draws,
        "seed": context.seed,
        "error": "draws",
    }
    return pairs(context, noise, c, draws, vectors=exclude == "none"), settings


def _pairs(
    context: MetricContext, noise: Noise, sigma: float, draws: int, vectors: bool
) -> AntitheticLosses:
    problem, generator = context.problem, context.generator("perturbations")
    clean_losses, clean_rights = context.clean_scores
    losses, rights = np.empty((2, draws)), np.empty((2, draws))
    with context.moved() as clean:
        for draw in range(draws):
            moves = [
                noise.sample(weight, generator, filters)
                for weight, filters in zip(clean, context.filters, strict=True)
            ]
            if not vectors:
                moves = [move.mul_(move.ndim >= 2) for move in moves]
            for row, sign in enumerate((1, -1)):
                context.put(clean, moves, sign * sigma)
                batch_losses, batch_rights = context.scores()
                losses[row, draw] = problem.mean(batch_losses)
                if batch_rights is not None:
                    rights[row, draw] = problem.label_mean(batch_rights)
    if not np.isfinite(losses).all():
        raise WorkError(f"the loss is not finite under weight noise of scale {sigma}")
    drops = None if clean_rights is None else problem.label_mean(clean_rights) - rights.mean(axis=0)
    return AntitheticLosses(problem.mean(clean_losses), losses[0], losses[1], drops)
