"""What a study is: arms × settings × seeds, read from TOML."""

import dataclasses
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ssgd_analysis.compare import Rule
from ssgd_analysis.compare.measurements import check_metric
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.training import TrainConfig

TRAIN_FIELDS = {field.name for field in dataclasses.fields(TrainConfig)} - {
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
        method: a name of ``METHODS``.
        settings: the method's own hyper-parameters.
        epochs_factor: multiplies the epochs: 2 for a one-pass method at the cost of two passes.
        overrides: fields of :class:`TrainConfig` that differ for this arm.
    """

    label: str
    method: str
    settings: dict[str, Any]
    epochs_factor: int
    overrides: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One condition under which all arms are compared, e.g. a batch size.

    Args:
        name: in tables and pictures.
        overrides: fields of :class:`TrainConfig`.
        arms: label → fields that differ for one arm here; ``set`` holds the method's settings.
    """

    name: str
    overrides: dict[str, Any]
    arms: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A grid of runs and how they are judged.

    Args:
        name: of the study.
        summary: one line.
        focus: label of the arm that the question is about; every other arm is compared to it.
        metrics: measured at the final weights of every run; flatness metrics are tested.
        seeds: repeats.
        loss_tolerance: relative difference of train losses that is still comparable.
        margin: smallest difference of a flatness metric that matters, relative to the focus's mean.
        landscape_points: of each axis of the pictures; 0: none.
        landscape_span: the pictures go from −span to span, in fractions of filter norm.
        landscape_directions: random directions of the band.
        train: fields of :class:`TrainConfig` common to all runs.
        settings: conditions.
        arms: ways to train.
    """

    name: str
    summary: str
    focus: str
    metrics: list[str]
    seeds: list[int]
    loss_tolerance: float
    margin: float
    landscape_points: int
    landscape_span: float
    landscape_directions: int
    train: dict[str, Any]
    settings: list[Setting]
    arms: list[Arm]

    def config(
        self, setting: Setting, arm: Arm, seed: int, *, device: str, data_dir: Path | None
    ) -> TrainConfig:
        """The settings of one run.

        Raises:
            InputError: a field that is out of range.
        """
        own = dict(setting.arms.get(arm.label, {}))
        chosen = {**arm.settings, **own.pop("set", {})}
        fields = {**self.train, **setting.overrides, **arm.overrides, **own}
        fields["epochs"] = fields.get("epochs", TrainConfig.epochs) * arm.epochs_factor
        return TrainConfig(
            method=arm.method,
            settings=chosen,
            seed=seed,
            device=device,
            data_dir=None if data_dir is None else str(data_dir),
            label=arm.label,
            **fields,
        )


def load_study(name: str) -> Study:
    """A study by name, or from a TOML file.

    Raises:
        InputError: an unknown name or key, a file that is not TOML, or a value that is unfit.
    """
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror}") from error
        return _parse(Path(name).stem, text)
    embedded = _embedded()
    if name not in embedded:
        raise unknown("study", name, embedded)
    return _parse(name, embedded[name])


def list_studies() -> list[dict[str, Any]]:
    """Name and summary of the embedded studies."""
    return [
        {"name": name, "summary": _parse(name, text).summary} for name, text in _embedded().items()
    ]


def _embedded() -> dict[str, str]:
    folder = resources.files("ssgd_analysis.studies")
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(".toml")
    }


def _parse(name: str, text: str) -> Study:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"study '{name}' is not TOML: {error}") from error
    try:
        study = _study(name, table)
        _check(study)
    except (TypeError, AttributeError) as error:
        raise InputError(f"study '{name}': a value has the wrong type: {error}") from error
    return study


def _study(name: str, table: dict[str, Any]) -> Study:
    _known(
        table,
        {field.name for field in dataclasses.fields(Study)} - {"name", "settings", "arms"}
        | {"setting", "arm"},
        "key",
    )
    train = dict(table.get("train", {}))
    _known(train, TRAIN_FIELDS, "key of [train]")
    settings = []
    for entry in table.get("setting", [{"name": ""}]):
        entry = dict(entry)
        label, own = entry.pop("name", ""), dict(entry.pop("arm", {}))
        _known(entry, TRAIN_FIELDS, "key of [[setting]]")
        for fields in own.values():
            _known(fields, TRAIN_FIELDS | {"set"}, "key of [setting.arm]")
        settings.append(Setting(label, entry, own))
    arms = []
    for entry in table.get("arm", []):
        entry = dict(entry)
        method, chosen = entry.pop("method", ""), dict(entry.pop("set", {}))
        label = entry.pop("label", method)
        factor = _whole("epochs_factor", entry.pop("epochs_factor", 1))
        _known(entry, TRAIN_FIELDS, "key of [[arm]]")
        arms.append(Arm(label, method, chosen, factor, entry))
    if not arms:
        raise InputError(f"study '{name}' has no [[arm]]")
    return Study(
        name=name,
        summary=str(table.get("summary", "")),
        focus=str(table.get("focus", arms[0].label)),
        metrics=list(table.get("metrics", ["test_accuracy", "train_loss", "lambda_max"])),
        seeds=[_whole("seeds", seed) for seed in table.get("seeds", [0, 1, 2])],
        loss_tolerance=float(table.get("loss_tolerance", 0.1)),
        margin=float(table.get("margin", 0.1)),
        landscape_points=int(table.get("landscape_points", 0)),
        landscape_span=float(table.get("landscape_span", 1.0)),
        landscape_directions=int(table.get("landscape_directions", 5)),
        train=train,
        settings=settings,
        arms=arms,
    )


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name}: {value!r} should be a whole number")
    return value


def _known(table: dict[str, Any], names: Iterable[str], kind: str) -> None:
    for key in table:
        if key not in names:
            raise unknown(kind, key, sorted(names))


def _check(study: Study) -> None:
    labels = [arm.label for arm in study.arms]
    for kind, values in (("arm", labels), ("setting", [s.name for s in study.settings])):
        if len(set(values)) < len(values):
            raise InputError(f"study '{study.name}': two {kind}s have the same name")
    for setting in study.settings:
        _known(setting.arms, labels, "arm of [setting.arm]")
    if study.focus not in labels:
        raise unknown("focus", study.focus, labels)
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise InputError(f"study '{study.name}': seeds should be a list of distinct numbers")
    for metric in study.metrics:
        check_metric(metric)
    Rule(margin=study.margin)
    for setting in study.settings:
        for arm in study.arms:
            study.config(setting, arm, study.seeds[0], device="cpu", data_dir=None)
