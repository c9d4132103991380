"""The settings of every command, under the names that Python has for their classes."""

from ssgd_analysis.settings.comparison import (
    ComparisonSettings,
    MeasurementSettings,
    VerdictRule,
)
from ssgd_analysis.settings.connection import ConnectionSettings
from ssgd_analysis.settings.landscape import LandscapeSettings
from ssgd_analysis.settings.pictures import PictureSettings
from ssgd_analysis.settings.setting import Settings
from ssgd_analysis.settings.sharpness import SharpnessFields
from ssgd_analysis.settings.study import StudySettings
from ssgd_analysis.settings.training import TrainSettings

COMMAND_SETTINGS: dict[str, dict[str, type[Settings]]] = {
    "train": {"TrainConfig": TrainSettings},
    "sharpness": {"SharpnessSettings": SharpnessFields, "PictureSettings": PictureSettings},
    "landscape": {"LandscapeSettings": LandscapeSettings, "PictureSettings": PictureSettings},
    "connect": {"ConnectionSettings": ConnectionSettings, "PictureSettings": PictureSettings},
    "compare": {
        "ComparisonSettings": ComparisonSettings,
        "VerdictRule": VerdictRule,
        "MeasurementSettings": MeasurementSettings,
        "PictureSettings": PictureSettings,
    },
    "study": {"StudySettings": StudySettings},
}
