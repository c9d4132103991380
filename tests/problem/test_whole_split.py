"""Any network, loss, cut into batches and order of examples: the whole split's numbers, or refused.

The truth is plain torch on all examples as one batch. Of torch's own losses (and of a loss that
returns its count) it is the loss of the whole split; of any other loss the mean of the batches'
losses, by their examples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import nets
import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssgd_analysis import InputError, Problem
from ssgd_analysis.curvature import OPERATORS, Options
from ssgd_analysis.flatness import METRICS
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.models import LOSSES

N, CLASSES, POSITIONS = 9, 3, 4
IGNORED = 255

run = partial(
    settings,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Kind:
    """A loss.

    Args:
        loss: as a user gives it, (outputs, targets) -> scalar or (scalar, count).
        targets: what it takes: labels, padded (some ignored), marks (0 or 1) or values.
        exact: whether the truth is the loss of the whole split at once.
        weight: what an example's loss counts in it, by its targets; ``None``: no example has one.
        logs: whether it takes log-probabilities.
    """

    loss: Callable
    targets: str = "labels"
    exact: bool = True
    weight: Callable[[Tensor], float] | None = lambda targets: 1.0
    logs: bool = False


W = torch.tensor([1.0, 7.0, 0.5], dtype=torch.float64)
POSITIVE = torch.tensor([9.0, 0.3], dtype=torch.float64)


def number(targets: Tensor, ignored: int = IGNORED) -> float:
    return float((targets != ignored).sum())


def class_weights(targets: Tensor, ignored: int = IGNORED) -> float:
    return float(W[targets[targets != ignored]].sum())


def own_weighted(outputs, targets):
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return (W[targets] * losses).sum() / W[targets].sum()


def own_focal(outputs, targets):
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return ((1 - (-losses).exp()) ** 2 * losses).mean()


def per_positive(outputs, targets):
    losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
    return losses / targets.sum().clamp(min=1)


def of_positives(outputs, targets):
    """The mean over the positive marks, with their number: a batch may hold none."""
    losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    count = targets.sum()
    return (losses * targets).sum() / count.clamp(min=1), count


def of_half(outputs, targets):
    """Half of one of torch's: no longer its value, so a loss like any other."""
    return F.cross_entropy(outputs, targets, weight=W) / 2


KINDS = {
    "by name": Kind(LOSSES["cross_entropy"]),
    "by name, padded": Kind(
        LOSSES["cross_entropy"], "padded -100", weight=partial(number, ignored=-100)
    ),
    "mse by name": Kind(LOSSES["mse"], "values"),
    "module": Kind(nn.CrossEntropyLoss()),
    "module, weights": Kind(nn.CrossEntropyLoss(weight=W), weight=class_weights),
    "module, weights, smoothing, ignored": Kind(
        nn.CrossEntropyLoss(weight=W, ignore_index=IGNORED, label_smoothing=0.1), "padded",
        weight=class_weights,
    ),
    "functional": Kind(F.cross_entropy),
    "partial, weights": Kind(partial(F.cross_entropy, weight=W), weight=class_weights),
    "partial, ignored": Kind(
        partial(F.cross_entropy, ignore_index=IGNORED), "padded", weight=number
    ),
    "partial, smoothing": Kind(partial(F.cross_entropy, label_smoothing=0.2)),
    "function around torch's": Kind(
        lambda outputs, targets: F.cross_entropy(outputs, targets, weight=W), weight=class_weights
    ),
    "nll, weights": Kind(nn.NLLLoss(weight=W), weight=class_weights, logs=True),
    "bce, pos_weight": Kind(nn.BCEWithLogitsLoss(pos_weight=POSITIVE), "marks"),
    "bce, weight": Kind(partial(F.binary_cross_entropy_with_logits, weight=POSITIVE), "marks"),
    "mse": Kind(nn.MSELoss(), "values"),
    "mse functional": Kind(F.mse_loss, "values"),
    "huber": Kind(nn.HuberLoss(delta=0.7), "values"),
    "own focal": Kind(own_focal, exact=False),
    "own weighted": Kind(own_weighted, exact=False, weight=None),
    "half of torch's": Kind(of_half, exact=False, weight=None),
    "per positive": Kind(per_positive, "marks", exact=False, weight=None),
    "of positives, with count": Kind(of_positives, "marks", weight=None),
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A problem, and the same as one batch.

    Args:
        kind: of loss.
        problem: what is given to the package.
        whole: all examples, and the loss of the split as a function of all outputs.
        model_form: whether the loss was given as (model, batch).
    """

    kind: Kind
    problem: Problem
    whole: nets.Case
    model_form: bool


def make_model(net: str, outputs: int, logs: bool) -> nn.Module:
    with nets.seeded():
        layers = {
            "mlp": lambda: [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)],
            "normalised": lambda: [
                nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Dropout(0.5), nn.Linear(4, outputs)
            ],
            "positions": lambda: [
                nn.Conv1d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv1d(3, outputs, 1)
            ],
        }[net]()  # fmt: skip
        return nn.Sequential(*layers, *([nn.LogSoftmax(1)] if logs else [])).double()


def make_targets(of: str, positions: bool) -> Tensor:
    shape = (N, POSITIONS) if positions else (N,)
    labels = torch.randint(0, CLASSES, shape, generator=nets.generator(1))
    if of.startswith("padded"):  # whole examples, too: a batch may hold nothing that counts
        hidden = torch.rand(shape, generator=nets.generator(2)) < 0.4
        hidden[:2] = True
        labels = labels.masked_fill(hidden, int(of.split()[1]) if " " in of else IGNORED)
    if of == "marks":
        return (torch.rand((N, 2), generator=nets.generator(2)) < 0.3).double()
    return nets.randn(N, 2, seed=1) if of == "values" else labels


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    kind = KINDS[draw(st.sampled_from(list(KINDS)), label="loss")]
    classes = kind.targets not in ("marks", "values")
    net = draw(st.sampled_from(["mlp", "normalised", *(["positions"] if classes else [])]))
    model = make_model(net, CLASSES if classes else 2, kind.logs)
    inputs = nets.randn(N, *((2, POSITIONS) if net == "positions" else (3,)), seed=3)
    targets = make_targets(kind.targets, net == "positions")
    by_target = targets.reshape(N, -1).double().sum(dim=1).argsort().tolist()
    order = draw(st.one_of(st.just(by_target), st.permutations(range(N))), label="order")
    cuts = sorted(draw(st.sets(st.integers(1, N - 1)), label="cuts"))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, N], strict=True)]
    model_form = draw(st.booleans(), label="model form")
    x, y = inputs[order], targets[order]
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))

    def value(outputs: Tensor, targets: Tensor) -> Tensor:
        found = kind.loss(outputs, targets)
        return found[0] if isinstance(found, tuple) else found

    def batch_mean(outputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(outputs.split(sizes), targets.split(sizes), strict=True)
        return sum(len(part) / N * value(part, of) for part, of in parts)

    whole = (
        nets.Case(model, value, inputs, targets)  # in the order of before
        if kind.exact
        else nets.Case(model, batch_mean, x, y)
    )
    loss = (lambda model, batch: kind.loss(model(batch[0]), batch[1])) if model_form else kind.loss
    return Drawn(kind, Problem(model, loss, batches), whole, model_form)


def example_rows(one: Drawn) -> tuple[Tensor, Tensor]:
    """Gradients of the examples' own losses, (N, P), and what each counts, (N,)."""
    case, rows, weights = one.whole, [], []
    for x, y in zip(case.inputs, case.targets, strict=True):
        weights.append(one.kind.weight(y))
        single = replace(case, loss=one.kind.loss, inputs=x[None], targets=y[None])
        gradient = reference.gradient(single)
        rows.append(gradient if weights[-1] else torch.zeros_like(gradient))
    weights = torch.tensor(weights, dtype=torch.float64)
    return torch.stack(rows), weights / weights.sum()


A_SUM = "the loss is a sum over the batch"


def may_look_like_a_sum(one: Drawn) -> bool:
    """Divided by one positive or none in every batch: what tells a sum from a mean is not there."""
    counts = [float(targets.sum()) for _, targets in one.problem.batches if len(targets) > 1]
    return one.kind is KINDS["per positive"] and max(counts, default=0.0) <= 1


def close(found: Tensor, truth: Tensor, tolerance: float = 1e-9) -> None:
    assert float((found - truth).norm()) <= tolerance * (1 + float(truth.norm()))


@run()
@given(drawn())
def test_loss_accuracy_and_gradient_are_the_whole_split_s(one):
    problem, whole = one.problem, one.whole
    loss, accuracy = problem.evaluate()
    truth = reference.loss_at(whole, reference.flat_weights(whole.model))
    assert loss == pytest.approx(truth, rel=1e-10)
    assert problem.mean_loss() == pytest.approx(truth, rel=1e-10)
    close(torch.cat([g.reshape(-1) for g in problem.gradient()]), reference.gradient(whole))
    if one.model_form or whole.targets.is_floating_point():
        assert accuracy is None
        return
    outputs = reference.output_function(whole, whole.inputs)(reference.flat_weights(whole.model))
    counts = whole.targets < CLASSES
    counts &= whole.targets >= 0
    right = (outputs.argmax(dim=1) == whole.targets)[counts]
    assert accuracy == pytest.approx(float(right.double().mean()), rel=1e-10)


@run()
@given(
    drawn(),
    st.sampled_from(["hessian", "ggn", "fisher"]),
    st.sampled_from([None, 1, 2, 4]),
    st.sampled_from(["graph", "graph", "graph", "difference", "linear", None]),
)
def test_products_are_the_whole_split_s_or_refused(one, name, micro_batch, way):
    refusals = []
    if name != "hessian" and one.model_form:
        refusals.append("need the outputs")
    if name == "fisher" and one.kind.weight is None:
        refusals.append("is the mean of its examples' losses")
    if way == "linear":
        refusals.append("--product linear can't be used here")  # the loss looks at values
    if may_look_like_a_sum(one):
        refusals.append(A_SUM)
    eye = torch.eye(one.problem.n_parameters, dtype=torch.float64)
    options = Options(strategy=way, micro_batch=micro_batch)
    refused = ""
    try:
        operator = OPERATORS[name](one.problem, options=options)
        if way is None:  # the way that a measurement chooses
            operator.prepare(2)
        found = operator @ eye
    except InputError as error:
        refused = str(error)
    if refused:
        assert any(reason in refused for reason in refusals), refused
        return
    if name == "fisher":
        assert not one.model_form
        if one.kind.weight is None:  # of examples in batches of their own
            assert all(len(batch[0]) == 1 for batch in one.problem.batches)
            one = replace(one, kind=replace(one.kind, weight=lambda targets: 1.0))
        rows, weights = example_rows(one)
        truth = rows.T @ (weights[:, None] * rows)
    else:
        truth = reference.OPERATORS[name](one.whole)
    close(found, truth, 1e-7 if way == "difference" else 1e-9)


TEN = (
    "lambda_max", "gradient_norm", "sam", "expected", "lpf", "local_entropy", "symmetric_gap",
    "asymmetry", "w_h_w", "fisher_rao",
)  # fmt: skip


@run(max_examples=15)
@given(drawn())
def test_ten_metrics_are_the_whole_split_s_or_refused(one):
    bench = MetricContext(one.problem, 3)
    for name in TEN:
        truth = reference.METRICS[name]
        chosen = {key: value for key, value in truth.settings.items() if key != "seed"}
        try:
            found = METRICS[name].on(bench, **chosen)
        except InputError as error:
            found = error
        if isinstance(found, InputError) and A_SUM in str(found):
            assert may_look_like_a_sum(one)
            continue
        if isinstance(found, InputError):
            assert name == "fisher_rao", (name, found)
            assert one.model_form or one.kind.weight is None, found
            continue
        if name == "fisher_rao":
            assert one.kind.weight is not None
            rows, weights = example_rows(one)
            slopes = rows @ reference.flat_weights(one.whole.model)
            right = float(weights @ slopes.square())
        else:
            right = truth.value(one.whole)
        assert abs(found.value - right) <= max(truth.tolerance(found), 1e-9), name


def test_a_mean_over_positives_is_no_sum_where_one_batch_has_a_single_one():
    model = make_model("mlp", 2, logs=False)
    x, y = nets.randn(6, 3, seed=3), torch.zeros(6, 2, dtype=torch.float64)
    y[[0, 3, 4, 5], 0] = 1.0  # one positive among the first three, then three
    batches = list(zip(x.split(3), y.split(3), strict=True))
    Problem(model, per_positive, batches).check()
    with pytest.raises(InputError, match=A_SUM):  # a sum is one in every batch
        Problem(model, lambda o, t: (o - t).square().sum(), batches).check()
