"""How fast the outputs change with the inputs."""

import math

import torch
from torch import Tensor

from ssgd_analysis.batch import pair
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.measurement import Measurement, of_batches
from ssgd_analysis.flatness.metric import metric
from ssgd_analysis.weights.noise import random_signs


@metric(
    "mean norm of the derivative of the outputs by the inputs",
    invariant_to=("layer", "neuron", "batchnorm", "permutation", "folding"),
    needs=("inputs of real numbers", "a loss of (outputs, targets)"),
)
def input_jacobian(context: MetricContext, *, of: str = "logits", probes: int = 32) -> Measurement:
    """E_x ‖∂f/∂x‖_F, the mean over examples of the Frobenius norm of the input-output Jacobian.

    A property of the function, not of its parametrisation: nothing that keeps the function moves
    it. It grows in proportion to the logits. Up to ``probes`` outputs an example are
    differentiated one by one, which is exact; of more, ‖J‖²_F is estimated by E‖Jᵀv‖² over
    random signs v, and its root is low by about 1/(4 probes) of the value at worst (rank one).

    Args:
        context: the problem; outputs of one example must depend on its own inputs only.
        of: ``logits``, the outputs as they are; or ``softmax`` of them over classes.
        probes: backward passes at most, at least 2.

    Returns:
        Output units per input unit; the error is that of sampling the examples.

    Raises:
        InputError: inputs that are no floating-point tensor, a loss that takes the model,
            outputs without one row an example, or settings out of range.
        WorkError: a norm is not finite.

    Example:
        >>> import torch
        >>> from ssgd_analysis import Problem, flatness
        >>> x, model = torch.diag(torch.tensor([1.0, 2.0])), torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> problem = Problem(model, torch.nn.MSELoss(), [(x, x.sum(dim=1, keepdim=True))])
        >>> found = flatness.input_jacobian(problem, of="logits")
        >>> round(found.value, 3)  # ∂(w₁x₁ + w₂x₂)/∂x = (1, 1)
        1.414

    Reference:
        Novak et al. 2018 (arXiv 1802.08760), eq. 1, of softmax outputs.
    """
    if of not in ("logits", "softmax"):
        raise InputError(f"of '{of}' should be logits or softmax")
    if probes < 2:
        raise InputError(f"probes {probes} should be at least 2")
    problem, generator = context.problem, context.generator("input_jacobian")
    if problem.takes_model:
        raise InputError(
            "the metric needs the model's outputs: give a loss whose parameters are"
            " (outputs, targets)"
        )
    values, passes = [], 0.0
    with problem.evaluating(), torch.enable_grad():
        counts = [problem.examples(batch) for batch in problem.batches]
        shares = [count / sum(counts) for count in counts]
        for share, batch in zip(shares, problem.batches, strict=True):
            inputs = pair(batch)[0]
            if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
                raise InputError(
                    "the inputs are not floating-point numbers, so nothing can be differentiated by"
                    " them: measure the layers after the embedding as a model of their own"
                )
            inputs = inputs.detach().clone().requires_grad_()
            outputs = problem.outputs(inputs)
            if outputs.ndim == 0 or len(outputs) != len(inputs):
                raise InputError(
                    f"outputs of shape {tuple(outputs.shape)} have no row for each"
                    f" of {len(inputs)} examples"
                )
            if of == "softmax":
                if outputs.ndim < 2:
                    raise InputError(
                        "softmax needs at least two outputs per example: use of=logits"
                    )
                outputs = outputs.softmax(dim=1)
            rows = outputs.reshape(len(inputs), -1)
            exact = rows.shape[1] <= probes
            values.append(float(_squares(rows, inputs, probes, generator).sqrt().mean()))
            passes += share * min(rows.shape[1], probes)
    context.pay(gradients=passes)
    if not all(map(math.isfinite, values)):
        raise WorkError("a norm of the Jacobian is not finite")
    settings = {"of": of, "probes": probes, "exact": exact, "seed": context.seed}
    return of_batches(context, values, settings, shares)


def _squares(outputs: Tensor, inputs: Tensor, probes: int, generator: torch.Generator) -> Tensor:
    """‖J‖²_F of each example, float64 (B,), of outputs (B, outputs of an example)."""
    count = outputs.shape[1]
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for index in range(min(count, probes)):
        if count <= probes:
            projected = outputs[:, index]
        else:
            signs = random_signs(outputs.numel(), generator).reshape(outputs.shape)
            projected = (signs.to(outputs.dtype) * outputs).sum(dim=1)
        grads = torch.autograd.grad(
            projected.sum(), inputs, retain_graph=True, materialize_grads=True
        )[0]
        total += grads.double().reshape(len(inputs), -1).square().sum(dim=1)
    return total if count <= probes else total / probes
