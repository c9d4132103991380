"""Losses at random perturbations in antithetic pairs, shared by all metrics that ask for them."""

from dataclasses import dataclass

import numpy as np

from ssgd_analysis.flatness.bench import Bench
from ssgd_analysis.weights import Noise


@dataclass(frozen=True)
class Pairs:
    """Mean losses of all examples at w, w + z and w − z.

    Args:
        clean: at w.
        plus: at w + z, shape (draws,).
        minus: at w − z, shape (draws,).
    """

    clean: float
    plus: np.ndarray
    minus: np.ndarray

    @property
    def even(self) -> np.ndarray:
        """½[L(w + z) + L(w − z)] − L(w) of each draw: ½ zᵀHz and higher even orders."""
        return (self.plus + self.minus) / 2 - self.clean

    @property
    def odd(self) -> np.ndarray:
        """½[L(w + z) − L(w − z)] of each draw: ⟨∇L, z⟩ and higher odd orders."""
        return (self.plus - self.minus) / 2


def pairs(bench: Bench, noise: Noise, sigma: float, draws: int) -> Pairs:
    """Losses at w ± z, z = sigma × ``noise`` on every parameter; made once a bench.

    The raw noise of draw i is the same for every model, law's scale and sigma (common random
    numbers): the stream ``"perturbations"``, parameter by parameter, draw by draw.

    Args:
        bench: the problem.
        noise: law and scale.
        sigma: its size.
        draws: how many pairs.
    """
    return bench.cached(("pairs", noise, sigma, draws), lambda: _pairs(bench, noise, sigma, draws))


def _pairs(bench: Bench, noise: Noise, sigma: float, draws: int) -> Pairs:
    problem, clean_loss = bench.problem, bench.problem.mean(bench.clean_losses)
    generator = bench.generator("perturbations")
    found = np.empty((2, draws))
    with bench.moved() as clean:
        for draw in range(draws):
            moves = [noise.sample(weight, generator) for weight in clean]
            for row, sign in enumerate((1, -1)):
                bench.put(clean, moves, sign * sigma)
                found[row, draw] = problem.mean(bench.losses())
    return Pairs(clean_loss, found[0], found[1])
