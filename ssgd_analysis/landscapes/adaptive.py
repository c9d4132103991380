"""The same picture from fewer points: measure where interpolation fails, interpolate elsewhere.

1. A coarse grid with the borders and the centre takes about half of the points.
2. Rounds of refinement. Two interpolants of the measured points, a cubic spline and one that
   overshoots less, differ where neither is to be trusted: at cusps, in valleys, at the foot of a
   wall. The next points go where the difference times the distance to the nearest measured point
   is largest, no two of a round side by side.
3. Held-out points, drawn at random from all that are left, are predicted and only then measured.
   The more the splines differ the more densely they are drawn (strata of equal sums of the
   difference plus its mean, one point of each), and each stands for the size of its stratum: so
   the mean square of their errors is unbiased for all points that were left, and scatters less
   than that of a plain draw, because few points hold most of the error. In the end they help to
   interpolate: the stated error is that of the picture without them, as a rule a little too large
   for the picture with them.

Interpolation works in the scale of the picture: in log loss where no loss is negative and the
range is large. It is clipped to the measured range, so that no minimum is invented. A loss that
is not finite makes a hole; unmeasured points belong to it by a vote of the nearest measured ones.
A feature that falls between the points of the coarse grid is found by the held-out points only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.interpolation import InterpolationScale, spline

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

LEAST = {1: 8, 2: 16}  # points that coarse grid, refinement and held-out points need
HELD_OUT = 0.1  # of the points, and at least 3
ROUNDS = 6
MOST_AT_ONCE = 3000  # points; the equations of more take too long, so only the nearest count:
NEIGHBOURS = 40
VOTERS = 4
APART = 1.2  # in cells: less than a diagonal, so that side by side is excluded


@dataclass(frozen=True)
class Refinement:
    """A grid of which a part is measured and the rest interpolated.

    Args:
        measured: bool, shape of the grid.
        loss: shape of the grid, float64: measured values exact, the rest interpolated; NaN in
            holes (a measured loss that is not finite is NaN too).
        accuracy: likewise; NaN everywhere if there is none.
        rms: root mean square error of the interpolation in nats, from held-out points predicted
            before they were measured; 0 if all is measured, NaN if none could be compared.
        max: the largest of these errors in nats: not a bound, unseen points may be worse.
        points: how many held-out points; those where prediction or truth is a hole do not count.
        shown: rms of the same errors in the picture's scale, as a share of the measured range.
        log: the picture's scale, and that of the interpolation, is log loss.
    """

    measured: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    rms: float
    max: float
    points: int
    shown: float
    log: bool


def refine(
    axes: Sequence[np.ndarray],
    evaluate: Evaluate,
    *,
    required: Sequence[Sequence[int]] = (),
    share: float = 0.25,
    seed: int = 0,
) -> Refinement:
    """Fill a grid by measuring at most a share of its points.

    What is measured depends only on the arguments and on the values measured before, so a
    killed call is replayed from stored values. Grids too small to be split (at a share of 1/4:
    lines of fewer than 32, planes of fewer than 64 points) are measured whole.

    Args:
        axes: one or two arrays of increasing coordinates, not necessarily even.
        evaluate: indices (M, dims) of at most one row of points to their loss (M,) and
            accuracy (M,); values that are not finite are holes.
        required: indices (R, dims) of points that must be measured.
        share: of all points, at most this is measured.
        seed: of the held-out points, nothing else.

    Returns:
        The grid and the error of its interpolation.

    Raises:
        InputError: a share outside (0, 1], or too small for the required points.
    """
    if not 0 < share <= 1:
        raise InputError(f"the share {share} of points to measure should be in (0, 1]")
    total = math.prod(len(axis) for axis in axes)
    budget = math.floor(share * total + 1e-9)
    grid = _Grid([np.asarray(axis, dtype=np.float64) for axis in axes], evaluate, budget)
    if budget >= total or budget < LEAST[len(axes)]:
        grid.measure(np.arange(total))
        return grid.result(np.array([], dtype=int), np.array([]), np.array([]))
    start = _start(grid.shape, budget, required)
    held = max(3, round(HELD_OUT * budget))
    if len(start) + held > budget:
        raise InputError(
            f"{len(required)} required points and a coarse grid are more than the share {share}"
            f" of {total} points: raise the share or the number of points"
        )
    grid.measure(start)
    for rounds in range(ROUNDS, 0, -1):
        room = budget - held - int(grid.measured.sum())
        grid.measure(grid.worst(math.ceil(room / rounds)))
    test, sizes = grid.draw(held, np.random.default_rng(seed))
    predicted = grid.filled()[test]
    grid.measure(test)
    return grid.result(test, sizes, predicted)


def fill(
    axes: Sequence[np.ndarray], measured: np.ndarray, loss: np.ndarray, accuracy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate other values at the same measured points, say another split's.

    Args:
        axes: as for :func:`refine`.
        measured: bool, shape of the grid.
        loss: shape of the grid; what is not measured does not matter.
        accuracy: likewise.

    Returns:
        Loss and accuracy, filled in as :func:`refine` does.
    """
    cells = [np.asarray(axis, dtype=np.float64) for axis in axes]
    grid = _Grid(cells, lambda indices: (indices, indices), int(measured.sum()))
    grid.measured = measured.ravel().copy()
    grid.loss = np.where(measured, loss, np.nan).ravel()
    grid.accuracy = np.where(measured, accuracy, np.nan).ravel()
    nothing = np.array([], dtype=int)
    found = grid.result(nothing, nothing, nothing.astype(float))
    return found.loss, found.accuracy


def _start(shape: Sequence[int], budget: int, required: Sequence[Sequence[int]]) -> np.ndarray:
    """Flat numbers of the required points and of a coarse grid from border to border."""
    most = max(budget // 2, 3 ** len(shape))
    for stride in np.arange(1.25, max(shape), 0.25):
        # an even number of steps, so that the centre is a point
        steps = [2 * math.ceil((n - 1) / (2 * stride)) for n in shape]
        lines = [
            np.unique(np.linspace(0, n - 1, s + 1).round().astype(int))
            for n, s in zip(shape, steps, strict=True)
        ]
        if math.prod(map(len, lines)) <= most:
            break
    coarse = np.ravel_multi_index(np.ix_(*lines), tuple(shape)).ravel()
    wanted = np.array(required, dtype=int).reshape(-1, len(shape))
    return np.union1d(coarse, np.ravel_multi_index(tuple(wanted.T), tuple(shape)))


class _Grid:
    """The points measured so far; they have flat numbers, and positions in units of cells."""

    def __init__(self, axes: Sequence[np.ndarray], evaluate: Evaluate, budget: int) -> None:
        self.shape = tuple(len(axis) for axis in axes)
        cells = [(a - a[0]) / ((a[-1] - a[0]) or 1.0) * (len(a) - 1) for a in axes]
        self.positions = np.stack(np.meshgrid(*cells, indexing="ij"), axis=-1).reshape(
            -1, len(axes)
        )
        self.evaluate = evaluate
        # decided once: the held-out points must be predicted as all others are in the end
        self.near = NEIGHBOURS if budget > MOST_AT_ONCE else None
        self.measured = np.zeros(len(self.positions), bool)
        self.loss = np.full(len(self.positions), np.nan)
        self.accuracy = np.full(len(self.positions), np.nan)

    @property
    def free(self) -> np.ndarray:
        """Numbers of the points that are not measured."""
        return np.flatnonzero(~self.measured)

    def measure(self, numbers: np.ndarray) -> None:
        """At most a row of points in one call."""
        for start in range(0, len(numbers), self.shape[-1]):
            part = numbers[start : start + self.shape[-1]]
            loss, accuracy = self.evaluate(np.stack(np.unravel_index(part, self.shape), axis=-1))
            self.loss[part] = np.where(np.isfinite(loss), loss, np.nan)
            self.accuracy[part] = accuracy
            self.measured[part] = True

    def scale(self) -> InterpolationScale:
        finite = self.loss[np.isfinite(self.loss)]
        return InterpolationScale(finite if len(finite) else np.zeros(1))

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every free point: the distance to the nearest measured one, and a vote.

        The vote is the share of finite losses among the nearest few, weighed by 1 / distance.
        """
        measured = np.flatnonzero(self.measured)
        ranks = np.arange(1, min(VOTERS, len(measured)) + 1)
        found = KDTree(self.positions[measured]).query(self.positions[self.free], ranks)
        distance, nearest = (np.asarray(part) for part in found)
        finite = np.isfinite(self.loss[measured[nearest]])
        return distance[:, 0], np.average(finite, axis=1, weights=1 / distance)

    def spline(self, kind: str, values: np.ndarray) -> np.ndarray:
        """Values at the free points from those that are measured and finite."""
        finite = np.isfinite(values)
        given, wanted = self.positions[finite], self.positions[self.free]
        return spline(kind, given, values[finite], wanted, near=self.near)

    def worst(self, count: int) -> np.ndarray:
        """Numbers of ``count`` points to measure next; fewer if the rest is one hole."""
        distance, vote = self.neighbours()
        cubic, careful, scale = self.splines()
        # where both agree, the distance decides; rounded, so that last digits decide nothing
        score = np.round((np.abs(cubic - careful) / scale.range + 1e-9) * distance, 12)
        border = np.flatnonzero((vote > 0) & (vote < 1))
        inside = np.flatnonzero(vote >= 0.5)
        chosen: list[int] = []
        for pool, merit, most in (
            (border, distance, count // 4),  # of the outline of a hole, only a quarter
            (inside, score, count),
        ):
            order = pool[np.argsort(-merit[pool], kind="stable")]
            self._spread(order, most, chosen)
        return np.sort(self.free[chosen])

    def _spread(self, order: np.ndarray, most: int, chosen: list[int]) -> None:
        """Append free points in this order, none beside another, until there are ``most``."""
        free = self.positions[self.free]
        blocked = np.zeros(len(free), bool)
        for taken in chosen:
            blocked |= np.linalg.norm(free - free[taken], axis=1) < APART
        for point in order:
            if len(chosen) >= most:
                return
            if not blocked[point]:
                chosen.append(int(point))
                blocked |= np.linalg.norm(free - free[point], axis=1) < APART

    def splines(self) -> tuple[np.ndarray, np.ndarray, InterpolationScale]:
        """Both interpolants at the free points, in the scale of the picture."""
        scale = self.scale()
        scaled = scale(self.loss)
        return self.spline("cubic", scaled), self.spline("careful", scaled), scale

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of about ``count`` free points at random, and the sizes of their strata."""
        cubic, careful, scale = self.splines()
        doubt = np.abs(scale.back(cubic) - scale.back(careful))
        doubt[~(self.neighbours()[1] >= 0.5)] = 0  # in a hole
        weight = doubt + (doubt.mean() or 1.0)
        order = np.argsort(doubt, kind="stable")
        total = np.cumsum(weight[order]) / weight.sum()
        inner = np.searchsorted(total, np.arange(1, count) / count)
        edges = np.unique([0, *inner, len(order)])
        chosen = order[rng.integers(edges[:-1], edges[1:])]
        return self.free[chosen], np.diff(edges)

    def filled(self) -> np.ndarray:
        """The loss, interpolated where it is not measured."""
        loss = self.loss.copy()
        if len(self.free):
            scale = self.scale()
            guess = scale.back(self.spline("cubic", scale(self.loss)))
            loss[self.free] = np.where(self.neighbours()[1] >= 0.5, guess, np.nan)
        return loss

    def result(self, test: np.ndarray, sizes: np.ndarray, predicted: np.ndarray) -> Refinement:
        """The filled grid, with the errors of these points, predicted before measured."""
        loss, accuracy, scale = self.filled(), self.accuracy.copy(), self.scale()
        if len(self.free):
            # accuracy moves in steps, and what a net says in a hole is no accuracy
            outside = np.where(np.isfinite(self.loss), self.accuracy, np.nan)
            guess = np.clip(self.spline("linear", outside), 0, 1)
            accuracy[self.free] = np.where(np.isfinite(loss[self.free]), guess, np.nan)
        both = np.isfinite(predicted) & np.isfinite(self.loss[test])
        guess, truth = predicted[both], self.loss[test][both]
        errors, shown = np.abs(guess - truth), (scale(guess) - scale(truth)) / scale.range
        none = math.nan if len(self.free) else 0.0

        def rms(errors: np.ndarray) -> float:
            return math.sqrt(np.average(errors**2, weights=sizes[both])) if both.any() else none

        return Refinement(
            measured=self.measured.reshape(self.shape),
            loss=loss.reshape(self.shape),
            accuracy=accuracy.reshape(self.shape),
            rms=rms(errors),
            max=float(errors.max()) if both.any() else none,
            points=int(both.sum()),
            shown=rms(shown),
            log=scale.log,
        )
