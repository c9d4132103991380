"""Is this one flatter than that one? Groups, intervals, paired tests, verdicts."""

from ssgd_analysis.compare.compare import DEFAULT_METRICS, compare
from ssgd_analysis.compare.groups import Group, find_runs, group_runs
from ssgd_analysis.compare.measurements import MeasureSettings, measured
from ssgd_analysis.compare.metric_kinds import HISTORY_METRICS
from ssgd_analysis.compare.record import Comparison
from ssgd_analysis.compare.rule import Rule
from ssgd_analysis.compare.run_metrics import Measurements

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
