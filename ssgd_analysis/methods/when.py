"""The moment of training at which a step is made."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class When:
    """The moment of training at which a step is made; everything a schedule may depend on.

    Args:
        step: number of the step, from 0.
        fraction_done: share of the training that was done before this step, in [0, 1].
        lr_share: learning rate of the step as a share of the highest one of the training.
        ends_epoch: whether this step is the last one of an epoch.

    Example:
        >>> When(step=3, fraction_done=0.3).lr_share
        1.0
    """

    step: int = 0
    fraction_done: float = 0.0
    lr_share: float = 1.0
    ends_epoch: bool = False


START = When()
