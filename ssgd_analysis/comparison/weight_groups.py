"""Groups of weights that anyone trained: under each label files, state dicts or models."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssgd_analysis.comparison.groups import PROBLEM, Group, find_runs, group_runs
from ssgd_analysis.comparison.members import MemberGroup
from ssgd_analysis.comparison.networks import network_differences
from ssgd_analysis.comparison.trained_with import TrainedWith, read_trained_with
from ssgd_analysis.comparison.weight_members import (
    FileMember,
    ModelMember,
    WeightMember,
    WeightReferences,
    loss_name,
)
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem
from ssgd_analysis.progress import SILENT, Progress
from ssgd_analysis.references import absolute
from ssgd_analysis.runs import Run
from ssgd_analysis.runs.fitting import load_weights
from ssgd_analysis.runs.weight_files import has_weights, read_weight_file
from ssgd_analysis.settings.comparison import MeasurementSettings

Weights = str | Path | nn.Module | Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightGroup:
    """Weights that repeat one training, from anyone's script.

    Args:
        name: the label.
        members: by their place in the given order.
        problem: what fixes the loss as a function of the weights.
        training: what they were trained with; ``None``: it is not known.
        notes: what was assumed.
    """

    name: str
    members: Mapping[int, WeightMember]
    problem: Mapping[str, Any]
    training: TrainedWith | None = None
    notes: tuple[str, ...] = ()
    condition: str = field(default="", init=False)
    seeded = False

    @property
    def names(self) -> tuple[str, ...]:
        """The label."""
        return (self.name,)

    @property
    def method(self) -> str:
        """The name of the method; empty: it is not known."""
        return self.training.method if self.training else ""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Only what belongs to the problem is known."""
        return self.problem

    @property
    def remarks(self) -> list[str]:
        """What was assumed, also in reading the files."""
        members = self.members.values()
        read = [f"{one.name}: {note}" for one in members for note in one.evaluation.notes]
        return [*self.notes, *read]


def weight_groups(
    groups: Mapping[str, Weights | Sequence[Weights]],
    *,
    problem: Problem | None = None,
    test: Problem | None = None,
    model: str | None = None,
    data: str | None = None,
    loss: str | None = None,
    count: str | None = None,
    weights: str | None = None,
    stream: bool | None = None,
    trained_with: Mapping[str, str] | None = None,
    settings: MeasurementSettings | None = None,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> list[MemberGroup]:
    """Groups for :func:`compare` out of weights of any origin; all are opened and evaluated once.

    Every loss, accuracy and norm is measured. Groups that consist of runs alone are groups of runs
    where neither a problem nor a model is given.

    Args:
        groups: label → weights: files, runs (their final weights), state dicts or models.
        problem: a model, the loss and the training examples. Every model is measured on this loss
            and these examples; files and state dicts are loaded into copies of this model.
        test: the same on the test examples; without it there is no test loss.
        model: name or reference of the model of all files.
        data: the same of the data.
        loss: the same of the loss; default: cross-entropy, which the comparison then says.
        count: reference of a function that counts the examples of a batch.
        weights: key of the weights in files that hold several sets, e.g. ``state_dict_ema``.
        stream: read the data of files at every pass, instead of holding it.
        trained_with: label → method with its settings, such as ``sam:rho=0.05``; a metric that
            measures what the method trained on does not count.
        settings: device and folder of data files.
        folder: where measurements of files are stored; ``None``: nowhere.
        progress: is advanced with every one.

    Raises:
        InputError: weights that are not there, are given twice, do not fit the model or give no
            finite loss; neither a problem nor model and data; a label or a method in
            ``trained_with`` that there is not.

    Example:
        >>> import torch
        >>> from torch.nn.functional import mse_loss
        >>> x, y = torch.randn(8, 2), torch.randn(8, 1)
        >>> one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> problem = Problem(one, mse_loss, [(x, y)])
        >>> found = weight_groups({"A": one, "B": [other.state_dict()]}, problem=problem)
        >>> [(group.name, len(group.members)) for group in found]
        [('A', 1), ('B', 1)]
    """
    given = {label: _listed(label, group) for label, group in groups.items()}
    trainings = read_trained_with(trained_with or {}, list(given))
    _refuse_repeats(given)
    if problem is not None:
        made = _in_memory(given, problem, test, weights, trainings)
    elif model is None and not trainings and all(map(_are_runs, given.values())):
        return [_runs(label, group) for label, group in given.items()]
    else:
        if model is None or data is None:
            needs = "--model" if model is None else "--data"
            raise InputError(
                f"weights need {needs}: give the reference of a function, such as"
                f" net.py:{'make' if model is None else 'load'}"
                + ("" if model or data else " (and --data, net.py:load)")
            )
        belongs = WeightReferences(
            model=model,
            data=data,
            loss=loss or "cross_entropy",
            count=count,
            weights=weights,
            stream=stream,
            settings=settings or MeasurementSettings(),
        )
        assumed = (f"Without --loss, {belongs.loss} was assumed for the weights.",)
        made = _of_files(given, belongs, trainings, () if loss else assumed, folder)
    progress.start("evaluating", sum(len(group.members) for group in made))
    for group in made:
        for member in group.members.values():
            _ = member.evaluation
            progress.advance(1, member.name)
    _refuse_shapes([member for group in made for member in group.members.values()])
    return list(made)


def _refuse_shapes(members: Sequence[WeightMember]) -> None:
    """Refuse two architectures; one with folded BatchNorm layers is only not comparable."""
    first = members[0]
    for other in members[1:]:
        one, network = first.network(), other.network()
        if network.norms == one.norms and network.shapes != one.shapes:
            differ = network_differences([other.network], [first.network])
            raise InputError(
                f"{first.place} and {other.place} differ in {differ}: compare weights of one"
                " architecture"
            )


def _listed(label: str, weights: Weights | Sequence[Weights]) -> list[Weights]:
    single = isinstance(weights, str | Path | nn.Module | Mapping)
    found: list[Any] = [weights] if single else list(weights)  # type: ignore[arg-type]
    if not found:
        raise InputError(f"the group {label} is empty: give it weights, or leave it out")
    return found


def _refuse_repeats(given: Mapping[str, Sequence[Weights]]) -> None:
    """Refuse weights that are given twice, in one group or in two."""
    seen: dict[object, str] = {}
    for label, group in given.items():
        for number, one in enumerate(group, start=1):
            file = isinstance(one, str | Path)
            key = str(Path(one).resolve()) if isinstance(one, str | Path) else id(one)
            if key in seen:
                where = f"in {seen[key]} and in {label}" if seen[key] != label else f"in {label}"
                what = str(one) if file else f"weights number {number} of {label}"
                raise InputError(f"{what} is given twice ({where}): name it once")
            seen[key] = label


def _are_runs(weights: Sequence[Weights]) -> bool:
    paths = [Path(one) for one in weights if isinstance(one, str | Path)]
    return len(paths) == len(weights) and all(Run(path).exists for path in paths)


def _runs(label: str, weights: Sequence[Weights]) -> Group:
    """Runs under a label of the user's."""
    found = group_runs(find_runs([Path(str(one)) for one in weights])[0])
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise InputError(f"{label} holds runs of different settings ({names}): give them apart")
    return dataclasses.replace(found[0], name=label)


def _of_files(
    given: Mapping[str, Sequence[Weights]],
    belongs: WeightReferences,
    trainings: Mapping[str, TrainedWith],
    notes: tuple[str, ...],
    folder: Path | None,
) -> list[WeightGroup]:
    """Groups of files, whose model, data and loss are references."""
    unsaid = {"label_noise": 0.0, "val": 0.0, "train_samples": 0}
    own = {name: getattr(belongs, name, None) for name in PROBLEM}
    problem = {name: absolute(value) if value else value for name, value in own.items()} | unsaid
    made = []
    for label, group in given.items():
        members: dict[int, WeightMember] = {}
        for number, one in enumerate(group):
            if not isinstance(one, str | Path):
                raise InputError(
                    f"weights number {number + 1} of {label} are in memory: give problem="
                    "Problem(model, loss, batches)"
                )
            members[number] = FileMember(Path(one).name, str(one), number, belongs, folder)
        made.append(WeightGroup(label, members, problem, trainings.get(label), notes))
    return made


def _in_memory(
    given: Mapping[str, Sequence[Weights]],
    problem: Problem,
    test: Problem | None,
    key: str | None,
    trainings: Mapping[str, TrainedWith],
) -> list[WeightGroup]:
    """Groups whose loss and examples are those of a problem in memory."""
    same = {"loss": loss_name(problem.loss), "examples": problem.fingerprint()}
    return [
        WeightGroup(
            label,
            {
                number: ModelMember(*_named(label, number, one), number, model, problem, test)
                for number, (one, model) in enumerate(_models(group, problem.model, key))
            },
            same,
            trainings.get(label),
        )
        for label, group in given.items()
    ]


def _named(label: str, number: int, weights: Weights) -> tuple[str, str]:
    """The short and the long name of a member."""
    if isinstance(weights, str | Path):
        return Path(weights).name, str(weights)
    return f"{label} {number + 1}", f"{label} {number + 1}"


def _models(
    group: Sequence[Weights], like: nn.Module, key: str | None
) -> Iterator[tuple[Weights, Callable[[], nn.Module]]]:
    """All weights of a group, and a function that gives the model with them."""
    for one in group:
        if isinstance(one, nn.Module):
            yield one, _Given(one)
        else:
            yield one, _Filled(like, one, key)


@dataclass(frozen=True)
class _Given:
    """A model itself."""

    model: nn.Module

    def __call__(self) -> nn.Module:
        return self.model


@dataclass(frozen=True)
class _Filled:
    """A copy of a model with the weights of a state dict, a file or a run."""

    like: nn.Module
    weights: str | Path | Mapping[str, Tensor]
    key: str | None

    def __call__(self) -> nn.Module:
        made = copy.deepcopy(self.like)
        content, source = self._content()
        load_weights(made, content, source, weights=self.key)
        return made

    def _content(self) -> tuple[Any, Path | str]:
        """What holds the tensors, and where it is from."""
        if isinstance(self.weights, Mapping):
            return self.weights, "the state dict"
        path = Path(self.weights)
        if not path.exists():
            raise InputError(f"there is no file {path}")
        if path.is_dir() and not has_weights(path):
            file, tensors = Run(path).weights()
            return tensors, file
        return read_weight_file(path), path
