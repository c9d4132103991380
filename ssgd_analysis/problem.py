"""A problem: a model, a loss and batches. Everything that measures takes one."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, WorkError, first_line
from ssgd_analysis.loss import Loss, accuracy, scalar_loss, takes_model
from ssgd_analysis.weights import evaluation_mode, matching


class Problem:
    """The mean loss over fixed examples as a function of the model's weights.

    The mean is over examples, exact also where the last batch is short: batch b of n_b
    examples counts n_b / N. The parameters are those that require gradients, each once (tied
    weights are one parameter), in the order of ``model.named_parameters()``. Evaluation mode
    is set while a method of this class, or :meth:`evaluating`, runs; mode, buffers and
    gradients of the model come back as they were.

    Args:
        model: returns outputs of shape (B, …).
        loss: ``(outputs, targets) -> scalar``, the mean over the batch. A loss whose first
            parameter is named ``model`` is called as ``loss(model, batch)`` instead, for models
            with several inputs, losses of their own, or no targets at all.
        batches: ``(inputs, targets)`` pairs, or whatever ``loss(model, batch)`` takes; read
            once, moved to the model's device and kept there.
        layers: patterns as ``conv*`` over parameter and module names: only the parameters that
            match one of them count; the others are constants. Default: all.

    Raises:
        InputError: no batches, an empty batch, no parameter that requires gradients, one without
            storage, or a pattern that matches none.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[Batch],
        *,
        layers: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.loss = loss
        self.takes_model = takes_model(loss)
        self.parameters = matching(
            {n: p for n, p in model.named_parameters() if p.requires_grad}, layers
        )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_meta:
                raise InputError(f"the model's '{name}' is on the meta device: give it weights")
        self.batches: list[Batch] = [batching.to(batch, self.device) for batch in batches]
        sizes = [batching.examples(batch) for batch in self.batches]
        if not sizes or min(sizes) == 0:
            raise InputError("the data is empty: no batch, or a batch without examples")
        self.n_samples = sum(sizes)
        self.shares = [size / self.n_samples for size in sizes]

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
        except Exception as error:  # a stranger's model may raise anything
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
        if self.takes_model:
            with torch.enable_grad():  # a loss may differentiate by its inputs (physics-informed)
                value = scalar_loss(self.loss, self.model, batch)
            return value if torch.is_grad_enabled() else value.detach()
        inputs, targets = pair(batch)
        return self.output_loss(self.outputs(inputs), targets)

    def outputs_at(self, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """One batch's outputs as a pure function of the weights, for ``torch.func``."""
        return functional_call(self.model, self._slots(weights), (inputs,), tie_weights=False)

    def loss_at(self, weights: Sequence[Tensor], batch: Batch) -> Tensor:
        """One batch's loss as a pure function of the weights, for ``torch.func``."""
        weights_at = self._slots(weights, "model.")
        return functional_call(_BatchLoss(self), weights_at, (batch,), tie_weights=False)

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

    def mean(self, values: Iterable[float]) -> float:
        """The mean over all examples of one value for each batch."""
        return math.fsum(s * v for s, v in zip(self.shares, values, strict=True))

    def weight_norm(self) -> float:
        """L2 norm over all parameters, in float64."""
        squares = [p.detach().double().square().sum().item() for p in self.parameters.values()]
        return math.sqrt(math.fsum(squares))

    def fingerprint(self) -> str:
        """A hash of weights, buffers and examples: what kept numbers must belong to."""
        digest = hashlib.blake2b(digest_size=16)
        held = [*self.model.parameters(), *self.model.buffers()]
        held += [tensor for batch in self.batches for tensor in batching.tensors(batch)]
        for tensor in held:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            whole = tensor.detach().cpu().contiguous().flatten()
            digest.update(whole.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def batch_losses(self) -> list[float]:
        """The mean loss of each batch at the present weights, no gradients."""
        with self.evaluating(), torch.no_grad():
            return [float(self.batch_loss(batch)) for batch in self.batches]

    def mean_loss(self) -> float:
        """The mean loss over all examples at the present weights."""
        return self.mean(self.batch_losses())

    def evaluate(self) -> tuple[float, float | None]:
        """Mean loss over all examples, and accuracy: ``None`` without class labels as targets."""
        losses, rights = self.batch_scores()
        return self.mean(losses), None if rights is None else self.mean(rights)

    def batch_scores(self) -> tuple[list[float], list[float] | None]:
        """Mean loss and share of right class labels (or ``None``) of each batch, in one pass."""
        losses: list[float] = []
        rights: list[float] = []
        with self.evaluating(), torch.no_grad():
            for batch in self.batches:
                if self.takes_model:
                    losses.append(float(self.batch_loss(batch)))
                    continue
                inputs, targets = pair(batch)
                outputs = self.outputs(inputs)
                losses.append(float(self.output_loss(outputs, targets)))
                right = accuracy(outputs, targets)
                rights += [] if right is None else [right]
        return losses, rights if len(rights) == len(losses) else None

    def gradient(self) -> list[Tensor]:
        """The gradient of the mean loss, one tensor for each parameter; ``.grad`` is untouched."""
        return self.losses_and_gradient()[1]

    def losses_and_gradient(self) -> tuple[list[float], list[Tensor]]:
        """The mean loss of each batch and the gradient of the mean of all, in the same passes."""
        parameters = list(self.parameters.values())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        losses: list[Tensor] = []
        with self.evaluating(), torch.enable_grad():
            for share, batch in zip(self.shares, self.batches, strict=True):
                loss = self.batch_loss(batch)
                losses.append(loss.detach())
                parts = torch.autograd.grad(loss, parameters, materialize_grads=True)
                for sum_, part in zip(total, parts, strict=True):
                    sum_.add_(part, alpha=share)
        return [float(loss) for loss in losses], total

    def check(self, *, deterministic: bool = True) -> None:
        """Evaluate a batch, again, and in halves, so that unfit parts are refused early.

        Args:
            deterministic: refuse a loss that differs between two evaluations, too.

        Raises:
            InputError: shapes that do not fit, a loss that is not a scalar, labels out of
                range, a loss that differs between two evaluations, or that is a sum.
            WorkError: the loss is not finite at the present weights.
        """
        batch = self.batches[0]
        with self.evaluating(), torch.no_grad():
            stuck = [name for name, module in self.model.named_modules() if module.training]
            if stuck:
                raise InputError(
                    f"the model's '{stuck[0]}' stays in training mode: curvature needs a model"
                    " that can be set to evaluation mode"
                )
            self._check_labels(batch)
            loss = float(self.batch_loss(batch))
            if not math.isfinite(loss):
                raise WorkError(f"the loss is {loss} at these weights")
            again = float(self.batch_loss(batch)) if deterministic else loss
            if not math.isclose(loss, again, rel_tol=1e-5, abs_tol=1e-30):
                raise InputError(
                    f"the loss differs between two evaluations ({loss:.6g}, {again:.6g}): curvature"
                    " needs a model that is deterministic in evaluation mode"
                )
            if deterministic:  # halves of a random loss would differ too
                self._check_mean(loss, batch)

    def _check_mean(self, loss: float, batch: Batch) -> None:
        """A sum over the batch would make every number depend on the batch size."""
        count = batching.examples(batch)
        if count < 2 or self.mean_of_examples(batch, loss):
            return
        halves = batching.pieces(batch, (count + 1) // 2)
        total = math.fsum(float(self.batch_loss(half)) for half in halves)
        if math.isclose(loss, total, rel_tol=1e-3):
            raise InputError(
                "the loss is a sum over the batch: return the mean over its examples, so that it"
                " does not depend on the batch size"
            )

    def cuttable(self) -> bool:
        """Whether batches may be cut: the first one's loss is the mean of its examples'."""
        with self.evaluating(), torch.no_grad():
            batch = self.batches[0]
            return self.mean_of_examples(batch, float(self.batch_loss(batch)))

    def mean_of_examples(self, batch: Batch, loss: float) -> bool:
        """Whether a batch's ``loss`` is the mean of its halves' losses.

        It is not where examples see one another (BatchNorm without running statistics) or
        count unequally (padding). To be called in evaluation mode, without gradients.
        """
        count = batching.examples(batch)
        halves = batching.pieces(batch, (count + 1) // 2)
        mean = math.fsum(
            float(self.batch_loss(half)) * batching.examples(half) / count for half in halves
        )
        return math.isclose(loss, mean, rel_tol=1e-4, abs_tol=1e-6 * (1 + abs(loss)))

    def _check_labels(self, batch: Batch) -> None:
        """Cross-entropy's labels count from 0 to the number of outputs; other losses may differ."""
        if self.takes_model or getattr(self.loss, "__name__", "") != "cross_entropy":
            return
        labels = [pair(batch)[1] for batch in self.batches]
        if labels[0].is_floating_point():
            return
        outputs = self.outputs(pair(batch)[0])
        low, high = min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
        if low < 0:
            raise InputError(f"label {low} is out of range: labels count from 0")
        if outputs.ndim > 1 and high >= outputs.shape[1]:
            raise InputError(
                f"label {high} is out of range: the model has {outputs.shape[1]} outputs"
            )


class _BatchLoss(nn.Module):
    """A problem's batch loss as a module, so that its weights can be given from outside."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model = problem.model
        self.batch_loss = problem.batch_loss

    def forward(self, batch: Batch) -> Tensor:
        return self.batch_loss(batch)
