"""Accuracy lost under relative weight noise."""

import dataclasses

from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_draws
from ssgd_analysis.flatness.metric import RELATIVE, Perturbation, metric
from ssgd_analysis.flatness.perturbed import pairs, weight_noise


@metric(
    "accuracy lost under random relative weight noise",
    invariant_to=("layer", "neuron", "batchnorm", "permutation", "logit"),
    radius="sigma",
    radii=RELATIVE,
    perturbs=Perturbation("noise", "sigma"),
)
def noise_robustness(
    context: MetricContext,
    *,
    sigma: float = 0.2,
    law: str = "gaussian",
    scale: str = "weight",
    draws: int = 50,
) -> Measurement:
    """Accuracy at w − its mean at w ± z, z = sigma × relative noise on every parameter.

    Where the targets are no class labels the rise of the loss takes its place, which is
    ``expected``; ``settings["of"]`` says which. Same draws as ``expected`` at this sigma.

    Args:
        context: the problem.
        sigma: noise scale, relative to what ``scale`` names.
        law: ``binary``, ``gaussian``, ``sphere`` or ``uniform``.
        scale: ``filter``, ``layer``, ``weight`` (or ``element``) or ``none`` (absolute).
        draws: antithetic pairs, at least 2.

    Returns:
        A share of the examples (or nats); the error is that of the draws. ``details`` has the
        rise of the loss either way.

    Raises:
        InputError: a negative sigma, fewer than 2 draws, an unknown law or scale.
        WorkError: a loss is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> round(flatness.noise_robustness(problem, draws=4).value, 3)
        0.109
    """
    noise = weight_noise(law, scale)
    found = pairs(context, noise, sigma, draws)
    settings = {
        "sigma": sigma,
        "law": law,
        "scale": noise.scale,
        "draws": draws,
        "of": "loss" if found.drops is None else "accuracy",
        "seed": context.seed,
        "error": "draws",
    }
    values = found.even if found.drops is None else found.drops
    details = {"loss_rise": float(found.even.mean())}
    return dataclasses.replace(of_draws(values.tolist(), settings), details=details)
