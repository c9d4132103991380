"""Studies by name or from TOML files, checked as they are read."""

import copy
import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ssgd_analysis.comparison import VerdictRule
from ssgd_analysis.comparison.metric_kinds import check_metric
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.settings.study import STUDY_SCALES
from ssgd_analysis.studies.cells import slug
from ssgd_analysis.studies.questions import QUESTIONS
from ssgd_analysis.studies.search import Range, Tuning
from ssgd_analysis.studies.spec import TRAIN_FIELDS, Arm, Setting, Study

# What --scale tiny does to a study, unless its own [tiny] says otherwise.
TINY_SCALE = {
    "seeds": [0, 1],
    "budget": 2,
    "metrics": ["test_accuracy", "test_loss", "train_loss", "gradients"],
    "landscape_points": 0,
    "variance_draws": 8,
    "tuning": {"trials": 2, "seeds": [1000]},
}


def load_study(name: str, scale: str = "full") -> Study:
    """A study by name, or from a TOML file.

    Args:
        name: of an embedded study, or a path that ends in ``.toml``.
        scale: ``full``, or ``tiny``: with what the study's table ``[tiny]`` changes.

    Raises:
        InputError: an unknown name or key, a file that is not TOML, or a value that is unfit.

    Example:
        >>> [arm.label for arm in load_study("digits").arms][:2]
        ['SGD', 'EMA']
    """
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror}") from error
        return _parse(Path(name).stem, text, scale)
    embedded = _embedded()
    if name not in embedded:
        raise unknown("study", name, embedded)
    return _parse(name, embedded[name], scale)


def list_studies() -> list[dict[str, Any]]:
    """Name and summary of the embedded studies.

    Example:
        >>> "digits" in [study["name"] for study in list_studies()]
        True
    """
    return [
        {"name": name, "summary": _parse(name, text, "full").summary}
        for name, text in _embedded().items()
    ]


def describe_study(study: Study) -> str:
    """Question, arms, settings, seeds and budget of a study, one line each.

    Example:
        >>> print(describe_study(load_study("symmetry")).splitlines()[0])
        question: symmetry, of symmetric against two independent
    """
    data = study.train.get("data", "set by the settings")
    budget = "as the arms say" if study.budget is None else f"{study.budget:g} epochs of one pass"
    lines = {
        "question": f"{study.question}, of {study.focus} against {study.against}",
        "arms": ", ".join(f"{arm.label} ({arm.method})" for arm in study.arms),
        "settings": ", ".join(filter(None, (setting.name for setting in study.settings))) or "one",
        "data and model": f"{data}, {study.train.get('model', 'set by the settings')}",
        "budget of a run": budget,
        "seeds": f"{len(study.seeds)}",
        "tuning": f"{study.tuning.trials} trials an arm" if study.tuning else "none",
        "metrics": ", ".join(study.metrics),
    }
    return "\n".join(f"{name}: {text}" for name, text in lines.items())


def _embedded() -> dict[str, str]:
    folder = resources.files("ssgd_analysis.studies")
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(".toml")
    }


def _parse(name: str, text: str, scale: str) -> Study:
    if scale not in STUDY_SCALES:
        raise unknown("scale", scale, STUDY_SCALES)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"study '{name}' is not TOML: {error}") from error
    try:
        tiny = table.pop("tiny", {})
        study = _study(name, _shrunk(table, tiny) if scale == "tiny" else table)
        study = dataclasses.replace(study, scale=scale)
        check_study(study)
    except (TypeError, AttributeError) as error:
        raise InputError(f"study '{name}': a value has the wrong type: {error}") from error
    return study


def _shrunk(table: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The table at the tiny scale: [tiny.train] holds in every setting and arm."""
    small = copy.deepcopy(dict(table))
    for key, value in {**TINY_SCALE, **own}.items():
        if key == "tuning":
            if key in small:
                small[key] |= {**TINY_SCALE["tuning"], **own.get(key, {})}  # type: ignore[dict-item]
        elif key == "train":
            small[key] = {**small.get(key, {}), **value}
            for entry in [*small.get("setting", []), *small.get("arm", [])]:
                for name in value:
                    entry.pop(name, None)
        else:
            small[key] = value
    for entry in small.get("setting", []):
        entry.pop("budget", None)
    return small


def _study(name: str, table: dict[str, Any]) -> Study:
    _check_keys(
        table,
        {field.name for field in dataclasses.fields(Study)} - {"name", "settings", "arms", "scale"}
        | {"setting", "arm"},
        "key",
    )
    train = dict(table.get("train", {}))
    _check_keys(train, TRAIN_FIELDS, "key of [train]")
    arms = [_arm(entry) for entry in table.get("arm", [])]
    if not arms:
        raise InputError(f"study '{name}' has no [[arm]]")
    focus = str(table.get("focus", arms[0].label))
    rivals = [arm.label for arm in arms if arm.label != focus]
    budget = table.get("budget")
    return Study(
        name=name,
        summary=str(table.get("summary", "")),
        question=str(table.get("question", "rivals")),
        focus=focus,
        against=str(table.get("against", rivals[0] if rivals else focus)),
        axis=str(table.get("axis", "")),
        metrics=list(table.get("metrics", ["test_accuracy", "train_loss", "lambda_max"])),
        seeds=[_whole("seeds", seed) for seed in table.get("seeds", [0, 1, 2])],
        budget=None if budget is None else float(budget),
        tuning=_tuning(table["tuning"]) if "tuning" in table else None,
        loss_tolerance=float(table.get("loss_tolerance", 0.1)),
        margin=float(table.get("margin", 0.1)),
        matched=bool(table.get("matched", True)),
        landscape_points=int(table.get("landscape_points", 0)),
        landscape_span=float(table.get("landscape_span", 1.0)),
        landscape_directions=int(table.get("landscape_directions", 5)),
        variance_scales=[float(scale) for scale in table.get("variance_scales", [])],
        variance_draws=_whole("variance_draws", table.get("variance_draws", 64)),
        train=train,
        settings=[_setting(entry) for entry in table.get("setting", [{"name": ""}])],
        arms=arms,
    )


def _setting(table: Mapping[str, Any]) -> Setting:
    entry = dict(table)
    label, own = entry.pop("name", ""), dict(entry.pop("arm", {}))
    budget, chosen = entry.pop("budget", None), dict(entry.pop("set", {}))
    _check_keys(entry, TRAIN_FIELDS, "key of [[setting]]")
    for fields in own.values():
        _check_keys(fields, TRAIN_FIELDS | {"set"}, "key of [setting.arm]")
    return Setting(label, entry, None if budget is None else float(budget), chosen, own)


def _arm(table: Mapping[str, Any]) -> Arm:
    entry = dict(table)
    method, chosen = entry.pop("method", ""), dict(entry.pop("set", {}))
    label, search = entry.pop("label", method), entry.pop("search", {})
    _check_keys(entry, TRAIN_FIELDS, "key of [[arm]]")
    return Arm(label, method, chosen, entry, _ranges(search))


def _tuning(table: Mapping[str, Any]) -> Tuning:
    _check_keys(table, [field.name for field in dataclasses.fields(Tuning)], "key of [tuning]")
    return Tuning(
        trials=_whole("trials", table.get("trials", 8)),
        seeds=[_whole("seeds", seed) for seed in table.get("seeds", [1000])],
        val=float(table.get("val", 0.2)),
        sampler=str(table.get("sampler", "sobol")),
        seed=_whole("seed", table.get("seed", 0)),
        search=_ranges(table.get("search", {})),
        share=float(table.get("share", 1.0)),
    )


def _ranges(table: Mapping[str, Any]) -> dict[str, Range]:
    """Ranges as ``[low, high]`` or ``[low, high, "log"]``."""
    found = {}
    for name, ends in table.items():
        wrong = len(ends) not in (2, 3) or (len(ends) == 3 and ends[2] != "log")
        if isinstance(ends, str) or wrong:
            raise InputError(f'{name} = {ends} should be [low, high] or [low, high, "log"]')
        found[name] = Range(float(ends[0]), float(ends[1]), len(ends) == 3)
    return found


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name}: {value!r} should be a whole number")
    return value


def _check_keys(table: Mapping[str, Any], names: Iterable[str], kind: str) -> None:
    names = set(names)
    for key in table:
        if key not in names:
            raise unknown(kind, key, sorted(names))


def check_study(study: Study) -> None:
    """Refuse what would fail later.

    Raises:
        InputError: a name that is used twice or not known, or a value that is unfit.
    """
    labels = [arm.label for arm in study.arms]
    for kind, values in (("arm", labels), ("setting", [s.name for s in study.settings])):
        _distinct(study.name, kind, values)
    for setting in study.settings:
        _check_keys(setting.arms, labels, "arm of [setting.arm]")
        for name in setting.settings:
            if not any(arm.has(name) for arm in study.arms):
                raise InputError(f"[[setting]] set: no arm has a setting '{name}'")
    if study.question not in QUESTIONS:
        raise unknown("question", study.question, QUESTIONS)
    for name in ("focus", "against"):
        if getattr(study, name) not in labels:
            raise unknown(name, getattr(study, name), labels)
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        raise InputError(f"study '{study.name}': seeds should be a list of distinct numbers")
    if study.tuning and set(study.seeds) & set(study.tuning.seeds):
        raise InputError(f"study '{study.name}': a seed is used for tuning and for the final runs")
    budgets = [study.budget, *(setting.budget for setting in study.settings)]
    if any(budget is not None and not budget > 0 for budget in budgets):
        raise InputError(f"study '{study.name}': a budget should be above 0")
    for metric in study.metrics:
        check_metric(metric)
    VerdictRule(margin=study.margin)
    for setting in study.settings:
        for arm in study.arms:
            middle = {name: range_.at(0.5) for name, range_ in study.search(arm).items()}
            study.config(setting, arm, study.seeds[0], chosen=middle)
    QUESTIONS[study.question].check(study)


def _distinct(study: str, kind: str, names: Sequence[str]) -> None:
    """Refuse names that are the same, or would be the same folder."""
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(slug(name), name)
        if other != name or names.count(name) > 1:
            both = "" if other == name else f": '{other}' and '{name}' are both '{slug(name)}'"
            raise InputError(f"study '{study}': two {kind}s have the same name{both}")
