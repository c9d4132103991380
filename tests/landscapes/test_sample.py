import dataclasses

import nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes import LandscapeSettings, NamedProblem, landscape
from ssgd_analysis.landscapes.directions import normalized_directions, random_directions
from ssgd_analysis.landscapes.grid import through
from ssgd_analysis.problem import Problem


def subject(case: nets.Case, name: str = "one", **options) -> NamedProblem:
    return NamedProblem(name, Problem(*case.problem), case.batches(), **options)


def moved(case: nets.Case, factor: float = 0.5) -> nets.Case:
    """Another checkpoint of the same model: other weights, other statistics."""
    model = nets.evaluated(case.model)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            if parameter.requires_grad:
                parameter.add_(factor * nets.randn(*parameter.shape, seed=seed))
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.mul_(1 + factor)
    return dataclasses.replace(case, model=model)


def line(case: nets.Case, **options) -> dict[str, np.ndarray]:
    return landscape([subject(case)], LandscapeSettings(**options)).arrays


# --- grids ---


@pytest.mark.parametrize("dims", [1, 2])
def test_plain_axes_run_from_minus_span_to_span(dims):
    found = line(nets.mlp(), span=0.5, points=11, dims=dims)
    for name in ("alpha", "beta")[:dims]:
        np.testing.assert_allclose(found[name], np.linspace(-0.5, 0.5, 11))


@given(
    span=st.floats(0, 20).filter(lambda span: span == 0 or span > 1e-3),
    third=st.floats(-2, 3).filter(lambda at: min(abs(at), abs(at - 1)) > 1e-3),
    points=st.integers(5, 200),
)
@settings(deadline=None, database=None, derandomize=True, max_examples=300)
def test_axes_hold_exact_places(span, third, points):
    low, high = min(0, third) - span, max(1, third) + span
    axis = through(low, high, points, [0.0, 1.0, third])
    assert len(axis) == points
    assert {0.0, 1.0, third, low, high} <= set(axis)  # exactly
    assert (np.diff(axis) > 0).all()


def test_axes_through_both_ends_are_nearly_even():
    axis = through(-0.5, 1.5, 41, [0.0, 1.0])
    assert np.diff(axis).max() < 1.1 * np.diff(axis).min()


def test_too_few_points_for_exact_places_are_refused():
    with pytest.raises(InputError, match="--points 3 should be at least 4"):
        through(-0.5, 1.5, 3, [0.0, 1.0])


@pytest.mark.parametrize(
    "options",
    [
        {"dims": 3},
        {"dims": 0},
        {"directions": "randm"},
        {"normalize": "filters"},
        {"bn": "freeze"},
        {"span": -1.0},
        {"span": 0.0},
        {"span": float("nan")},
        {"span": float("inf")},
        {"points": 1},
        {"repeats": 0},
        {"directions": "eigen", "repeats": 2},
        {"biases": "maybe"},
        {"precision": "fp8"},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(InputError):
        LandscapeSettings(**options)


# --- what comes out ---


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("subjects", [1, 2])
@pytest.mark.parametrize("repeats", [1, 3])
def test_axes_of_the_arrays(dims, subjects, repeats):
    case = nets.mlp()
    given_ = [subject(case, "a"), subject(moved(case), "b")][:subjects]
    chosen = LandscapeSettings(dims=dims, points=3, repeats=repeats)
    made = landscape(given_, chosen)
    arrays = made.arrays
    lead = tuple(n for n in (subjects, repeats) if n > 1)
    assert arrays["loss"].shape == arrays["accuracy"].shape == (*lead, *[3] * dims)
    assert set(arrays) == {"alpha", "loss", "accuracy"} | ({"beta"} if dims == 2 else set())
    grids = {(grid["checkpoint"], grid["repeat"]) for grid in made.grids}
    assert len(grids) == len(made.grids) == subjects * repeats
    assert np.isfinite(arrays["loss"]).all()


def test_subjects_share_raw_directions_and_repeats_do_not():
    # two subjects with the same weights have the same landscape; repeats of one differ
    case = nets.mlp()
    chosen = LandscapeSettings(points=3, repeats=2)
    both = [subject(case, "a"), subject(nets.mlp(), "b")]
    arrays = landscape(both, chosen).arrays
    assert (arrays["loss"][0] == arrays["loss"][1]).all()
    assert (arrays["loss"][0, 0, [0, 2]] != arrays["loss"][0, 1, [0, 2]]).all()


def test_a_seed_repeats_and_another_differs():
    first, again, other = (line(nets.mlp(), points=3, seed=seed) for seed in (1, 1, 2))
    assert (first["loss"] == again["loss"]).all()
    assert (first["loss"][[0, 2]] != other["loss"][[0, 2]]).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_surface_of_a_quadratic_is_the_closed_form(dtype, tolerance, outputs):
    case = nets.quadratic(outputs=outputs)
    base = reference.loss_at(case, reference.flat_weights(case.model))
    g, H = reference.gradient(case), reference.hessian(case)
    kind = getattr(torch, dtype)
    given_ = nets.Case(case.model, case.loss, case.inputs.to(kind), case.targets.to(kind))
    D = torch.stack([
        torch.cat([part.flatten() for part in direction])
        for direction in normalized_directions(
            Problem(*case.problem), random_directions(Problem(*case.problem), 2, seed=0), "none"
        )
    ], dim=1)  # fmt: skip
    case.model.to(kind)
    found = line(given_, dims=2, points=7, span=2.0, normalize="none")
    for i, a in enumerate(found["alpha"]):
        for j, b in enumerate(found["beta"]):
            d = D @ torch.tensor([a, b], dtype=torch.float64)
            truth = base + float(g @ d) + float(d @ H @ d) / 2
            assert found["loss"][i, j] == pytest.approx(truth, rel=tolerance)


def test_quadratic_curvature_along_the_eigenvector_is_lambda_max():
    case = nets.quadratic()
    found = line(case, directions="eigen", normalize="none", span=0.5, points=3)["loss"]
    top = float(torch.linalg.eigvalsh(reference.hessian(case))[-1])
    # Lanczos stops at a residual of 1e-3; a quotient's error is its square over the gap
    assert (found[0] - 2 * found[1] + found[2]) / 0.5**2 == pytest.approx(top, rel=1e-4)


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "tied", "frozen"])
def test_curvature_along_the_eigenvector_is_lambda_max(net):
    case, span = nets.CASES[net](), 1e-3
    found = line(case, directions="eigen", normalize="none", span=span, points=3)["loss"]
    top = float(torch.linalg.eigvalsh(reference.hessian(case))[-1])
    # 1e-3²: fourth derivatives; rounding of losses of order one, 1e-16 / 1e-6
    assert (found[0] - 2 * found[1] + found[2]) / span**2 == pytest.approx(top, rel=1e-4)


def test_eigen_plane_has_both_curvatures_and_no_mixed_one():
    case, span = nets.quadratic(outputs=1), 0.5
    found = line(case, dims=2, directions="eigen", normalize="none", span=span, points=3)["loss"]
    values = torch.linalg.eigvalsh(reference.hessian(case)).flip(0)
    along = (found[0, 1] - 2 * found[1, 1] + found[2, 1]) / span**2
    across = (found[1, 0] - 2 * found[1, 1] + found[1, 2]) / span**2
    mixed = (found[2, 2] - found[2, 0] - found[0, 2] + found[0, 0]) / (4 * span**2)
    assert along == pytest.approx(float(values[0]), rel=1e-4)
    assert across == pytest.approx(float(values[1]), rel=1e-4)
    assert abs(mixed) < 1e-2 * float(values[0])


def test_trajectory_plane_holds_the_way():
    case = nets.mlp()
    start = {n: w + nets.randn(*w.shape) for n, w in reference.trainable(case.model).items()}
    distance = sum(float((start[n] - w).square().sum()) for n, w in
                   reference.trainable(case.model).items()) ** 0.5  # fmt: skip
    chosen = LandscapeSettings(directions="trajectory", normalize="none", span=distance, points=3)
    arrays = landscape([subject(case, path={0: start})], chosen).arrays
    w = torch.cat([value.reshape(-1) for value in start.values()])
    ends = arrays["loss"][[0, 2]]  # the axis may point either way
    assert np.abs(ends - reference.loss_at(case, w)).min() < 1e-12


def test_facts_hold_norms_and_the_cosine_between_directions():
    chosen = LandscapeSettings(dims=2, points=2, normalize="none")
    (fact,) = landscape([subject(nets.mlp(), "name")], chosen).grids
    assert fact["checkpoint"] == "name"
    assert fact["norms"] == pytest.approx([1, 1])
    assert abs(fact["cosine"]) < 1e-12


def test_marks_lie_on_the_recalibrated_curve():
    case = nets.conv_batchnorm()
    (one,) = [subject(case)]
    made = landscape([one], LandscapeSettings(points=5, bn="recalibrate"))
    (mark,) = made.grids[0]["marks"]
    assert made.arrays["loss"][2] == mark["loss"]
    assert mark["loss"] != one.problem.evaluate()[0]
    assert made.grids[0]["curvatures"] is None
    assert "frozen" in made.grids[0]["share_note"]


@pytest.mark.parametrize(("span", "points"), [(0.9, 21), (0.47, 51), (0.1, 39), (7.3, 25)])
def test_the_centre_is_among_an_odd_number_of_points(span, points):
    found = line(nets.mlp(), span=span, points=points, curvature=False)
    assert found["alpha"][points // 2] == 0.0
    np.testing.assert_allclose(found["alpha"], np.linspace(-span, span, points), atol=1e-15)


def test_complex_parameters_are_refused():
    class Complex(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Parameter(torch.ones(2, dtype=torch.complex128))

        def forward(self, x):
            return (x * self.c).abs()

    one = torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="'c' is complex"):
        landscape(
            [NamedProblem("one", Problem(Complex(), nets.mse, [(one, one)]))], LandscapeSettings()
        )


@pytest.mark.parametrize("bn", ["frozen", "recalibrate"])
@pytest.mark.parametrize("directions", ["random", "eigen", "between"])
def test_models_come_back_untouched(bn, directions):
    case = nets.with_state(nets.conv_batchnorm())
    both = [subject(case, "a"), subject(moved(case), "b")]
    before = [nets.state(one.problem.model) for one in both]
    landscape(both, LandscapeSettings(points=4, bn=bn, directions=directions))
    assert [nets.state(one.problem.model) for one in both] == before


# --- the line between two checkpoints ---


def between(first: nets.Case, second: nets.Case, **options) -> dict[str, np.ndarray]:
    chosen = LandscapeSettings(directions="between", normalize="none", **options)
    return landscape([subject(first, "a"), subject(second, "b")], chosen).arrays


@pytest.mark.parametrize("net", nets.CASES)
@pytest.mark.parametrize("span", [0.0, 0.5, 3.0])
def test_the_ends_are_the_checkpoints(net, span):
    first = nets.CASES[net]()
    second = moved(first)
    arrays = between(first, second, span=span, points=9)
    assert arrays["loss"].shape == (9,)
    for place, case in ((0.0, first), (1.0, second)):
        (index,) = np.flatnonzero(arrays["alpha"] == place)
        loss, accuracy = Problem(*case.problem).evaluate()
        assert arrays["loss"][index] == loss  # to the last bit
        if accuracy is not None:
            assert arrays["accuracy"][index] == accuracy


def test_points_between_mix_weights_and_statistics():
    first = nets.conv_batchnorm()
    second = moved(first)
    arrays = between(first, second, span=0.0, points=5)
    middle = moved(first, 0.25)  # half of the way of `moved`, in weights and in buffers
    loss = reference.loss_at(middle, reference.flat_weights(middle.model))
    assert arrays["loss"][2] == pytest.approx(loss, rel=1e-12)


def test_ends_that_differ_in_a_frozen_parameter_are_the_checkpoints_too():
    first = nets.frozen()
    second = moved(first)
    with torch.no_grad():
        second.model[0].weight.add_(0.5)
    arrays = between(first, second, span=0.0, points=3)
    loss, _ = Problem(*second.problem).evaluate()
    assert arrays["loss"][-1] == pytest.approx(loss, rel=1e-12)


def test_a_plane_passes_through_three_checkpoints_to_the_last_bit():
    first = nets.conv_batchnorm()
    cases = [first, moved(first), moved(first, -0.7)]
    cases[2].model[0].weight.data += 0.3 * nets.randn(*cases[2].model[0].weight.shape, seed=9)
    three = [subject(case, name) for case, name in zip(cases, "abc", strict=True)]
    made = landscape(three, LandscapeSettings(directions="between", dims=2, points=9))
    (fact,) = made.grids
    assert [mark["label"] for mark in fact["marks"]] == ["a", "b", "c"]
    for mark, case in zip(fact["marks"], cases, strict=True):
        (i,) = np.flatnonzero(made.arrays["alpha"] == mark["alpha"])
        (j,) = np.flatnonzero(made.arrays["beta"] == mark["beta"])
        loss, accuracy = Problem(*case.problem).evaluate()
        assert made.arrays["loss"][i, j] == mark["loss"] == loss
        assert made.arrays["accuracy"][i, j] == mark["accuracy"] == accuracy


def test_both_splits_share_directions_and_marks():
    case = nets.mlp()
    other = nets.Case(case.model, case.loss, nets.randn(nets.N, 4, seed=8), nets.labels(seed=8))
    both = subject(case, test=Problem(*other.problem))
    made = landscape([both], LandscapeSettings(points=3, dims=2))
    alone = landscape([subject(other)], LandscapeSettings(points=3, dims=2))
    for name in ("loss", "accuracy"):
        np.testing.assert_array_equal(made.arrays[f"test_{name}"], alone.arrays[name])
    assert made.grids[0]["marks"][0]["test_loss"] == alone.grids[0]["marks"][0]["loss"]


def test_a_trajectory_is_held_whole_with_a_margin():
    case = nets.mlp()
    weights = reference.trainable(case.model)
    path = {
        step: {n: w + scale * nets.randn(*w.shape, seed=seed) for n, w in weights.items()}
        for step, (scale, seed) in enumerate([(2.0, 0), (1.0, 0), (0.5, 1)])
    }
    made = landscape(
        [subject(case, path=path)],
        LandscapeSettings(directions="trajectory", normalize="none", dims=2, points=8),
    )
    (fact,) = made.grids
    assert fact["path"]["steps"] == [0, 1, 2]
    for name in ("alpha", "beta"):
        places = [*fact["path"][name], 0.0]
        width = max(places) - min(places)
        assert made.arrays[name][0] == pytest.approx(min(places) - 0.15 * width)
        assert made.arrays[name][-1] == pytest.approx(max(places) + 0.15 * width)
        assert 0.0 in made.arrays[name]
    for step, loss in zip(path.values(), fact["path"]["loss"], strict=True):
        flat = torch.cat([value.flatten() for value in step.values()])
        assert loss == pytest.approx(reference.loss_at(case, flat), rel=1e-12)
    # three points span a plane of three axes less what the two hold
    assert 0.9 < sum(fact["explained_variance"]) <= 1


def test_points_that_are_not_finite_are_holes():
    case = nets.mlp()

    def cut(outputs, targets):
        loss = case.loss(outputs, targets)
        return torch.where(loss > 2, torch.full_like(loss, float("inf")), loss)

    batches = [(case.inputs, case.targets)]
    made = landscape(
        [NamedProblem("one", Problem(case.model, cut, batches))],
        LandscapeSettings(points=21, span=8.0, curvature=False),
    )
    plain = line(case, points=21, span=8.0)["loss"]
    np.testing.assert_array_equal(np.isnan(made.arrays["loss"]), plain > 2)
    assert made.grids[0]["holes"] == (plain > 2).sum() > 0


@pytest.mark.parametrize("dims", [1, 2])
def test_adaptive_measures_a_quarter_and_says_how_well_the_rest_is_known(dims):
    chosen = LandscapeSettings(points=41 if dims == 1 else 15, dims=dims, curvature=False)
    whole = landscape([subject(nets.mlp())], chosen).arrays
    made = landscape([subject(nets.mlp())], dataclasses.replace(chosen, adaptive=True))
    measured = made.arrays["measured"]
    assert 0 < measured.sum() <= 0.25 * measured.size
    np.testing.assert_array_equal(made.arrays["loss"][measured], whole["loss"][measured])
    error = np.abs(made.arrays["loss"] - whole["loss"])
    stated = made.grids[0]["error"]
    assert stated["points"] > 0
    # a root mean square of a few held-out points: to a factor of some
    assert error[~measured].std() < 5 * stated["rms"] + 1e-3


def test_more_points_than_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"GiB: the (disk|memory) has"):
        landscape(
            [subject(nets.mlp())], LandscapeSettings(points=10**6, dims=2), folder=tmp_path / "new"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_a_line_has_two_ends(count):
    with pytest.raises(InputError, match="two checkpoints"):
        landscape([subject(nets.mlp())] * count, LandscapeSettings(directions="between", points=4))


@pytest.mark.parametrize("other", [nets.tied, nets.frozen, nets.unused])
def test_ends_of_other_models_are_refused(other):
    with pytest.raises(InputError, match="not of the same model"):
        between(nets.mlp(), other(), points=4)
