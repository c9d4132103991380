"""Grids of runs: a TOML file each, one runner for all."""

from ssgd_analysis.studies.runner import run_study
from ssgd_analysis.studies.spec import Arm, Setting, Study, list_studies, load_study

__all__ = ["Arm", "Setting", "Study", "list_studies", "load_study", "run_study"]
