"""Many points of a landscape, at less than a forward pass each."""

from ssgd_analysis.landscapes.evaluation.evaluator import Evaluator
from ssgd_analysis.landscapes.evaluation.measure import measured_plan
from ssgd_analysis.landscapes.evaluation.plan import EvaluationPlan, Plans

__all__ = ["EvaluationPlan", "Evaluator", "Plans", "measured_plan"]
