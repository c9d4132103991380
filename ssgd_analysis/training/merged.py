"""One step of many equal base optimizers."""

from collections.abc import Sequence
from typing import Any

from torch import optim

# Optimizers whose step treats every parameter tensor by itself: a step over the tensors of
# several models is each model's own step, to the bit.
SEPARABLE = (
    *(optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.NAdam, optim.RAdam),
    *(optim.Adagrad, optim.Adadelta, optim.Adamax),
)


def likeness(optimizer: optim.Optimizer) -> tuple[Any, ...] | None:
    """What optimizers must share to step as one; ``None``: it steps alone."""
    if type(optimizer) not in SEPARABLE or len(optimizer.param_groups) != 1:
        return None
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return None
    group = optimizer.param_groups[0]
    begun = any(optimizer.state.values())  # torch's fused SGD takes momenta of all or of none
    return (type(optimizer), begun, *[(key, group[key]) for key in group if key != "params"])


class Merged:
    """One optimizer over the parameters of several, whose state stays their own.

    Args:
        optimizers: of one likeness.
    """

    def __init__(self, optimizers: Sequence[optim.Optimizer]) -> None:
        self.owners = [(each, each.state, each.param_groups[0]["params"]) for each in optimizers]
        group = dict(optimizers[0].param_groups[0])
        group["params"] = [p for _, _, parameters in self.owners for p in parameters]
        kind: Any = type(optimizers[0])
        self.whole = kind([group])
        self.group = self.whole.param_groups[0]
        self.whole.state.clear()
        for _, state, parameters in self.owners:
            for parameter in parameters:
                self.whole.state[parameter] = state[parameter]  # one dict for both

    @property
    def holds(self) -> bool:
        """Whether the optimizers still have the parameters and state that they had."""
        return all(
            each.state is state
            and each.param_groups[0]["params"] is parameters
            and len(state) == len(parameters)
            and state[parameters[0]] is self.whole.state[parameters[0]]
            for each, state, parameters in self.owners
        )

    def step(self) -> None:
        """Step with what is in each ``.grad``; options as they are now."""
        self.group.update(
            (key, value)
            for key, value in self.owners[0][0].param_groups[0].items()
            if key != "params"
        )
        self.whole.step()
