"""Which group is compared with which, and at which of their checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssgd_analysis.compare.groups import Group, differences
from ssgd_analysis.errors import unknown
from ssgd_analysis.training import Run


@dataclass(frozen=True)
class Pair:
    """One comparison: at which step of which run, for each seed.

    Args:
        group: what is judged.
        baseline: what it is judged against.
        steps: for each common seed, (run, step) of both; ``None`` is the final step. Empty
            where fewer than two seeds are common: then all runs count, unpaired.
        losses: mean train loss of both.
        loss_gap: mean over the pairs of |difference of the train losses| relative to the
            larger one, so that opposite gaps do not cancel.
    """

    group: Group
    baseline: Group
    steps: list[tuple[tuple[Run, int | None], tuple[Run, int | None]]]
    losses: tuple[float, float]
    loss_gap: float


def pairs_of(groups: Sequence[Group], baseline: str | None, match_loss: bool) -> list[Pair]:
    """Each group with its baseline, as :func:`compare` pairs them.

    Raises:
        InputError: an unknown baseline.
    """
    chosen = [(group, _baseline_of(group, groups, baseline)) for group in groups]
    if baseline is None and all(base is group for group, base in chosen):
        chosen = [(group, groups[0]) for group in groups]  # all of one method: the first is it
    return [
        _pair(group, base, match_loss)
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
    beside = [g for g in exact if g.condition == group.condition]

    def distance(other: Group) -> tuple[int, bool]:
        return differences(other.config, group.config), other.config.epochs != group.config.epochs

    return min(beside, key=distance, default=None)


def _pair(group: Group, baseline: Group, match_loss: bool) -> Pair:
    seeds = [seed for seed in group.runs if seed in baseline.runs]
    if len(seeds) < 2 <= min(len(group.runs), len(baseline.runs)) or not seeds:
        losses = [[_loss(run, None) for run in g.runs.values()] for g in (group, baseline)]
        a, b = (sum(side) / len(side) for side in losses)
        return Pair(group, baseline, [], (a, b), _gap(a, b))
    steps = []
    for seed in seeds:
        mine, other = group.runs[seed], baseline.runs[seed]
        steps.append(_matched(mine, other) if match_loss else ((mine, None), (other, None)))
    pairs = [(_loss(*mine), _loss(*other)) for mine, other in steps]
    a, b = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    gap = sum(_gap(*pair) for pair in pairs) / len(pairs)
    return Pair(group, baseline, steps, (a, b), gap)


def _gap(a: float, b: float) -> float:
    """|a − b| relative to the larger one."""
    return abs(a - b) / max(abs(a), abs(b), 1e-300)


def _matched(a: Run, b: Run) -> tuple[tuple[Run, int | None], tuple[Run, int | None]]:
    """Take the run that fits better back to the train loss that the other one ended with."""
    if _loss(a, None) >= _loss(b, None):
        return (a, None), (b, _nearest(b, _loss(a, None)))
    return (a, _nearest(a, _loss(b, None))), (b, None)


def _nearest(run: Run, loss: float) -> int:
    kept = run.checkpoints()
    records = [record for record in run.history() if record["step"] in kept]
    return min(records, key=lambda record: abs(record["train_loss"] - loss))["step"]


def _loss(run: Run, step: int | None) -> float:
    history = run.history()
    record = history[-1] if step is None else next(r for r in history if r["step"] == step)
    return float(record["train_loss"])
