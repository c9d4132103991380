"""Kinds of question that a study answers."""

from ssgd_analysis.studies.questions.questions import QUESTIONS

__all__ = ["QUESTIONS"]
