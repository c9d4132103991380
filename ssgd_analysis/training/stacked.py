"""Several models of one structure as one: stacked weights, and one pass for all of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ssgd_analysis.errors import first_line
from ssgd_analysis.methods import Task
from ssgd_analysis.problem.loss import scalar_loss
from ssgd_analysis.training.tracing import traced
from ssgd_analysis.weights import borrowed_modes

# The largest deviation of a gradient from that of a pass alone, as a multiple of its largest
# entry: far above the rounding of a pass, far below what another model or loss would leave.
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-3}
AGREEMENT_AUTOCAST = 0.1

Passes = Callable[..., tuple[Tensor, list[Tensor | None]]]

# Traces that this process has made, for the next stack of the same structure: making one takes
# as long as training a small network for an epoch or two.
TRACES: dict[Any, Passes] = {}
MOST_TRACES = 64


class NotStackableError(Exception):
    """Why models cannot be passed through as one."""


class Stack:
    """Tasks whose models' weights and buffers are views into stacked tensors, shape (K, …).

    What moves a weight or a buffer in place moves the stack; one that was replaced instead is
    copied in and out at each pass. To be made between steps: within one, a method may hold
    aliases of the weights. The operations of a pass are those of the first pass of its kind: what
    a model's Python code would decide anew later (by a counter, or by a value outside its
    tensors) stays as it was then.

    Args:
        tasks: K of them, models of one structure, one loss.
        structure: what identifies models and loss; traces are shared between stacks that have
            it in common, where their numbers hold. ``None``: they are this stack's own.
    """

    def __init__(self, tasks: Sequence[Task], structure: Any = None) -> None:
        self.tasks, self.structure = list(tasks), structure
        self.losses = [task.loss for task in self.tasks]
        self.modules = [list(task.model.modules()) for task in self.tasks]
        self.hooks = [[hooks for m in row for hooks in _hooks(m)] for row in self.modules]
        self.homes, self.places = zip(*(_homes(task.model) for task in self.tasks), strict=True)
        first = self.parts(0)
        self.trained = [index for index, part in enumerate(first) if part.requires_grad]
        self.buffers = [i for i, part in enumerate(first) if not isinstance(part, nn.Parameter)]
        rows = zip(*map(self.parts, range(len(self.tasks))), strict=True)
        self.whole = [torch.stack([part.detach() for part in row]) for row in rows]
        self.views = [
            list(row) for row in zip(*(part.unbind() for part in self.whole), strict=True)
        ]
        self.addresses = [[view.data_ptr() for view in views] for views in self.views]
        for row, views in enumerate(self.views):
            for part, view in zip(self.parts(row), views, strict=True):
                part.data = view
        self.traces: dict[Any, Passes] = {}

    def parts(self, row: int) -> list[Tensor]:
        """The weights and buffers of one model, as they are now."""
        return [home[name] for home, name in self.homes[row]]

    def modes(self, row: int) -> tuple[bool, ...]:
        """Each module's training flag."""
        return tuple([module.training for module in self.modules[row]])

    def changed(self, row: int) -> bool:
        """Whether someone listens in: hooks, or another loss, see one model and not the stack."""
        return self.tasks[row].loss is not self.losses[row] or any(self.hooks[row])

    def run(
        self, rows: Sequence[int], inputs: list[Tensor], targets: list[Tensor], shares: list[float]
    ) -> list[float]:
        """One pass of several rows, each over its own minibatch.

        Adds share × gradient to each ``.grad``.

        Args:
            rows: in ascending order, in one mode.
            inputs: for each row, of one shape (B, …).
            targets: for each row, of one shape (B, …).
            shares: for each row.

        Returns:
            The losses.

        Raises:
            NotStackableError: the models, or their loss, cannot be passed through as one;
                nothing was changed then.
        """
        parts = [self.parts(row) for row in rows]
        strays = self._copied_in(rows, parts)
        stacked = self._rows(rows)
        x, y = torch.stack(inputs), torch.stack(targets)
        factors = torch.tensor(shares, dtype=torch.float64, device=x.device)
        key = (x.shape, x.dtype, y.shape, y.dtype, self.modes(rows[0]))
        if key not in self.traces:
            self.traces[key] = self._found(key, rows, stacked, x, y, factors)
        losses, gradients = self.traces[key](stacked, x, y, factors)
        if stacked[0]._base is None and stacked is not self.whole:  # copies, no views
            for index in self.buffers:
                for place, row in enumerate(rows):
                    self.views[row][index].copy_(stacked[index][place])
        for part, view in strays:
            if not isinstance(part, nn.Parameter):
                part.copy_(view)
        self._distribute(parts, gradients)
        values: list[float] = losses.tolist()
        return values

    def _found(self, key: Any, rows: Sequence[int], *data: Any) -> Passes:
        """Passes that give the right numbers: another stack's trace, else a new one."""
        shared = (self.structure, key)
        if self.structure is not None and shared in TRACES:
            with suppress(Exception):  # models that only look alike: a trace of their own
                self._compare(TRACES[shared], rows, *data)
                return TRACES[shared]
        passes = self._traced(rows[0], *data)
        self._compare(passes, rows, *data)
        if self.structure is not None:
            TRACES.pop(shared, None)
            while len(TRACES) >= MOST_TRACES:
                TRACES.pop(next(iter(TRACES)))
            TRACES[shared] = passes
        return passes

    def _copied_in(
        self, rows: Sequence[int], parts: list[list[Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Weights and buffers that are no views into the stack, with their places in it."""
        strays = [
            (part, self.views[row][index])
            for row, held in zip(rows, parts, strict=True)
            for index, part in enumerate(held)
            if part.data_ptr() != self.addresses[row][index]
        ]
        for part, view in strays:
            view.copy_(part.detach())
        return strays

    def _rows(self, rows: Sequence[int]) -> list[Tensor]:
        """The stacked tensors of some rows: views where rows are neighbours, copies elsewhere."""
        first, count = rows[0], len(rows)
        if count == len(self.tasks):
            return self.whole
        if rows[-1] - first + 1 == count:
            return [part[first : first + count] for part in self.whole]
        index = torch.tensor(list(rows), device=self.whole[0].device)
        return [part.index_select(0, index) for part in self.whole]

    def _distribute(self, parts: list[list[Tensor]], gradients: list[Tensor | None]) -> None:
        """Add each row's gradients to its own ``.grad``."""
        for index, gradient in zip(self.trained, gradients, strict=True):
            if gradient is None:
                continue
            for row, slope in zip(parts, gradient.unbind(), strict=True):
                parameter = row[index]
                if not parameter.requires_grad:
                    continue
                if parameter.grad is None:
                    parameter.grad = slope
                else:
                    parameter.grad.add_(slope)

    def _loss(self, *arguments: Tensor) -> Tensor:
        """A minibatch's loss as a function of all tensors of one model."""
        *parts, inputs, targets = arguments
        task = self.tasks[0]
        named = {place: parts[index] for place, index in self.places[0].items()}
        device, autocast = inputs.device.type, task.autocast
        # No cache: it would keep casts of weights that live in a trace only.
        cast = torch.autocast(device, autocast, cache_enabled=False) if autocast else nullcontext()
        with cast:
            outputs = functional_call(task.model, named, (inputs,), tie_weights=False)
        return scalar_loss(self.losses[0], outputs.float() if autocast else outputs, targets)

    def _passes(
        self, stacked: list[Tensor], inputs: Tensor, targets: Tensor, shares: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """All rows' losses, and the gradients of share × loss."""
        parts = [part.detach() for part in stacked]
        leaves = [parts[index].requires_grad_() for index in self.trained]
        with torch.enable_grad():
            losses = vmap(self._loss, randomness="error")(*parts, inputs, targets)
            slopes = torch.autograd.grad((losses * shares).sum(), leaves, allow_unused=True)
        # vmap leaves a linear layer's gradient transposed: one copy here, not one for each row
        return losses.detach(), [None if g is None else g.contiguous() for g in slopes]

    def _traced(self, row: int, stacked: list[Tensor], *data: Tensor) -> Passes:
        """The passes as a plain list of operations: two thirds of the time on a small network."""
        copies = [part.clone() for part in stacked]

        def pure(stacked: list[Tensor], x: Tensor, y: Tensor, shares: Tensor) -> Any:
            return self._passes(stacked, x, y, shares)  # make_fx would count self

        try:
            with borrowed_modes(self.tasks[0].model):
                for module, training in zip(self.modules[0], self.modes(row), strict=True):
                    module.training = training
                return traced(pure, copies, *data)
        except Exception as error:  # a stranger's model may do anything
            raise NotStackableError(first_line(error)) from error

    def _compare(
        self,
        passes: Passes,
        rows: Sequence[int],
        stacked: list[Tensor],
        inputs: Tensor,
        targets: Tensor,
        shares: Tensor,
    ) -> None:
        """Hold the first numbers against passes alone: losses, gradients, buffers.

        Models of one structure may still differ (random projections that are no buffers, losses
        with settings of their own), and a trace keeps whatever Python did the first time.
        """
        copies = [part.clone() for part in stacked]
        losses, gradients = passes(copies, inputs, targets, shares)
        for place, row in enumerate(rows):
            task, parts = self.tasks[row], self.parts(row)
            limit = AGREEMENT_AUTOCAST if task.autocast else AGREEMENT.get(inputs.dtype, 1e-3)
            with _given_back(self.homes[row]):
                loss = task.pass_alone(inputs[place], targets[place], float(shares[place]))
                slopes = [parts[index].grad for index in self.trained]
                states = [self.parts(row)[index].clone() for index in self.buffers]
            found = [None if gradient is None else gradient[place] for gradient in gradients]
            kept = [copies[index][place] for index in self.buffers]
            same = _agree([torch.tensor(loss, dtype=torch.float64)], [losses[place]], limit)
            same = same and _agree(slopes, found, limit)
            same = same and all(_agree([a], [b], limit) for a, b in zip(states, kept, strict=True))
            if not same:
                raise NotStackableError("stacked, they give other numbers than one by one")


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    """Where a module keeps those who listen in."""
    forward = module._forward_hooks, module._forward_pre_hooks
    return (*forward, module._backward_hooks, module._backward_pre_hooks)


def _homes(model: nn.Module) -> tuple[list[tuple[Any, str]], dict[str, int]]:
    """Where a model keeps its tensors, each once, and the number of the tensor at every place.

    Parameters come first. Places are named as in ``state_dict``; tied weights have several.
    """
    homes: list[tuple[Any, str]] = []
    places: dict[str, int] = {}
    numbers: dict[int, int] = {}
    for kind in ("_parameters", "_buffers"):
        for path, module in model.named_modules():
            home = getattr(module, kind)
            for name, tensor in home.items():
                if tensor is None:
                    continue
                if id(tensor) not in numbers:
                    numbers[id(tensor)] = len(homes)
                    homes.append((home, name))
                places[f"{path}.{name}".lstrip(".")] = numbers[id(tensor)]
    return homes, places


@contextmanager
def _given_back(homes: list[tuple[Any, str]]) -> Iterator[None]:
    """No gradients inside; tensors, their values and gradients come back after."""
    parts = [home[name] for home, name in homes]
    kept = [(part.detach().clone(), part.grad) for part in parts]
    for part in parts:
        part.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for (home, name), part, (value, slope) in zip(homes, parts, kept, strict=True):
                home[name] = part  # a model may have replaced it
                part.copy_(value)
                part.grad = slope


def _agree(expected: Sequence[Tensor | None], found: Sequence[Tensor | None], limit: float) -> bool:
    """Equal up to ``limit`` of the largest entry of all; ``None`` is as good as zeros."""
    zero = torch.zeros((), dtype=torch.float64)
    wanted = [zero if tensor is None else tensor.detach().cpu().double() for tensor in expected]
    given = [zero if tensor is None else tensor.detach().cpu().double() for tensor in found]
    size = max((float(t.abs().nan_to_num(0, 0, 0).max()) for t in wanted if t.numel()), default=0)
    return all(
        torch.allclose(a, b, rtol=0, atol=limit * size + 1e-12, equal_nan=True)
        for a, b in zip(given, wanted, strict=True)
    )
