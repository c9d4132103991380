"""Whether a model and a loss are fit to be measured: one function, deterministic, and a mean."""

import copy
import math
from collections.abc import Sequence

import torch

from ssgd_analysis import batch as batching
from ssgd_analysis.batch import Batch
from ssgd_analysis.errors import InputError
from ssgd_analysis.problem.batch_loss import BatchLoss
from ssgd_analysis.problem.loss_terms import LossWatch
from ssgd_analysis.weights.untouched import overrides_mode


def check_modes(of: BatchLoss, batches: Sequence[Batch]) -> None:
    """Refuse modules whose own ``train`` or ``eval`` changes what the model computes.

    Evaluation sets flags only: an adapter that merges itself into the weights in ``eval``
    would take its derivatives away, and leave the weights moved by rounding.
    """
    own = [name for name, module in of.model.named_modules() if overrides_mode(module)]
    if not own:
        return
    try:
        other = copy.copy(of)
        other.model = copy.deepcopy(of.model).eval()
    except Exception:  # a user's module may raise anything: then there is nothing to compare
        return
    stuck = [name for name, module in other.model.named_modules() if module.training]
    if stuck:
        raise InputError(
            f"the model's '{stuck[0]}' stays in training mode: curvature needs a model"
            " that can be set to evaluation mode"
        )
    with of.evaluating(), torch.no_grad():
        for batch in batches:
            before = float(of.batch_loss(batch))
            after = float(other.batch_loss(batch))
            if not of.close(before, after):
                raise InputError(
                    f"eval() of the model's '{own[0]}' does more than set flags: the loss is"
                    f" {after:.6g} after it and {before:.6g} in evaluation mode by flags alone."
                    " Use a model whose train() and eval() do nothing but set flags"
                )


def check_paths(of: BatchLoss, batches: Sequence[Batch], losses: Sequence[float]) -> list[str]:
    """One function, whether gradients are on or off (``losses``), and at every evaluation."""
    reached = [False] * len(of.parameters)
    with of.evaluating(), torch.enable_grad():
        for batch, before in zip(batches, losses, strict=True):
            with torch.no_grad():
                again = float(of.batch_loss(batch))
            with LossWatch(check_labels=False) as watch:
                loss, parts = of.loss_and_gradient(batch)
            if watch.moving:
                raise InputError(
                    "the weights of the loss's terms depend on the model's outputs, so the loss of"
                    " a split is not a fixed mean of them: detach the weights from the outputs"
                )
            reached = [s or part is not None for s, part in zip(reached, parts, strict=True)]
            value = float(loss)
            if of.close(before, again) and of.close(again, value):
                continue
            with torch.no_grad():
                third = float(of.batch_loss(batch))
            if not (of.close(before, again) and of.close(again, third)):
                raise InputError(
                    f"the loss differs between two evaluations ({before:.6g}, {third:.6g}):"
                    " curvature needs a model that is deterministic in evaluation mode"
                )
            raise InputError(
                f"the loss is {before:.6g} without gradients and {value:.6g} with them:"
                " curvature needs a model and a loss that compute the same under torch.no_grad()"
            )
    return [n for n, s in zip(of.parameters, reached, strict=True) if not s]


def check_sum(of: BatchLoss, batches: Sequence[Batch], counts: Sequence[int]) -> None:
    """A sum over the batch would make every number depend on the batch size.

    It is one in every batch: a mean over the positives is equal to a sum where there is one.
    """
    sums = []  # whether each batch that can tell is the sum of its halves
    with of.evaluating(), torch.no_grad():
        for batch, count in zip(batches, counts, strict=True):
            if count < 2:
                continue
            try:
                loss = float(of.batch_loss(batch))
                halves = [
                    (float(of.batch_loss(half)), of.examples(half))
                    for half in batching.pieces(batch, (count + 1) // 2, count)
                ]
            except InputError:
                continue  # a batch that can't be cut
            mean = math.fsum(value * share / count for value, share in halves)
            total = math.fsum(value for value, _ in halves)
            sum_, mean_ = math.isclose(loss, total, rel_tol=1e-3), of.close(loss, mean)
            if not (sum_ and mean_):  # a loss of zero is both
                sums.append(sum_)
    if sums and all(sums):
        raise InputError(
            "the loss is a sum over the batch: return the mean over its examples, so that it"
            " does not depend on the batch size"
        )


def notes(
    of: BatchLoss,
    batches: Sequence[Batch],
    counts: Sequence[int],
    exact: bool,
    whole: bool,
    unused: Sequence[str],
) -> list[str]:
    """What was assumed of a problem or found odd, one sentence each.

    Args:
        of: the model and the loss.
        batches: all of them.
        counts: examples of each.
        exact: whether the loss itself says what each batch weighs.
        whole: whether batches must stay whole, as some loss is not the mean of its parts'.
        unused: parameters that no gradient reaches.
    """
    found = []
    assumed = [batching.assumed_examples(batch)[1] for batch in batches if of.count is None]
    if any(assumed) and not exact:
        found.append(next(text for text in assumed if text))
    if unused:
        found.append(
            f"no gradient reaches {', '.join(unused)}: the loss does not depend on"
            f" {'it' if len(unused) == 1 else 'them'} for autograd"
        )
    if whole:
        sizes = sorted(set(counts))
        which = f"{sizes[-1]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        found.append(
            "the loss of a batch is not the mean of its examples' losses (weights, padding,"
            " examples that see one another, or a batch that can't be cut): the numbers belong"
            f" to batches of {which} examples (--batch-size)"
        )
    return found
