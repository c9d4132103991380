"""Kinds of question that a study can ask: one file each, and a line in the table."""

from ssgd_analysis.studies.questions.answer import Question
from ssgd_analysis.studies.questions.each import Each
from ssgd_analysis.studies.questions.pairs import AllPairs
from ssgd_analysis.studies.questions.rivals import Rivals
from ssgd_analysis.studies.questions.strength import Strength
from ssgd_analysis.studies.questions.symmetry import Symmetry
from ssgd_analysis.studies.questions.trend import Trend

QUESTIONS: dict[str, Question] = {
    "rivals": Rivals(),
    "trend": Trend(),
    "each": Each(),
    "strength": Strength(),
    "pairs": AllPairs(),
    "symmetry": Symmetry(),
}

__all__ = ["QUESTIONS", "Question"]
