"""Which group is compared with which, and at which of their checkpoints."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ssgd_analysis.comparison.members import Member, MemberGroup
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.flatness.losses import loss_gap
from ssgd_analysis.settings.comparison import MATCHING

TrainLoss = Callable[[Member, int | None], float]


class MemberCheckpoint(NamedTuple):
    """A checkpoint of a group's member, at which a metric is measured.

    Args:
        member: the member.
        step: of a saved checkpoint; ``None``: the final weights.
        target: train loss that its logits are scaled to; ``None``: they are not scaled.
    """

    member: Member
    step: int | None = None
    target: float | None = None


@dataclass(frozen=True)
class Pair:
    """A group and its baseline, and the checkpoints at which they are compared.

    Args:
        group: the group.
        baseline: what it is compared with.
        sides: checkpoints of the group's members and of the baseline's.
        paired: whether the i-th checkpoints of both belong together: they share a seed, or the
            user says so. Where fewer than two seeds are common, they do not, and all count.
        losses: mean train loss of both at these checkpoints; NaN where a member has none.
        final_losses: the same at the final weights, without scaling.
        pair_gap: mean over the pairs of |difference of the train losses| relative to the
            larger one, so that opposite gaps do not cancel; without pairs ``loss_gap``.
        matched: how train losses were matched, a name of :data:`MATCHING`; empty: they were not.
    """

    group: MemberGroup
    baseline: MemberGroup
    sides: tuple[list[MemberCheckpoint], list[MemberCheckpoint]]
    paired: bool
    losses: tuple[float, float]
    final_losses: tuple[float, float]
    pair_gap: float
    matched: str = ""

    @property
    def loss_gap(self) -> float:
        """|difference of the mean train losses| relative to the larger one."""
        return loss_gap(*self.losses)


def recorded_loss(member: Member, step: int | None) -> float:
    """The train loss of a member at a step (``None``: the last); NaN: it has none."""
    value = member.outcome("train_loss", step)
    return math.nan if value is None else float(value)


def pairs_of(
    groups: Sequence[MemberGroup],
    baseline: str | None,
    match: str = "",
    loss: TrainLoss = recorded_loss,
    *,
    by_order: bool = False,
) -> list[Pair]:
    """Each group with its baseline, as :func:`compare` pairs them.

    Args:
        groups: of runs or other weights.
        baseline: method, label or name of a group.
        match: how to match train losses, a name of :data:`MATCHING`; empty: not at all.
        loss: train loss of a member at a step.
        by_order: pair the i-th members of groups that have no seeds.

    Raises:
        InputError: an unknown baseline, or way to match; or to be paired by their order although
            their numbers differ.
    """
    if match not in ("", *MATCHING):
        raise InputError(f"match '{match}' should be one of {', '.join(MATCHING)}")
    chosen = [(group, _baseline_of(group, groups, baseline)) for group in groups]
    if baseline is None and all(base is group for group, base in chosen):
        chosen = [(group, groups[0]) for group in groups]  # one method only: the first group
    return [
        _pair(group, base, match, loss, by_order)
        for group, base in chosen
        if base is not None and base is not group
    ]


def _baseline_of(
    group: MemberGroup, groups: Sequence[MemberGroup], wanted: str | None
) -> MemberGroup | None:
    """The baseline that shares most settings with the group (batch size, data, …).

    ``None`` where the group's own condition has none: its runs may have failed there.
    """

    def named(name: str) -> list[MemberGroup]:
        return [g for g in groups if name in (*g.names, g.method)]

    default = named("sgd") or [g for g in groups if "sgd" in map(str.lower, g.names)] or groups[:1]
    found = list(default) if wanted is None else named(wanted)
    if not found:
        raise unknown("baseline", str(wanted), sorted({g.method or g.name for g in groups}))
    # an exact name or label beats a method that several groups share
    exact = [g for g in found if wanted in g.names] or found
    candidates = [g for g in exact if g.condition == group.condition]

    def distance(other: MemberGroup) -> tuple[int, bool]:
        a, b = group.settings, other.settings
        unequal = {key for key in a.keys() & b.keys() if a[key] != b[key]}
        return len(unequal - {"epochs"}), "epochs" in unequal

    return min(candidates, key=distance, default=None)


def _members(
    group: MemberGroup, baseline: MemberGroup, by_order: bool
) -> tuple[bool, tuple[list[Member], list[Member]]]:
    """Whether two groups are compared in pairs, and the members of both that are compared."""
    a, b = group.members, baseline.members
    if group.seeded and baseline.seeded:
        seeds = [seed for seed in a if seed in b]
        if seeds and not len(seeds) < 2 <= min(len(a), len(b)):
            return True, ([a[seed] for seed in seeds], [b[seed] for seed in seeds])
        by_order = False
    if by_order and len(a) != len(b):
        raise InputError(
            f"--paired needs as many of {group.name} as of {baseline.name}, but there are {len(a)}"
            f" and {len(b)}: leave out --paired, or the files without a partner"
        )
    return by_order, (list(a.values()), list(b.values()))


def _pair(
    group: MemberGroup, baseline: MemberGroup, match: str, loss: TrainLoss, by_order: bool
) -> Pair:
    paired, sides = _members(group, baseline, by_order)
    final = tuple([loss(member, None) for member in side] for side in sides)
    checkpoints = [
        [
            _matched(MemberCheckpoint(member), own, goal, match, loss)
            for member, own, goal in zip(*side, strict=True)
        ]
        for side in zip(sides, final, _goals(final, match, paired), strict=True)
    ]
    losses = [
        [loss(c.member, c.step) if c.target is None else c.target for c in side]
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
    final: MemberCheckpoint, own: float, goal: float, match: str, loss: TrainLoss
) -> MemberCheckpoint:
    """The checkpoint of a member at the goal, where its final train loss is lower."""
    if own >= goal or math.isnan(own + goal):
        return final
    if match == "temperature":
        return final._replace(target=goal)
    return final._replace(step=_nearest(final.member, goal, loss))


def _nearest(member: Member, goal: float, loss: TrainLoss) -> int:
    return min(member.saved_steps(), key=lambda step: abs(loss(member, step) - goal))
