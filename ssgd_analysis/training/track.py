"""Curvature measured while a run trains, without touching the training."""

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis import random_state, seeds
from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature import HessianOperator, eigenpairs, trace
from ssgd_analysis.curvature.third_order import symmetric_alignment
from ssgd_analysis.data import BatchedSplit, Split
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.files import jsonable
from ssgd_analysis.methods import MethodSettings, Passes, When
from ssgd_analysis.methods.s_sgd import SymmetricSGDSettings
from ssgd_analysis.methods.weight_noise import WeightNoiseSettings, scheduled
from ssgd_analysis.problem import Problem
from ssgd_analysis.weights import Noise, filters_of, included

BATCHES = 8  # at least, where the examples allow it, for the errors over examples
BATCH = 256  # examples at once, at most
TOL = 1e-3  # residual of the eigenpairs; with 1e-2 and a warm start, close ones were mistaken


def stability_limit(optimizer: torch.optim.Optimizer, rate: float) -> float | None:
    """The largest λ_max at which full-batch gradient descent is stable on a quadratic.

    Heavy-ball momentum β: 2(1 + β)/lr; Nesterov: 2(1 + β)/(lr (1 + 2β)). Weight decay d in the
    gradient adds d to every eigenvalue, so the loss's own may reach d less.

    Args:
        optimizer: its first parameter group counts.
        rate: learning rate.

    Returns:
        ``None`` for other optimizers than SGD: adaptive ones precondition the Hessian, so that
        no line in terms of the learning rate alone exists.

    Reference:
        Cohen et al. 2021, "Gradient descent on neural networks typically occurs at the edge of
        stability", arXiv 2103.00065, section 2 and appendix B.
    """
    if not isinstance(optimizer, torch.optim.SGD) or rate <= 0:
        return None
    group = optimizer.param_groups[0]
    momentum = group["momentum"]
    limit = 2 * (1 + momentum) / rate
    if group["nesterov"]:
        limit /= 1 + 2 * momentum
    return limit - group["weight_decay"]


def summary(records: list[dict[str, Any]], training: float) -> dict[str, Any]:
    """The number of measurements, their cost, and the last one.

    Args:
        records: of the whole run.
        training: seconds that the training itself took.
    """
    seconds = sum(record["seconds"] for record in records)
    return {
        "measurements": len(records),
        "products": sum(record["products"] for record in records),
        "seconds": round(seconds, 3),
        "share": seconds / max(seconds + training, 1e-9),
        "last": records[-1] if records else None,
    }


class Tracker:
    """Measures at some epochs, and keeps the records and what the next measurement starts from.

    Everything is measured on the first training examples of the run (its label noise included,
    no augmentation), in evaluation mode and without weight decay. Weights, buffers, modes,
    gradients and all random generators are as before, so that a tracked run trains exactly as an
    untracked one.

    Args:
        track: of the config, ``KIND:N`` texts.
        samples: the largest number of examples, the first of the split.
        examples: the training split on the model's device.
        train: the loss over all of it.
        passes: hold model, loss, optimizer and seed of the run.
        settings: of the method; its noise is that of the third-order check.
    """

    def __init__(
        self,
        track: Sequence[str],
        samples: int,
        examples: Split | BatchedSplit,
        train: Problem,
        passes: Passes,
        settings: MethodSettings,
    ) -> None:
        self.counts = {name: int(n) for name, _, n in (text.partition(":") for text in track)}
        self.examples = examples.first(min(samples, len(examples)))
        self.problem = train.with_batches(self._batches(self.examples))
        self.train, self.passes = train, passes
        # for a method without such noise the check is about S-SGD's default noise
        if not isinstance(settings, WeightNoiseSettings):
            settings = SymmetricSGDSettings()
        self.settings = settings
        self.records: list[dict[str, Any]] = []
        self.vectors: Tensor | None = None  # (P, K), of the last measurement

    def measure(self, epoch: int, rate: float, when: When, train_loss: float | None = None) -> None:
        """Measure now, and add a record.

        Args:
            epoch: done so far.
            rate: learning rate of the step before (of the first one, at step 0).
            when: moment of the training; its step is the number of the next step.
            train_loss: at these weights, if it was computed already.
        """
        began, before = time.monotonic(), random_state.capture()
        try:
            record: dict[str, Any] = {
                "epoch": epoch,
                "step": when.step,
                "lr": rate,
                "stability_limit": stability_limit(self.passes.optimizer, rate),
                "train_loss": self.train.mean_loss() if train_loss is None else train_loss,
                "n_samples": len(self.examples),
                **self._curvature(epoch, sure=not 0 < when.fraction_done < 1),
            }
            if "third-order" in self.counts:
                record["third_order"] = self._third_order(epoch, when)
        finally:
            random_state.restore(before)
        record["seconds"] = round(time.monotonic() - began, 3)
        self.records.append(jsonable(record))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the number of records that count, and the last eigenvectors."""
        return {"records": len(self.records), "vectors": self.vectors}

    def load_state_dict(self, state: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """Take up a state, and the records that it counts."""
        self.records, self.vectors = records, state["vectors"]

    def _curvature(self, epoch: int, sure: bool) -> dict[str, Any]:
        """The eigenvalues and the trace, as far as they are wanted.

        ``sure``: look for eigenvalues that a warm start may have missed, for half as many
        products again.
        """
        operator = HessianOperator(self.problem)
        found: dict[str, Any] = {}
        if "sharpness" in self.counts:
            spectrum = eigenpairs(
                operator,
                self.counts["sharpness"],
                generator=self._generator(epoch, "sharpness", operator.device),
                tol=TOL,
                smallest=False,
                start=None if self.vectors is None else self.vectors.to(operator.device),
                check=sure,
            )
            self.vectors = spectrum.vectors
            found["eigenvalues"] = [
                {"value": pair.value, "residual": pair.residual, "stderr": pair.stderr}
                for pair in spectrum.largest
            ]
        if "trace" in self.counts:
            found["trace"] = trace(
                operator,
                generator=self._generator(epoch, "trace", operator.device),
                probes=self.counts["trace"],
            )
        return {**found, "products": operator.products}

    def _third_order(self, epoch: int, when: When) -> dict[str, Any]:
        """The check of S-SGD's expansion, in float64: it is a small difference of gradients."""
        try:
            model = copy.deepcopy(self.passes.model).double()
        except Exception as error:  # whatever a user's model raises
            raise InputError(
                f"--track third-order needs a copy of the model in float64: {first_line(error)}"
            ) from error
        examples = self.examples.to(next(model.parameters()).device, torch.float64)
        problem = Problem(model, self.train.loss, self._batches(examples), count=self.train.count)
        settings = self.settings
        scale = settings.noise_scale * scheduled(settings, when)
        result = symmetric_alignment(problem, self._noises(problem, scale, epoch))
        noise = {
            "scale": scale,
            "law": settings.noise_law,
            "relative_to": settings.noise_relative_to,
            "exclude": settings.exclude,
        }
        return {**jsonable(result), "noise": noise}

    def _noises(self, problem: Problem, scale: float, epoch: int) -> Iterator[list[Tensor]]:
        noise = Noise(law=self.settings.noise_law, scale=self.settings.noise_relative_to)
        noisy = included(problem.parameters, self.settings.exclude, problem.model)
        filters = filters_of(problem.model, problem.parameters.values())
        for draw in range(self.counts["third-order"]):
            stream = self._generator(epoch, ("third-order", draw), problem.device)
            yield [
                scale * noise.sample(parameter.detach(), stream, own)
                if name in noisy
                else torch.zeros_like(parameter)
                for (name, parameter), own in zip(problem.parameters.items(), filters, strict=True)
            ]

    def _generator(self, epoch: int, what: object, device: torch.device) -> torch.Generator:
        """A stream for each measurement: nothing to save for a resumed run."""
        return seeds.generator(self.passes.seed, "track", what, epoch, device=device)

    def _batches(self, examples: Split | BatchedSplit) -> Sequence[Batch]:
        return examples.batches(max(1, min(BATCH, len(examples) // BATCHES)))
