"""The search for extreme eigenpairs as a coroutine: it yields vectors and receives their images.

As it calls no operator, many searches share one sweep over the data (see ``lockstep``).
"""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ssgd_analysis.curvature.eigen.krylov import KrylovBasis, orthonormal
from ssgd_analysis.curvature.eigen.multiplicity import CONFIDENCE, Complement

Result = TypeVar("Result")
Products = Generator[Tensor, Tensor, Result]  # yields (P, K), receives H times it

SLACK = 0.01  # the check is content with a bound this far beyond the last wanted value
ZERO = 0.01  # of the largest |λ|: below it the smallest pair's tolerance shrinks no more
FIT = 3  # times the tolerance: a start that is nearer to invariant is multiplied as a block
ATTEMPTS = 4  # checks that a full basis may cut short before they are given up


@dataclass(frozen=True)
class Goal:
    """What a search is after.

    Args:
        k: pairs wanted at the upper end, or by magnitude.
        tol: relative residual.
        by: ``"value"`` or ``"magnitude"``.
        smallest: wait for the smallest pair too.
        check: look for missed copies after convergence.
        guard: the check covers the lower end too.
        max_products: budget.
        deadline: of ``time.monotonic()``.
    """

    k: int
    tol: float
    by: str = "value"
    smallest: bool = True
    check: bool = True
    guard: bool = False
    max_products: int = 1000
    deadline: float | None = None


@dataclass(frozen=True)
class Check:
    """What was done against missed copies of eigenvalues.

    Args:
        products: spent after the first convergence.
        complete: whether the check came to its end.
        bound: no eigenvalue outside the reported ones exceeds it (in magnitude, where pairs
            are wanted by magnitude), with the given confidence; infinite where not known.
        confidence: of the bound.
    """

    products: int
    complete: bool
    bound: float
    confidence: float = CONFIDENCE


class Search:
    """Thick-restart Lanczos with full re-orthogonalisation, driven from outside.

    After :meth:`run`, ``stop``, ``check``, ``spent`` and :meth:`vectors` say what was found.

    Args:
        basis: empty; its size is the memory.
        goal: what to look for.
        generator: of all random directions.
    """

    def __init__(self, basis: KrylovBasis, goal: Goal, generator: torch.Generator) -> None:
        self.basis, self.goal, self.generator = basis, goal, generator
        self.spent, self.note = 0, ""
        self.stop = "products"
        self.check: Check | None = None
        self.began = time.monotonic()

    def run(self, start: Tensor | None = None) -> Products[None]:
        """The whole search, until it stops.

        Args:
            start: vectors to begin with, shape (P, m); a random one if ``None``.
        """
        yield from self._begin(start)
        self.stop = yield from self._converge()
        converged = self.spent
        bound, complete = math.inf, self.stop == "exact"
        for attempt in range(ATTEMPTS * self.goal.k + ATTEMPTS):
            if self.stop != "residual" or not self.goal.check:
                break
            before = self.values[self.top]
            bound, complete = yield from self._look()
            stop = yield from self._converge()
            if stop != "residual":
                self.stop, complete = stop, stop == "exact"
                break
            allowed = self.goal.tol * np.abs(before) + self.floor
            joined = bool((np.abs(self.values[self.top] - before) > allowed).any())
            if not joined and (complete or self._over() or attempt >= ATTEMPTS):
                break
        if self.stop == "exact":
            bound = self.values[self.top[-1]] if len(self.top) else math.inf
        if self.goal.check:
            self.check = Check(self.spent - converged, complete, float(bound))

    def vectors(self) -> Tensor:
        """Ritz vectors of the wanted pairs and, last, of the smallest: shape (P, K + 1)."""
        return self.basis.combine(self.coordinates[:, [*self.top, 0]])

    def _begin(self, start: Tensor | None) -> Products[None]:
        """The first vectors: the sum of the start's, and each of them if they fit well.

        The sum's Krylov space makes use of all of them and costs no more than a random one,
        however bad they are. If the first image shows that they nearly span an invariant
        subspace, a product with each is the faster way.
        """
        block = self.basis.vectors.new_empty(self.basis.dimension, 0)
        if start is not None:
            block = orthonormal(start)[:, : self.basis.size - 1]
        if not block.shape[1]:
            yield from self._step(self.basis.fresh(self.generator))
            return
        vector = block.sum(dim=1) / block.shape[1] ** 0.5
        image = yield vector[:, None]
        self._take(vector[:, None], image)
        outside = image[:, 0] - block @ (block.T @ image[:, 0])
        near = float(outside.norm()) <= FIT * self.goal.tol * float(image.norm())
        if near and self.spent + block.shape[1] - 1 <= self.goal.max_products:
            others = orthonormal(torch.cat([vector[:, None], block], dim=1))[:, 1:]
            if others.shape[1]:
                images = yield others
                self._take(others, images)

    def _take(self, block: Tensor, images: Tensor) -> None:
        self.spent += block.shape[1]
        for vector, image in zip(block.T, images.T, strict=True):
            self.basis.take(vector, image)

    def _step(self, vector: Tensor) -> Products[Tensor | None]:
        """One product; returns the next vector of the same Krylov space."""
        image = yield vector[:, None]
        self._take(vector[:, None], image)
        return self.basis.tail()

    def _solve(self) -> None:
        """Ritz pairs, and which of them are wanted."""
        self.values, self.residuals, self.coordinates = self.basis.ritz()
        key = np.abs(self.values) if self.goal.by == "magnitude" else self.values
        self.top = np.argsort(-key, kind="stable")[: self.goal.k]
        eps = float(torch.finfo(self.basis.vectors.dtype).eps)
        self.floor = 10 * eps * float(np.abs(self.values).max())

    def _allowed(self) -> np.ndarray:
        """The residual norm at which each Ritz pair is accepted."""
        sizes = np.abs(self.values)
        if 0 not in self.top:  # the smallest can be zero, where no relative residual is reached
            sizes[0] = max(sizes[0], ZERO * sizes.max())
        return np.maximum(self.goal.tol * sizes, self.floor)

    def _converge(self) -> Products[str]:
        """Expand by the residual of the worst wanted pair until none is above its tolerance."""
        basis, goal = self.basis, self.goal
        while True:
            self._solve()
            awaited = [*self.top, 0] if goal.smallest else [*self.top]
            allowed = self._allowed()
            ratios = (self.residuals / np.maximum(allowed, 1e-300))[awaited]
            worst = awaited[int(ratios.argmax())]
            self.note = (
                f"λ1 {self.values[self.top[0]]:.4g}, "
                f"residual {ratios.max() * goal.tol:.0e} of {goal.tol:.0e}"
            )
            if basis.count == basis.dimension:
                return "exact"
            # fewer vectors than pairs: the smallest would be one of the largest
            if ratios.max() <= 1 and basis.count >= min(goal.k + goal.smallest, basis.dimension):
                return "residual"
            if self._over():
                return "products" if self.spent >= goal.max_products else "time"
            if basis.count == basis.size:
                self._restart(basis.size // 4)
                continue
            vector = basis.residual(self.coordinates[:, worst])
            # the dense problem is solved now and then only
            for _ in range(1 + basis.count // 40):
                if vector is None:
                    vector = basis.fresh(self.generator)
                vector = yield from self._step(vector)
                if self._over() or basis.count == basis.size:
                    break

    def _over(self) -> bool:
        """Whether the budget is spent, or too little time is left to go on and to certify."""
        if self.spent >= self.goal.max_products:
            return True
        if self.goal.deadline is None:
            return False
        now = time.monotonic()
        each = (now - self.began) / max(self.spent, 1)
        return now + each * (self.goal.k + 2) > self.goal.deadline

    def _restart(self, extra: int) -> None:
        """Keep the wanted pairs and some of their neighbours, and a little of the other end."""
        size, k = self.basis.size, len(self.top)
        below = 1 + size // 10
        above = min(k + extra, size - below - 4)
        if self.goal.by == "magnitude":
            below = above = max((k + extra) // 2, (size - 4) // 3)
        positions = {*range(below), *range(size - above, size)} | {int(i) for i in self.top}
        self.basis.restart(
            self.coordinates[:, sorted(i for i in positions if i < self.basis.count)]
        )
        self._solve()

    def _look(self) -> Products[tuple[float, bool]]:
        """Lanczos from a random start in all that the basis does not hold.

        A plain Krylov space holds one vector of each eigenspace. Deflated by the pairs found,
        a second one shows the missing copies, or bounds what can be missing.

        Returns:
            The bound on other eigenvalues, and whether the question is settled: nothing wanted
            is missing, or the missing pair has been found to the tolerance.
        """
        basis, goal, limits = self.basis, self.goal, self._limits()
        self.note = f"λ1 {self.values[self.top[0]]:.4g}, looking for missed copies"
        basis.restart(self.coordinates[:, self._settled(limits)])
        self._solve()
        rest = np.delete(np.arange(basis.count), [*self.top, *([0] if goal.guard else [])])
        coupling = (basis.coupling[:, : basis.count] @ self.coordinates)[:, rest]
        complement = Complement(self.values[rest], coupling, basis.dimension - basis.count)
        allowed = max(goal.tol * abs(self.values[self.top]).min(), self.floor)
        vector: Tensor | None = basis.fresh(self.generator)
        first, complete = basis.count, False
        while vector is not None and not complete:
            vector = yield from self._step(vector)
            chain = slice(first, basis.count)
            complement.extend(basis.projected[chain, chain], basis.beta())
            complete = all(
                complement.bound(side, limit) <= limit or complement.residual(side) <= allowed
                for side, limit in limits.items()
            )
            if basis.count == basis.size or self._over():
                break
        bounds = {side: complement.bound(side, math.inf) for side in limits}
        outer = max(bounds.values()) if goal.by == "magnitude" else bounds[1]
        return outer, complete or basis.count == basis.dimension

    def _limits(self) -> dict[int, float]:
        """For each end looked at, 1 and -1, the value above which nothing may be missing."""
        values, top = self.values, self.values[self.top]
        if self.goal.by == "magnitude":
            least = float(np.abs(top).min())
            limit = least + max(SLACK * least, self.floor)
            return {1: limit, -1: limit}
        least = float(top.min())
        limits = {1: least + max(SLACK * abs(least), self.floor)}
        if self.goal.guard and self.goal.smallest:
            limits[-1] = SLACK * float(np.abs(values).max()) - float(values[0])
        return limits

    def _settled(self, limits: dict[int, float]) -> list[int]:
        """Pairs to deflate a check by: those wanted, and neighbours with a small residual.

        The more neighbours, the shorter the check; but a residual ρ adds up to
        Σ ρ² / (limit − θ) to its bound, so their sum stays below a quarter of the room.
        """
        positions = {0, *self.top.tolist()}
        most = max(self.basis.size // 2 - len(positions), 0)
        for side, limit in limits.items():
            order = [i for i in np.argsort(-side * self.values) if i not in positions]
            rooms = np.maximum(limit - side * self.values[order], 1e-300)
            costs = np.cumsum(self.residuals[order] ** 2 / rooms)
            count = int((costs <= rooms[:1].sum() / 4).sum()) if len(order) else 0
            positions |= set(order[: min(count, most // len(limits))])
        return sorted(int(i) for i in positions)


def lockstep(
    runs: list[Products[Result]],
    multiply: Callable[[dict[int, Tensor]], dict[int, Tensor]],
) -> list[Result]:
    """Drive several coroutines together, one joint multiplication a round.

    Args:
        runs: each yields blocks and receives their images.
        multiply: from each unfinished run's block to its image.

    Returns:
        What each run returned.
    """
    results: dict[int, Result] = {}
    requests: dict[int, Tensor] = {}
    images: dict[int, Tensor | None] = dict.fromkeys(range(len(runs)))
    while images:
        requests = {}
        for index, image in images.items():
            try:
                # the first send starts the coroutine and has to be None
                requests[index] = runs[index].send(image)  # type: ignore[arg-type]
            except StopIteration as end:
                results[index] = end.value
        images = dict(multiply(requests)) if requests else {}
    return [results[index] for index in range(len(runs))]
