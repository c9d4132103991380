import nets
import pytest
import reference
import torch
from torch import Tensor

from ssgd_analysis.errors import InputError
from ssgd_analysis.landscapes.directions import (
    MoveRest,
    between_directions,
    eigen_directions,
    given_directions,
    gradient_directions,
    inner_product,
    normalized_directions,
    projected,
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
    for direction in normalized_directions(subject, random_directions(subject, 2, seed=0), how):
        for part, weight in zip(direction, subject.parameters.values(), strict=True):
            assert part.shape == weight.shape
            if weight.ndim < 2:
                continue
            for d, w in zip(groups(part, how), groups(weight.detach(), how), strict=True):
                assert float(d.norm()) == pytest.approx(float(w.norm()), rel=1e-12)


@pytest.mark.parametrize("how", SCOPES)
def test_biases_do_not_move(subject, how):
    vectors = [i for i, w in enumerate(subject.parameters.values()) if w.ndim < 2]
    assert vectors
    for direction in normalized_directions(subject, random_directions(subject, 2, seed=0), how):
        assert not any(direction[index].any() for index in vectors)


@pytest.mark.parametrize("how", SCOPES)
def test_kept_biases_get_their_own_norm(subject, how):
    for direction in normalized_directions(
        subject, random_directions(subject, 2, seed=0), how, "keep"
    ):
        for part, weight in zip(direction, subject.parameters.values(), strict=True):
            if weight.ndim < 2:
                assert float(part.norm()) == pytest.approx(float(weight.detach().norm()), rel=1e-12)


def test_biases_held_at_zero_leave_unit_norm(subject):
    (made,) = normalized_directions(subject, random_directions(subject, 1, seed=0), "none", "zero")
    assert float(flat(made).norm()) == pytest.approx(1, rel=1e-12)
    still = [w.ndim < 2 for w in subject.parameters.values()]
    assert [not part.any() for part in made] == still


def test_matrices_of_normalisation_layers_count_as_biases():
    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.LayerNorm((2, 3))).double()
    model = torch.nn.Sequential(model[0], torch.nn.Unflatten(1, (2, 3)), model[1])
    one = torch.ones(2, 6, dtype=torch.float64)
    given = Problem(model, lambda outputs, _: outputs.square().mean(), [(one, one)])
    (made,) = normalized_directions(given, random_directions(given, 1, seed=0), "filter")
    moves = dict(zip(given.parameters, (bool(part.any()) for part in made), strict=True))
    assert moves == {"0.weight": True, "0.bias": False, "2.weight": False, "2.bias": False}


def test_nothing_but_biases_gives_no_direction():
    model = torch.nn.BatchNorm1d(3).double()
    one = torch.ones(2, 3, dtype=torch.float64)
    given = Problem(model, nets.mse, [(one, one)])
    with pytest.raises(InputError, match="--biases keep"):
        normalized_directions(given, random_directions(given, 1, seed=0), "filter")


def test_parallel_directions_are_no_plane(subject):
    (first,) = random_directions(subject, 1, seed=0)
    for how in (*SCOPES, "none"):
        for second in ([-3 * part for part in first], first):
            with pytest.raises(InputError, match="parallel to the first"):
                normalized_directions(subject, [first, second], how)
    noise = random_directions(subject, 2, seed=1)[1]
    nearly = [a + 1e-9 * b for a, b in zip(first, noise, strict=True)]
    with pytest.raises(InputError, match="parallel to the first"):
        normalized_directions(subject, [first, nearly], "none")


@pytest.mark.parametrize("how", [*SCOPES, "none"])
def test_one_weight_has_no_second_direction(how):
    one = torch.ones(2, 1, dtype=torch.float64)
    given = Problem(torch.nn.Linear(1, 1, bias=False).double(), nets.mse, [(one, one)])
    with pytest.raises(InputError, match="--dims 1"):
        normalized_directions(given, random_directions(given, 2, seed=0), how)


def test_filters_of_one_entry_do_not_skew_the_plane():
    one = torch.ones(2, 1, dtype=torch.float64)
    model = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Linear(5, 2)).double()
    given = Problem(model, nets.mse, [(one, torch.ones(2, 2, dtype=torch.float64))])
    first, second = normalized_directions(given, random_directions(given, 2, seed=0), "filter")
    assert abs(inner_product(first, second)) < 1e-12
    assert not second[0].any()


@pytest.mark.parametrize("how", [*SCOPES, "none"])
def test_float32_directions_are_orthogonal_though_nearly_parallel_before(how):
    case = nets.mlp()
    model = nets.Case(case.model.float(), case.loss, case.inputs.float(), case.targets)
    given = problem(model)
    first, noise = random_directions(given, 2, seed=0)
    second = [a + 1e-3 * b for a, b in zip(first, noise, strict=True)]
    a, b = normalized_directions(given, [first, second], how)
    # rounding to float32 of entries of a few hundred: 6e-8 × √P over P
    assert abs(inner_product(a, b)) <= 1e-7 * (inner_product(a, a) * inner_product(b, b)) ** 0.5


@pytest.mark.parametrize("how", SCOPES)
def test_second_direction_is_orthogonal_within_each_group(subject, how):
    first, second = normalized_directions(subject, random_directions(subject, 2, seed=0), how)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(groups(a, how), groups(b, how), strict=True):
            if len(x) > 1:  # a group of one entry has one direction only
                # rounding grows where the raw pair was nearly parallel (filters of few entries)
                assert abs(float(x @ y)) <= 1e-10 * float(x.norm() * y.norm())


def test_first_direction_is_the_raw_one_rescaled(subject):
    raw = random_directions(subject, 1, seed=0)
    (made,) = normalized_directions(subject, raw, "filter")
    for before, after, weight in zip(raw[0], made, subject.parameters.values(), strict=True):
        if weight.ndim < 2:
            continue
        for r, d in zip(before, after, strict=True):
            cosine = float((r * d).sum() / (r.norm() * d.norm()))
            assert cosine == pytest.approx(1, abs=1e-12)


def test_none_gives_unit_norm_and_orthogonal(subject):
    first, second = (
        flat(direction)
        for direction in normalized_directions(
            subject, random_directions(subject, 2, seed=0), "none"
        )
    )
    assert float(first.norm()) == pytest.approx(1, rel=1e-13)
    assert float(second.norm()) == pytest.approx(1, rel=1e-13)
    assert abs(float(first @ second)) < 1e-14
    sizes = [w.ndim for w in subject.parameters.values()]
    vector = sizes.index(1)
    assert normalized_directions(subject, random_directions(subject, 1, seed=0), "none")[0][
        vector
    ].any()


def test_zero_filters_do_not_move():
    case = nets.mlp()
    with torch.no_grad():
        case.model[0].weight[1] = 0
    subject = problem(case)
    (direction,) = normalized_directions(subject, random_directions(subject, 1, seed=0), "filter")
    assert not direction[0][1].any()
    assert direction[0].isfinite().all()


def test_normalising_changes_no_input(subject):
    raw = random_directions(subject, 2, seed=0)
    before = [nets.bits(flat(direction)) for direction in raw]
    for how in (*SCOPES, "none"):
        normalized_directions(subject, raw, how)
    assert [nets.bits(flat(direction)) for direction in raw] == before


def test_unknown_normalisation_is_refused(subject):
    with pytest.raises(InputError, match="did you mean 'filter'"):
        normalized_directions(subject, random_directions(subject, 1, seed=0), "filters")


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
    found, pairs = eigen_directions(problem(case), 2, seed=0)
    assert [pair.value for pair in pairs] == pytest.approx(values.flip(0)[:2].tolist(), rel=1e-3)
    for direction, truth in zip(found, vectors.flip(1).T, strict=False):
        # residual 1e-3 λ over a gap of a good part of λ: an angle of a few thousandths
        assert abs(float(flat(direction) @ truth)) == pytest.approx(1, abs=1e-3)
        assert float(flat(direction).max()) == float(flat(direction).abs().max())
    shapes = [part.shape for part in found[0]]
    assert shapes == [w.shape for w in reference.trainable(case.model).values()]
    assert values[-1] > values[-2]


def test_more_eigen_directions_than_weights_are_refused():
    model = torch.nn.Linear(1, 1, bias=False).double()
    one = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(InputError, match="needs 2 eigenvectors"):
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
    (first, second), explained = trajectory_directions(problem(case), path, 2)
    assert abs(float(flat(first) @ long)) == pytest.approx(1, abs=1e-12)
    assert abs(float(flat(second) @ short)) == pytest.approx(1, abs=1e-12)
    along, across = 2 * 5**2 + 2 * 3**2, 4 * 0.5**2
    w = reference.flat_weights(case.model)
    start = torch.cat([part.flatten() for part in path[0].values()]) - w
    assert max(float(flat(first) @ start), float(flat(second) @ start)) < 0
    assert explained == pytest.approx([along / (along + across), across / (along + across)])


def test_the_way_is_seen_from_its_plane():
    case = nets.mlp()
    along, across, out = torch.linalg.qr(nets.randn(len(reference.flat_weights(case.model)), 3))[
        0
    ].T
    steps = [(5, 0.5, 0.0), (3, -2, 0.25), (0, 0, 0)]
    path = path_along(case, [along, across, out], steps)
    pieces = [problem(case).split(axis) for axis in (2 * along, along + across)]  # skewed
    seen = projected(problem(case), path, pieces)
    # x (2 a) + y (a + b) = 5 a + 0.5 b: y = 0.5, x = 2.25
    truth = torch.tensor([[2.25, 0.5], [2.5, -2.0], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(seen.coordinates, truth, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        seen.outside, torch.tensor([0, 0.25, 0.0], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_straight_way_has_no_second_axis():
    case = nets.mlp()
    path = path_along(case, two_axes(case), [(1, 0), (2, 0), (3, 0)])
    with pytest.raises(InputError, match="straight line"):
        trajectory_directions(problem(case), path, 2)
    assert trajectory_directions(problem(case), path, 1)[1] == pytest.approx([1])


def test_trajectory_needs_other_checkpoints():
    case = nets.mlp()
    stay = path_along(case, two_axes(case), [(0, 0), (0, 0)])
    with pytest.raises(InputError, match="--save-every"):
        trajectory_directions(problem(case), stay, 1)
    once = path_along(case, two_axes(case), [(1, 0), (0, 0)])
    with pytest.raises(InputError, match="at least 2 saved"):
        trajectory_directions(problem(case), once, 2)


# --- gradient, a user's vectors, between checkpoints ---


@pytest.mark.parametrize("net", ["mlp", "conv_batchnorm", "tied", "frozen"])
def test_gradient_directions_are_the_gradient_and_where_it_turns(net):
    case = nets.CASES[net]()
    g, turned = (flat(d) for d in gradient_directions(problem(case), 2))
    truth = reference.gradient(case)
    torch.testing.assert_close(g, truth, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(
        turned, reference.hessian(case) @ (truth / truth.norm()), rtol=1e-8, atol=1e-12
    )


def test_a_gradient_of_zero_gives_no_direction():
    model = torch.nn.Linear(2, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    one = torch.ones(2, 2, dtype=torch.float64)
    given = Problem(model, nets.mse, [(one, torch.zeros(2, 1, dtype=torch.float64))])
    with pytest.raises(InputError, match="gradient is zero"):
        gradient_directions(given, 1)


def test_given_vectors_by_name_or_in_one_piece():
    given = problem(nets.mlp())
    (raw,) = random_directions(given, 1, seed=0)
    named = dict(zip(given.parameters, raw, strict=True))
    by_name, whole = given_directions(given, [named, flat(raw)], 2)
    assert torch.equal(flat(by_name), flat(raw))
    assert torch.equal(flat(whole), flat(raw))
    first = next(iter(named))
    (partial,) = given_directions(given, [{first: named[first]}], 1)
    assert torch.equal(partial[0], raw[0])
    assert not any(part.any() for part in partial[1:])


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        (torch.ones(3), "3 entries"),
        ({"nothing": torch.ones(3)}, "entry 'nothing': its entries should be"),
        ({"0.weight": torch.ones(2, 2)}, "shape"),
        ({}, "is empty"),
        (None, "needs 1 vectors"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vector, match):
    case = nets.mlp()
    with pytest.raises(InputError, match=match):
        given_directions(problem(case), [] if vector is None else [vector], 1)
    name, parameter = next(iter(problem(case).parameters.items()))
    broken = torch.full_like(parameter, float("nan"))
    with pytest.raises(InputError, match="not finite"):
        given_directions(problem(case), [{name: broken}], 1)


def checkpoints(case: nets.Case, steps: list[tuple]) -> list[Problem]:
    axes = two_axes(case)
    found = []
    for weights in path_along(case, axes, steps):
        model = nets.evaluated(case.model)
        model.load_state_dict({**model.state_dict(), **weights})
        found.append(Problem(model, case.loss, case.batches()))
    return found


def test_a_plane_goes_through_three_checkpoints():
    case = nets.mlp()
    problems = checkpoints(case, [(1, 1), (4, 5), (2, -3)])
    (first, second), places = between_directions("abc", problems)
    assert places[:2] == [(0.0, 0.0), (1.0, 0.0)]
    assert abs(inner_product(first, second)) < 1e-10
    assert inner_product(second, second) == pytest.approx(inner_product(first, first), rel=1e-12)
    # c − a = (1, −4), along (3, 4)/25: −13/25; the rest has length √(17 − 13²/25) over 5
    assert places[2] == pytest.approx((-13 / 25, (17 - 169 / 25) ** 0.5 / 5))
    a, b = places[2]
    at = [w + a * x + b * y for w, x, y in
          zip(problems[0].parameters.values(), first, second, strict=True)]  # fmt: skip
    for found, truth in zip(at, problems[2].parameters.values(), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-13)


def test_three_checkpoints_on_a_line_are_refused():
    problems = checkpoints(nets.mlp(), [(0, 0), (1, 1), (3, 3)])
    with pytest.raises(InputError, match="on one line"):
        between_directions("abc", problems)
    for others in ([problems[0]], [problems[0], problems[1]]):
        with pytest.raises(InputError, match="a and b have the same weights"):
            between_directions("abc"[: 1 + len(others)], [problems[0], *others])


def test_masks_that_differ_can_not_be_mixed():
    class Masked(torch.nn.Linear):
        def __init__(self, first: bool, turn: complex):
            super().__init__(2, 1)
            self.register_buffer("mask", torch.tensor([first, True]))
            self.register_buffer("turn", torch.tensor([turn]))
            self.register_buffer("num_batches_tracked", torch.tensor(int(first)))

    one = torch.ones(2, 2)
    a, b, c = (
        Problem(Masked(*which).eval(), nets.mse, [(one, one[:, :1])])
        for which in ((True, 1j), (False, 3j), (True, 3j))
    )
    with pytest.raises(InputError, match=r"'mask' differs .* torch.bool can't be interpolated"):
        MoveRest([a, b], [(0.0,), (1.0,)])
    with torch.no_grad():
        MoveRest([a, c], [(0.0,), (1.0,)])([0.5])
    assert a.model.turn.item() == 2j


def test_the_first_tensor_that_differs_is_named():
    wide = nets.mlp()
    other = nets.mlp()
    other.model[0] = torch.nn.Linear(other.model[0].in_features, 9).double()
    with pytest.raises(InputError, match=r"two are not of the same model: '0.weight' is \(.*\(9, "):
        between_directions(("one", "two"), [problem(wide), problem(other)])


def test_statistics_are_mixed_as_the_weights_and_never_extrapolated():
    models = [nets.evaluated(nets.conv_batchnorm().model) for _ in range(3)]
    for number, model in enumerate(models):
        model[1].running_var.fill_(1.0 + number)
    case = nets.conv_batchnorm()
    problems = [Problem(model, case.loss, case.batches()) for model in models]
    move = MoveRest(problems, [(0.0, 0.0), (1.0, 0.0), (0.5, 2.0)])
    with torch.no_grad():
        for place, value in [
            ((0, 0), 1.0), ((1, 0), 2.0), ((0.5, 2), 3.0), ((0.5, 0), 1.5), ((0.5, 1), 2.25),
            ((-9, 0), 1.0), ((9, 0), 2.0), ((0.5, 99), 3.0),
        ]:  # fmt: skip
            move(place)
            assert float(models[0][1].running_var[0]) == pytest.approx(value, rel=1e-12)
