"""Forward-backward passes: how they are made, counted and scaled."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, Count, pair
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.methods.gradient_sum import match_strides
from ssgd_analysis.methods.loss_scale import LossScale, Overflow
from ssgd_analysis.problem.loss import Loss, LossValue, call_loss, takes_model
from ssgd_analysis.problem.loss_terms import LossWatch
from ssgd_analysis.ranks import SINGLE, Ranks

FORWARD_SHARE = 1 / 3  # of a forward-backward pass: backward costs about two forwards


QuickPass = Callable[[Tensor, Tensor, float], float | None]


class Passes:
    """Makes, counts and scales forward-backward passes, and the update that follows them.

    Args:
        model: in training mode while steps are made.
        loss: ``(outputs, targets)`` or ``(model, batch) -> scalar``, the mean over the batch.
        optimizer: any ``torch.optim.Optimizer`` over the model's parameters.
        batch_size: examples of a full minibatch, which count as one pass.
        count: the examples of a batch; default :func:`ssgd_analysis.batch.examples`.
        seed: of the run; methods derive their own random streams from it.
        autocast: dtype for the forward pass, or ``None`` for the parameters' own. With float16
            the loss is scaled (:class:`LossScale`) and each pass's gradient unscaled at once.
        accumulate: micro-batches of each pass, whose sizes differ by one at most; their weighted
            mean is the minibatch's gradient. BatchNorm sees the micro-batches.
        clip: largest norm, over all parameters, of the gradient that the base optimizer steps
            with; a longer one is shortened to it.
        ranks: the processes that share every pass; each is given the whole minibatch, takes its
            part, and ends with the whole minibatch's gradient and loss. BatchNorm normalises
            within a part; its running statistics are the parts' weighted mean.
        compiled: run the forward pass through ``torch.compile``.
        channels_last: give inputs of shape (B, C, H, W) to the model in this memory format.
        quick: makes a plain pass instead of autograd, with the same bits: a function of inputs,
            targets and share like :meth:`backward`, which returns ``None`` where it cannot.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> passes = Passes(model, nn.functional.mse_loss, optimizer, batch_size=2)
        >>> loss = passes.backward((torch.ones(2, 3), torch.ones(2, 1)))
        >>> passes.gradients
        1
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        count: Count | None = None,
        seed: int = 0,
        autocast: torch.dtype | None = None,
        accumulate: int = 1,
        clip: float | None = None,
        ranks: Ranks = SINGLE,
        compiled: bool = False,
        channels_last: bool = False,
        quick: QuickPass | None = None,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.takes_model, self.count = takes_model(loss), count
        self.batch_size, self.seed, self.autocast = batch_size, seed, autocast
        self.accumulate, self.clip, self.ranks = accumulate, clip, ranks
        self.scale = LossScale() if autocast == torch.float16 else None
        self.compiled = torch.compile(model) if compiled else None
        self.channels_last = channels_last
        self.quick = quick if autocast is None and not compiled else None
        self._quick_loss = loss  # a method may watch the loss by putting another in its place
        self.examples = 0.0  # that went forward and backward so far

    @property
    def gradients(self) -> float:
        """Forward-backward passes over a minibatch so far; a forward pass alone is a third."""
        passes = self.examples / self.batch_size
        return int(passes) if passes == int(passes) else round(passes, 6)

    @property
    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that require gradients, each once."""
        return [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]

    @property
    def rank(self) -> int:
        """The number of this process among those that share the passes, from 0."""
        return self.ranks.rank

    @property
    def world(self) -> int:
        """How many processes share the passes."""
        return self.ranks.size

    def state_dict(self) -> dict[str, Any]:
        """The count, and the loss scale where there is one."""
        scale = {} if self.scale is None else {"scale": self.scale.value, "good": self.scale.good}
        return {"examples": self.examples, **scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self.examples = state["examples"]
        if self.scale is not None:
            self.scale.value, self.scale.good = state["scale"], state["good"]

    def size(self, batch: Batch) -> int:
        """How many examples a batch holds."""
        return batching.counted(batch, self.count)

    def parts(self, batch: Batch, count: int) -> list[Batch]:
        """A batch in ``count`` parts, in order, whose sizes differ by one at most."""
        each, more = divmod(self.size(batch), count)
        return self.split(batch, [each + (index < more) for index in range(count)])

    def split(self, batch: Batch, sizes: Sequence[int]) -> list[Batch]:
        """A batch in parts of these sizes, in order; see :func:`ssgd_analysis.batch.divided`."""
        return batching.divided(batch, sizes, self.size(batch))

    def count_forward(self, examples: int) -> None:
        """Count a forward pass without a backward pass over so many examples."""
        self.examples += examples * FORWARD_SHARE

    def pass_forward(self, batch: Batch) -> None:
        """Make a forward pass alone, for what it does to BatchNorm's statistics; it is counted."""
        if self.takes_model:
            with torch.enable_grad():  # a loss may differentiate by its inputs
                self._loss(batch)
        else:
            with torch.no_grad():
                self.forward(pair(batch)[0])
        self.count_forward(self.size(batch))

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's outputs in the run's precision; the pass is not counted.

        Raises:
            InputError: the model cannot be compiled.
        """
        inputs = self._laid_out(inputs)
        with self._casting(inputs.device.type):
            if self.compiled is None:
                return self.model(inputs)
            try:
                return self.compiled(inputs)
            except Exception as error:  # the model was tried before, so the compiler fails
                if is_out_of_memory(error):
                    raise
                message = f"--compile: the model cannot be compiled: {first_line(error)}"
                raise InputError(message) from error

    def _casting(self, device: str) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)

    def _laid_out(self, batch: Batch) -> Batch:
        """The batch with its images in the model's memory format."""
        return batching.channels_last(batch) if self.channels_last else batch

    def _loss(self, batch: Batch) -> LossValue:
        """The loss of a batch, in the run's precision."""
        if self.takes_model:
            model: Any = self.model if self.compiled is None else self.compiled
            with self._casting(self.parameters[0][1].device.type):
                return call_loss(self.loss, model, self._laid_out(batch))
        inputs, targets = pair(batch)
        outputs = self.forward(inputs)
        return call_loss(self.loss, outputs.float() if self.autocast else outputs, targets)

    def update(self) -> None:
        """Let the base optimizer step with what is in ``.grad``, clipped where that is set."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        match_strides(parameters)
        self.optimizer.step()
        if self.scale is not None:
            self.scale.keep()

    def backward(self, batch: Batch, *, share: float = 1.0) -> float:
        """One forward-backward pass: adds ``share`` × the gradient to each ``.grad``.

        Args:
            batch: ``(inputs, targets)``, or what a loss of (model, batch) takes.
            share: factor of the gradient.

        Returns:
            The minibatch's loss.

        Raises:
            InputError: an operation has no float16 on this device.
        """
        total = self.size(batch)
        self.examples += total
        try:
            return self._pass(batch, total, share)
        except (RuntimeError, InputError) as error:
            if self.autocast != torch.float16 or "not implemented for 'Half'" not in str(error):
                raise
            raise InputError(
                f"--precision fp16: {first_line(error)} on this device: try bf16 or fp32"
            ) from error

    def _pass(self, batch: Batch, total: int, share: float) -> float:
        """The pass of :meth:`backward`, uncounted.

        Raises:
            InputError: fewer examples than processes.
            Overflow: a scaled gradient is not finite.
        """
        if self.scale is None and self.world == 1 and self.accumulate == 1:
            if self.quick is not None and self.loss is self._quick_loss:
                loss = self.quick(*pair(batch), share)
                if loss is not None:
                    return loss
            return self._micro_batches(batch, total, share)[0]
        parameters = [parameter for _, parameter in self.parameters]
        earlier = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        value, weight = self._micro_batches(batch, total, share)
        value, weight = self._over_ranks(value, weight, total)
        loss = value / weight if weight else math.nan
        self._unscale(loss, weight)
        for parameter, before in zip(parameters, earlier, strict=True):
            if before is not None:
                parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)
        return loss

    def _micro_batches(self, batch: Batch, total: int, share: float) -> tuple[float, float]:
        """Make the passes over this process's part, each weighted as in the whole minibatch.

        A micro-batch counts by its examples, times the mean weight of its terms where the loss is
        one of torch's own: class weights and ignored labels differ between micro-batches. Where
        the loss returns a count, it counts by that.

        Returns:
            The weighted sum of losses, and the sum of weights: 1 over all processes where no term
            has a weight of its own. Both sums and gradients are still to be divided by it.
        """
        if total < self.world:
            raise InputError(f"{self.world} processes cannot share a pass over {total} examples")
        if self.world > 1:
            batch = self.parts(batch, self.world)[self.rank]
        count = min(self.accumulate, self.size(batch)) if self.accumulate > 1 else 1
        value, whole = 0.0, 0.0
        for part in self.parts(batch, count) if count > 1 else [batch]:
            loss, weight = self._weighed(part, total, apart=count > 1 or self.world > 1)
            whole += weight
            if weight == 0:  # no label counts: there is no loss
                continue
            factor = share * weight * (1.0 if self.scale is None else self.scale.value)
            (loss * factor if factor != 1 else loss).backward()
            value += weight * loss.item()
        return value, whole

    def _weighed(self, part: Batch, total: int, *, apart: bool) -> tuple[Tensor, float]:
        """The loss of a micro-batch, and its weight in a minibatch of ``total`` examples."""
        if not apart:
            return self._loss(part).value, 1.0
        weight = self.size(part) / total if total else 1.0
        with LossWatch(check_labels=False) as watch:
            found = self._loss(part)
        terms = watch.terms(found.value)
        if found.examples is not None:
            weight = found.examples / total
        elif terms is not None:
            weight *= terms.total / terms.count
        return found.value, weight

    @torch.no_grad()
    def _over_ranks(self, loss: float, weight: float, total: int) -> tuple[float, float]:
        """Sum the parts' gradients; a parameter that no part reached keeps none."""
        if self.world == 1:
            return loss, weight
        parameters = [parameter for _, parameter in self.parameters]
        device = parameters[0].device
        reached = [float(parameter.grad is not None) for parameter in parameters]
        totals = torch.tensor([loss, weight, *reached], dtype=torch.float64, device=device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        statistics = self._statistics()
        mine = len(torch.empty(total).tensor_split(self.world)[self.rank])
        for statistic in statistics:
            statistic.mul_(mine / total)
        self.ranks.sum([totals, *grads, *statistics])
        for parameter, grad, there in zip(parameters, grads, totals[2:].tolist(), strict=True):
            parameter.grad = grad if there else None
        return float(totals[0]), float(totals[1])

    def _statistics(self) -> list[Tensor]:
        """The running statistics that a pass moves."""
        layers = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.training]
        return [s for m in layers for s in (m.running_mean, m.running_var) if s is not None]

    def _unscale(self, loss: float, weight: float) -> None:
        """Divide the gradients by the loss scale and by the sum of the parts' weights."""
        grads = [p.grad for _, p in self.parameters if p.grad is not None]
        if weight and not math.isclose(weight, 1.0, rel_tol=1e-12) and grads:
            torch._foreach_mul_(grads, 1 / weight)
        if self.scale is None:
            return
        torch._foreach_mul_(grads, 1 / self.scale.value)
        largest = torch._foreach_norm(grads, float("inf"))
        if not torch.isfinite(torch.stack(largest)).all():
            raise Overflow(loss)
