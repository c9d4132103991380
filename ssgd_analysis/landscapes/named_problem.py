"""One checkpoint to draw: a problem with a name, and what some settings need besides."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssgd_analysis import batch as batching
from ssgd_analysis.landscapes.directions import Vector
from ssgd_analysis.problem import Batch, Problem
from ssgd_analysis.problem.recalibration import recalibration
from ssgd_analysis.settings.landscape import LandscapeSettings
from ssgd_analysis.weights import borrowed_buffers, borrowed_state


@dataclass(frozen=True)
class NamedProblem:
    """One checkpoint to draw.

    Args:
        name: for the legend.
        problem: at its weights.
        calibration: batches for ``bn="recalibrate"``; default: the problem's own.
        path: weights and buffers by name of its run's checkpoints, by step, for ``trajectory``.
        code: text that changes with the code of model and loss: stored points of other code do
            not count.
        test: the same model's problem on the test split, if that is shown, too.
        vectors: a user's own directions.
    """

    name: str
    problem: Problem
    calibration: Sequence[Batch] = ()
    path: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    code: str = ""
    test: Problem | None = None
    vectors: Sequence[Vector] = ()

    @property
    def problems(self) -> list[Problem]:
        """The problems of the splits that are shown, the main one first."""
        return [self.problem] if self.test is None else [self.problem, self.test]

    def values(self, *, recalibrate: bool = False) -> dict[str, float]:
        """Loss and accuracy (NaN: none) of each split at the present weights, by name.

        Args:
            recalibrate: with BatchNorm's statistics estimated anew.
        """
        found = {}
        with borrowed_buffers(self.problem.model):
            if recalibrate:
                recalibration(self.problem, self.calibration)()
            for prefix, problem in zip(("", "test_"), self.problems, strict=False):
                loss, accuracy = problem.evaluate()
                found[f"{prefix}loss"] = loss
                found[f"{prefix}accuracy"] = float("nan") if accuracy is None else accuracy
        return found


@contextmanager
def at_weights(problem: Problem, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model at other weights and buffers, by name, inside; its own come back after."""
    model = problem.model
    with borrowed_state(model), torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name in weights:
                tensor.copy_(weights[name])
        yield


def landscape_fingerprint(named: Sequence[NamedProblem], settings: LandscapeSettings) -> str:
    """A hash of all that the points depend on: settings, weights, buffers, data, calibration."""
    digest = hashlib.blake2b(json.dumps(dataclasses.asdict(settings)).encode(), digest_size=16)
    for each in named:
        for problem in each.problems:
            digest.update(f"{each.code} {problem.fingerprint()}".encode())
        for tensor in _further_tensors(each, settings):
            digest.update(
                tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            )
    return digest.hexdigest()


def _further_tensors(named: NamedProblem, settings: LandscapeSettings) -> list[Tensor]:
    """What the settings make the points depend on, besides model and data."""
    found: list[Tensor] = []
    if settings.bn == "recalibrate":
        found += [tensor for batch in named.calibration for tensor in batching.tensors(batch)]
    if settings.directions == "trajectory":
        found += [tensor for weights in named.path.values() for tensor in weights.values()]
    if settings.directions == "vectors":
        for vector in named.vectors:
            found += [vector] if isinstance(vector, Tensor) else list(vector.values())
    return found
