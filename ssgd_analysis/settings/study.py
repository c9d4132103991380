"""How ``study`` runs a study: its settings on the command line and in Python."""

from dataclasses import dataclass

from ssgd_analysis.settings.setting import Settings, setting

STUDY_SCALES = ("full", "tiny")


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """How much of a study is run, and with how many processes; see each field's declaration.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.

    Example:
        >>> StudySettings(seeds=3, jobs=2).scale
        'full'
    """

    jobs: int | None = setting(
        None,
        "Processes at once, of one thread each (default: one a core; on a GPU one).",
        minimum=1,
    )
    seeds: int | None = setting(
        None,
        "Number of seeds; with --resume it may be larger than before (default: the study's).",
        minimum=1,
    )
    scale: str = setting(
        "full",
        "tiny runs a small stand-in within minutes, which only shows that the study's file works.",
        choices=STUDY_SCALES,
    )
