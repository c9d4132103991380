"""The low-pass filtered loss of LPF-SGD."""

import dataclasses

from ssgd_analysis.errors import InputError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import ABSOLUTE, Perturbation, metric
from ssgd_analysis.flatness.perturbed import pairs
from ssgd_analysis.weights import Noise


@metric(
    "mean loss under absolute Gaussian weight noise, LPF-SGD's smoothed loss",
    invariant_to=("permutation",),
    radius="sigma",
    radii=ABSOLUTE,
    perturbs=Perturbation("noise", "sigma", law="gaussian", scale="none"),
)
def lpf(
    context: MetricContext, *, sigma: float = 0.01, draws: int = 50, value_of: str = "loss"
) -> Measurement:
    """(L * K)(w) = E_z L(w + z), z ~ N(0, σ² I): the loss seen through a Gaussian filter.

    As published the value is the smoothed loss itself, so it follows the train loss first; to
    second order it is L + ½ σ² Tr H. Not invariant to any rescaling of the weights.

    Args:
        context: the problem.
        sigma: standard deviation of the noise on every weight, absolute.
        draws: antithetic pairs, at least 2.
        value_of: ``loss``, the smoothed loss; or ``rise``, what it is above the clean loss (then
            the same as ``expected`` with absolute Gaussian noise).

    Returns:
        Nats; the error is that of the draws. ``details["rise"]`` is the rise either way.

    Raises:
        InputError: a negative sigma, fewer than 2 draws, another ``value_of``.
        WorkError: a loss is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.lpf(problem, draws=4).value, 5)
        0.00027

    Reference:
        Bisla et al. 2022 (arXiv 2201.08025), section 3, LPF measure.
    """
    if value_of not in ("loss", "rise"):
        raise InputError(f"value_of '{value_of}' should be loss or rise")
    found = pairs(context, Noise(law="gaussian", scale="none"), sigma, draws)
    settings = {
        "sigma": sigma,
        "draws": draws,
        "value_of": value_of,
        "antithetic": True,
        "seed": context.seed,
        "error": "draws",
    }
    values = found.even if value_of == "rise" else (found.plus + found.minus) / 2
    details = {"clean_loss": found.clean, "rise": float(found.even.mean())}
    return dataclasses.replace(of_draws(values.tolist(), settings), details=details)
