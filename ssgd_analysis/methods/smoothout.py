"""SmoothOut and its adaptive forms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssgd_analysis.batch import Batch
from ssgd_analysis.methods.base import MethodSettings, setting
from ssgd_analysis.methods.passes import Passes
from ssgd_analysis.methods.points import NoisyPointsMethod, Point, part_points
from ssgd_analysis.methods.trained_on import TrainedOn, noise_of_size
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import Filters
from ssgd_analysis.weights.groups import group_norms

SMALLEST = 1e-6  # norm of a draw that is rescaled, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class SmoothOutSettings(MethodSettings):
    """Settings of SmoothOut."""

    strength: float = setting(0.01, "a: half-width of the noise, see adapt_type", minimum=0)
    adapt_type: str = setting(
        "none",
        "a is absolute, relative to each weight, or to each filter's norm exactly",
        choices=("none", "weight", "filter"),
    )
    noise_law: str = setting("uniform", "U(−a, a) or N(0, a²)", choices=("uniform", "gaussian"))
    smoothing: str = setting(
        "constant",
        "over training: constant, falling as (1 + t)^(−anneal/2), or rising from 0 to a",
        choices=("constant", "anneal", "tanh"),
    )
    anneal: float = setting(0.55, "exponent of smoothing=anneal", minimum=0)
    tanh_scale: float = setting(10.0, "steepness of smoothing=tanh", minimum=0)
    ghost_batches: int = setting(1, "parts of the minibatch, each with its own noise", minimum=1)
    exclude_bn: bool = setting(True, "no noise on BatchNorm's parameters")
    exclude: str = setting("none", "others without noise: none, or 1d, type:CLASS, a.*, …")
    bn_stats: str = setting(
        "both",
        "which passes update BatchNorm's running statistics",
        choices=("first", "both", "frozen"),
    )


class SmoothOut(NoisyPointsMethod):
    """SmoothOut: the gradient at w + n, n ~ U(−a, a), fresh for each ghost batch; one-sided.

    Wen et al. 2018 (arXiv 1805.07898). ``adapt_type=filter`` is AdaSmoothOut: the draw of each
    filter is rescaled so that ‖n_f‖ = a‖w_f‖ exactly; each entry of a 1-d parameter is a filter
    of its own, as in the authors' code. Parts of a minibatch count by their examples. The
    default a is our choice: we have not seen the paper's, and the code's is 0, no noise. The
    code's clipping of gradients and its learning rates are the training's affair here.
    """

    Settings = SmoothOutSettings

    def __init__(self, passes: Passes, settings: MethodSettings) -> None:
        super().__init__(passes, settings)
        self.law = self.settings.noise_law
        if self.settings.exclude_bn:
            layers = [m for m in passes.model.modules() if isinstance(m, _BatchNorm)]
            quiet = {id(p) for layer in layers for p in layer.parameters()}
            self.choose_noisy([p for p in self.noisy if id(p) not in quiet])

    @classmethod
    def smallest_pass(cls, settings: Any, batch_size: int) -> int:
        """The smallest part's."""
        return batch_size // settings.ghost_batches

    @classmethod
    def trained_on(cls, settings: Any, lr_schedule: str = "constant") -> Sequence[TrainedOn]:
        """The noise: a is a half-width, or makes each filter's norm exact, as the sphere's law."""
        factor = 1.0 if settings.smoothing == "constant" else 0.0
        if settings.adapt_type == "filter":
            return noise_of_size("sphere", "filter", settings.strength, factor)
        size = settings.strength / (math.sqrt(3) if settings.noise_law == "uniform" else 1.0)
        return noise_of_size(settings.noise_law, settings.adapt_type, size, factor)

    def points(self, batch: Batch) -> Sequence[Point]:
        """One for each ghost batch."""
        return part_points(self.passes, batch, self.settings.ghost_batches)

    def scale_noise(self, units: Sequence[Tensor], when: When) -> Sequence[Tensor]:
        """The draw times a, or also times the weight or the filter's norm."""
        chosen: Any = self.settings
        strength = chosen.strength * self._smoothing(when)
        if chosen.adapt_type == "filter":
            # a draw of zero, which a single entry may be, stays zero
            return [
                unit / _norm(unit, own).clamp_min(SMALLEST) * (_norm(w, own) * strength)
                for unit, w, own in zip(units, self.noisy, self.filters, strict=True)
            ]
        if chosen.noise_law == "uniform":
            strength /= math.sqrt(3)  # the draw has root mean square one
        if chosen.adapt_type == "weight":
            return [unit * w.abs() * strength for unit, w in zip(units, self.noisy, strict=True)]
        return [unit * strength for unit in units]

    def _smoothing(self, when: When) -> float:
        chosen: Any = self.settings
        if chosen.smoothing == "anneal":
            return (1 + when.step) ** (-chosen.anneal / 2)
        if chosen.smoothing == "tanh":
            return (math.tanh(chosen.tanh_scale * (when.fraction_done - 0.5)) + 1) / 2
        return 1.0


def _norm(tensor: Tensor, filters: Filters) -> Tensor:
    """L2 norm of each filter, shaped to multiply the tensor."""
    if tensor.ndim < 2:
        return tensor.abs()
    return group_norms(tensor, "filter", filters)[0]
