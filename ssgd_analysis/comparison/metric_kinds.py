"""Which metrics are measured, and which are read from a run's history."""

from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.flatness import METRICS, parse_metric

HISTORY_METRICS = (
    "test_accuracy",
    "train_accuracy",
    "test_loss",
    "train_loss",
    "val_accuracy",
    "val_loss",
    "weight_norm",
    "gradients",
)


def is_flatness(metric: str) -> bool:
    """Whether a metric, maybe with settings, is measured; else it is in the history."""
    return metric.partition(":")[0] in METRICS


def check_metric(name: str) -> None:
    """Refuse what is neither a flatness metric, maybe with settings, nor in the history.

    Raises:
        InputError: with the nearest name; or ``starts=0``, which searches each run as long as it
            happens to rise.
    """
    if name in HISTORY_METRICS:
        return
    if not is_flatness(name):
        raise unknown("metric", name, [*HISTORY_METRICS, *METRICS])
    _, settings = parse_metric(name)
    if settings.get("starts") == 0:
        raise InputError(
            f"metric {name}: a search that goes on until it stops rising favours some runs: give"
            " starts=N, as many for every run"
        )
