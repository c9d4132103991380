"""Is this one flatter than that one? Groups, intervals, paired tests, verdicts."""

from ssgd_analysis.comparison.compare import DEFAULT_METRICS, compare
from ssgd_analysis.comparison.groups import Group, find_runs, group_runs
from ssgd_analysis.comparison.measurements import MeasureSettings, measured
from ssgd_analysis.comparison.metric_kinds import HISTORY_METRICS
from ssgd_analysis.comparison.record import Comparison
from ssgd_analysis.comparison.rule import Rule
from ssgd_analysis.comparison.run_metrics import Measurements

__all__ = [
    "DEFAULT_METRICS",
    "HISTORY_METRICS",
    "Comparison",
    "Group",
    "MeasureSettings",
    "Measurements",
    "Rule",
    "compare",
    "find_runs",
    "group_runs",
    "measured",
]
