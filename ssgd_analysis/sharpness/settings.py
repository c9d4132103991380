"""What to measure of a problem."""

from dataclasses import dataclass, field
from pathlib import Path

from ssgd_analysis.curvature import OPERATORS, Options
from ssgd_analysis.curvature.operators.block_diagonal import NO_BLOCKS, has_blocks
from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness import METRICS, all_metrics, parse_metric
from ssgd_analysis.settings.sharpness import SharpnessFields

DENSITY_PROBES, DENSITY_STEPS = 4, 40


@dataclass(frozen=True, kw_only=True)
class SharpnessSettings(SharpnessFields):
    """What to measure; the fields are those of :class:`SharpnessFields` and two more.

    With ``all`` among the metrics, one that the problem does not have is ``None`` with the reason
    ``why``, instead of an error.

    Args:
        options: how products are made.
        plans: folder of plans that were measured before.

    Raises:
        InputError: an unknown operator or metric, or settings that exclude one another.

    Example:
        >>> SharpnessSettings(metrics=["sam"], curves=True).curves
        True
        >>> SharpnessSettings().top
        5
    """

    options: Options = field(default_factory=Options)
    plans: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", list(self.metrics))
        super().__post_init__()
        if self.per_layer and not has_blocks(OPERATORS[self.operator]):
            raise InputError(NO_BLOCKS)
        if self.cross_check and self.operator != "hessian":
            raise InputError("--cross-check compares Hessians: use it with --operator hessian")
        names = [parse_metric(text)[0] for text in self.metric_names]
        if self.curves and not any(METRICS[name].radius for name in names):
            choices = ", ".join(name for name, metric in METRICS.items() if metric.radius)
            raise InputError(f"--curves needs a --metric that has a radius: {choices}")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics, each once, ``all`` spelled out."""
        return all_metrics(self.metrics)

    @property
    def optional(self) -> bool:
        """Whether a metric that the problem does not have is no error."""
        return "all" in self.metrics

    @property
    def products(self) -> int:
        """About how many products it will take: the search for eigenvalues is a guess."""
        return 50 + 8 * self.top + DENSITY_PROBES * DENSITY_STEPS + self.probes
