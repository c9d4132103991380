"""How metrics of several checkpoints differ, out of the records that `sharpness` writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssgd_analysis.flatness.losses import loss_gap, losses_apart
from ssgd_analysis.flatness.measurement import Measurement, difference, paired
from ssgd_analysis.settings.comparison import ComparisonSettings


def metric_differences(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every record's metrics minus those of the first, with the errors of the differences.

    All checkpoints meet the same examples and the same random draws, so that what is common to
    both cancels: the error of a difference is often far below those of the two values.

    Args:
        records: with ``checkpoint``, ``split``, ``loss`` and ``metrics``; fresh ones, or read back
            from JSON.

    Returns:
        For each but the first: ``checkpoint``, ``from``, ``losses`` (its own and that of the
        first), ``loss_gap``, ``caveat`` (as ``compare`` says it, where the gap is larger than its
        tolerance; else empty), and ``metrics``: name → ``difference``, ``stderr``, and ``paired``:
        whether the error is that of pairs. A value that was not finite has no difference.
    """
    first, *others = records
    return [
        {
            "checkpoint": other["checkpoint"],
            "from": first["checkpoint"],
            **_losses(other, first),
            "metrics": {
                name: _difference(found, first["metrics"][name])
                for name, found in other["metrics"].items()
                if name in first["metrics"]
            },
        }
        for other in others
    ]


def _losses(one: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Both losses, and what their difference means for that of the metrics."""
    a, b = one["loss"], first["loss"]
    gap, tolerance = loss_gap(a, b), ComparisonSettings().loss_tolerance
    near = gap <= tolerance
    caveat = "" if near else losses_apart(a, b, tolerance, split=one["split"] or "train")
    return {"losses": [a, b], "loss_gap": gap, "caveat": caveat}


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    first, second = _measurement(one), _measurement(other)
    if first is None or second is None:
        return {"difference": None, "stderr": None, "paired": False}
    value, error = difference(first, second)
    return {"difference": value, "stderr": error, "paired": paired(first, second)}


def _measurement(entry: Mapping[str, Any]) -> Measurement | None:
    """What the record was made of; JSON has lists for tuples, and ``None`` for NaN."""
    if entry["value"] is None:
        return None
    samples, weights = entry.get("samples"), entry.get("weights")
    if samples is None or None in samples:
        return Measurement(entry["value"], entry["stderr"])
    pairs = tuple(samples), None if weights is None else tuple(weights)
    return Measurement(entry["value"], entry["stderr"], {}, *pairs)
