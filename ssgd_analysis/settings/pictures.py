"""How pictures look, as every command that draws takes it and as ``save`` does in Python."""

from dataclasses import dataclass

from ssgd_analysis.settings.setting import Settings, setting


@dataclass(frozen=True, kw_only=True)
class PictureSettings(Settings):
    """Width, title and small print of pictures; see each field's declaration.

    Raises:
        InputError: a value of the wrong type or out of range.

    Example:
        >>> PictureSettings(width=3.3).small_print
        True
    """

    width: float | None = setting(
        None,
        "Width of each picture in inches; panels wrap to fit (default: 3.3 or 6.9, as it needs).",
        minimum=2,
        maximum=40,
    )
    title: str | None = setting(None, "Title above each picture (default: none).")
    small_print: bool = setting(
        True, "Settings and caveats in small print at the foot of each picture (default: on)."
    )
