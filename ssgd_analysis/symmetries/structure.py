"""Which layers of a stranger's network follow one another, and a copy to try changes on."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.layer_edits import channels

Run = Callable[[nn.Module], list[Tensor]]

BEFORE = 3  # layers back in the order of execution: a shortcut's may run in between


class Draft:
    """A model in change: changes are tried on copies, and kept where the outputs stay.

    The structure is not told but watched: the order in which layers run, by hooks during one
    pass. Whether two layers really follow one another, and with what between, is not asked
    either: a change is right if the outputs say so.

    Args:
        model: is left alone; :attr:`model` is another one after the first change.
        run: the outputs of a model in evaluation mode on fixed data.

    Raises:
        InputError: the model can't be run.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        self.model, self.run = model, run
        self.order, self.direct = executed(model, run)
        self.done: list[str] = []

    def layer(self, name: str) -> nn.Module:
        """A layer as it is now."""
        return self.model.get_submodule(name)

    def pairs(
        self, is_first: Callable[[nn.Module], bool], is_second: Callable[[nn.Module], bool]
    ) -> Iterator[list[str]]:
        """Layers that may follow one another, by their channels, nearest first.

        Yields:
            The first one's name, those of what ran in between, and the second one's name; as
            the draft is then: what was changed meanwhile is seen.
        """
        for end, second in enumerate(self.order):
            starts = [i for i in range(end) if is_first(self.layer(self.order[i]))]
            for start in reversed(starts[-BEFORE:]):
                names = self.order[start : end + 1]
                first, last = self.layer(names[0]), self.layer(second)
                if is_second(last) and channels(last, 0) % channels(first, 1) == 0:
                    yield names

    def attempt(
        self,
        change: Callable[[nn.Module], None],
        what: str,
        *,
        at: str | None = None,
        scale: float = 1.0,
    ) -> bool:
        """Make a change if it leaves the outputs as they are.

        Args:
            change: works on a copy of the model in place.
            what: told of it in :attr:`done`.
            at: a layer whose own outputs must stay, too, so that a change is not taken for
                harmless because what follows ignores it.
            scale: the outputs must come out times this instead.

        Returns:
            Whether it was made.
        """
        changed = copied(self.model)
        try:
            with torch.no_grad():
                change(changed)
            before, after = self._watched(self.model, at), self._watched(changed, at)
        except Exception as error:  # a stranger's forward may ask a layer for what it lost
            if is_out_of_memory(error):
                raise
            return False
        if not same([scale * value for value in before], after):
            return False
        self.model = changed
        self.done.append(what)
        return True

    def _watched(self, model: nn.Module, at: str | None) -> list[Tensor]:
        """A layer's outputs and the model's."""
        seen: list[Tensor] = []
        if at is None:
            return self.run(model)
        hook = model.get_submodule(at).register_forward_hook(
            lambda module, inputs, output: seen.extend(batching.tensors(output))
        )
        try:
            found = self.run(model)
        finally:
            hook.remove()
        return [*(value.detach() for value in seen), *found]


def runs(problem: Problem, batches: Sequence[Batch]) -> Run:
    """What computes a model's outputs on batches of a problem, or its loss where there are none.

    Args:
        problem: gives the loss.
        batches: what to run on.
    """

    def run(model: nn.Module) -> list[Tensor]:
        found: list[Tensor] = []
        hook = model.register_forward_hook(
            lambda module, inputs, output: found.extend(batching.tensors(output))
        )
        changed = Problem(model, problem.loss, batches, count=problem.count)
        try:
            with changed.evaluating(), torch.no_grad():
                for batch in batches:
                    if not changed.takes_model:
                        changed.outputs(pair(batch)[0])
                        continue
                    known = len(found)
                    loss = changed.batch_loss(batch)
                    if len(found) == known:  # the model was not called as a whole
                        found.append(loss)
        finally:
            hook.remove()
        return [value.detach() for value in found]

    return run


def same(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether outputs agree to half the digits of their precision, relative to the largest."""
    return len(before) == len(after) and all(
        one.shape == two.shape and relative_change([one], [two]) <= tolerance(one)
        for one, two in zip(before, after, strict=True)
    )


def tolerance(outputs: Tensor) -> float:
    """The relative change of outputs that counts as none: √ε (3.5e-4 in float32).

    Rounding of a deep network stays well below; a rescaling by a factor that an activation does
    not pass on is well above.
    """
    dtype = outputs.dtype if outputs.dtype.is_floating_point else torch.float64
    return math.sqrt(torch.finfo(dtype).eps)


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Max |Δoutput| / max |output| over all outputs; infinite where one is not finite."""
    moved = max(float((two - one).abs().max()) for one, two in zip(before, after, strict=True))
    size = max(float(one.abs().max()) for one in before)
    if not math.isfinite(moved) or not math.isfinite(size):
        return math.inf
    return moved / size if size else (math.inf if moved else 0.0)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        InputError: the model can't be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a stranger's model may raise anything
        raise InputError(
            f"the model can't be copied, as a changed copy needs: {first_line(error)}"
        ) from error


def executed(model: nn.Module, run: Run) -> tuple[list[str], set[tuple[str, str]]]:
    """The layers that hold tensors of their own, in the order in which they run.

    Those that run more than once, and those that share a parameter with another, are left out:
    a change of one use would change the other.

    Returns:
        Their names, and the pairs of names where one's output is the next one's input, with
        nothing in between but what works in place.
    """
    order: list[str] = []
    direct: set[tuple[str, str]] = set()
    last: list[object] = [None]

    def watch(name: str, inputs: tuple[object, ...], output: object) -> None:
        if order and inputs and inputs[0] is last[0]:
            direct.add((order[-1], name))
        order.append(name)
        last[0] = output

    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: watch(name, inputs, output)
        )
        for name, module in model.named_modules()
        if name and not [*module.children()] and [*module.parameters(), *module.buffers()]
    ]
    try:
        run(model)
    finally:
        for hook in hooks:
            hook.remove()
    uses = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    times = Counter(order)
    kept = [
        name
        for name in order
        if times[name] == 1
        and all(uses[id(p)] == 1 for p in model.get_submodule(name).parameters())
    ]
    return kept, direct
