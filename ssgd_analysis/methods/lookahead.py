"""Lookahead: slow weights behind the fast ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import Method, MethodSettings, setting
from ssgd_analysis.methods.compose import Wrapper
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When

MOMENTA = ("momentum_buffer", "exp_avg")  # as torch's optimizers and their like call it


@dataclass(frozen=True, kw_only=True)
class LookaheadSettings(MethodSettings):
    """Settings of Lookahead."""

    lookahead_k: int = setting(5, "fast steps for each slow one", minimum=1)
    lookahead_alpha: float = setting(0.5, "size of the slow step", minimum=0, maximum=1)
    lookahead_momentum: str = setting(
        "maintain",
        "the base optimizer's momentum at a slow step: retained, or reset to zero",
        choices=("maintain", "reset"),
    )


class Lookahead(Wrapper):
    """Wrapper: k fast steps, then back to slow weights that follow them; gives out the slow ones.

    Zhang et al. 2019 (arXiv 1907.08610), algorithm 1: after each k-th step φ ← φ + α (w − φ) and
    w ← φ. BatchNorm's statistics are the fast weights', as in the authors' code.
    """

    Settings = LookaheadSettings
    moves = True

    def __init__(self, passes: Passes, settings: MethodSettings, inner: Method) -> None:
        super().__init__(passes, settings, inner)
        self.parameters: list[Tensor] = [parameter for _, parameter in passes.parameters]
        self.slow = [parameter.detach().clone() for parameter in self.parameters]

    def after_step(self, when: When) -> None:
        """The slow step, after each k-th fast one."""
        if (when.step + 1) % self.settings.lookahead_k:
            return
        with torch.no_grad():
            torch._foreach_lerp_(self.slow, self.parameters, self.settings.lookahead_alpha)
            torch._foreach_copy_(self.parameters, self.slow)
        if self.settings.lookahead_momentum == "reset":
            for state in self.passes.optimizer.state.values():
                for name in MOMENTA:
                    if state.get(name) is not None:
                        state[name].zero_()

    def state_dict(self) -> dict[str, Any]:
        """The slow weights."""
        return {"slow": self.slow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        torch._foreach_copy_(self.slow, state["slow"])

    def finish(self, batches: Sequence[Batch]) -> None:
        """Put the slow weights into the model."""
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.slow)
