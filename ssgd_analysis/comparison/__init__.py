"""Is this one flatter than that one? Groups, intervals, paired tests, verdicts."""

from ssgd_analysis.comparison.compare import DEFAULT_METRICS, compare
from ssgd_analysis.comparison.groups import Group, find_runs, group_runs
from ssgd_analysis.comparison.measurements import measure_run
from ssgd_analysis.comparison.metric_kinds import HISTORY_METRICS
from ssgd_analysis.comparison.record import Comparison
from ssgd_analysis.comparison.run_metrics import Measurements
from ssgd_analysis.settings.comparison import (
    ComparisonSettings,
    MeasurementSettings,
    VerdictRule,
)

__all__ = [
    "DEFAULT_METRICS",
    "HISTORY_METRICS",
    "Comparison",
    "ComparisonSettings",
    "Group",
    "MeasurementSettings",
    "Measurements",
    "VerdictRule",
    "compare",
    "find_runs",
    "group_runs",
    "measure_run",
]
