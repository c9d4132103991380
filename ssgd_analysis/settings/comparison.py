"""The settings of a comparison, as ``compare`` takes them on the command line and in Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ssgd_analysis.settings.setting import Settings, setting

MATCHING = ("checkpoints", "temperature")


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(Settings):
    """What is compared with what; see each field's declaration.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.

    Example:
        >>> ComparisonSettings(match_by="temperature").matching
        'temperature'
        >>> ComparisonSettings(match_loss=True).matching
        'checkpoints'
    """

    metrics: list[str] = setting(
        list,
        "A flatness metric, with its settings if they are not the default ones, as in"
        " expected:sigma=0.2,law=binary; a name of the history; or all, for every flatness metric"
        " (default: test_accuracy, train_loss, lambda_max, trace, expected, adaptive_worst).",
        option="metric",
    )
    baseline: str | None = setting(None, "Method or group to compare with (default: sgd).")
    loss_tolerance: float = setting(
        0.1, "Largest relative difference of train losses that is still comparable.", minimum=0
    )
    match_loss: bool = setting(False, "Compare at equal train loss.")
    match_by: str | None = setting(
        None,
        "How equal train loss is reached: by a choice among the saved checkpoints, or by a"
        " temperature that divides the logits and is fitted on the train split; implies"
        " --match-loss (default: checkpoints).",
        choices=MATCHING,
    )
    correlate: bool = setting(
        False,
        "Also compute the rank correlation of every metric with test error and generalisation gap.",
    )

    @property
    def matching(self) -> str:
        """How train losses are matched, a name of :data:`MATCHING`; empty: they are not."""
        return self.match_by or ("checkpoints" if self.match_loss else "")


@dataclass(frozen=True, kw_only=True)
class VerdictRule(Settings):
    """When one method is called flatter than another; see each field's declaration.

    Raises:
        InputError: a value that is out of range.

    Example:
        >>> VerdictRule(margin=0.2).level
        0.05
    """

    OPTIONS: ClassVar[bool] = False  # studies read it from a file

    level: float = setting(
        0.05,
        "Level of all tests that count, together, by Holm's correction; set in Python only.",
        above=0,
        below=1,
        option="",
    )
    margin: float = setting(
        0.1, "Smallest difference that matters, relative to the baseline's mean.", above=0
    )
    power: float = setting(
        0.8,
        "Power with which the number of seeds is planned; set in Python only.",
        above=0,
        below=1,
        option="",
    )


@dataclass(frozen=True, kw_only=True)
class MeasurementSettings(Settings):
    """How the metrics of a run are measured; see each field's declaration.

    Args:
        data_dir: folder of data files.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.

    Example:
        >>> MeasurementSettings(samples=100).split
        'train'
    """

    split: str = setting("train", "Examples to measure on.", choices=("train", "test"))
    samples: int | None = setting(
        None, "Measure on the first N examples only (default: all).", minimum=1
    )
    normalize_logits: bool = setting(
        False,
        "Scale the logits of each example to standard deviation one over the classes, so that"
        " their size has no effect.",
    )
    seed: int = setting(
        0,
        "Is added to the run's own seed, so that runs of one seed share their random numbers,"
        " whatever their method, and other seeds have independent ones.",
        minimum=0,
    )
    device: str = setting("cpu", "cpu, cuda or cuda:N.")
    data_dir: Path | None = None
