"""Which layers of a network follow one another, and a copy to try changes on."""

from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ssgd_analysis import batch as batching
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.symmetries.layer_edits import channels
from ssgd_analysis.symmetries.same_function import Run, copied, same

BEFORE = 3  # layers back in the order of execution: a shortcut's may run in between


class Draft:
    """A model in change: changes are tried on copies, and made where the outputs do not change.

    The order in which layers run is found by hooks during one pass. Whether two layers really
    follow one another, and what lies between them, need not be known: a change is right if the
    outputs stay the same.

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
        """A layer of the present model."""
        return self.model.get_submodule(name)

    def pairs(
        self, is_first: Callable[[nn.Module], bool], is_second: Callable[[nn.Module], bool]
    ) -> Iterator[list[str]]:
        """Layers that may follow one another, by their channels, nearest first.

        Yields:
            The first one's name, those of what ran in between, and the second one's name; as
            the draft is then, with all changes that were made meanwhile.
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
        """Make a change if the outputs stay the same.

        Args:
            change: works on a copy of the model in place.
            what: the line about it in :attr:`done`.
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
        except Exception as error:  # a user's forward may ask a layer for what it lost
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
        inner: list[Tensor] = []
        if at is None:
            return self.run(model)
        hook = model.get_submodule(at).register_forward_hook(
            lambda module, inputs, output: inner.extend(batching.tensors(output))
        )
        try:
            found = self.run(model)
        finally:
            hook.remove()
        return [*(value.detach() for value in inner), *found]


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
    alone = [
        name
        for name in order
        if times[name] == 1
        and all(uses[id(p)] == 1 for p in model.get_submodule(name).parameters())
    ]
    return alone, direct
