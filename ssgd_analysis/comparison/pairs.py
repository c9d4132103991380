"""Which group is compared with which, and at which of their checkpoints."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ssgd_analysis.comparison.groups import Group, count_differing
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.flatness.losses import loss_gap
from ssgd_analysis.runs import Run
from ssgd_analysis.settings.comparison import MATCHING

TrainLoss = Callable[[Run, int | None], float]


class RunCheckpoint(NamedTuple):
    """A checkpoint of a run, at which a metric is measured.

    Args:
        run: the run.
        step: of a saved checkpoint; ``None``: the final weights.
        target: train loss that its logits are scaled to; ``None``: they are not scaled.
    """

    run: Run
    step: int | None = None
    target: float | None = None


@dataclass(frozen=True)
class Pair:
    """A group and its baseline, and the checkpoints at which they are compared.

    Args:
        group: the group.
        baseline: what it is compared with.
        sides: checkpoints of the group's runs and of the baseline's.
        paired: whether the i-th checkpoints of both share a seed. Where fewer than two seeds are
            common, they do not, and all runs count.
        losses: mean train loss of both at these checkpoints; NaN where a run has none.
        final_losses: the same at the final weights, without scaling.
        pair_gap: mean over the pairs of |difference of the train losses| relative to the
            larger one, so that opposite gaps do not cancel; without pairs ``loss_gap``.
        matched: how train losses were matched, a name of :data:`MATCHING`; empty: they were not.
    """

    group: Group
    baseline: Group
    sides: tuple[list[RunCheckpoint], list[RunCheckpoint]]
    paired: bool
    losses: tuple[float, float]
    final_losses: tuple[float, float]
    pair_gap: float
    matched: str = ""

    @property
    def loss_gap(self) -> float:
        """|difference of the mean train losses| relative to the larger one."""
        return loss_gap(*self.losses)


def recorded_loss(run: Run, step: int | None) -> float:
    """The recorded train loss of a run at a step (``None``: the last); NaN: it has none."""
    history = run.history()
    record = history[-1] if step is None else next(r for r in history if r["step"] == step)
    value = record.get("train_loss")
    return math.nan if value is None else float(value)


def pairs_of(
    groups: Sequence[Group],
    baseline: str | None,
    match: str = "",
    loss: TrainLoss = recorded_loss,
) -> list[Pair]:
    """Each group with its baseline, as :func:`compare` pairs them.

    Args:
        groups: from :func:`group_runs`.
        baseline: method, label or name of a group.
        match: how to match train losses, a name of :data:`MATCHING`; empty: not at all.
        loss: train loss of a run at a step.

    Raises:
        InputError: an unknown baseline, or way to match.
    """
    if match not in ("", *MATCHING):
        raise InputError(f"match '{match}' should be one of {', '.join(MATCHING)}")
    chosen = [(group, _baseline_of(group, groups, baseline)) for group in groups]
    if baseline is None and all(base is group for group, base in chosen):
        chosen = [(group, groups[0]) for group in groups]  # one method only: the first group
    return [
        _pair(group, base, match, loss)
        for group, base in chosen
        if base is not None and base is not group
    ]


def _baseline_of(group: Group, groups: Sequence[Group], wanted: str | None) -> Group | None:
    """The baseline that shares most settings with the group (batch size, data, …).

    ``None`` where the group's own condition has none: its runs may have failed there.
    """

    def named(name: str) -> list[Group]:
        return [g for g in groups if name in (g.name, g.config.label, g.config.method)]

    found = named("sgd") or [groups[0]] if wanted is None else named(wanted)
    if not found:
        raise unknown("baseline", str(wanted), sorted({g.config.method for g in groups}))
    # an exact name or label beats a method that several groups share
    exact = [g for g in found if wanted in (g.name, g.config.label)] or found
    candidates = [g for g in exact if g.condition == group.condition]

    def distance(other: Group) -> tuple[int, bool]:
        unequal_epochs = other.config.epochs != group.config.epochs
        return count_differing(other.config, group.config), unequal_epochs

    return min(candidates, key=distance, default=None)


def _pair(group: Group, baseline: Group, match: str, loss: TrainLoss) -> Pair:
    seeds = [seed for seed in group.runs if seed in baseline.runs]
    paired = bool(seeds) and not len(seeds) < 2 <= min(len(group.runs), len(baseline.runs))
    sides = tuple(
        [g.runs[seed] for seed in (seeds if paired else g.runs)] for g in (group, baseline)
    )
    final = tuple([loss(run, None) for run in side] for side in sides)
    checkpoints = [
        [
            _matched(RunCheckpoint(run), own, goal, match, loss)
            for run, own, goal in zip(*side, strict=True)
        ]
        for side in zip(sides, final, _goals(final, match, paired), strict=True)
    ]
    losses = [
        [loss(c.run, c.step) if c.target is None else c.target for c in side]
        for side in checkpoints
    ]
    a, b = map(_mean, losses)
    gaps = [loss_gap(*pair) for pair in zip(*losses, strict=True)] if paired else [loss_gap(a, b)]
    return Pair(
        group,
        baseline,
        (checkpoints[0], checkpoints[1]),
        paired,
        (a, b),
        (_mean(final[0]), _mean(final[1])),
        _mean(gaps),
        match,
    )


def _goals(
    final: tuple[list[float], ...], match: str, paired: bool
) -> tuple[list[float], list[float]]:
    """The train loss to which each run of both sides is raised, if its own is lower."""
    group, baseline = final
    if not match:
        return group, baseline
    if paired:
        each = [max(pair) for pair in zip(group, baseline, strict=True)]
        return each, each
    if match == "temperature":  # the highest loss is the only one that all runs can reach
        highest = max(group + baseline)
        return [highest] * len(group), [highest] * len(baseline)
    if _mean(group) < _mean(baseline):
        return [_mean(baseline)] * len(group), baseline
    return group, [_mean(group)] * len(baseline)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _matched(
    final: RunCheckpoint, own: float, goal: float, match: str, loss: TrainLoss
) -> RunCheckpoint:
    """The checkpoint of a run at the goal, where its final train loss is lower."""
    if own >= goal or math.isnan(own + goal):
        return final
    if match == "temperature":
        return final._replace(target=goal)
    return final._replace(step=_nearest(final.run, goal, loss))


def _nearest(run: Run, goal: float, loss: TrainLoss) -> int:
    saved = run.checkpoints()
    steps = [record["step"] for record in run.history() if record["step"] in saved]
    return min(steps, key=lambda step: abs(loss(run, step) - goal))
