"""Equal cost: what a budget of forward-backward passes buys each method, and what it spent."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.methods import find_method, make_settings


def epochs_within(budget: float, method: str, settings: Mapping[str, Any]) -> int:
    """Epochs of a method that cost what ``budget`` epochs of a one-pass method cost.

    A step of ``m`` minibatches that costs ``p`` passes over a minibatch makes an epoch cost
    ``p / m`` epochs of one pass. Epochs are whole, at least one.

    Args:
        budget: epochs' worth of one-pass steps.
        method: a name that ``find_method`` knows.
        settings: the method's own; what they cost may depend on them.
    """
    entry = find_method(method)
    made = make_settings(method, entry, settings)
    return max(1, round(budget * entry.minibatches(made) / entry.passes_per_step(made)))


def spending(spent: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """What each arm spent in each setting, and by how much it deviates.

    Args:
        spent: setting → arm → forward-backward passes, in examples, of each run.

    Returns:
        Rows ``setting``, ``arm``, ``passes`` (mean, in examples), ``deviation`` from the setting's
        median arm, relative.
    """
    rows = []
    for setting, arms in spent.items():
        means = {arm: sum(runs) / len(runs) for arm, runs in arms.items() if runs}
        ordered = sorted(means.values())
        middle = ordered[len(ordered) // 2] if ordered else 0.0
        rows += [
            {
                "setting": setting,
                "arm": arm,
                "passes": mean,
                "deviation": mean / middle - 1 if middle else 0.0,
            }
            for arm, mean in means.items()
        ]
    return rows
