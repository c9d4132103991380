"""What ``sharpness`` measures, as it is declared for the command line and for Python."""

from dataclasses import dataclass

from ssgd_analysis.settings.setting import Settings, setting

OPERATOR_NAMES = ("hessian", "ggn", "fisher", "fisher-mc", "covariance")


@dataclass(frozen=True, kw_only=True)
class SharpnessFields(Settings):
    """The settings of a measurement that need no other package; see each field's declaration.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.
    """

    operator: str = setting(
        "hessian",
        "The matrix: the Hessian, the Gauss-Newton matrix, the empirical Fisher, the Fisher with"
        " sampled labels, or the covariance of the gradients.",
        choices=OPERATOR_NAMES,
    )
    top: int = setting(5, "How many of the largest eigenvalues.", minimum=1)
    tol: float = setting(
        1e-4, "Relative residual at which eigenvalues are accepted (default: 1e-4).", above=0
    )
    probes: int = setting(32, "Random probes of the trace.", minimum=2)
    trace_tol: float | None = setting(
        None,
        "Add probes until the trace's relative standard error is below this (default: off).",
        above=0,
    )
    metrics: list[str] = setting(
        list,
        "A flatness metric of `ssgd-analyze list metrics`, with its settings if they are not the"
        " default ones, as in expected:sigma=0.2,law=binary; or all, for every metric that the"
        " problem has.",
        option="metric",
    )
    curves: bool = setting(
        False, "Also measure every metric that has a radius over a grid of radii."
    )
    per_layer: bool = setting(False, "Also give λ_max and trace of every layer's diagonal block.")
    cross_check: bool = setting(False, "Also run PyHessian on the same problem.")
    rescale_check: bool = setting(
        False,
        "Also rescale the weights so that the function stays the same: how far does each metric"
        " move?",
    )
    rescale_factor: float = setting(
        5.0, "Factor of --rescale-check; its inverse is tried, too.", above=0
    )
    seed: int = setting(
        0, "Seed of all that is random; one seed gives every problem the same probes.", minimum=0
    )
