"""What a study is: arms × settings × seeds at one budget, and the question that it answers."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssgd_analysis.methods import find_method
from ssgd_analysis.runs import TrainConfig
from ssgd_analysis.studies.budget import epochs_within
from ssgd_analysis.studies.search import Range, Tuning

TRAIN_FIELDS = {each.name for each in dataclasses.fields(TrainConfig)} - {
    "seed",
    "device",
    "data_dir",
    "label",
    "settings",
    "method",
}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        label: its name in tables and pictures.
        method: a name that ``find_method`` knows.
        settings: the method's own hyper-parameters.
        overrides: fields of :class:`TrainConfig` that differ for this arm.
        search: what is tuned for this arm besides what is tuned for all: name → range.

    Example:
        >>> Arm("S-SGD", "s-sgd", {"noise_scale": 0.2}, {}).has("noise_scale")
        True
    """

    label: str
    method: str
    settings: dict[str, Any]
    overrides: dict[str, Any]
    search: dict[str, Range] = field(default_factory=dict)

    def has(self, setting: str) -> bool:
        """Whether the method has a setting of this name."""
        return setting in {
            each.name for each in dataclasses.fields(find_method(self.method).Settings)
        }


@dataclass(frozen=True)
class Setting:
    """One condition under which all arms are compared, e.g. a batch size.

    Args:
        name: in tables and pictures.
        overrides: fields of :class:`TrainConfig`.
        budget: instead of the study's.
        settings: of the methods that have them.
        arms: label → fields that differ for one arm here; ``set`` holds the method's settings.
    """

    name: str
    overrides: dict[str, Any]
    budget: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A grid of runs and how they are judged.

    Args:
        name: of the study.
        summary: one line.
        question: a name of ``QUESTIONS``: how the answer is composed.
        focus: label of the arm that the question is about; every other arm is compared to it.
        against: label of the rival that the question names first.
        axis: what a trend or a strength goes along: a field of :class:`TrainConfig` or a setting.
        metrics: measured at the final weights of every run; flatness metrics are tested.
        seeds: repeats; the same for all arms, which are compared seed by seed.
        budget: forward-backward passes of a run, in epochs' worth of a one-pass method; ``None``:
            every arm trains its ``epochs``, whatever they cost.
        tuning: how learning rates and strengths are chosen; ``None``: they are given.
        loss_tolerance: relative difference of train losses that is still comparable.
        margin: smallest difference of a flatness metric that matters, relative to the focus's mean.
        matched: compare flatness at matched train loss too.
        landscape_points: of each axis of the pictures; 0: none.
        landscape_span: the pictures go from −span to span, in fractions of filter norm.
        landscape_directions: random directions of the band.
        variance_scales: noise scales at which the gradient-noise variance of the arms is measured.
        variance_draws: gradients for each variance.
        train: fields of :class:`TrainConfig` common to all runs.
        settings: conditions.
        arms: ways to train.
        scale: ``full``, or ``tiny``: a stand-in that proves the file and nothing else.
    """

    name: str
    summary: str
    question: str
    focus: str
    against: str
    axis: str
    metrics: list[str]
    seeds: list[int]
    budget: float | None
    tuning: Tuning | None
    loss_tolerance: float
    margin: float
    matched: bool
    landscape_points: int
    landscape_span: float
    landscape_directions: int
    variance_scales: list[float]
    variance_draws: int
    train: dict[str, Any]
    settings: list[Setting]
    arms: list[Arm]
    scale: str = "full"

    def config(
        self,
        setting: Setting,
        arm: Arm,
        seed: int,
        *,
        device: str = "cpu",
        data_dir: Path | None = None,
        chosen: dict[str, Any] | None = None,
        share: float = 1.0,
        **fields: Any,
    ) -> TrainConfig:
        """The settings of one run.

        Args:
            setting: the condition.
            arm: the way to train.
            seed: of the run.
            device: for training.
            data_dir: for data files.
            chosen: tuned values by name: fields of :class:`TrainConfig` or of the method.
            share: of the budget.
            fields: of :class:`TrainConfig`, over all others.

        Raises:
            InputError: a field that is out of range.
        """
        own, chosen = dict(setting.arms.get(arm.label, {})), chosen or {}
        settings = {
            **arm.settings,
            **{name: value for name, value in setting.settings.items() if arm.has(name)},
            **own.pop("set", {}),
            **{name: value for name, value in chosen.items() if name not in TRAIN_FIELDS},
        }
        merged = {
            **self.train,
            **setting.overrides,
            **arm.overrides,
            **own,
            **{name: value for name, value in chosen.items() if name in TRAIN_FIELDS},
            **fields,
        }
        budget = self.budget if setting.budget is None else setting.budget
        if budget is not None:
            epochs = epochs_within(budget * share, arm.method, settings)
            merged["warmup"] = merged.get("warmup", 0.0) * epochs / budget
            merged["epochs"] = epochs
        return TrainConfig(
            method=arm.method,
            settings=settings,
            seed=seed,
            device=device,
            data_dir=None if data_dir is None else str(data_dir),
            label=arm.label,
            **merged,
        )

    def search(self, arm: Arm) -> dict[str, Range]:
        """What is tuned for an arm: the common quantities first."""
        return {**self.tuning.search, **arm.search} if self.tuning else {}

    def along(self, setting: Setting, arm: Arm) -> float | None:
        """Where on the axis an arm in a setting lies; ``None``: nowhere."""
        config = self.config(setting, arm, self.seeds[0])
        value = config.settings.get(self.axis, getattr(config, self.axis, None))
        return None if value is None or isinstance(value, str) else float(value)


def group_name(label: str, setting: str) -> str:
    """The name of an arm's runs in a setting."""
    return f"{label}, {setting}" if setting else label
