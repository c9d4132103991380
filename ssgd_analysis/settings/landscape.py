"""The settings of a landscape, as ``landscape`` takes them on the command line and in Python."""

from dataclasses import dataclass

from ssgd_analysis.errors import InputError
from ssgd_analysis.settings.setting import Settings, setting

DIRECTIONS = ("random", "eigen", "trajectory", "between", "gradient", "vectors")
NORMALIZATIONS = ("filter", "layer", "none")
BIASES = ("zero", "keep")
POINT_STATISTICS = ("frozen", "recalibrate")
POINT_PRECISIONS = ("fp32", "bf16")
WIDEST = 1e30  # of a span: coordinates times weights must be float32
FITTED = ("trajectory", "eigen")  # directions that choose their span from the data


@dataclass(frozen=True, kw_only=True)
class LandscapeSettings(Settings):
    """What a landscape shows; see each field's declaration.

    Filter-normalised directions without biases are those of Li et al. 2018, arXiv 1712.09913.

    Raises:
        InputError: a value that is out of range, unknown, or does not go with another one.

    Example:
        >>> LandscapeSettings(dims=2, directions="eigen").shape
        (21, 21)
    """

    dims: int = setting(1, "1 draws lines, 2 draws planes.", minimum=1, maximum=2)
    directions: str = setting(
        "random",
        "Kind of directions (default: random; vectors where --vectors is given).",
        choices=DIRECTIONS,
    )
    normalize: str = setting(
        "auto",
        "How directions are scaled; auto: filter for random directions, none for others.",
        choices=("auto", *NORMALIZATIONS),
    )
    biases: str | None = setting(
        None,
        "Biases and normalisation layers in a direction (default: keep with --normalize none,"
        " else zero).",
        choices=BIASES,
    )
    span: float | None = setting(
        None,
        "Draw from -F to F (default: 1; between: 0.5 beyond each end; trajectory: the whole path;"
        " eigen: until the parabola predicts eleven times the loss).",
        minimum=0,
        maximum=WIDEST,
    )
    points: int = setting(0, "Points of each axis (default: 0: 41, in 2-D 21).", minimum=0)
    repeats: int = setting(1, "Random directions sampled, for a band.", minimum=1)
    bn: str = setting(
        "frozen",
        "BatchNorm statistics; recalibrate estimates them anew at every point.",
        choices=POINT_STATISTICS,
    )
    precision: str = setting("fp32", "Precision of the forward passes.", choices=POINT_PRECISIONS)
    adaptive: bool = setting(False, "Measure a quarter of the points and interpolate the rest.")
    curvature: bool = setting(
        True, "Also measure curvatures and the share of λ_max in the plane (default: on)."
    )
    seed: int = setting(0, "Seed of the directions.", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize == "auto":
            chosen = "filter" if self.directions == "random" else "none"
            object.__setattr__(self, "normalize", chosen)
        if self.points == 0:
            object.__setattr__(self, "points", 41 if self.dims == 1 else 21)
        if self.biases is None:
            object.__setattr__(self, "biases", "keep" if self.normalize == "none" else "zero")
        if self.span is None and self.directions not in FITTED:
            object.__setattr__(self, "span", 0.5 if self.directions == "between" else 1.0)
        if self.span == 0 and self.directions != "between":
            raise InputError("--span 0 would be a single point: give a number above 0")
        if self.points < 2:
            raise InputError(f"--points {self.points} should be at least 2: one is no line")
        if self.repeats > 1 and self.directions != "random":
            raise InputError(f"--repeats {self.repeats} works only with --directions random")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one grid."""
        return (self.points,) * self.dims

    @property
    def units(self) -> dict[str, str]:
        """What the coordinates are, as text for axes."""
        scaled = {
            "filter": "fraction of each filter's norm",
            "layer": "fraction of each layer's norm",
            "none": "distance (L2 norm over all weights)",
        }[self.normalize]
        units = {"alpha": scaled, "beta": scaled}
        if self.directions == "between":
            units["alpha"] = "fraction of the way from the first checkpoint to the second"
            units["beta"] = "across, in units of that way"
        return dict(list(units.items())[: self.dims])
