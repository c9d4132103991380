"""Learning-rate schedules as functions of the step: nothing to save, nothing to resume."""

import math


def scaled_rate(rate: float, rule: str, batch: int, base: int) -> float:
    """A learning rate that was chosen at one batch size, for another.

    Args:
        rate: at batch size ``base``.
        rule: ``none``; ``linear``: × batch/base (Goyal et al. 2017, arXiv 1706.02677); ``sqrt``:
            × √(batch/base) (Krizhevsky 2014, arXiv 1404.5997; Hoffer et al. 2017, arXiv
            1705.08741).
        batch: examples of a minibatch.
        base: examples of a minibatch at which ``rate`` is meant.
    """
    return rate * {"none": 1.0, "linear": batch / base, "sqrt": math.sqrt(batch / base)}[rule]


def learning_rate(peak: float, schedule: str, step: int, total: int, warmup: int) -> float:
    """The learning rate of one step.

    Args:
        peak: the highest rate.
        schedule: ``constant``; ``step``: ×0.1 at 1/2 and again at 3/4 of all steps; ``cosine``:
            half a cosine from the peak to zero over the steps after warm-up.
        step: 0 for the first step.
        total: steps of the whole training.
        warmup: first steps, over which the rate grows linearly to the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "step":
        return peak * 0.1 ** ((step >= total / 2) + (step >= total * 3 / 4))
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2
    return peak
