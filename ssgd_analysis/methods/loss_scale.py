"""float16 gradients: the loss is scaled up, so that small ones do not vanish."""

SMALLEST = 2.0**-24  # a gradient that is not finite at this scale is not finite at any


class Overflow(Exception):  # noqa: N818 (no error: the step is skipped)
    """A scaled gradient is not finite; ``loss`` is the minibatch's."""

    def __init__(self, loss: float) -> None:
        super().__init__("a gradient is not finite at this loss scale")
        self.loss = loss


class LossScale:
    """The factor of the loss in float16 passes, by the rule of ``torch.amp.GradScaler``.

    GradScaler itself unscales once a step, just before the update. That is too late for a method
    that makes several passes and works with their gradients.

    Args:
        value: the first scale.
        interval: good steps after which it doubles.
    """

    def __init__(self, value: float = 2.0**16, interval: int = 2000) -> None:
        self.value, self.interval, self.good = value, interval, 0

    def keep(self) -> None:
        """Count a step that was made; after ``interval`` of them in a row the scale doubles."""
        self.good += 1
        if self.good == self.interval:
            self.value, self.good = self.value * 2, 0

    def shrink(self) -> None:
        """Halve the scale, because a step was skipped."""
        self.value, self.good = self.value / 2, 0
