"""Fisher matrices: second moments of the examples' gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad

from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.curvature.gauss_newton import GaussNewtonOperator, Metric
from ssgd_analysis.curvature.linearise import Unsupported
from ssgd_analysis.curvature.plan import Options
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem import Problem


class FisherOperator(GaussNewtonOperator):
    """Empirical Fisher matrix: the mean over examples of g gᵀ, g an example's loss gradient.

    Labels are the data's, not drawn from the model. With s_i the gradient of example i's loss
    by its outputs, M maps u to s_i ⟨s_i, u_i⟩ / B; the loss must be a mean of terms that each
    see one example (the first axis of the outputs).
    """

    def metric(self, outputs: Tensor, batch: Batch) -> Metric:
        """Each example's outer product of its slope."""
        outputs = outputs.requires_grad_()
        loss = self.problem.output_loss(outputs, pair(batch)[1])
        return _outer(torch.autograd.grad(loss, outputs)[0])

    def flow_metric(self, outputs: Tensor, batch: Batch) -> Metric:
        """The same by ``torch.func``."""
        targets = pair(batch)[1]
        return _outer(grad(lambda values: self.problem.output_loss(values, targets))(outputs))


def _outer(slope: Tensor) -> Metric:
    """U ↦ s_i ⟨s_i, u_i⟩ / B; ``slope``, shape (B, …), holds s_i / B."""
    batch = len(slope)
    rows = slope.reshape(batch, -1) * batch  # (B, outputs of an example)

    def metric(vector: Tensor) -> Tensor:
        inner = (rows * vector.reshape(batch, -1)).sum(dim=1, keepdim=True)
        return (rows * inner / batch).reshape(slope.shape)

    return metric


class MonteCarloFisherOperator(GaussNewtonOperator):
    """Fisher matrix with labels drawn from the model: an unbiased estimate of the GGN.

    Cross-entropy is the negative log-likelihood of a categorical label at every position, the
    mean squared error that of a Gaussian of variance ½. Labels are drawn once, from a fixed
    seed, so that the operator is one matrix; its error falls as one over the root of the draws.

    Raises:
        InputError: a loss that is neither (they fix the distribution to draw from).

    Reference:
        Martens 2020 (arXiv 1412.1193), sections 5 and 9.2; Kunstner et al. 2019 (1905.12558).
    """

    draws = 1
    seed = 0

    def _use(self, problem: Problem, options: Options | None) -> None:
        if _kind(problem) is None:
            raise InputError(
                "the Monte Carlo Fisher matrix needs cross_entropy or mse, which fix the"
                " distribution of labels: use --operator ggn or fisher"
            )
        super()._use(problem, options)

    def metric(self, outputs: Tensor, batch: Batch) -> Metric:
        """The mean over draws of outer products of sampled slopes, along the class axis."""
        terms = outputs.numel() // outputs.shape[1] if outputs.ndim > 1 else len(outputs)
        # A state that is built anew must draw the same labels, and another batch others.
        name = f"fisher labels {float(pair(batch)[0].double().sum())!r}"
        generator = seeds.generator(self.seed, name, device=outputs.device)
        if _kind(self.problem) == "cross_entropy":
            chances = outputs.movedim(1, -1).softmax(dim=-1)  # (B, …, C)
            flat = chances.reshape(-1, chances.shape[-1])
            labels = torch.multinomial(flat, self.draws, replacement=True, generator=generator)
            hot = F.one_hot(labels.T, flat.shape[1]).to(outputs.dtype)  # (draws, terms, C)
            slopes = (flat - hot).reshape(self.draws, *chances.shape).movedim(-1, 2)
            share = 1 / terms
        else:
            noise = torch.randn(
                self.draws,
                *outputs.shape,
                generator=generator,
                dtype=outputs.dtype,
                device=outputs.device,
            )
            slopes, share = noise * 2**0.5, 1 / outputs.numel()
        weight = share / self.draws

        def metric(vector: Tensor) -> Tensor:
            if outputs.ndim == 1:
                return weight * slopes.square().sum(dim=0) * vector
            inner = (slopes * vector).sum(dim=2, keepdim=True)
            return weight * (slopes * inner).sum(dim=0)

        return metric

    def flow_metric(self, outputs: Tensor, batch: Batch) -> Metric:
        """Not there: labels are drawn."""
        raise Unsupported("labels are drawn")


def _kind(problem: Problem) -> str | None:
    """``cross_entropy`` or ``mse`` where the loss is known to be one of them."""
    loss = problem.loss
    if isinstance(loss, nn.CrossEntropyLoss):
        return None if loss.weight is not None or loss.label_smoothing else "cross_entropy"
    if loss is F.cross_entropy:
        return "cross_entropy"
    if isinstance(loss, nn.MSELoss) or loss is F.mse_loss:
        return "mse"
    name = getattr(loss, "__name__", "")
    ours = getattr(loss, "__module__", "").startswith("ssgd_analysis.")
    return name if ours and name in ("cross_entropy", "mse") else None
