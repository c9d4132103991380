"""Metrics of the examples' gradients, against one example at a time.

Values on all small networks: ``test_metrics.py``. Here: what ``vmap`` takes and refuses, errors,
samples and refusals.
"""

import contextlib
import itertools
from collections.abc import Callable

import nets
import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness import METRICS, Measurement, examples
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.examples import example_gradients
from ssgd_analysis.problem import Problem

NAMES = ("gradient_norm", "gradient_covariance_trace", "gradient_noise_scale")
CASES = {**nets.CASES, "quadratic": nets.quadratic, "relu": nets.relu}


def context(case: nets.Case) -> MetricContext:
    return MetricContext(Problem(*case.problem))


def on(name: str, where: MetricContext) -> Measurement:
    return METRICS[name].on(where)


def check(case: nets.Case, where: MetricContext) -> None:
    """All three numbers of every batch."""
    rows, found = reference.example_gradients(case), example_gradients(where)
    mean = rows.mean(dim=0)
    for index, part in enumerate(rows.split(nets.BATCH)):
        assert found.squares[index] == pytest.approx(float(part.square().sum(1).mean()), rel=1e-9)
        away = float((part - mean).square().sum(1).mean())
        assert found.deviations[index] == pytest.approx(away, rel=1e-9)
        assert found.inner[index] == pytest.approx(float((part @ mean).mean()), rel=1e-9)


class Counting:
    """Counts the calls of a way to take gradients, and can replace it."""

    def __init__(self, way: Callable, instead: Callable | None = None) -> None:
        self.way, self.instead, self.calls = way, instead, 0

    def __call__(self, problem: Problem, batch: object):
        self.calls += 1
        return (self.instead or self.way)(problem, batch)


@pytest.fixture
def loop(monkeypatch) -> Counting:
    counting = Counting(examples._one_by_one)
    monkeypatch.setattr(examples, "_one_by_one", counting)
    return counting


# the LSTM's kernel adds in place what has no batch axis to what has one
@pytest.mark.parametrize("net", [name for name in CASES if name != "recurrent"])
def test_vmap_takes_most_networks(net, loop):
    case = CASES[net]()
    check(case, context(case))
    assert loop.calls == 0


@pytest.mark.parametrize("net", CASES)
def test_one_by_one_is_the_same(net, monkeypatch):
    monkeypatch.setattr(examples, "_together", examples._one_by_one)
    case = CASES[net]()
    check(case, context(case))


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_chunks_are_no_setting(chunk, monkeypatch):
    monkeypatch.setattr(examples, "CHUNK", chunk)
    case = nets.mlp()
    check(case, context(case))


def test_a_bound_on_bytes_makes_chunks_of_one(monkeypatch):
    monkeypatch.setattr(examples, "CHUNK_BYTES", 1)
    case = nets.mlp()
    check(case, context(case))


class Branches(nn.Module):
    """Looks at values, which vmap refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if float(x.sum().detach()) > 0 else self.linear(2 * x)


def test_what_vmap_refuses_goes_one_by_one(loop):
    with nets.seeded():
        model = Branches().double()
    # each batch all positive or all negative: the loss is a mean of its examples
    signs = torch.tensor([1.0] * 4 + [-1.0] * 4 + [1.0] * 3, dtype=torch.float64)
    inputs = nets.randn(nets.N, 4).abs() * signs[:, None]
    case = nets.Case(model, nets.cross_entropy, inputs, nets.labels())
    where = context(case)
    rows, found = reference.example_gradients(case), example_gradients(where)
    square = float(rows.square().sum(1).mean())
    assert where.problem.mean(found.squares) == pytest.approx(square, rel=1e-9)
    assert loop.calls == 3


def test_what_vmap_gets_wrong_goes_one_by_one(monkeypatch, loop):
    together = examples._together
    wrong = Counting(
        together, lambda problem, batch: (1.1 * part for part in together(problem, batch))
    )
    monkeypatch.setattr(examples, "_together", wrong)
    case = nets.mlp()
    where = context(case)
    check(case, where)
    assert wrong.calls == loop.calls == 3
    assert where.cost.gradients == 1 + 2 + 2  # the mean, both ways, and halves beside wholes


def masked(model: nn.Module, batch: dict) -> Tensor:
    """A mask that all examples share, in a batch that is no pair."""
    outputs = model(batch["x"] * batch["mask"])
    return nn.functional.cross_entropy(outputs, batch["y"])


def test_a_loss_of_model_and_batch_with_a_shared_tensor(loop):
    case = nets.mlp()
    mask = torch.tensor([1.0, 0, 2, 1, 1], dtype=torch.float64)[:4]
    parts = [{"x": x[:3], "y": y[:3], "mask": mask} for x, y in case.batches(3)]
    where = MetricContext(Problem(case.model, masked, parts))
    plain = nets.Case(case.model, case.loss, case.inputs * mask, case.targets)
    square = float(reference.example_gradients(plain).square().sum(1).mean())
    assert where.problem.mean(example_gradients(where).squares) == pytest.approx(square, rel=1e-9)
    assert loop.calls == 0


# --- losses that are no mean over examples ---


def padded(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class 0 is padding: the mean is over the others, which no loss of torch's own says."""
    each = nn.functional.cross_entropy(outputs, targets, reduction="none")
    return (each * (targets > 0)).sum() / (targets > 0).sum().clamp(min=1)


def test_no_example_has_a_gradient_where_the_loss_is_no_mean():
    case = nets.mlp()
    targets = torch.tensor([1, 2, 0, 1, 2, 2, 0, 0, 1, 1, 2])
    where = context(nets.Case(case.model, padded, case.inputs, targets))
    for name in NAMES[1:]:
        with pytest.raises(InputError, match="mean of its examples"):
            on(name, where)
    found = on("gradient_norm", where)
    whole = where.problem.gradient()
    norm = float(torch.cat([part.flatten() for part in whole]).norm())
    assert found.value == pytest.approx(norm, rel=1e-12)
    assert found.details == {"per_example_rms": None}
    shares = np.array(where.problem.shares)
    assert shares @ np.array(found.samples) == pytest.approx(norm, rel=1e-9)
    assert found.stderr > 0


def test_no_example_has_a_gradient_where_the_model_needs_several():
    case = nets.mlp()
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    model = nn.Sequential(norm, case.model).double()
    several = nets.Case(model, case.loss, case.inputs, case.targets)
    twos = MetricContext(Problem(model, case.loss, several.batches(2)[:5]))
    for where in (context(several), twos):
        for name in NAMES[1:]:
            with pytest.raises(InputError, match="that interact"):
                on(name, where)
        assert on("gradient_norm", where).details == {"per_example_rms": None}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(4))
def test_low_precision_is_no_reason_to_refuse(dtype, seed):
    """The loss of a batch and the mean of its halves' differ by rounding, some 1e-3."""
    case = nets.mlp()
    inputs, targets = nets.randn(64, 4, seed=seed), nets.labels(64, seed=seed)
    truth = reference.covariance_trace(nets.Case(case.model, case.loss, inputs, targets))
    low = nets.Case(case.model.to(dtype), case.loss, inputs.to(dtype), targets)
    found = METRICS["gradient_covariance_trace"](Problem(low.model, low.loss, low.batches(16)))
    assert found.value == pytest.approx(truth, rel=0.02)  # eight bits in all, 64 examples averaged


@pytest.mark.parametrize(("padding", "passes"), [([0], 3 + 5), ([10], 3 + 3 * 5)])
def test_a_refusal_costs_little_and_once(padding, passes):
    """Padding shows in the halves of its batch; every batch is looked at, and no example alone."""
    case, calls = nets.mlp(), []
    targets = torch.tensor([1, 2, 1, 1, 2, 2, 1, 2, 1, 1, 2])
    targets[padding] = 0

    def counted(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        return padded(outputs, targets)

    where = context(nets.Case(case.model, counted, case.inputs, targets))
    where.clean_gradient  # noqa: B018
    calls.clear()
    for name in 2 * NAMES[1:]:
        with contextlib.suppress(InputError):
            on(name, where)
    assert len(calls) == passes  # batches by vmap; each half read, then both and the whole


@pytest.mark.parametrize("layers", [["5"], ["0.weight", "3"]])
def test_parameters_that_are_left_out_have_no_part(layers):
    case = nets.mlp()
    where = MetricContext(Problem(*case.problem, layers=layers))
    rows, names = reference.example_gradients(case), list(reference.trainable(case.model))
    sizes = [weight.numel() for weight in reference.trainable(case.model).values()]
    own = [
        part
        for name, part in zip(names, rows.split(sizes, dim=1), strict=True)
        if name in where.problem.parameters
    ]
    truth = float(torch.cat(own, dim=1).var(dim=0, correction=1).sum())
    assert on("gradient_covariance_trace", where).value == pytest.approx(truth, rel=1e-9)


# --- values, errors and samples ---


def test_root_mean_square_of_the_examples():
    case = nets.mlp()
    rms = float(reference.example_gradients(case).square().sum(1).mean().sqrt())
    found = on("gradient_norm", context(case))
    assert found.details["per_example_rms"] == pytest.approx(rms, rel=1e-10)


def mixed(case: nets.Case, name: str) -> Callable[[np.ndarray], float]:
    """A metric as a function of the batches' shares of the examples."""
    parts = reference.example_gradients(case).split(nets.BATCH)
    means = torch.stack([part.mean(0) for part in parts])
    squares = torch.stack([part.square().sum(1).mean() for part in parts])

    def value(shares: np.ndarray) -> float:
        p = torch.as_tensor(shares)
        square = (p @ means).square().sum()
        spread = (p @ squares - square) * nets.N / (nets.N - 1)
        return float({NAMES[0]: square.sqrt(), NAMES[1]: spread, NAMES[2]: spread / square}[name])

    return value


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_the_first_order_in_the_shares(name):
    case = nets.mlp()
    where, value = context(case), mixed(case, name)
    found, shares, step = on(name, where), np.array(where.problem.shares), 1e-6
    assert value(shares) == pytest.approx(found.value, rel=1e-10)
    assert shares @ np.array(found.samples) == pytest.approx(found.value, rel=1e-10)
    away = []
    for batch in range(3):
        towards = np.eye(3)[batch] - shares
        slope = (value(shares + step * towards) - value(shares - step * towards)) / (2 * step)
        away.append(slope)
        # a central difference is off by step², rounding by 1e-16 / step
        assert found.samples[batch] - found.value == pytest.approx(slope, rel=1e-6)
    error = float(np.sqrt((shares * np.square(away)).sum() / 2))
    assert found.stderr == pytest.approx(error, rel=1e-6)


def test_errors_over_examples_are_honest():
    """The spread of the trace over data sets is its standard error."""
    values, errors = [], []
    for seed in range(60):
        case = nets.mlp()
        inputs, targets = nets.randn(80, 4, seed=seed), nets.labels(80, seed=seed)
        case = nets.Case(case.model, case.loss, inputs, targets)
        found = on("gradient_covariance_trace", context(case))
        values.append(found.value)
        errors.append(found.stderr)
    # 60 data sets know a standard deviation to 9%; the errors of 20 batches each are means
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)


def test_noise_scale_of_one_weight():
    # L_i = ½ (w − a_i)² at w = 0: g_i = −a_i
    a = torch.tensor([1.0, 2, 3, 6], dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() / 2

    batches = [(torch.ones(2, 1, dtype=torch.float64), part[:, None]) for part in a.split(2)]
    where = MetricContext(Problem(model, loss, batches))
    assert on("gradient_norm", where).value == pytest.approx(3, rel=1e-14)
    assert on("gradient_covariance_trace", where).value == pytest.approx(14 / 3, rel=1e-14)
    found = on("gradient_noise_scale", where)
    assert found.value == pytest.approx(14 / 27, rel=1e-14)
    # McCandlish's two batch sizes, 1 and 4: (4 · 9 − 12.5) / 3
    corrected = (4 * 9 - 12.5) / 3
    assert found.details["corrected_square"] == pytest.approx(corrected, rel=1e-13)
    assert found.details["corrected"] == pytest.approx(14 / 3 / corrected, rel=1e-13)
    with torch.no_grad():
        model.weight.fill_(2.5)  # the mean gradient, −0.5, is within its error of zero
    assert on("gradient_noise_scale", MetricContext(where.problem)).details["corrected"] is None


def test_corrected_square_is_unbiased_and_the_plain_one_is_not():
    # g_i = −a_i with a ~ N(1, 4), 5 examples: E‖ḡ‖² = 1 + 4/5
    a = 1 + 2 * nets.randn(4000, 5)
    plain = a.mean(1).square()
    corrected = plain - a.var(dim=1, correction=1) / 5
    for values, truth in ((plain, 1.8), (corrected, 1.0)):
        error = float(values.std()) / len(a) ** 0.5
        assert abs(float(values.mean()) - truth) <= 4 * error
        assert error < 0.05


def test_work_is_shared():
    where = context(nets.mlp())
    costs = [on(name, where).cost.gradients for name in NAMES]
    assert costs == [2, 0, 0]  # the mean, and the examples


def test_no_gradient():
    case = nets.quadratic()
    with torch.no_grad():
        case.model.weight.zero_()
    where = context(nets.Case(case.model, case.loss, case.inputs, torch.zeros_like(case.targets)))
    found = on("gradient_norm", where)
    assert (found.value, found.stderr) == (0.0, None)
    assert on("gradient_covariance_trace", where).value == 0
    with pytest.raises(InputError, match="zero"):
        on("gradient_noise_scale", where)


def test_one_example_has_no_spread():
    case = nets.mlp()
    where = MetricContext(Problem(case.model, case.loss, [(case.inputs[:1], case.targets[:1])]))
    for name in NAMES[1:]:
        with pytest.raises(InputError, match="at least two"):
            on(name, where)
    assert on("gradient_norm", where).value > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_is_not_finite_is_an_error(name):
    case = nets.mlp()
    with torch.no_grad():
        case.model[5].weight.fill_(float("nan"))
    with pytest.raises(WorkError, match="finite"):
        on(name, context(case))


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "attention", "recurrent"])
def test_float32_agrees(net):
    case = CASES[net]()
    truth = example_gradients(context(case)).deviations
    inputs = case.inputs.float() if case.inputs.is_floating_point() else case.inputs
    single = nets.Case(case.model.float(), case.loss, inputs, case.targets)
    np.testing.assert_allclose(example_gradients(context(single)).deviations, truth, rtol=1e-4)


def test_the_corrected_square_is_unbiased():
    """Over all samples of two from a population of four, with replacement: exactly its square."""
    case = nets.mlp()
    population = nets.Case(case.model, case.loss, case.inputs[:4], case.targets[:4])
    truth = float(reference.gradient(population).square().sum())
    found = []
    for pair in itertools.product(range(4), repeat=2):
        chosen = list(pair)
        part = nets.Case(case.model, case.loss, case.inputs[chosen], case.targets[chosen])
        found.append(on("gradient_norm", context(part)))
    squares = [one.details["corrected_square"] for one in found]
    assert sum(squares) / 16 == pytest.approx(truth, rel=1e-10)
    assert sum(one.value**2 for one in found) / 16 > 1.1 * truth  # what it corrects
    for one, square in zip(found, squares, strict=True):
        root = None if square < 0 else pytest.approx(square**0.5)
        assert one.details["corrected"] == root
    assert min(squares) < 0  # else the line above saw one side only
