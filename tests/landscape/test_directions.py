import nets
import pytest
import reference
import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscape import (
    eigen_directions,
    normalized,
    random_directions,
    trajectory_directions,
)
from ssgd_analysis.problem import Problem

SCOPES = ["filter", "layer"]


def problem(case: nets.Case) -> Problem:
    return Problem(*case.problem)


def flat(direction: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in direction])


def groups(tensor: Tensor, how: str) -> list[Tensor]:
    """The filters of a weight, or the whole of it."""
    return [part.reshape(-1) for part in (tensor if how == "filter" else tensor[None])]


@pytest.fixture(params=["mlp", "conv_batchnorm", "tied", "frozen", "positions"])
def subject(request) -> Problem:
    return problem(nets.CASES[request.param]())


@pytest.mark.parametrize("how", SCOPES)
def test_each_group_gets_the_norm_of_its_weights(subject, how):
    for direction in normalized(subject, random_directions(subject, 2, seed=0), how):
        for part, weight in zip(direction, subject.parameters.values(), strict=True):
            assert part.shape == weight.shape
            if weight.ndim < 2:
                continue
            for d, w in zip(groups(part, how), groups(weight.detach(), how), strict=True):
                assert float(d.norm()) == pytest.approx(float(w.norm()), rel=1e-12)


@pytest.mark.parametrize("how", SCOPES)
def test_vectors_do_not_move(subject, how):
    vectors = [i for i, w in enumerate(subject.parameters.values()) if w.ndim < 2]
    assert vectors
    for direction in normalized(subject, random_directions(subject, 2, seed=0), how):
        assert not any(direction[index].any() for index in vectors)


@pytest.mark.parametrize("how", SCOPES)
def test_second_direction_is_orthogonal_within_each_group(subject, how):
    first, second = normalized(subject, random_directions(subject, 2, seed=0), how)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(groups(a, how), groups(b, how), strict=True):
            if len(x) > 1:  # a group of one entry has one direction only
                # rounding grows where the raw pair was nearly parallel (filters of few entries)
                assert abs(float(x @ y)) <= 1e-10 * float(x.norm() * y.norm())


def test_first_direction_is_the_raw_one_rescaled(subject):
    raw = random_directions(subject, 1, seed=0)
    (made,) = normalized(subject, raw, "filter")
    for before, after, weight in zip(raw[0], made, subject.parameters.values(), strict=True):
        if weight.ndim < 2:
            continue
        for r, d in zip(before, after, strict=True):
            cosine = float((r * d).sum() / (r.norm() * d.norm()))
            assert cosine == pytest.approx(1, abs=1e-12)


def test_none_gives_unit_norm_and_orthogonal(subject):
    first, second = (
        flat(direction)
        for direction in normalized(subject, random_directions(subject, 2, seed=0), "none")
    )
    assert float(first.norm()) == pytest.approx(1, rel=1e-13)
    assert float(second.norm()) == pytest.approx(1, rel=1e-13)
    assert abs(float(first @ second)) < 1e-14
    sizes = [w.ndim for w in subject.parameters.values()]
    vector = sizes.index(1)
    assert normalized(subject, random_directions(subject, 1, seed=0), "none")[0][vector].any()


def test_zero_filters_do_not_move():
    case = nets.mlp()
    with torch.no_grad():
        case.model[0].weight[1] = 0
    subject = problem(case)
    (direction,) = normalized(subject, random_directions(subject, 1, seed=0), "filter")
    assert not direction[0][1].any()
    assert direction[0].isfinite().all()


def test_normalising_changes_no_input(subject):
    raw = random_directions(subject, 2, seed=0)
    before = [nets.bits(flat(direction)) for direction in raw]
    for how in (*SCOPES, "none"):
        normalized(subject, raw, how)
    assert [nets.bits(flat(direction)) for direction in raw] == before


def test_unknown_normalisation_is_refused(subject):
    with pytest.raises(InputError, match="did you mean 'filter'"):
        normalized(subject, random_directions(subject, 1, seed=0), "filters")


def test_two_models_of_equal_shapes_get_the_same_raw_directions():
    case, other = nets.mlp(), nets.mlp()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(-2)
    first = random_directions(problem(case), 2, seed=3)
    torch.manual_seed(77)
    second = random_directions(problem(other), 2, seed=3)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(flat(a), flat(b))


def test_both_precisions_get_the_same_raw_directions():
    double, single = nets.mlp(), nets.mlp()
    single = nets.Case(single.model.float(), single.loss, single.inputs.float(), single.targets)
    a, b = (flat(random_directions(problem(case), 1, seed=3)[0]) for case in (double, single))
    assert b.dtype == torch.float32
    assert torch.equal(a.float(), b)


def test_seeds_repeats_and_axes_differ(subject):
    raw = [
        flat(direction)
        for seed in (0, 1)
        for repeat in (0, 1)
        for direction in random_directions(subject, 2, seed=seed, repeat=repeat)
    ]
    normal = [one / one.norm() for one in raw]
    cosines = [abs(float(a @ b)) for i, a in enumerate(normal) for b in normal[:i]]
    # independent unit vectors of R^P: cosines of size 1/√P, 5 of them among 28 pairs
    assert max(cosines) < 5 / len(raw[0]) ** 0.5


def test_raw_directions_are_standard_normal():
    case = nets.mlp()
    values = torch.cat(
        [flat(random_directions(problem(case), 1, seed=0, repeat=r)[0]) for r in range(50)]
    )
    assert abs(float(values.mean())) < 5 / len(values) ** 0.5
    assert float(values.square().mean()) == pytest.approx(1, abs=5 * (2 / len(values)) ** 0.5)


@pytest.mark.parametrize("net", nets.CASES)
def test_eigen_directions_are_the_top_eigenvectors(net):
    case = nets.CASES[net]()
    values, vectors = torch.linalg.eigh(reference.hessian(case))
    found = eigen_directions(problem(case), 2, seed=0)
    for direction, truth in zip(found, vectors.flip(1).T, strict=False):
        # residual 1e-3 λ over a gap of a good part of λ: an angle of a few thousandths
        assert abs(float(flat(direction) @ truth)) == pytest.approx(1, abs=1e-3)
    shapes = [part.shape for part in found[0]]
    assert shapes == [w.shape for w in reference.trainable(case.model).values()]
    assert values[-1] > values[-2]


def test_more_eigen_directions_than_weights_are_refused():
    model = torch.nn.Linear(1, 1, bias=False).double()
    one = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(InputError, match="only 1 directions"):
        eigen_directions(Problem(model, nets.mse, [(one, one)]), 2, seed=0)


def path_along(case: nets.Case, axes: list[Tensor], steps: list[tuple]) -> list[dict]:
    """Checkpoints at the weights plus combinations of ``axes``."""
    w = reference.flat_weights(case.model)
    found = []
    for amounts in steps:
        moved = w + sum(a * axis for a, axis in zip(amounts, axes, strict=True))
        named = reference.trainable(case.model)
        pieces = moved.split([p.numel() for p in named.values()])
        found.append(
            {n: v.reshape(p.shape) for (n, p), v in zip(named.items(), pieces, strict=True)}
        )
    return found


def two_axes(case: nets.Case) -> list[Tensor]:
    q, _ = torch.linalg.qr(nets.randn(len(reference.flat_weights(case.model)), 2))
    return list(q.T)


@pytest.mark.parametrize("net", ["mlp", "frozen", "tied"])
def test_trajectory_finds_the_axes_of_the_way(net):
    case = nets.CASES[net]()
    long, short = two_axes(case)
    path = path_along(case, [long, short], [(5, 0.5), (5, -0.5), (3, 0.5), (3, -0.5), (0, 0)])
    first, second = trajectory_directions(problem(case), path, 2)
    assert abs(float(flat(first) @ long)) == pytest.approx(1, abs=1e-12)
    assert abs(float(flat(second) @ short)) == pytest.approx(1, abs=1e-12)


def test_trajectory_needs_other_checkpoints():
    case = nets.mlp()
    stay = path_along(case, two_axes(case), [(0, 0), (0, 0)])
    with pytest.raises(InputError, match="--save-every"):
        trajectory_directions(problem(case), stay, 1)
    once = path_along(case, two_axes(case), [(1, 0), (0, 0)])
    with pytest.raises(InputError, match="at least 2 kept"):
        trajectory_directions(problem(case), once, 2)
