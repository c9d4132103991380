"""The picture of a tracked run from its lines and its settings alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssgd_analysis.plots import save_figure, tracking_figure


def tracking_pictures(
    records: Sequence[Mapping[str, Any]], config: Mapping[str, Any], stem: Path
) -> list[Path]:
    """Draw what was tracked, with the stability limit of the run's momentum.

    Args:
        records: the lines of ``tracking.jsonl``.
        config: as in ``config.json``.
        stem: path of the picture without the ending.

    Returns:
        Paths (PNG, PDF).

    Raises:
        WorkError: the disk is full or the folder not writable.
    """
    name = limit_name(config["momentum"], config["nesterov"])
    return save_figure(tracking_figure(records, limit_name=name), stem)


def limit_name(momentum: float | None, nesterov: bool) -> str:
    """How :func:`ssgd_analysis.training.track.stability_limit` reads, weight decay left out."""
    if not momentum:
        return "2/lr"
    return f"2(1 + {momentum:g})/lr" + f"/(1 + 2·{momentum:g})" * nesterov
