"""The settings of a landscape."""

from dataclasses import dataclass

from ssgd_analysis.errors import InputError, unknown

DIRECTIONS = ("random", "eigen", "trajectory", "between", "gradient", "vectors")
NORMALIZATIONS = ("filter", "layer", "none")
BIASES = ("zero", "keep")
BN = ("frozen", "recalibrate")
PRECISIONS = ("fp32", "bf16")
WIDEST = 1e30  # of a span: coordinates times weights must be float32
FITTED = ("trajectory", "eigen")  # directions that choose their span from the data


@dataclass(frozen=True, kw_only=True)
class LandscapeSettings:
    """What a landscape shows.

    Args:
        dims: 1 or 2.
        directions: ``random``, ``eigen``, ``trajectory``, ``between``, ``gradient`` or ``vectors``.
        normalize: ``filter``, ``layer`` or ``none``; ``auto``: ``filter`` for random directions,
            ``none`` for others, which have a length or shape of their own. ``between`` is the
            line itself, whatever this.
        biases: of filter- and layer-normalised directions ``zero`` (Li et al. 2018) or ``keep``
            biases and the parameters of normalisation layers; default: ``zero`` there, ``keep``
            with ``none``.
        span: the grid runs from −span to span; for ``between`` from −span to 1 + span. Default: 1,
            for ``between`` 0.5; for ``trajectory`` what holds the path, and for ``eigen`` up to
            where the parabola along the first axis predicts eleven times the loss.
        points: for each axis; 0: 41 on a line, 21 in a plane.
        repeats: random directions sampled, for a band.
        bn: BatchNorm's statistics ``frozen``, or ``recalibrate``: estimated anew at every point.
        precision: of the forward passes, ``fp32`` (that is, the weights' own) or ``bf16``.
        adaptive: measure a quarter of the points and interpolate the rest.
        curvature: slopes and curvatures along the directions, and the share of λ_max in a plane.
        seed: of the directions.

    Raises:
        InputError: anything unknown or out of range.
    """

    dims: int = 1
    directions: str = "random"
    normalize: str = "auto"
    biases: str | None = None
    span: float | None = None
    points: int = 0
    repeats: int = 1
    bn: str = "frozen"
    precision: str = "fp32"
    adaptive: bool = False
    curvature: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.normalize == "auto":
            chosen = "filter" if self.directions == "random" else "none"
            object.__setattr__(self, "normalize", chosen)
        if self.points == 0:
            object.__setattr__(self, "points", 41 if self.dims == 1 else 21)
        if self.biases is None:
            object.__setattr__(self, "biases", "keep" if self.normalize == "none" else "zero")
        if self.span is None and self.directions not in FITTED:
            object.__setattr__(self, "span", 0.5 if self.directions == "between" else 1.0)
        for kind, value, choices in (
            ("directions", self.directions, DIRECTIONS),
            ("normalization", self.normalize, NORMALIZATIONS),
            ("choice for biases", self.biases, BIASES),
            ("BatchNorm choice", self.bn, BN),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in choices:
                raise unknown(kind, str(value), choices)
        if self.dims not in (1, 2):
            raise InputError(f"--dims {self.dims} should be 1 or 2")
        if self.span is not None and not 0 <= self.span <= WIDEST:
            raise InputError(f"--span {self.span} should be a number from 0 to {WIDEST:g}")
        if self.span == 0 and self.directions != "between":
            raise InputError("--span 0 would be a single point: give a number above 0")
        if self.points < 2:
            raise InputError(f"--points {self.points} should be at least 2: one is no line")
        if self.repeats < 1 or (self.repeats > 1 and self.directions != "random"):
            raise InputError(
                f"--repeats {self.repeats} should be at least 1, and 1 but for random directions"
            )

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
