"""Metrics of runs in memory: all metrics of one checkpoint are measured together."""

from collections.abc import Callable, Sequence

from ssgd_analysis.comparison.measurements import measure_run, train_loss
from ssgd_analysis.comparison.metric_kinds import is_flatness
from ssgd_analysis.runs import Run
from ssgd_analysis.settings.comparison import MeasurementSettings


class Measurements:
    """Metrics of runs, as :func:`ssgd_analysis.comparison.compare` asks for them.

    Called with ``(run, metric, step=None, target=None)``; see :func:`measure_run`. Where a run has
    no value the answer is ``None``, and :meth:`why` gives the reason.

    Args:
        metrics: what will be asked for.
        settings: split, seed, ….
        on_measured: is called with every run and metric that had to be computed.

    Example:
        >>> source = Measurements(["lambda_max"], MeasurementSettings(samples=100))
        >>> source.settings.split
        'train'
    """

    def __init__(
        self,
        metrics: Sequence[str],
        settings: MeasurementSettings,
        on_measured: Callable[[Run, str], None] = lambda run, metric: None,
    ) -> None:
        self.settings, self._on_measured = settings, on_measured
        self._flatness = [metric for metric in dict.fromkeys(metrics) if is_flatness(metric)]
        self._values: dict[tuple[str, int | None, float | None], dict[str, float | None]] = {}
        self._losses: dict[tuple[str, int | None], float] = {}
        self._refused: dict[tuple[str, str], str] = {}

    def __call__(
        self, run: Run, metric: str, step: int | None = None, target: float | None = None
    ) -> float | None:
        """The value, or ``None``."""
        values = self._values.setdefault((str(run.folder), step, target), {})
        if metric not in values:
            wanted = [*(self._flatness if is_flatness(metric) else ()), metric]
            found = measure_run(
                run,
                list(dict.fromkeys(wanted)),
                self.settings,
                step=step,
                target=target,
                on_measured=lambda name: self._on_measured(run, name),
                on_refused=lambda name, why: self._refuse(run, name, why),
            )
            values.update(found)
        return values[metric]

    def _refuse(self, run: Run, metric: str, why: str) -> None:
        self._refused.setdefault((str(run.folder), metric), why)

    def why(self, run: Run, metric: str) -> str:
        """Why a run has no value of a metric; empty where nothing was refused."""
        return self._refused.get((str(run.folder), metric), "")

    def train_loss(self, run: Run, step: int | None = None) -> float:
        """See :func:`train_loss`."""
        key = (str(run.folder), step)
        if key not in self._losses:
            self._losses[key] = train_loss(run, self.settings, step)
        return self._losses[key]
