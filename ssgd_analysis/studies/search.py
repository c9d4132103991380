"""Equal tuning: the same number of trials for every arm, from one sampler, by validation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssgd_analysis.errors import InputError

SAMPLERS = ("sobol", "halton")
MOST_TUNED = 6  # quantities that can be tuned at once: the sampler's dimensions
EDGE = 0.1  # share of a range, at either end, that counts as its edge
DIGITS = 4  # of a tried value: as it is printed, so it is tried


@dataclass(frozen=True)
class Range:
    """The range of a tuned quantity.

    Args:
        low: smallest value.
        high: largest value.
        log: uniform in the logarithm.

    Raises:
        InputError: an empty range, or a logarithm of what is not positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"a range from {self.low} to {self.high} is empty")
        if self.log and self.low <= 0:
            raise InputError(f"a range from {self.low} has no logarithm")

    def at(self, share: float) -> float:
        """The value at a share of the range, in [0, 1]."""
        if self.log:
            value = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        else:
            value = self.low + share * (self.high - self.low)
        return float(f"{value:.{DIGITS}g}")

    def share(self, value: float) -> float:
        """The inverse of :meth:`at`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def edge(self, value: float) -> str:
        """``low edge``, ``high edge`` or ``inside``."""
        share = self.share(value)
        return "low edge" if share < EDGE else "high edge" if share > 1 - EDGE else "inside"


@dataclass(frozen=True)
class Tuning:
    """The tuning that every arm gets in every setting.

    Args:
        trials: points tried for each arm, the same number for all.
        seeds: each point is trained with each; none of them is a seed of the study.
        val: share of the training examples that is held out to judge by.
        sampler: ``sobol`` or ``halton``, scrambled.
        seed: of the scrambling.
        search: tuned for every arm: name → range.
        share: of the budget that a trial gets; the same for all.

    Raises:
        InputError: a value out of range.
    """

    trials: int
    seeds: list[int]
    val: float
    sampler: str
    seed: int
    search: dict[str, Range]
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"[tuning] trials = {self.trials} should be at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("[tuning] seeds should be a list of distinct numbers")
        if not 0 < self.val < 1:
            raise InputError(f"[tuning] val = {self.val} should be in (0, 1)")
        if not 0 < self.share <= 1:
            raise InputError(f"[tuning] share = {self.share} should be in (0, 1]")
        if self.sampler not in SAMPLERS:
            raise InputError(f"[tuning] sampler '{self.sampler}' should be {' or '.join(SAMPLERS)}")


def points(tuning: Tuning, ranges: Mapping[str, Range]) -> list[dict[str, float]]:
    """The values that are tried.

    Quantity by quantity in the order of ``ranges``, so that what is tuned for all arms takes the
    same values in all of them.

    Args:
        tuning: gives sampler, seed and number.
        ranges: of the quantities; with none there is one point.

    Raises:
        InputError: more quantities than :data:`MOST_TUNED`.
    """
    from scipy.stats import qmc  # takes most of a second to import

    if len(ranges) > MOST_TUNED:
        raise InputError(f"{len(ranges)} quantities are to be tuned: at most {MOST_TUNED} can be")
    if not ranges:
        return [{}]
    if tuning.sampler == "sobol":  # a power of two is drawn: only that is balanced
        engine = qmc.Sobol(MOST_TUNED, scramble=True, seed=np.random.default_rng(tuning.seed))
        unit = engine.random_base2(max(1, math.ceil(math.log2(tuning.trials))))
    else:
        halton = qmc.Halton(MOST_TUNED, scramble=True, seed=np.random.default_rng(tuning.seed))
        unit = halton.random(tuning.trials)
    return [
        {name: range_.at(float(share)) for (name, range_), share in zip(ranges.items(), row)}  # noqa: B905
        for row in unit[: tuning.trials]
    ]


def trial_scores(runs: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """One trial's validation accuracy and loss, averaged over its seeds.

    Only validation numbers are read, never those of the test examples.

    Args:
        runs: the last history record of each seed's run; ``None``: it failed.
    """
    failed = sum(run is None for run in runs)
    finished = [run for run in runs if run is not None]
    if failed or not finished:
        return {"val_accuracy": None, "val_loss": None, "failed": failed}
    return {
        name: sum(run[name] for run in finished) / len(finished)
        for name in ("val_accuracy", "val_loss")
    } | {"failed": 0}


def best(trials: Sequence[Mapping[str, Any]]) -> int | None:
    """The trial of the highest validation accuracy, of equals that of the lowest loss.

    ``None``: in every one a run failed.
    """
    finished = [i for i, trial in enumerate(trials) if trial["val_accuracy"] is not None]
    if not finished:
        return None
    # equal but for rounding is equal: a mean of the same counts may differ in its last bits
    return max(
        finished, key=lambda i: (round(trials[i]["val_accuracy"], 9), -trials[i]["val_loss"])
    )
