"""Expected sharpness: the mean rise of the loss under random weight noise."""

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import RELATIVE, Perturbation, metric
from ssgd_analysis.flatness.perturbed import pairs, weight_noise


@metric(
    "mean rise of the loss under random relative weight noise, antithetic pairs",
    invariant_to=("layer", "neuron", "batchnorm", "permutation"),
    radius="sigma",
    radii=RELATIVE,
    compared=True,
    perturbs=Perturbation("noise", "sigma"),
)
def expected(
    context: MetricContext,
    *,
    sigma: float = 0.1,
    law: str = "gaussian",
    scale: str = "weight",
    draws: int = 50,
) -> Measurement:
    """E_z ½[L(w + z) + L(w − z)] − L(w), z = sigma × relative noise on every parameter.

    Antithetic pairs cancel the first order in z, and one seed gives every model the same raw
    noise (common random numbers), so that differences between models are sharper than each
    value. To second order the value is ½ E[zᵀHz]. The default, Gaussian noise relative to each
    weight, is no method's training noise, and invariant to layer, neuron and BatchNorm scale.

    Args:
        context: the problem.
        sigma: noise scale, relative to what ``scale`` names.
        law: ``binary``, ``gaussian``, ``sphere`` or ``uniform``.
        scale: ``filter``, ``layer``, ``weight`` (or ``element``) or ``none`` (absolute).
        draws: antithetic pairs, at least 2.

    Returns:
        Nats; the error is that of the draws.

    Raises:
        InputError: a negative sigma, fewer than 2 draws, an unknown law or scale.
        WorkError: a loss is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> found = flatness.expected(problem, sigma=0.1, law="binary", draws=2)
        >>> round(found.value, 3)  # ½ sigma² (1 + 4)
        0.025

    Reference:
        Andriushchenko et al. 2023 (arXiv 2302.07011), average-case adaptive sharpness.
    """
    noise = weight_noise(law, scale)
    found = pairs(context, noise, sigma, draws)
    settings = {
        "sigma": sigma,
        "law": law,
        "scale": noise.scale,
        "draws": draws,
        "antithetic": True,
        "seed": context.seed,
        "error": "draws",
    }
    return of_draws(found.even.tolist(), settings)
