import dataclasses
from pathlib import Path

import nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscape import LandscapeSettings, Subject, sample, sample_landscape
from ssgd_analysis.problem import Problem


def subject(case: nets.Case, name: str = "one", **options) -> Subject:
    return Subject(name, Problem(*case.problem), case.batches(), **options)


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
    return sample_landscape([subject(case)], LandscapeSettings(**options))[1]


# --- grids ---


def test_plain_axes_run_from_minus_span_to_span():
    (alpha,) = LandscapeSettings(span=0.5, points=11).axes()
    np.testing.assert_allclose(alpha, np.linspace(-0.5, 0.5, 11))
    assert len(LandscapeSettings(dims=2, points=5).axes()) == 2


@given(
    span=st.floats(0, 20).filter(lambda span: span == 0 or span > 1e-3),
    points=st.integers(4, 200),
)
@settings(deadline=None, database=None, derandomize=True, max_examples=300)
def test_between_always_holds_both_ends(span, points):
    (alpha,) = LandscapeSettings(directions="between", span=span, points=points).axes()
    assert len(alpha) == points
    assert 0.0 in alpha  # exactly
    assert 1.0 in alpha
    assert alpha[0] == pytest.approx(-span)
    assert alpha[-1] == pytest.approx(1 + span)
    assert (np.diff(alpha) > 0).all()


def test_between_is_nearly_even():
    (alpha,) = LandscapeSettings(directions="between", span=0.5, points=41).axes()
    assert np.diff(alpha).max() < 1.1 * np.diff(alpha).min()


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
        {"directions": "between", "points": 3},
        {"directions": "between", "dims": 2},
        {"directions": "eigen", "repeats": 2},
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
    names, arrays, facts = sample_landscape(given_, chosen)
    lead = tuple(n for n in (subjects, repeats) if n > 1)
    assert arrays["loss"].shape == arrays["accuracy"].shape == (*lead, *[3] * dims)
    assert set(arrays) == {"alpha", "loss", "accuracy"} | ({"beta"} if dims == 2 else set())
    assert len(names) == len(set(names)) == len(facts) == subjects * repeats
    assert np.isfinite(arrays["loss"]).all()


def test_subjects_share_raw_directions_and_repeats_do_not():
    # two subjects with the same weights have the same landscape; repeats of one differ
    case = nets.mlp()
    chosen = LandscapeSettings(points=3, repeats=2)
    _, arrays, _ = sample_landscape([subject(case, "a"), subject(nets.mlp(), "b")], chosen)
    assert (arrays["loss"][0] == arrays["loss"][1]).all()
    assert (arrays["loss"][0, 0, [0, 2]] != arrays["loss"][0, 1, [0, 2]]).all()


def test_a_seed_repeats_and_another_differs():
    first, again, other = (line(nets.mlp(), points=3, seed=seed) for seed in (1, 1, 2))
    assert (first["loss"] == again["loss"]).all()
    assert (first["loss"][[0, 2]] != other["loss"][[0, 2]]).all()


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
    _, arrays, _ = sample_landscape([subject(case, path=[start])], chosen)
    w = torch.cat([value.reshape(-1) for value in start.values()])
    ends = arrays["loss"][[0, 2]]  # the axis may point either way
    assert np.abs(ends - reference.loss_at(case, w)).min() < 1e-12


def test_facts_hold_norms_and_the_cosine_between_directions():
    chosen = LandscapeSettings(dims=2, points=2, normalize="none")
    (fact,) = sample_landscape([subject(nets.mlp(), "name")], chosen)[2]
    assert fact["checkpoint"] == "name"
    assert fact["norms"] == pytest.approx([1, 1])
    assert abs(fact["cosine"]) < 1e-12


@pytest.mark.parametrize("bn", ["frozen", "recalibrate"])
@pytest.mark.parametrize("directions", ["random", "eigen", "between"])
def test_models_come_back_untouched(bn, directions):
    case = nets.with_state(nets.conv_batchnorm())
    both = [subject(case, "a"), subject(moved(case), "b")]
    before = [nets.state(one.problem.model) for one in both]
    sample_landscape(both, LandscapeSettings(points=4, bn=bn, directions=directions))
    assert [nets.state(one.problem.model) for one in both] == before


# --- the line between two checkpoints ---


def between(first: nets.Case, second: nets.Case, **options) -> dict[str, np.ndarray]:
    chosen = LandscapeSettings(directions="between", normalize="none", **options)
    return sample_landscape([subject(first, "a"), subject(second, "b")], chosen)[1]


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
        assert arrays["loss"][index] == pytest.approx(loss, rel=1e-12)
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


@pytest.mark.parametrize("count", [1, 3])
def test_a_line_has_two_ends(count):
    with pytest.raises(InputError, match="two checkpoints"):
        sample_landscape(
            [subject(nets.mlp())] * count, LandscapeSettings(directions="between", points=4)
        )


@pytest.mark.parametrize("other", [nets.tied, nets.frozen, nets.unused])
def test_ends_of_other_models_are_refused(other):
    with pytest.raises(InputError, match="not of the same model"):
        between(nets.mlp(), other(), points=4)


# --- keeping what is done ---


@pytest.fixture(autouse=True)
def _save_every_point(monkeypatch):
    monkeypatch.setattr(sample, "SAVE_SECONDS", -1.0)


RESUMED = [
    LandscapeSettings(points=5, repeats=2),
    LandscapeSettings(dims=2, points=3),
    LandscapeSettings(dims=2, points=3, directions="eigen", normalize="none"),
    LandscapeSettings(points=5, directions="between", normalize="none"),
    LandscapeSettings(points=5, bn="recalibrate"),
]


def subjects_with(case: nets.Case, loss) -> list[Subject]:
    cases = [dataclasses.replace(one, loss=loss) for one in (case, moved(case))]
    return [subject(one, name) for one, name in zip(cases, "ab", strict=True)]


def run(case: nets.Case, loss, chosen: LandscapeSettings, keep: Path, **options) -> dict:
    return sample_landscape(subjects_with(case, loss), chosen, keep=keep, **options)[1]


@pytest.mark.parametrize("chosen", RESUMED, ids=lambda chosen: f"{chosen.directions}{chosen.dims}")
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_resume_repeats_nothing_and_gives_the_same(tmp_path, chosen, share):
    case, keep = nets.conv_batchnorm(), tmp_path / "partial.npz"
    counting = nets.RaisesAfter(case.loss, -1)
    whole = run(case, counting, chosen, tmp_path / "other.npz")
    before = counting.count
    stopped = nets.RaisesAfter(case.loss, round(share * before))
    with pytest.raises(KeyboardInterrupt):
        run(case, stopped, chosen, keep)
    with np.load(keep) as kept:
        done = sum(int(kept[name].sum()) for name in kept if name.startswith("done"))
    assert 0 < done < whole["loss"].size
    rest = nets.RaisesAfter(case.loss, -1)
    resumed = run(case, rest, chosen, keep, resume=True)
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name])
    batches = len(case.batches())
    assert rest.count <= before - done * batches  # every kept point was spared


@pytest.mark.parametrize("chosen", RESUMED[:1])
def test_resume_of_a_finished_grid_computes_nothing(tmp_path, chosen):
    case, keep = nets.mlp(), tmp_path / "partial.npz"
    whole = run(case, case.loss, chosen, keep)
    again = nets.RaisesAfter(case.loss, 0)
    resumed = run(case, again, chosen, keep, resume=True)
    assert again.count == 0
    np.testing.assert_array_equal(resumed["loss"], whole["loss"])


def test_without_resume_all_is_computed_anew(tmp_path):
    case, keep, chosen = nets.mlp(), tmp_path / "partial.npz", RESUMED[0]
    run(case, case.loss, chosen, keep)
    counting = nets.RaisesAfter(case.loss, -1)
    run(case, counting, chosen, keep)
    assert counting.count == 2 * 2 * 5 * 3  # subjects, repeats, points, batches


def test_resume_without_a_file_starts_at_the_beginning(tmp_path):
    found = run(nets.mlp(), nets.cross_entropy, RESUMED[0], tmp_path / "none.npz", resume=True)
    assert np.isfinite(found["loss"]).all()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"span": 2.0}, {"normalize": "layer"}, {"bn": "recalibrate"}, {"points": 6}],
    ids=str,
)
def test_a_partial_file_of_other_settings_is_refused(tmp_path, change):
    case, keep = nets.mlp(), tmp_path / "partial.npz"
    run(case, case.loss, RESUMED[0], keep)
    content = keep.read_bytes()
    with pytest.raises(InputError, match="another landscape"):
        run(case, case.loss, dataclasses.replace(RESUMED[0], **change), keep, resume=True)
    assert keep.read_bytes() == content


def refuses(keep: Path, old: list[Subject], new: list[Subject], chosen=RESUMED[0]) -> None:
    sample_landscape(old, chosen, keep=keep)
    with pytest.raises(InputError, match="another landscape"):
        sample_landscape(new, chosen, keep=keep, resume=True)


def test_a_partial_file_of_other_weights_is_refused(tmp_path):
    case = nets.mlp()
    refuses(tmp_path / "partial.npz", [subject(case)], [subject(moved(case, 1e-12))])


def test_a_partial_file_of_other_frozen_weights_is_refused(tmp_path):
    case, other = nets.frozen(), nets.frozen()
    with torch.no_grad():
        other.model[0].weight.add_(0.5)
    refuses(tmp_path / "partial.npz", [subject(case)], [subject(other)])


def test_a_partial_file_of_other_statistics_is_refused(tmp_path):
    case, other = nets.conv_batchnorm(), nets.conv_batchnorm()
    other.model[1].running_mean.add_(0.5)
    refuses(tmp_path / "partial.npz", [subject(case)], [subject(other)])


def test_a_partial_file_of_other_data_is_refused(tmp_path):
    case = nets.mlp()
    other = dataclasses.replace(case, targets=nets.labels(seed=5))
    refuses(tmp_path / "partial.npz", [subject(case)], [subject(other)])


def test_a_partial_file_of_other_calibration_is_refused(tmp_path):
    case = nets.conv_batchnorm()
    other = dataclasses.replace(subject(case), calibration=case.batches()[:1])
    chosen = LandscapeSettings(points=3, bn="recalibrate")
    refuses(tmp_path / "partial.npz", [subject(case)], [other], chosen)


def test_a_partial_file_of_another_trajectory_is_refused(tmp_path):
    case = nets.mlp()
    paths = [
        [
            {
                n: w + nets.randn(*w.shape, seed=seed)
                for n, w in reference.trainable(case.model).items()
            }
        ]
        for seed in (0, 1)
    ]
    chosen = LandscapeSettings(directions="trajectory", points=3)
    refuses(tmp_path / "p.npz", *([subject(case, path=path)] for path in paths), chosen=chosen)


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "foreign"])
def test_a_damaged_partial_file_is_refused_in_a_line(tmp_path, damage):
    case, keep = nets.mlp(), tmp_path / "partial.npz"
    run(case, case.loss, RESUMED[0], keep)
    whole = keep.read_bytes()
    if damage == "foreign":
        np.savez(keep, alpha=np.zeros(3))
    else:
        changed = {"empty": b"", "garbage": b"nothing", "truncated": whole[: len(whole) // 2]}
        keep.write_bytes(changed[damage])
    with pytest.raises(InputError, match="damaged"):
        run(case, case.loss, RESUMED[0], keep, resume=True)
