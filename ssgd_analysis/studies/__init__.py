"""Grids of runs: a TOML file each, one runner for all."""

from ssgd_analysis.settings.study import StudySettings
from ssgd_analysis.studies.load import check_study, describe_study, list_studies, load_study
from ssgd_analysis.studies.record import StudyRecord
from ssgd_analysis.studies.runner import plan_study, run_study, with_seeds
from ssgd_analysis.studies.spec import Arm, Setting, Study

__all__ = [
    "Arm",
    "Setting",
    "Study",
    "StudyRecord",
    "StudySettings",
    "check_study",
    "describe_study",
    "list_studies",
    "load_study",
    "plan_study",
    "run_study",
    "with_seeds",
]
