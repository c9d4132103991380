"""Stochastic weight averaging."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.batchnorm import recalibrate
from ssgd_analysis.methods.compose import Wrapper
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When


@dataclass(frozen=True, kw_only=True)
class SWASettings(MethodSettings):
    """Settings of stochastic weight averaging."""

    swa_start: float = setting(
        0.75, "share of training from which weights are averaged", minimum=0, maximum=1
    )
    swa_lr: float = setting(0.05, "constant learning rate from then on; 0: the run's", minimum=0)


class SWA(Wrapper):
    """Wrapper: gives out the mean of the weights at the ends of the last epochs.

    Izmailov et al. 2018 (arXiv 1803.05407), algorithm 1 with a constant learning rate: w_swa ←
    (n w_swa + w) / (n + 1) after each epoch from ``swa_start`` on. The mean's BatchNorm
    statistics are made by a pass over the training examples, counted once, at the end.
    Before the first such epoch end, the iterate is given out.
    """

    Settings = SWASettings
    averages = True

    def __init__(self, passes: Passes, settings: MethodSettings, inner: Method) -> None:
        super().__init__(passes, settings, inner)
        self.parameters: list[Tensor] = [parameter for _, parameter in passes.parameters]
        self.mean = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.taken = 0

    def learning_rate(self, rate: float, fraction_done: float) -> float:
        """The constant rate ``swa_lr``, once averaging has begun."""
        if fraction_done >= self.settings.swa_start and self.settings.swa_lr > 0:
            return self.settings.swa_lr
        return super().learning_rate(rate, fraction_done)

    def after_step(self, when: When) -> None:
        """Add the new weights to the mean, where an epoch ends."""
        if when.fraction_done < self.settings.swa_start or not when.ends_epoch:
            return
        self.taken += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.parameters, 1 / self.taken)

    def state_dict(self) -> dict[str, Any]:
        """The mean, and of how many weights it is."""
        return {"mean": self.mean, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        torch._foreach_copy_(self.mean, state["mean"])
        self.taken = state["taken"]

    def finish(self, batches: Sequence[Batch]) -> None:
        """Put the mean into the model, with BatchNorm statistics of its own."""
        if self.taken == 0:
            return
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.mean)
        if not self.innermost.freezes_batchnorm(self.settings):
            recalibrate(self.passes, batches)
