"""What to measure of a problem."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssgd_analysis.curvature import OPERATORS, Options
from ssgd_analysis.curvature.operators.block_diagonal import NO_BLOCKS, has_blocks
from ssgd_analysis.errors import InputError, unknown
from ssgd_analysis.flatness import METRICS, all_metrics, resolve

DENSITY_PROBES, DENSITY_STEPS = 4, 40


@dataclass(frozen=True)
class SharpnessSettings:
    """What to measure.

    Args:
        operator: a name of :data:`ssgd_analysis.curvature.OPERATORS`.
        top: how many of the largest eigenvalues.
        tol: relative residual at which they are accepted.
        probes: random probes of the trace.
        trace_tol: go on with probes until the trace's relative standard error is below.
        metrics: names of :data:`ssgd_analysis.flatness.METRICS`, with settings as
            ``expected:sigma=0.2,law=binary``. With ``all`` among them every metric is measured;
            one that the problem does not have is then ``None`` with the reason ``why``, instead
            of an error.
        curves: every metric that has a radius over its grid of radii too.
        per_layer: λ_max and trace of every layer's diagonal block too.
        cross_check: PyHessian's eigenvalues beside ours.
        rescale_check: how far each metric moves when weights are rescaled and the function
            stays, see :func:`ssgd_analysis.sharpness.rescale_check.rescale_check`.
        rescale_factor: of that check; its inverse is tried, too.
        options: how products are made.
        plans: folder of plans that were measured before.
        seed: of all that is random; one seed gives every problem the same probes.

    Raises:
        InputError: an unknown operator or metric, or settings that exclude one another.

    Example:
        >>> SharpnessSettings(metrics=["sam"], curves=True).curves
        True
        >>> SharpnessSettings(operator="hesian")
        Traceback (most recent call last):
        ...
        ssgd_analysis.errors.InputError: unknown operator 'hesian'; did you mean 'hessian'?
    """

    operator: str = "hessian"
    top: int = 5
    tol: float = 1e-4
    probes: int = 32
    trace_tol: float | None = None
    metrics: Sequence[str] = ()
    curves: bool = False
    per_layer: bool = False
    cross_check: bool = False
    rescale_check: bool = False
    rescale_factor: float = 5.0
    options: Options = field(default_factory=Options)
    plans: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        if self.operator not in OPERATORS:
            raise unknown("operator", self.operator, OPERATORS)
        if self.per_layer and not has_blocks(OPERATORS[self.operator]):
            raise InputError(NO_BLOCKS)
        if self.cross_check and self.operator != "hessian":
            raise InputError("--cross-check compares Hessians: use it with --operator hessian")
        names = [resolve(text)[0] for text in self.metric_names]
        if self.curves and not any(METRICS[name].radius for name in names):
            known = ", ".join(name for name, metric in METRICS.items() if metric.radius)
            raise InputError(f"--curves needs a --metric that has a radius: {known}")

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
