"""Metrics of members in memory: all metrics of one checkpoint are measured together."""

from collections.abc import Callable, Sequence

from ssgd_analysis.comparison.measurements import measure_member, train_loss
from ssgd_analysis.comparison.members import Member
from ssgd_analysis.comparison.metric_kinds import is_flatness
from ssgd_analysis.settings.comparison import MeasurementSettings


class Measurements:
    """Metrics of runs and other weights, as :func:`ssgd_analysis.comparison.compare` asks for them.

    Called with ``(member, metric, step=None, target=None)``; see :func:`measure_member`. Where a
    member has no value the answer is ``None``, and :meth:`why` gives the reason.

    Args:
        metrics: what will be asked for.
        settings: split, seed, ….
        on_measured: is called with every member and metric that had to be computed.

    Example:
        >>> source = Measurements(["lambda_max"], MeasurementSettings(samples=100))
        >>> source.settings.split
        'train'
    """

    def __init__(
        self,
        metrics: Sequence[str],
        settings: MeasurementSettings,
        on_measured: Callable[[Member, str], None] = lambda member, metric: None,
    ) -> None:
        self.settings, self._on_measured = settings, on_measured
        self._flatness = [metric for metric in dict.fromkeys(metrics) if is_flatness(metric)]
        self._values: dict[tuple[str, int | None, float | None], dict[str, float | None]] = {}
        self._losses: dict[tuple[str, int | None], float] = {}
        self._refused: dict[tuple[str, str], str] = {}

    def __call__(
        self, member: Member, metric: str, step: int | None = None, target: float | None = None
    ) -> float | None:
        """The value, or ``None``."""
        values = self._values.setdefault((member.place, step, target), {})
        if metric not in values:
            wanted = [*(self._flatness if is_flatness(metric) else ()), metric]
            found = measure_member(
                member,
                list(dict.fromkeys(wanted)),
                self.settings,
                step=step,
                target=target,
                on_measured=lambda name: self._on_measured(member, name),
                on_refused=lambda name, why: self._refuse(member, name, why),
            )
            values.update(found)
        return values[metric]

    def _refuse(self, member: Member, metric: str, why: str) -> None:
        self._refused.setdefault((member.place, metric), why)

    def why(self, member: Member, metric: str) -> str:
        """Why a member has no value of a metric; empty where nothing was refused."""
        return self._refused.get((member.place, metric), "")

    def train_loss(self, member: Member, step: int | None = None) -> float:
        """See :func:`train_loss`."""
        key = (member.place, step)
        if key not in self._losses:
            self._losses[key] = train_loss(member, self.settings, step)
        return self._losses[key]
