"""Tests of two means whose variances are unknown and may differ, at any numbers of values.

Both are functions of t, the difference over its estimated standard error, and of the share that
the first mean has in that error's square, and both keep their level for normal values at every
ratio of variances. Welch's t with its usual degrees of freedom does not: at 2 against 10 values its
two-sided level of 5% is 12%.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.optimize import brentq

NODES = 64  # of the quadrature over the ratio of the two sample variances
TAIL = 1e-10  # of that ratio's distribution, left out at either end
COARSE = np.linspace(-9, 9, 19)  # logarithms of the ratios of standard errors that are tried
FINE = np.linspace(-0.8, 0.8, 9)  # and around the worst of these
# values in both groups beyond which Welch's level is right to a few thousandths of it
LARGE_SAMPLE = 100
TINY = 1e-300


@dataclass(frozen=True)
class BehrensFisher:
    """The Behrens-Fisher test: t against √share t₁ + √(1 − share) t₂.

    t₁ and t₂ are independent of n − 1 and m − 1 degrees of freedom. Its level is reached as one
    variance outgrows the other, and nowhere exceeded.

    Args:
        n: values of the first group, at least 2.
        m: of the second, at least 2.

    Reference:
        Fisher 1935, Annals of Eugenics 6, 391-398; as one integral, Tsui and Weerahandi 1989,
        JASA 84, 602-607; the level, Robinson 1976, Annals of Statistics 4, 963-971.
    """

    n: int
    m: int

    @property
    def name(self) -> str:
        """For the tables."""
        return f"Behrens-Fisher test, {self.n} and {self.m} seeds"

    def p(self, t: np.ndarray | float, share: np.ndarray | float) -> np.ndarray:
        """Two-sided p of arrays of the same shape."""
        first, second, weight = variance_shares(self.n, self.m)
        w = np.asarray(share, dtype=float)[..., None]
        spread = w * (self.n - 1) / first + (1 - w) * (self.m - 1) / second
        dof = self.n + self.m - 2
        ratio = np.abs(np.asarray(t, dtype=float))[..., None] * np.sqrt(dof / spread)
        return 2 * special.stdtr(dof, -ratio) @ weight

    def critical(self, share: np.ndarray | float, level: float) -> np.ndarray:
        """The |t| at which the two-sided p is the level, of an array of shares."""
        shares = np.asarray(share, dtype=float)
        low = np.zeros(shares.shape)
        high = np.full(shares.shape, 2.0)
        while np.any(below := self.p(high, shares) > level):
            low, high = np.where(below, high, low), np.where(below, 2 * high, high)
        for _ in range(50):
            middle = (low + high) / 2
            below = self.p(middle, shares) > level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high


@dataclass(frozen=True)
class WorstWelch:
    """Welch's t-test, its p the largest that any ratio of the true variances gives it.

    Args:
        n: values of the first group, at least 2.
        m: of the second, at least 2.

    Reference:
        Welch 1947, Biometrika 34, 28-35; its exact level as one integral, Wang 1971, JASA 66,
        605-608; the largest p over what is not known, Barnard 1947, Biometrika 34, 123-138.
    """

    n: int
    m: int

    @property
    def name(self) -> str:
        """For the tables."""
        return f"Welch t-test, p at the worst ratio of spreads, {self.n} and {self.m} seeds"

    def p(self, t: np.ndarray | float, share: np.ndarray | float) -> np.ndarray:
        """Two-sided p of arrays of the same shape."""
        dof = welch_dof(np.asarray(share, dtype=float), self.n, self.m)
        plain = 2 * special.stdtr(dof, -np.abs(np.asarray(t, dtype=float)))
        sizes = [worst_welch_level(float(p), self.n, self.m) for p in np.atleast_1d(plain)]
        return np.reshape(sizes, plain.shape)

    def critical(self, share: np.ndarray | float, level: float) -> np.ndarray:
        """The |t| at which the two-sided p is the level, of an array of shares."""
        dof = welch_dof(np.asarray(share, dtype=float), self.n, self.m)
        return -special.stdtrit(dof, _nominal(level, self.n, self.m) / 2)


Test = BehrensFisher | WorstWelch


@functools.lru_cache(maxsize=4096)
def two_sample_test(n: int, m: int, level: float) -> Test:
    """The one of the two tests that asks for the smaller t where both spreads are equal.

    So which it is depends on the numbers of values and on the level alone: Welch's where the
    numbers are nearly equal, Behrens and Fisher's where they are not.

    Args:
        n: values of the first group, at least 2.
        m: of the second, at least 2.
        level: two-sided, at which it is wanted.
    """
    welch, behrens = WorstWelch(n, m), BehrensFisher(n, m)
    share = m / (n + m)
    least = float(welch.critical(share, level))
    return behrens if float(behrens.p(least, share)) < level else welch


def welch_dof(share: np.ndarray, n: int, m: int) -> np.ndarray:
    """Welch and Satterthwaite's degrees of freedom at a share of the first mean in the error."""
    return 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))


def worst_welch_level(nominal: float, n: int, m: int) -> float:
    """The largest chance, over all ratios of true variances, that Welch's two-sided p is below.

    Of normal values, t is a Student's t of n + m − 2 degrees of freedom times a factor that
    depends on U/(U + V) alone, where U and V are the sample variances' independent χ²: a Beta
    variable, over which the chance is integrated.

    Args:
        nominal: between 0 and 1.
        n: values of the first group, at least 2.
        m: of the second, at least 2.
    """
    if nominal <= 0 or nominal >= 1 or min(n, m) > LARGE_SAMPLE:
        return min(max(nominal, 0.0), 1.0)
    worst = COARSE[_levels_at(COARSE, nominal, n, m).argmax()]
    sizes = _levels_at(worst + FINE, nominal, n, m)
    return float(min(1.0, max(nominal, sizes.max())))  # the nominal one at infinite ratios


def _levels_at(ratios: np.ndarray, nominal: float, n: int, m: int) -> np.ndarray:
    """Welch's level at ratios of the means' true squared errors, given by their logarithm."""
    part, rest, weight = variance_shares(n, m)
    true = special.expit(ratios)[:, None]
    first, second = true * part / (n - 1), (1 - true) * rest / (m - 1)
    dof = welch_dof(first / (first + second), n, m)
    limit = -special.stdtrit(dof, nominal / 2) * np.sqrt((n + m - 2) * (first + second))
    return 2 * special.stdtr(n + m - 2, -limit) @ weight


@functools.lru_cache(maxsize=4096)
def _nominal(level: float, n: int, m: int) -> float:
    """Welch's nominal level whose worst level is the one that is wanted."""
    if min(n, m) > LARGE_SAMPLE:
        return level

    def beyond(power: float) -> float:
        return math.log(max(worst_welch_level(math.exp(power), n, m), TINY) / level)

    high = math.log(level)
    low = high - 1
    while beyond(low) > 0 and low > math.log(TINY):
        low -= 2 * (high - low)
    if beyond(low) > 0:  # so extreme that no nominal level will do
        return TINY
    return math.exp(float(brentq(beyond, low, high, xtol=1e-6)))


@functools.lru_cache(maxsize=256)
def variance_shares(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of χ²ₙ₋₁ in its sum with an independent χ²ₘ₋₁: values, the rest, and weights.

    A Beta((n − 1)/2, (m − 1)/2) variable, and independent of the sum, a χ² of n + m − 2.
    The trapezoidal rule in log b/(1 − b), in which another ratio of variances is a shift: so it
    is as good at all ratios.
    """
    a, b = (n - 1) / 2, (m - 1) / 2
    low, high = special.betaincinv(a, b, TAIL), special.betaincinv(b, a, TAIL)
    nodes = np.linspace(special.logit(low), -special.logit(high), NODES)
    logs = -np.logaddexp(0, -nodes), -np.logaddexp(0, nodes)
    weights = np.exp(a * logs[0] + b * logs[1] - special.betaln(a, b))
    return np.exp(logs[0]), np.exp(logs[1]), weights / weights.sum()
