"""Fisher matrices: second moments of the examples' gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from ssgd_analysis import batch as batching
from ssgd_analysis import seeds
from ssgd_analysis.batch import Batch, pair
from ssgd_analysis.curvature.operators.gauss_newton import GaussNewtonMatrix, OutputCurvature
from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator
from ssgd_analysis.curvature.products.linearise import Unsupported
from ssgd_analysis.curvature.products.plan import Options
from ssgd_analysis.devices import is_out_of_memory
from ssgd_analysis.errors import InputError, first_line
from ssgd_analysis.problem import Problem
from ssgd_analysis.problem.loss_terms import LossTerms, LossWatch


class FisherMatrix(GaussNewtonMatrix):
    """One batch's empirical Fisher matrix.

    With s_i the gradient of example i's loss by its outputs, M maps u to
    w_i s_i ⟨s_i, u_i⟩ / Σ w_i.
    """

    def output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """Each example's outer product of its slope."""
        targets = pair(batch)[1]
        outputs = outputs.requires_grad_()
        with LossWatch() as watch:
            loss = self.problem.output_loss(outputs, targets)
        slope = torch.autograd.grad(loss, outputs)[0]
        terms = watch.terms_of(loss, outputs)
        if terms is None:
            self._check_examples(outputs, targets, slope)
        return _outer(slope, terms)

    def functional_output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """The same by ``torch.func``."""
        targets = pair(batch)[1]
        found: list[LossTerms | None] = []

        def loss(values: Tensor) -> Tensor:
            with LossWatch(check_labels=False) as watch:
                value = self.problem.output_loss(values, targets)
            found.append(watch.terms_of(value, values))
            return value

        slope = grad(loss)(outputs)
        return _outer(slope, found[-1])

    def _check_examples(self, outputs: Tensor, targets: Tensor, slope: Tensor) -> None:
        """Refuse a loss that is not the mean of its examples' losses at these outputs."""
        count = len(outputs)
        for index in range(count):
            row = outputs[index : index + 1].detach().requires_grad_()
            try:
                own = self.problem.output_loss(row, targets[index : index + 1])
                (alone,) = torch.autograd.grad(own, row)
            except Exception as error:  # a user's loss may raise anything of one example
                if is_out_of_memory(error):
                    raise
                raise InputError(f"{_NO_EXAMPLES} ({first_line(error)})") from error
            away = float((alone / count - slope[index : index + 1]).norm())
            if away > self.problem.tolerance * max(
                float(slope.norm()), float(alone.norm()) / count
            ):
                raise InputError(_NO_EXAMPLES)


_NO_EXAMPLES = (
    "a Fisher matrix needs a loss that is the mean of its examples' losses, and this one is not:"
    " use --operator hessian or ggn"
)


def _outer(slope: Tensor, terms: LossTerms | None) -> OutputCurvature:
    """U ↦ w_i s_i ⟨s_i, u_i⟩ / Σ w; ``slope``, shape (B, …), holds w_i s_i / Σ w."""
    batch = len(slope)
    rows = slope.reshape(batch, -1)  # (B, outputs of an example)
    factor = torch.full((batch, 1), float(batch), dtype=rows.dtype, device=rows.device)
    if terms is not None:
        weights = terms.rows.reshape(batch, -1).sum(dim=1, keepdim=True)
        factor = torch.where(weights > 0, weights.sum() / weights, 0).to(rows.dtype)

    def curvature(vector: Tensor) -> Tensor:
        inner = (rows * vector.reshape(batch, -1)).sum(dim=1, keepdim=True)
        return (rows * inner * factor).reshape(slope.shape)

    return curvature


class MonteCarloFisherMatrix(GaussNewtonMatrix):
    """One batch's Fisher matrix with labels drawn from the model.

    Args:
        problem: its loss fixes the distribution to draw from.
        draws: labels for each position.
        seed: of the labels.

    Raises:
        InputError: a loss that is neither cross-entropy nor the mean squared error.
    """

    no_differences = "the labels are random"

    def __init__(self, problem: Problem, *, draws: int, seed: int) -> None:
        super().__init__(problem)
        self.draws, self.seed = draws, seed
        if not _draws(problem):
            raise InputError(
                "the Monte Carlo Fisher matrix needs cross_entropy or mse, which fix the"
                " distribution of labels: use --operator ggn or fisher"
            )

    def output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """The mean over draws of outer products of sampled slopes, along the class axis."""
        with LossWatch() as watch:
            loss = self.problem.output_loss(outputs, pair(batch)[1])
        terms = watch.terms_of(loss, outputs)
        if terms is None:
            raise InputError(
                "the Monte Carlo Fisher matrix needs cross_entropy or mse directly on the"
                " model's outputs (not reshaped, scaled or indexed): use --operator ggn or fisher"
            )
        # A state that is built anew must draw the same labels, and another batch others.
        sums = [float(tensor.double().sum()) for tensor in batching.tensors(pair(batch)[0])]
        name = f"fisher labels {sums[0] if len(sums) == 1 else sums!r}"
        generator = seeds.generator(self.seed, name, device=outputs.device)
        share: Tensor | float
        if terms.name == "cross_entropy":
            chances = outputs.movedim(1, -1).softmax(dim=-1)  # (B, …, C)
            flat = chances.reshape(-1, chances.shape[-1])
            labels = torch.multinomial(flat, self.draws, replacement=True, generator=generator)
            hot = F.one_hot(labels.T, flat.shape[1]).to(outputs.dtype)  # (draws, terms, C)
            grads = (flat - hot).reshape(self.draws, *chances.shape).movedim(-1, 2)
            weights = terms.weights
            if weights.shape != chances.shape[:-1]:  # probabilities as targets: all count alike
                weights = torch.ones_like(chances[..., 0], dtype=torch.float64)
            share = (weights / weights.sum()).to(outputs.dtype).unsqueeze(1)
        else:
            noise = torch.randn(
                self.draws,
                *outputs.shape,
                generator=generator,
                dtype=outputs.dtype,
                device=outputs.device,
            )
            each = terms.weights
            if each.shape != outputs.shape:
                each = torch.ones_like(outputs, dtype=torch.float64)
            grads, share = noise * (2 * each / each.sum()).sqrt().to(outputs.dtype), 1.0
        weight = share / self.draws

        def curvature(vector: Tensor) -> Tensor:
            if outputs.ndim == 1:
                return weight * grads.square().sum(dim=0) * vector
            inner = (grads * vector).sum(dim=2, keepdim=True)
            return weight * (grads * inner).sum(dim=0)

        return curvature

    def functional_output_curvature(self, outputs: Tensor, batch: Batch) -> OutputCurvature:
        """Not there: labels are drawn."""
        raise Unsupported("the labels are random")


def _draws(problem: Problem) -> bool:
    """Whether the loss of every batch fixes a distribution of labels that can be drawn from."""
    return problem.terms is not None and all(
        terms.name in ("cross_entropy", "mse_loss") and not terms.smoothed
        for terms in problem.terms
    )


class FisherOperator(ProblemOperator):
    """Empirical Fisher matrix: the mean over examples of g gᵀ, g an example's loss gradient.

    Labels are the data's, not drawn from the model. An example (a row of the outputs) counts as it
    does in the loss: F = Σ w_i g_i g_iᵀ / Σ w_i for the loss Σ w_i l_i / Σ w_i, w_i the weights of
    the example's terms (class weights, labels that are not ignored) and g_i = ∇l_i, l_i the mean
    over its own terms.

    Args:
        problem: model, loss and batches.
        options: how to multiply; by default double backward on graphs that stay in memory.

    Raises:
        InputError: a loss ``(model, batch)``, or, at the first product, one that is not the mean of
            its examples' losses; and see :class:`~ssgd_analysis.curvature.ProblemOperator`.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis import FisherOperator, Problem
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> problem = Problem(model, nn.MSELoss(), [(torch.eye(2), torch.ones(2, 1))])
        >>> FisherOperator(problem).to_dense()  # the examples' gradients are −2 x
        tensor([[2., 0.],
                [0., 2.]])
    """

    batch_matrix = FisherMatrix


class MonteCarloFisherOperator(ProblemOperator):
    """Fisher matrix with labels drawn from the model: an unbiased estimate of the GGN.

    Positions count as in the loss: by the class weights of the data's labels, ignored ones not at
    all. Cross-entropy is the negative log-likelihood of a categorical label at every position, the
    mean squared error that of a Gaussian of variance ½. Labels are drawn once, from a fixed
    seed, so that the operator is one matrix; its error falls as one over the root of the draws.

    Args:
        problem: model, loss and batches.
        draws: labels drawn for each position.
        seed: of the draws.
        options: how to multiply; by default double backward on graphs that stay in memory.

    Raises:
        InputError: a loss that is neither (they fix the distribution to draw from), or fewer
            than one draw; and see :class:`~ssgd_analysis.curvature.ProblemOperator`.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis.curvature import MonteCarloFisherOperator
        >>> from ssgd_analysis.problem import Problem
        >>> batch = (torch.randn(8, 3), torch.arange(8) % 2)
        >>> problem = Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(), [batch])
        >>> MonteCarloFisherOperator(problem, draws=4).shape
        (8, 8)

    Reference:
        Martens 2020 (arXiv 1412.1193), sections 5 and 9.2; Kunstner et al. 2019 (1905.12558).
    """

    batch_matrix = MonteCarloFisherMatrix

    def __init__(
        self, problem: Problem, *, draws: int = 1, seed: int = 0, options: Options | None = None
    ) -> None:
        if draws < 1:
            raise InputError(f"the number of draws {draws} should be at least 1")
        self._compose(MonteCarloFisherMatrix(problem, draws=draws, seed=seed), options)
