"""The settings of a connection, as ``connect`` takes them on the command line and in Python."""

from dataclasses import dataclass

from ssgd_analysis.settings.setting import Settings, setting

PATH_STATISTICS = ("recalibrate", "frozen")


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings(Settings):
    """How paths between two minima are found and evaluated; see each field's declaration.

    Raises:
        InputError: a value that is out of range or unknown.

    Example:
        >>> ConnectionSettings(points=11).epochs
        50
    """

    points: int = setting(25, "Points evaluated along each path, both ends among them.", minimum=3)
    bends: int = setting(3, "Bends of the chain.", minimum=1)
    epochs: int = setting(50, "Epochs that a curve is trained.", minimum=1)
    lr: float = setting(1e-3, "Learning rate of a curve, by Adam.", above=0)
    bn: str = setting(
        "recalibrate",
        "BatchNorm statistics along the path; recalibrate estimates them anew at every point,"
        " frozen goes straight from one end's to the other's.",
        choices=PATH_STATISTICS,
    )
    seed: int = setting(0, "Seed of training and matching.", minimum=0)
