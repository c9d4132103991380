"""The loss of one batch as a function of a model's weights, and what it averages over."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, Count, pair
from ssgd_analysis.devices import OUT_OF_MEMORY, is_out_of_memory
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem.loss import (
    Loss,
    LossValue,
    call_loss,
    labelled,
    right_labels,
    scalar_loss,
    takes_model,
)
from ssgd_analysis.problem.loss_terms import LossTerms, LossWatch
from ssgd_analysis.weights import evaluation_mode, flattened, matching


@dataclass(frozen=True)
class BatchReading:
    """What one pass over a batch tells of it.

    Args:
        loss: at the weights of that time.
        count: examples.
        weight: what the batch's loss counts in the mean over the split.
        labels: positions whose class label counts; ``None`` where targets are no class labels.
        terms: what one of torch's own losses averaged over; ``None`` of any other loss.
        exact: whether the weight is known (one of torch's own losses, or a count that the loss
            returned) or taken for the number of examples.
        dtype: of the loss: some are computed in float32 whatever the model is in.
    """

    loss: float
    count: int
    weight: float
    labels: int | None
    terms: LossTerms | None
    exact: bool
    dtype: torch.dtype


class BatchLoss:
    """A model and a loss: what they make of one batch.

    Args:
        model: see :class:`ssgd_analysis.problem.Problem`.
        loss: the same.
        count: the same.
        layers: the same.

    Raises:
        InputError: no parameter that requires gradients, one without storage, or a pattern that
            matches none.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        count: Count | None = None,
        layers: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.loss = loss
        self.count = count
        self.takes_model = takes_model(loss)
        self.parameters = matching(
            {n: p for n, p in model.named_parameters() if p.requires_grad}, layers
        )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_meta:
                raise InputError(
                    f"the model's '{name}' is on the meta device: load its weights first"
                )

    def examples(self, batch: Batch) -> int:
        """How many examples a batch holds.

        Raises:
            InputError: the user's ``count`` raises, or returns no number of examples.
        """
        return batching.counted(batch, self.count)

    def read(self, batch: Batch, count: int) -> BatchReading:
        """One batch, in evaluation mode; in halves where the whole takes too much memory."""
        try:
            with LossWatch() as watch:
                found, outputs = self._evaluated(batch)
            terms = watch.terms(found.value)
            if terms is not None and terms.name == "l1_loss":
                # torch 2.14 loses its weight where calls are watched
                found = self._evaluated(batch)[0]
                terms = terms if torch.equal(found.value, watch.values[-1]) else None
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error) or count < 2:
                raise
            halves = [
                self.read(half, self.examples(half))
                for half in batching.pieces(batch, (count + 1) // 2, count)
            ]
            return _joined(halves)
        if terms is not None and terms.summed and found.examples is None:
            raise InputError(
                f"the loss is a sum over the batch (reduction='sum' of {terms.name}): return the"
                " mean over its examples, so that it does not depend on the batch size"
            )
        labels = None
        if outputs is not None:
            targets = pair(batch)[1]
            if right_labels(outputs, targets) is not None:
                labels = int(labelled(outputs, targets, terms).sum())
        weight: float = count
        if found.examples is not None:
            weight = found.examples
            count = round(weight)
        elif terms is not None:
            weight = terms.total
            terms = replace(terms, weights=terms.rows)  # what one position weighs is not kept
        exact = terms is not None or found.examples is not None
        loss = float(found.value)
        return BatchReading(loss, count, weight, labels, terms, exact, found.value.dtype)

    @property
    def n_parameters(self) -> int:
        """P: entries of all parameters that require gradients."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype (the first one's)."""
        return next(iter(self.parameters.values())).dtype

    @property
    def device(self) -> torch.device:
        """The parameters' device (the first one's)."""
        return next(iter(self.parameters.values())).device

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode as a context; see :func:`ssgd_analysis.weights.evaluation_mode`."""
        return evaluation_mode(self.model)

    def outputs(self, inputs: Tensor) -> Tensor:
        """The model's outputs.

        Raises:
            InputError: the model does not return one tensor, or rejects the inputs.
        """
        try:
            outputs = self.model(inputs)
        except Exception as error:  # a user's model may raise anything
            if is_out_of_memory(error):
                raise
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in batching.tensors(inputs))
            raise InputError(
                f"the model does not take inputs of shape {shapes}: {first_line(error)}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"the model returns a {type(outputs).__name__}, not a tensor: give a loss whose"
                " parameters are (model, batch)"
            )
        return outputs

    def output_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of given outputs.

        Raises:
            InputError: the loss raises, or is not a scalar tensor.
        """
        return scalar_loss(self.loss, outputs, targets)

    def batch_loss(self, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar.

        Raises:
            InputError: model or loss do not take the batch, or the loss is not a scalar tensor.
        """
        value = self._evaluated(batch)[0].value
        return value if torch.is_grad_enabled() else value.detach()

    def _evaluated(self, batch: Batch) -> tuple[LossValue, Tensor | None]:
        """The loss of one batch, and the outputs where the loss takes them."""
        if self.takes_model:
            with torch.enable_grad():  # a loss may differentiate by its inputs (physics-informed)
                return call_loss(self.loss, self.model, batch), None
        inputs, targets = pair(batch)
        outputs = self.outputs(inputs)
        return call_loss(self.loss, outputs, targets), outputs

    def outputs_at(self, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """One batch's outputs as a pure function of the weights, for ``torch.func``."""
        return functional_call(self.model, self._slots(weights), (inputs,), tie_weights=False)

    def loss_at(self, weights: Sequence[Tensor], batch: Batch) -> Tensor:
        """One batch's loss as a pure function of the weights, for ``torch.func``."""
        weights_at = self._slots(weights, "model.")
        return functional_call(_Module(self), weights_at, (batch,), tie_weights=False)

    def _slots(self, weights: Sequence[Tensor], prefix: str = "") -> dict[str, Tensor]:
        """Every place that holds one of the parameters, once.

        ``functional_call`` would find tied ones itself, but visits a module that is used twice
        twice, and leaves foreign tensors in it.
        """
        given = {id(p): w for p, w in zip(self.parameters.values(), weights, strict=True)}
        return {
            prefix + f"{path}.{name}".lstrip("."): given[id(parameter)]
            for path, module in self.model.named_modules()
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
            if id(parameter) in given
        }

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector over all parameters, (P,), as one tensor of each parameter's shape."""
        parameters = list(self.parameters.values())
        pieces = vector.split([parameter.numel() for parameter in parameters])
        return [piece.reshape(p.shape) for piece, p in zip(pieces, parameters, strict=True)]

    def weight_norm(self) -> float:
        """L2 norm over all parameters, in float64."""
        squares = [p.detach().double().square().sum().item() for p in self.parameters.values()]
        return math.sqrt(math.fsum(squares))

    def loss_and_gradient(self, batch: Batch) -> tuple[Tensor, Sequence[Tensor | None]]:
        """One batch's loss and gradient; ``None`` for a parameter that the loss does not see."""
        loss = self.batch_loss(batch)
        parameters = list(self.parameters.values())
        if not loss.requires_grad:
            return loss, [None] * len(parameters)
        return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    @property
    def tolerance(self) -> float:
        """How far two ways to compute one number may differ by rounding, relative to it."""
        return torch.finfo(self.precision).eps ** 0.5

    @property
    def precision(self) -> torch.dtype:
        """The coarsest dtype that the loss is computed in, as far as the parameters tell."""
        return max((p.dtype for p in self.parameters.values()), key=lambda d: torch.finfo(d).eps)

    def close(self, one: float, other: float) -> bool:
        """Whether two losses are equal but for rounding."""
        scale = self.tolerance
        return math.isclose(one, other, rel_tol=scale, abs_tol=1e-3 * scale)

    def flat(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and gradient of a batch, the latter as one vector in float64."""
        loss, parts = self.loss_and_gradient(batch)
        zeros = map(torch.zeros_like, self.parameters.values())
        whole = [z if p is None else p for p, z in zip(parts, zeros, strict=True)]
        return loss, flattened([part.to_dense().double() for part in whole])


def _joined(parts: Sequence[BatchReading]) -> BatchReading:
    """The reading of a batch from those of its parts."""
    weight = math.fsum(part.weight for part in parts)
    labels = [part.labels for part in parts]
    loss = math.fsum(part.weight * part.loss for part in parts if part.weight)
    return BatchReading(
        loss / weight if weight else math.nan,
        sum(part.count for part in parts),
        weight,
        None if None in labels else sum(count or 0 for count in labels),
        None,
        all(part.exact for part in parts),
        parts[0].dtype,
    )


class _Module(nn.Module):
    """A batch loss as a module, so that its weights can be given from outside."""

    def __init__(self, of: BatchLoss) -> None:
        super().__init__()
        self.model = of.model
        self.batch_loss = of.batch_loss

    def forward(self, batch: Batch) -> Tensor:
        return self.batch_loss(batch)
