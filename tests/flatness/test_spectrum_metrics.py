"""Metrics read off the spectrum, and of curvature in units of the weights, against dense matrices.

Values on all small networks: ``test_metrics.py``. Here: details, errors, samples and refusals.
"""

import dataclasses

import nets
import numpy as np
import pytest
import reference
import torch
from planted import network_like, planted
from torch import Tensor, nn

from ssgd_analysis.curvature import DenseOperator, HessianOperator, survey
from ssgd_analysis.curvature.estimates.deflation import deflation
from ssgd_analysis.curvature.estimates.hutchinson import Hutchinson
from ssgd_analysis.curvature.estimates.probes import rademacher
from ssgd_analysis.curvature.survey import _deflated_square, more_squares
from ssgd_analysis.errors import InputError, WorkError
from ssgd_analysis.flatness import METRICS, Measurement
from ssgd_analysis.flatness.context import MetricContext
from ssgd_analysis.flatness.metrics import relative_flatness as relative
from ssgd_analysis.flatness.surveyed import surveyed
from ssgd_analysis.problem import Problem
from ssgd_analysis.symmetries.transformations import TRANSFORMATIONS

SPECTRUM = (
    "trace_per_parameter",
    "spectral_norm_ratio",
    "frobenius",
    "density_moments",
    "negative_mass",
)
PROBED = ("trace_per_parameter", "frobenius", "density_moments", "trace_weighted", "layer_trace")


class Diagonal(nn.Module):
    """½ Σ d_i w_i² whatever the batch: a Hessian of diagonal d."""

    def __init__(self, entries: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones_like(entries))
        self.register_buffer("d", entries)


def diagonal_loss(model: Diagonal, batch: Tensor) -> Tensor:
    return (model.d * model.w**2).sum() / 2


def diagonal_bench(entries: Tensor, **options) -> MetricContext:
    return MetricContext(Problem(Diagonal(entries), diagonal_loss, [torch.zeros(1)]), **options)


def context(case: nets.Case, seed: int = 0) -> MetricContext:
    return MetricContext(Problem(*case.problem), seed)


def on(name: str, where: MetricContext, **settings) -> Measurement:
    return METRICS[name].on(where, **settings)


# --- the survey's squares ---


@pytest.mark.parametrize("tol", [0.5, 1e-6])
def test_deflated_square_holds_for_vectors_that_are_no_eigenvectors(tol):
    matrix = planted(network_like(60))
    found = survey(DenseOperator(matrix), 3, tol=tol, max_products=8 if tol > 0.1 else 1000)
    rest = deflation(DenseOperator(matrix), found.spectrum)
    away = torch.eye(60, dtype=matrix.dtype) - rest.vectors @ rest.vectors.T
    whole = _deflated_square(found.spectrum, rest) + float((away @ matrix @ away).square().sum())
    # certificates are products of their own: the identity holds to their rounding
    assert whole == pytest.approx(float(matrix.square().sum()), rel=1e-10)
    if tol > 0.1:  # else the residuals' part is not seen
        assert found.spectrum.largest[-1].residual > 1e-3


def test_every_square_is_that_of_its_probe_and_their_mean_is_right():
    matrix = planted(network_like(60))
    operator = DenseOperator(matrix)
    found = survey(operator, 3, probes=12, density_steps=5)
    assert found.squares.shape == found.traces.shape == (12,)
    assert found.traces.mean() == pytest.approx(found.trace.value, rel=1e-12)
    more = more_squares(operator, found, 600, generator=nets.generator())
    np.testing.assert_array_equal(more[:12], found.squares)
    truth, error = float(matrix.square().sum()), more.std(ddof=1) / len(more) ** 0.5
    assert abs(more.mean() - truth) <= 4 * error
    assert error < 0.05 * truth  # else the line above says little


def test_squares_beside_a_trace_are_those_of_the_projected_operator():
    # directions that are no eigenvectors: the image has a part in them, which must not count
    matrix, basis = planted(network_like(20)), torch.linalg.qr(nets.randn(20, 3))[0]
    operator = DenseOperator(matrix)
    estimator = Hutchinson(operator, deflation(operator, basis), nets.generator())
    estimator.grow(4)
    estimator.grow(2)
    generator, away = nets.generator(), torch.eye(20, dtype=matrix.dtype) - basis @ basis.T
    probes = torch.cat([rademacher(operator, count, generator) for count in (4, 2)], dim=1)
    truth = (away @ matrix @ away @ probes).square().sum(dim=0)
    np.testing.assert_allclose(estimator.scatter.squares, truth, rtol=1e-10)


def test_samples_of_the_norm_are_its_first_order():
    where = context(nets.mlp())
    found = on("frobenius", where)
    each = surveyed(where).squares
    assert found.value == pytest.approx(each.mean() ** 0.5, rel=1e-12)
    np.testing.assert_allclose(
        np.array(found.samples) - found.value, (each - each.mean()) / (2 * found.value), atol=1e-12
    )


def test_runs_give_the_moments_of_their_probes():
    # zᵀAᵏz of the projected probe, by the dense matrix: only z's length and images are needed
    matrix = planted(network_like(60))
    found = survey(DenseOperator(matrix), 3, density_steps=6)
    for nodes, weights, length, square in zip(
        found.runs.nodes,
        found.runs.weights,
        found.runs.lengths,
        found.runs.scatter.squares,
        strict=True,
    ):
        assert length * (weights @ nodes**2) == pytest.approx(square, rel=1e-10)
    first = found.runs.lengths * [
        weights @ nodes for nodes, weights in zip(found.runs.nodes, found.runs.weights, strict=True)
    ]
    np.testing.assert_allclose(first, found.runs.samples.mean(), rtol=1e-10)


# --- exact on a diagonal Hessian: every Rademacher probe sees all of it ---


def test_everything_is_exact_on_a_diagonal():
    entries = torch.linspace(-1, 4, 21, dtype=torch.float64)
    where = diagonal_bench(entries)
    found = on("density_moments", where)
    truth = [float((entries**k).mean()) for k in range(1, 5)]
    np.testing.assert_allclose(found.details["moments"], truth, rtol=1e-10)
    # the spread is rounding
    np.testing.assert_allclose(found.details["stderr"], 0, atol=1e-12)
    assert found.value == found.details["moments"][1]
    assert on("frobenius", where).value == pytest.approx(float(entries.norm()), rel=1e-12)
    assert on("trace_per_parameter", where).value == pytest.approx(1.5, rel=1e-12)
    ratio = float(entries[-1] / entries[-5])
    assert on("spectral_norm_ratio", where).value == pytest.approx(ratio, rel=1e-6)
    # below −0.004: four of 21, as −1, −0.75, −0.5, −0.25 are
    assert on("negative_mass", where).value == pytest.approx(4 / 21, rel=1e-10)


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_few_parameters(count):
    # all or nearly all eigenpairs are known; probes may have nothing left to see
    entries = torch.arange(1.0, count + 1, dtype=torch.float64)
    where = diagonal_bench(entries)
    moments = [float((entries**k).mean()) for k in range(1, 5)]
    np.testing.assert_allclose(on("density_moments", where).details["moments"], moments, rtol=1e-9)
    assert on("frobenius", where).value == pytest.approx(float(entries.norm()), rel=1e-9)
    assert on("negative_mass", where).value == 0


def test_all_four_moments_of_a_network():
    case = nets.mlp()
    values = reference.eigenvalues(case)
    found = on("density_moments", context(case), probes=200)
    for order in range(4):
        moment, error = found.details["moments"][order], found.details["stderr"][order]
        assert abs(moment - float((values ** (order + 1)).mean())) <= 5 * error
    assert found.details["probes"] == [32, 200, 4, 4]


def test_short_runs_give_the_moments_they_are_exact_for():
    case = nets.mlp()
    where = context(case)
    where.provide("survey", survey(where.operator, 5, density_steps=2))  # exact to the third
    assert len(on("density_moments", where).details["moments"]) == 3


def test_negative_mass_of_many_eigenvalues_lies_in_its_interval():
    entries = torch.cat([-torch.rand(60, generator=nets.generator()), torch.linspace(0.1, 5, 240)])
    found = on("negative_mass", diagonal_bench(entries.double()))
    truth = float((entries < -0.005).double().mean())
    assert found.details["lowest"] <= truth <= found.details["highest"]
    assert found.details["lowest"] <= found.details["low"] <= found.value <= found.details["high"]
    assert abs(found.value - truth) < 0.05


def test_negative_mass_is_the_share_that_the_density_reports():
    case = nets.mlp()
    where = context(case)
    found, share = on("negative_mass", where), surveyed(where).density.negative
    assert found.value == pytest.approx(share.value, rel=1e-12)
    assert found.stderr == pytest.approx(share.stderr, rel=1e-12)
    assert found.samples is None  # pairs of probes would not see what the nodes leave open


def test_all_zero_curvature_is_zero_and_no_ratio():
    where = diagonal_bench(torch.zeros(7, dtype=torch.float64))
    for name in ("trace_per_parameter", "frobenius", "density_moments", "negative_mass"):
        assert on(name, where).value == 0
    with pytest.raises(InputError, match=r"^(the ratio needs five|the fifth eigenvalue)"):
        on("spectral_norm_ratio", where)


# --- the ratio ---


@pytest.mark.parametrize(
    "entries", [[3.0, 2, 1], [5.0, 4, 3, 2, 0], [5.0, 4, 3, 2, -1, -2]], ids=str
)
def test_no_positive_fifth_eigenvalue_no_ratio(entries):
    with pytest.raises(InputError, match=r"^(the ratio needs five|the fifth eigenvalue)"):
        on("spectral_norm_ratio", diagonal_bench(torch.tensor(entries, dtype=torch.float64)))


def test_samples_of_the_ratio_are_its_first_order():
    """λ₁/λ₅ of the mixture (1 − t) H + t H_b, differentiated at t = 0."""
    case = nets.mlp()
    whole = reference.hessian(case)
    found = on("spectral_norm_ratio", context(case), tol=1e-9)

    def ratio(matrix: Tensor) -> float:
        values = torch.linalg.eigvalsh(matrix)
        return float(values[-1] / values[-5])

    step = 1e-5
    for sample, (x, y) in zip(found.samples, case.batches(), strict=True):
        own = reference.hessian(nets.Case(case.model, case.loss, x, y))
        ahead, behind = (ratio(whole + s * step * (own - whole)) for s in (1, -1))
        slope = (ahead - behind) / (2 * step)
        # differences of step²; vectors to 1e-9 of their size over the gaps
        assert sample - found.value == pytest.approx(slope, rel=1e-5)


def test_a_survey_with_fewer_pairs_does_not_do_for_the_ratio():
    case = nets.mlp()
    where = context(case)
    where.provide("survey", survey(where.operator, 1))
    values = reference.eigenvalues(case)
    found = on("spectral_norm_ratio", where)
    assert found.value == pytest.approx(float(values[-1] / values[-5]), rel=1e-5)
    assert found.details["eigenvalues"] == pytest.approx(values[-5:].flip(0).tolist(), rel=1e-5)


# --- shared work ---


def test_one_survey_serves_them_all():
    where = context(nets.mlp())
    where.provide("survey", surveyed(where))
    assert [on(name, where).cost.products for name in ("frobenius", *SPECTRUM)] == [0] * (
        1 + len(SPECTRUM)
    )


def test_trace_per_parameter_shares_the_traces_probes():
    where = context(nets.mlp())
    whole, mean = on("trace", where), on("trace_per_parameter", where)
    assert mean.cost.products == 0
    assert mean.value == pytest.approx(whole.value / where.problem.n_parameters, rel=1e-14)
    assert mean.details == {"n_parameters": where.problem.n_parameters}


@pytest.mark.parametrize("name", PROBED)
def test_samples_are_one_a_probe_and_give_value_and_error(name):
    found = on(name, context(nets.mlp()), probes=48)
    assert len(found.samples) == found.settings["probes"] == 48
    assert np.mean(found.samples) == pytest.approx(found.value, rel=1e-12)
    assert np.std(found.samples, ddof=1) / 48**0.5 == pytest.approx(found.stderr, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 5])
def test_probes_are_those_of_the_trace(seed):
    case = nets.quadratic()
    with torch.no_grad():
        case.model.weight.fill_(-1)  # w∘z is then −z
    plain, weighted = (on(name, context(case, seed)) for name in ("trace", "trace_weighted"))
    np.testing.assert_allclose(weighted.samples, plain.samples, rtol=1e-12)
    assert on("trace_weighted", context(case, seed + 1)).samples != weighted.samples


@pytest.mark.parametrize("name", PROBED)
def test_one_probe_is_refused(name):
    with pytest.raises(InputError, match="probes"):
        on(name, context(nets.mlp()), probes=1)


@pytest.mark.parametrize("name", ["spectral_norm_ratio", "layer_lambda_max"])
def test_no_tolerance_is_refused(name):
    with pytest.raises(InputError, match="tolerance"):
        on(name, context(nets.mlp()), tol=0.0)


@pytest.mark.parametrize("name", PROBED)
def test_errors_of_probes_cover_the_truth(name):
    """95% intervals by Student's t hold the dense value."""
    case = nets.quadratic()
    truth = reference.METRICS[name].value(case)
    found = [on(name, context(case, seed), probes=24) for seed in range(150)]
    inside = np.mean([abs(one.value - truth) <= 2.069 * one.stderr for one in found])
    # of 8 parameters six are deflated: a probe is then one of few numbers, hence the low end;
    # 150 runs know a share of 0.95 to 0.018
    assert inside >= 0.88


# --- curvature in units of the weights ---


def test_w_h_w_is_the_second_derivative_along_the_weights():
    case = nets.mlp()
    w = reference.flat_weights(case.model)
    step = 1e-3
    along = [reference.loss_at(case, (1 + k * step) * w) for k in (-2, -1, 0, 1, 2)]
    # five points: the error is of step⁴, rounding 1e-16 / step²
    slope = (-along[0] + 16 * along[1] - 30 * along[2] + 16 * along[3] - along[4]) / (12 * step**2)
    assert on("w_h_w", context(case)).value == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "tied", "frozen", "unused"])
def test_parts_of_the_tensors(net):
    case = nets.CASES[net]()
    w, diagonal = reference.flat_weights(case.model), reference.hessian(case).diag()
    sizes = [weight.numel() for weight in reference.trainable(case.model).values()]
    weighted = [float(part.sum()) for part in (w**2 * diagonal).split(sizes)]
    blocks = reference.tensor_blocks(case)
    layered = [square * float(block.trace()) for square, block in blocks]
    tops = [square * float(torch.linalg.eigvalsh(block)[-1]) for square, block in blocks]
    where, names = context(case), list(reference.trainable(case.model))
    for name, truths in (("trace_weighted", weighted), ("layer_trace", layered)):
        rows = on(name, where, probes=400).details["parameters"]
        assert [row["name"] for row in rows] == names
        for row, truth in zip(rows, truths, strict=True):
            assert abs(row["value"] - truth) <= 5 * row["stderr"] + 1e-12
    found = on("layer_lambda_max", where, tol=1e-8)
    values = [row["value"] for row in found.details["parameters"]]
    np.testing.assert_allclose(values, tops, rtol=1e-7, atol=1e-12)
    assert found.details["largest"] == names[int(np.argmax(tops))]


def test_errors_over_examples_are_those_of_the_batches():
    case = nets.mlp()
    w = reference.flat_weights(case.model)
    matrices = [
        reference.hessian(nets.Case(case.model, case.loss, x, y)) for x, y in case.batches()
    ]
    along = [float(w @ matrix @ w) for matrix in matrices]
    found = on("w_h_w", context(case))
    np.testing.assert_allclose(found.samples, along, rtol=1e-9)
    assert found.weights == (4 / 11, 4 / 11, 3 / 11)
    kappas = [
        reference.relative_flatness(nets.Case(case.model, case.loss, x, y))
        for x, y in case.batches()
    ]
    np.testing.assert_allclose(on("relative_flatness", context(case)).samples, kappas, rtol=1e-9)
    top = on("layer_lambda_max", context(case), tol=1e-9)
    square, block = max(
        reference.tensor_blocks(case), key=lambda one: one[0] * torch.linalg.eigvalsh(one[1])[-1]
    )
    vector = torch.linalg.eigh(block)[1][:, -1]
    place = list(reference.trainable(case.model)).index(top.details["largest"])
    sizes = [weight.numel() for weight in reference.trainable(case.model).values()]
    own = slice(sum(sizes[:place]), sum(sizes[: place + 1]))
    quotients = [square * float(vector @ matrix[own, own] @ vector) for matrix in matrices]
    # vectors are right to their residual over the gap
    np.testing.assert_allclose(top.samples, quotients, rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    sorted({"trace", *SPECTRUM, *PROBED, "w_h_w", "layer_lambda_max", "relative_flatness"}),
)
def test_infinite_curvature_is_an_error(name):
    # |f|^1.5 has a gradient at f = 0 and no second derivative
    model = nn.Linear(2, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1], [0, 0], [0, 0]]))
    batches = [(torch.ones(4, 2, dtype=torch.float64), torch.zeros(4))]
    where = MetricContext(Problem(model, lambda outputs, targets: outputs.pow(1.5).mean(), batches))
    with pytest.raises(WorkError, match="finite"):
        on(name, where)


# --- relative flatness ---


def test_relative_flatness_of_a_linear_model():
    # mse of S outputs: H = (2 / NS) Σ x xᵀ for each row, rows apart
    case = nets.quadratic(outputs=3)
    squares = case.inputs.square().sum() * reference.flat_weights(case.model).square().sum()
    truth = 2 / (3 * nets.N) * float(squares)
    assert on("relative_flatness", context(case)).value == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("layer", ["0", "3", "5", "3.weight"])
def test_relative_flatness_of_another_layer(layer):
    case = nets.mlp()
    name = layer if "weight" in layer else f"{layer}.weight"
    names = list(reference.trainable(case.model))
    sizes = [weight.numel() for weight in reference.trainable(case.model).values()]
    start = sum(sizes[: names.index(name)])
    weight = reference.trainable(case.model)[name]
    own = slice(start, start + weight.numel())
    block = reference.hessian(case)[own, own].reshape(*weight.shape, *weight.shape)
    truth = float(torch.einsum("sk,tk,sjtj->", weight, weight, block))
    found = on("relative_flatness", context(case), layer=layer)
    assert found.settings["layer"] == name
    assert found.value == pytest.approx(truth, rel=1e-9)


def test_a_layers_name_is_no_pattern():
    case = nets.mlp()
    model = nn.Sequential()
    for name, module in zip(["0", "1", "2", "[3]", "4", "5", "3"], case.model, strict=False):
        model.add_module(name, module)
    with nets.seeded():
        model.add_module("3", nn.Linear(3, 3).double())
    other = dataclasses.replace(case, model=model)
    block = MetricContext(Problem(*other.problem, layers=["[[]3].weight"]))
    found = on("relative_flatness", context(other), layer="[3]")
    assert found.settings["layer"] == "[3].weight"
    assert found.value == on("relative_flatness", block, layer="[3]").value
    assert on("relative_flatness", context(other), layer="3").value != found.value


@pytest.mark.parametrize(("layer", "shape"), [("0", (6, 4)), ("3", (5, 6)), ("5", (3, 5))])
def test_relative_flatness_counts_its_products_whole(layer, shape):
    where = context(nets.mlp())
    cost = on("relative_flatness", where, layer=layer).cost
    rank = min(shape)
    assert (cost.forwards, cost.gradients) == (0, 0)
    assert cost.products == rank * shape[1]  # one for each singular value and column
    cost = on("relative_flatness", where).cost
    assert cost.forwards == 1  # every batch, to find the layer
    assert cost.products == 3 * 5


def test_relative_flatness_is_at_most_the_norm_times_the_trace():
    # a convex last layer; Petzka's script gives this bound
    case = nets.mlp()
    square, block = reference.tensor_blocks(case)[-2]
    assert on("relative_flatness", context(case)).value <= square * float(block.trace())


class Reversed(nn.Module):
    """The layer that is used last is made first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.first = nn.Linear(4, 5)
        self.spare = nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def test_the_last_layer_is_the_one_used_last():
    with nets.seeded():
        case = dataclasses.replace(nets.mlp(), model=Reversed().double())
    found = on("relative_flatness", context(case))
    assert found.settings["layer"] == "last.weight"
    assert not case.model.last._forward_hooks
    case.model.last.weight.requires_grad_(False)  # then it is the last that is no constant
    assert on("relative_flatness", context(case)).settings["layer"] == "first.weight"


def test_relative_flatness_in_low_precision():
    case = nets.mlp()
    truth = on("relative_flatness", context(case)).value
    low = nets.Case(case.model.bfloat16(), case.loss, case.inputs.bfloat16(), case.targets)
    # eight bits in every weight, input and product
    assert on("relative_flatness", context(low)).value == pytest.approx(truth, rel=0.1)


def test_the_last_layer_may_be_within_a_fused_one():
    with nets.seeded():
        model = nn.Sequential(
            nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 5, batch_first=True), nn.Flatten()
        ).double()
    case = nets.Case(model, nets.mse, nets.randn(nets.N, 3, 4), nets.randn(nets.N, 12, seed=1))
    assert on("relative_flatness", context(case)).settings["layer"] == "1.linear2.weight"


def test_relative_flatness_by_probes_where_the_layer_is_large(monkeypatch):
    case = nets.mlp()
    exact = on("relative_flatness", context(case))
    monkeypatch.setattr(relative, "EXACT", 0)
    found = on("relative_flatness", context(case))
    assert found.settings == {**exact.settings, "probes": 256, "error": "probes"}
    assert abs(found.value - exact.value) <= 4 * found.stderr
    assert 0 < found.stderr < 0.3 * exact.value  # else the line above says little
    assert len(found.samples) == 256
    near = nets.evaluated(case.model)
    with torch.no_grad():
        near[5].weight.mul_(1 + 1e-6 * nets.randn(3, 5))
    other = on("relative_flatness", context(dataclasses.replace(case, model=near)))
    # the same probes in the same coordinates: samples move as the value does
    np.testing.assert_allclose(other.samples, found.samples, atol=1e-4 * exact.value)


@pytest.mark.parametrize("layer", ["1", "5.bias", "head"])
def test_a_layer_without_a_matrix_is_refused(layer):
    with pytest.raises(InputError, match=r"0\.weight, 3\.weight, 5\.weight"):
        on("relative_flatness", context(nets.mlp()), layer=layer)


def test_no_linear_layer_is_refused():
    with pytest.raises(InputError, match="no linear layer"):
        on("relative_flatness", diagonal_bench(torch.ones(3)))


# --- what changes of the network do ---


def deep() -> nets.Case:
    """BatchNorm, ReLU and two linear layers: every transformation finds something to change."""
    with nets.seeded():
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3),
        ).double()  # fmt: skip
    for seed in range(3):
        model(2 * nets.randn(8, 1, 5, 5, seed=seed) + 1)
    return nets.Case(model, nets.cross_entropy, nets.randn(nets.N, 1, 5, 5, seed=9), nets.labels())


# To rounding: the same numbers by other roundings (Lanczos to its residual, 1e-3 squared).
EXACTLY = {
    "gradient_norm": {"permutation"},
    "gradient_covariance_trace": {"permutation", "decay"},  # decay adds the same to every gradient
    "gradient_noise_scale": {"permutation"},
    "spectral_norm_ratio": {"permutation"},
    "fisher_rao": {"layer", "neuron", "batchnorm", "permutation"},
    "w_h_w": {"layer", "neuron", "batchnorm", "permutation"},
    "trace_weighted": {"layer", "neuron", "batchnorm"},
    "layer_trace": {"layer", "batchnorm"},
    "layer_lambda_max": {"layer", "batchnorm", "permutation"},
    "relative_flatness": {"layer", "batchnorm", "permutation", "folding"},
}


@pytest.fixture(scope="module")
def changed() -> dict[str, MetricContext]:
    problem = Problem(*deep().problem)
    # a decay of 0.1 is large against a Hessian trace of 1; 5 would hide all else
    made = {
        kind: transformation(problem, 0.1 if kind == "decay" else 5.0)
        for kind, transformation in TRANSFORMATIONS.items()
    }
    assert all(one.done for one in made.values())
    return {
        "": MetricContext(problem),
        **{kind: MetricContext(one.problem) for kind, one in made.items()},
    }


@pytest.mark.parametrize("name", EXACTLY)
@pytest.mark.parametrize("kind", TRANSFORMATIONS)
def test_changes_of_the_network(name, kind, changed):
    before = on(name, changed[""])
    if name == "fisher_rao" and kind == "decay":
        with pytest.raises(InputError):  # a loss of (model, batch)
            on(name, changed[kind])
        return
    after = on(name, changed[kind])
    if kind in EXACTLY[name]:
        assert after.value == pytest.approx(before.value, rel=1e-6)
    elif kind == "permutation":  # other signs meet each weight
        assert abs(after.value - before.value) <= 4 * np.hypot(before.stderr, after.stderr)
        assert after.value != before.value
    else:
        assert abs(after.value - before.value) > 1e-3 * abs(before.value)


def test_the_table_claims_no_more_than_this_page():
    for name, kinds in EXACTLY.items():
        assert set(METRICS[name].invariant_to) <= kinds | {"permutation"}


def test_the_bench_operator_is_the_hessian():
    # what all of the above multiplies with
    case = nets.mlp()
    v = nets.randn(sum(p.numel() for p in case.model.parameters()))
    product = context(case).operator @ v
    assert isinstance(context(case).operator, HessianOperator)
    torch.testing.assert_close(product, reference.hessian(case) @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["frobenius", "density_moments", "negative_mass"])
def test_all_eigenvectors_known(name):
    """With one or two parameters the survey leaves nothing free."""
    model = torch.nn.Linear(1, 1).double()
    batches = [(nets.randn(3, 1, seed=s), nets.randn(3, 1, seed=s + 9)) for s in range(2)]
    problem = (model, torch.nn.functional.mse_loss, batches)
    x = torch.cat([inputs for inputs, _ in batches])
    rows = torch.cat([x, torch.ones_like(x)], dim=1)
    values = torch.linalg.eigvalsh(2 * rows.T @ rows / len(rows))
    truth = {
        "frobenius": float(values.norm()),
        "density_moments": float(values.square().mean()),
        "negative_mass": 0.0,
    }[name]
    assert METRICS[name](Problem(*problem)).value == pytest.approx(truth, rel=1e-5, abs=1e-12)


def test_the_trace_does_not_depend_on_what_was_measured_before():
    case = nets.mlp()
    alone = MetricContext(Problem(*case.problem))
    after = MetricContext(Problem(*case.problem))
    METRICS["frobenius"].on(after)
    found = [METRICS["trace"].on(context).value for context in (alone, after)]
    assert found[0] == found[1]
