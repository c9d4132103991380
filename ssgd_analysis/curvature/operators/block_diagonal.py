"""The block-diagonal part of an operator, one block a layer or a tensor."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssgd_analysis.batch import Batch
from ssgd_analysis.curvature.operators.problem_operator import ProblemOperator
from ssgd_analysis.curvature.products.batch_matrix import BatchMatrix, Multiply
from ssgd_analysis.curvature.products.linearise import Unsupported
from ssgd_analysis.curvature.products.plan import Options
from ssgd_analysis.errors import InputError

NO_BLOCKS = "per-layer curvature needs --operator hessian, ggn, fisher or fisher-mc"


def has_blocks(kind: type[ProblemOperator]) -> bool:
    """Whether operators of a kind have one batch's blocks: not where the mean of all comes in."""
    return kind.part is ProblemOperator.part


class BlockDiagonalMatrix(BatchMatrix):
    """The blocks of one batch's matrix, one a layer or a tensor; ``layers`` says where each is.

    Args:
        whole: the matrix.
        tensors: every parameter is a block of its own.
    """

    no_differences = "a difference moves all layers at once"

    def __init__(self, whole: BatchMatrix, *, tensors: bool) -> None:
        super().__init__(whole.problem)
        self.whole = whole
        self.layers: dict[str, slice] = {}
        self._members: list[list[int]] = []
        start = 0
        for index, (name, parameter) in enumerate(self.problem.parameters.items()):
            layer = name if tensors else name.rpartition(".")[0] or name
            stop = start + parameter.numel()
            if layer in self.layers and self.layers[layer].stop == start:
                self.layers[layer] = slice(self.layers[layer].start, stop)
                self._members[-1].append(index)
            else:  # not next to its sisters: a block of its own
                self.layers[layer if layer not in self.layers else name] = slice(start, stop)
                self._members.append([index])
            start = stop

    def build_product(self, batch: Batch) -> tuple[Sequence[Tensor], Multiply]:
        """The whole matrix's graph, one block at a time."""
        roots, multiply = self.whole.build_product(batch)

        def blocks(vector: list[Tensor], members: Sequence[int]) -> list[Tensor]:
            found = [torch.zeros_like(part) for part in vector]
            for block in self._members:
                if any(bool(vector[index].any()) for index in block):
                    product = multiply([vector[index] for index in block], block)
                    for index, part in zip(block, product, strict=True):
                        found[index] = part
            return found

        return roots, blocks

    def functional_product(
        self, weights: Sequence[Tensor], vector: Sequence[Tensor], batch: Batch
    ) -> Sequence[Tensor]:
        """Not there: one linear map would hold a product for every layer."""
        raise Unsupported("block-diagonal products need double backward")

    def difference(self, batch: Batch, move: Callable[[int], None], step: float) -> list[Tensor]:
        """Not there: a difference moves all layers at once."""
        raise NotImplementedError


class BlockDiagonalOperator(ProblemOperator):
    """Diag(H_ll): the blocks of H that belong to one layer each, all in one sweep over the data.

    A layer is a module that holds parameters itself (a convolution with its bias). A product
    multiplies every block; blocks whose part of the vector is zero are skipped. ``layers`` says
    where each block stands.

    Args:
        operator: H; its batches are shared.
        tensors: every parameter is a block, under the parameter's name.

    Raises:
        InputError: the gradient covariance, whose mean part is not one batch's.

    Example:
        >>> import torch; from torch import nn
        >>> from ssgd_analysis.curvature import BlockDiagonalOperator, HessianOperator
        >>> from ssgd_analysis.problem import Problem
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
        >>> problem = Problem(model, nn.MSELoss(), [(torch.randn(8, 3), torch.randn(8, 1))])
        >>> BlockDiagonalOperator(HessianOperator(problem)).layers
        {'0': slice(0, 8, None), '2': slice(8, 11, None)}
    """

    batch_matrix = BlockDiagonalMatrix

    def __init__(self, operator: ProblemOperator, *, tensors: bool = False) -> None:
        if not has_blocks(type(operator)):
            raise InputError(NO_BLOCKS)
        matrix = BlockDiagonalMatrix(operator.matrix, tensors=tensors)
        self.deadline, self.layers = operator.deadline, matrix.layers
        self._compose(matrix, Options(strategy="graph", memory=operator.engine.options.memory))
