"""How groups of different train losses can be compared: only what is possible with these runs."""

from collections.abc import Sequence

from ssgd_analysis.comparison.exclusions import Obstacle
from ssgd_analysis.comparison.pairs import Pair


def advice(
    pairs: Sequence[Pair], obstacles: Sequence[Obstacle | None], *, normalized_logits: bool = False
) -> tuple[str, ...]:
    """A sentence for each way that brings some of the groups to one train loss.

    A way is named only where it can work: saved checkpoints need runs that have some, a
    temperature needs logits, and neither is named where it was just used.

    Args:
        pairs: groups with their baselines.
        obstacles: of each pair.
        normalized_logits: whether the logits were normalised, so that they have no scale.
    """
    ways: dict[str, list[str]] = {}
    apart = []
    for pair, found in zip(pairs, obstacles, strict=True):
        if found is not None and found.kind == "losses":
            name = f"{pair.group.name} vs {pair.baseline.name}"
            apart.append(name)
            for way in _ways(pair, normalized_logits):
                ways.setdefault(way, []).append(name)
    return tuple(
        f"{'Where train losses differ' if names == apart else f'To compare {_few(names)}'}, {way}."
        for way, names in ways.items()
    )


def _ways(pair: Pair, normalized_logits: bool) -> list[str]:
    ways = []
    if not pair.matched and _has_checkpoints(pair):
        ways.append(
            "add --match-loss (match_loss=True), which takes saved checkpoints of equal train loss"
        )
    if (
        pair.matched != "temperature"
        and not normalized_logits
        and pair.group.config.loss == "cross_entropy"
    ):
        ways.append(
            'add --match-by temperature (match_by="temperature"), which scales the logits to'
            " equal train loss"
        )
    return ways


def _has_checkpoints(pair: Pair) -> bool:
    """Whether every run of the side that fits better has a checkpoint besides the last."""
    a, b = pair.final_losses
    better = pair.sides[0 if a < b else 1]
    return all(len(checkpoint.run.checkpoints()) > 1 for checkpoint in better)


def _few(names: Sequence[str]) -> str:
    rest = len(names) - 2
    return f"{', '.join(names[:2])} and {rest} more" if rest > 0 else " and ".join(names)
