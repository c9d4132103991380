"""Sharpness-aware minimisation whose ascent is made now and then."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.ascent import AscentMethod, AscentSettings, inner, leave, steepness
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import global_norm

ROUNDINGS = 8  # that a difference of gradients may consist of, in units of the type's precision


@dataclass(frozen=True, kw_only=True)
class LookSAMSettings(AscentSettings):
    """Settings of LookSAM."""

    rho: float = setting(0.1, "radius of the ascent step, L2 norm over all parameters", minimum=0)
    k: int = setting(5, "steps from one ascent to the next", minimum=1)
    alpha: float = setting(0.7, "size of the remembered part, relative to ‖g‖", minimum=0)


class LookSAM(AscentMethod):
    """LookSAM: SAM at each k-th step, g + α (‖g‖/‖g_v‖) g_v at the others.

    Liu et al. 2022 (arXiv 2203.02714), algorithm 1: g_v is the part of SAM's gradient that is
    perpendicular to g, of the last ascent; norms are over all parameters (the paper's layer-wise
    form is Look-LayerSAM). The loss reported is that at w.
    """

    Settings = LookSAMSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.vertical: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in self.parameters}

    @classmethod
    def passes_per_step(cls, settings: LookSAMSettings) -> float:
        """One, and another at each k-th step."""
        return 1 + 1 / settings.k

    def gradient(self, batch: Batch, when: When) -> float:
        """SAM's, or the plain one turned as the last ascent would; see :meth:`Method.gradient`."""
        loss, parameters, grads = self.pass_at(0, batch)
        if when.step % self.settings.k == 0:
            found = self.grads_above(batch, parameters, grads, self.settings.rho)
            self._remember(parameters, grads, found)
        else:
            vertical = [self.vertical[parameter] for parameter in parameters]
            # a part that rounding alone has made is zeros (`_remember`), and adds nothing
            size = self.settings.alpha * steepness(grads) / steepness(vertical)
            found = list(torch._foreach_add(grads, torch._foreach_mul(vertical, size)))
        leave(parameters, found)
        return loss

    def _remember(self, parameters: list[Tensor], grads: list[Tensor], above: list[Tensor]) -> None:
        length = steepness(grads)
        along = inner(grads, above) / length / length
        found = torch._foreach_sub(above, torch._foreach_mul(grads, along))
        # Where the two gradients are parallel the difference is rounding, which the other steps
        # would blow up to α‖g‖.
        if global_norm(found) <= ROUNDINGS * torch.finfo(length.dtype).eps * global_norm(above):
            torch._foreach_zero_(found)
        for values in self.vertical.values():
            values.zero_()
        for parameter, values in zip(parameters, found, strict=True):
            self.vertical[parameter].copy_(values)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered of the last ascent."""
        return {"vertical": list(self.vertical.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of :meth:`state_dict`."""
        for values, saved in zip(self.vertical.values(), state["vertical"], strict=True):
            values.copy_(saved)
