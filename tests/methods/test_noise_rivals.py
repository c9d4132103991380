"""What is known of the noise family beyond each equation."""

import math
from contextlib import contextmanager

import pytest
import torch
from readings import READINGS
from readings.base import (
    Step,
    bits,
    make_method,
    minibatch,
    network,
    run_steps,
)
from torch import nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods import METHODS
from ssgd_analysis.methods.points import Point
from ssgd_analysis.methods.when import START, When

ABSOLUTE = {"noise_law": "binary", "noise_relative_to": "none", "exclude": "none"}


@contextmanager
def at_noisy_point(method, when):
    """The model's weights stand at w + n."""
    with method.moving(when) as move_to:
        move_to(Point())
        yield


def weights_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_near(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {"rtol": 1e-11, "atol": 1e-12}))


def sgd(model, momentum=0.9, lr=0.2, decay=0.0):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=decay)


# Alternating


def test_two_steps_of_alternating_noise_make_a_pair_of_s_sgd():
    """At weights that stand still the mean of both gradients is S-SGD's, to rounding."""
    model, other = network(), network()
    method = make_method("alternating", model, torch.optim.SGD(model.parameters(), lr=0.0), seed=2)
    pair = make_method("s-sgd", other, torch.optim.SGD(other.parameters(), lr=0.0), seed=2)
    inputs, targets = minibatch(0)
    sums = [torch.zeros_like(weight) for weight in model.parameters()]
    for number in range(2):
        method.passes.optimizer.zero_grad()
        method.gradient((inputs, targets), When(step=number))
        sums = [a + p.grad / 2 for a, p in zip(sums, model.parameters(), strict=True)]
    pair.gradient((inputs, targets), START)
    assert_near(sums, [p.grad for p in other.parameters()])


# Anti-PGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_anti_pgd_seen_from_the_clean_iterate_is_one_sided_weight_noise(momentum):
    """Orvieto et al. 2022: z ← z − η g(z + ξ); at the first step ξ = 0."""
    model, other = network(), network()
    noisy = make_method("anti-pgd", model, sgd(model, momentum), seed=3, noise_scale=0.1)
    wni = make_method("wni", other, sgd(other, momentum), seed=3, noise_scale=0.1, **ABSOLUTE)
    start = weights_of(model)
    for number in range(6):
        noisy.step(minibatch(number), When(step=number))
        if number == 0:
            make_method("sgd", other, wni.passes.optimizer).step(minibatch(0), START)
        else:
            wni.step(minibatch(number), When(step=number))
    carried = weights_of(model)
    noisy.finish([])
    assert_near(weights_of(model), weights_of(other))
    assert max((a - b).abs().max() for a, b in zip(start, carried, strict=True)) > 0.09
    for w, z in zip(carried, weights_of(model), strict=True):
        torch.testing.assert_close((w - z).abs(), torch.full_like(w, 0.1), rtol=1e-9, atol=0)


def test_with_weight_decay_anti_pgd_is_not_one_sided_weight_noise():
    model, other = network(), network()
    for name, net in (("anti-pgd", model), ("wni", other)):
        settings = ABSOLUTE if name == "wni" else {}
        method = make_method(name, net, sgd(net, decay=0.5), seed=3, noise_scale=0.1, **settings)
        run_steps(method, 3, first=1)
        method.finish([])
    assert (
        max((a - b).abs().max() for a, b in zip(*map(weights_of, (model, other)), strict=True))
        > 1e-3
    )


# Filter noise


def test_lpf_noise_has_the_filters_norm_times_gamma_as_deviation():
    model = nn.Linear(400, 50).double()
    method = make_method("lpf-sgd", model, noise_scale=0.01, loss="mse")
    clean = weights_of(model)
    with at_noisy_point(method, START):
        moved = weights_of(model)
    for number in range(50):
        deviation = float((moved[0] - clean[0])[number].std())
        # 400 Gaussians: the deviation is known to 3.5 percent; five times that
        assert deviation == pytest.approx(0.01 * float(clean[0][number].norm()), rel=0.18)
    bias = float((moved[1] - clean[1]).std())
    assert bias == pytest.approx(0.01 * float(clean[1].norm()), rel=0.5)


@pytest.mark.parametrize("ends", [("lpf-sgd", 15), ("arwp", 11)])
def test_the_published_growth_of_the_noise(ends):
    name, most = ends
    method = make_method(name, network(), noise_schedule="cosine")
    sizes = []
    for done in (0.0, 0.5, 1.0):
        before = weights_of(method.passes.model)
        with at_noisy_point(method, When(fraction_done=done)):
            after = weights_of(method.passes.model)
        sizes.append(float((after[0] - before[0]).norm()))
    assert sizes[2] == pytest.approx(most * sizes[0], rel=1e-9)
    assert sizes[1] == pytest.approx((most + 1) / 2 * sizes[0], rel=1e-9)


@pytest.mark.parametrize("name", ["lpf-sgd", "smoothout"])
def test_parts_of_unequal_size_count_by_their_examples(name):
    """The mean over the minibatch, as without parts; seven examples in three parts."""
    model, reading = network(), READINGS[name]
    strength = "strength" if name == "smoothout" else "noise_scale"
    method = make_method(name, model, ghost_batches=3, batch_size=7, **{strength: 0.1})
    inputs, targets = minibatch(0, 7)
    weights = weights_of(model)
    step = Step(method.settings, seed=0, number=0, elapsed=0.0)
    expected = reading.direction(weights, inputs, targets, step)
    method.gradient((inputs, targets), START)
    assert_near([p.grad for p in model.parameters()], expected)
    assert method.passes.gradients == 1
    with pytest.raises(InputError, match="ghost_batches=3 needs a batch size of at least 3"):
        method.gradient((inputs[:2], targets[:2]), START)


@pytest.mark.parametrize("name", ["lpf-sgd", "smoothout"])
def test_without_noise_parts_change_nothing(name):
    strength = {"smoothout": "strength"}.get(name, "noise_scale")
    model, plain = network(), network()
    run_steps(make_method(name, model, ghost_batches=3, **{strength: 0.0}), 4)
    run_steps(make_method("sgd", plain), 4)
    assert_near(weights_of(model), weights_of(plain))


@pytest.mark.parametrize("name", ["rwp", "m-arwp"])
def test_without_noise_two_minibatches_are_one_of_twice_the_size(name):
    model, plain = network(), network()
    run_steps(make_method(name, model, noise_scale=0.0), 4, size=12)
    run_steps(make_method("sgd", plain), 4, size=12)
    assert_near(weights_of(model), weights_of(plain))


def test_arwp_shrinks_the_noise_by_what_it_has_seen():
    """By hand: after one step with gradient g the second noise is divided by √(1 + η Σ g²)."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plain = {"noise_schedule": "constant", "noise_scale": 0.1}
    method = make_method("arwp", model, optimizer, eta=5.0, **plain)
    method.step(minibatch(0), START)
    slope = model[0].weight.grad.clone()
    free = make_method("arwp", model, optimizer, eta=0.0, **plain)
    clean, moves = weights_of(model), []
    for each in (method, free):
        with at_noisy_point(each, When(step=1)):
            moves.append(weights_of(model)[0] - clean[0])
    factor = 1 / (1 + 5 * slope.square().sum(dim=1, keepdim=True)).sqrt()
    torch.testing.assert_close(moves[0], moves[1] * factor, rtol=1e-9, atol=1e-12)
    assert factor.max() < 0.99


def test_adaptive_memory_survives_a_resume():
    model, other = network(), network()
    whole = make_method("arwp", model, eta=30.0, noise_scale=0.1)
    optimizer = sgd(other, decay=0.05)
    first, second = (
        make_method("arwp", other, optimizer, eta=30.0, noise_scale=0.1) for _ in range(2)
    )
    for number in range(6):
        if number == 3:
            second.load_state_dict(first.state_dict())
        for method in (whole, first if number < 3 else second):
            method.step(minibatch(number), When(step=number))
    assert bits(model) == bits(other)
    assert second.squares[0].min() > 0


# SmoothOut


def test_adaptive_smoothout_has_exactly_the_filters_norm():
    model = network()
    method = make_method("smoothout", model, adapt_type="filter", strength=0.3)
    clean = weights_of(model)
    with at_noisy_point(method, START):
        noise = [a - b for a, b in zip(weights_of(model), clean, strict=True)]
    for n, w in zip(noise, clean, strict=True):
        lengths = (n.norm(dim=1), w.norm(dim=1)) if w.ndim > 1 else (n.abs(), w.abs())
        torch.testing.assert_close(lengths[0], 0.3 * lengths[1], rtol=1e-9, atol=0)


def test_smoothout_is_bounded_by_its_half_width_and_spares_batchnorm():
    model = nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40)).double()
    method = make_method("smoothout", model, strength=0.1)
    clean = weights_of(model)
    with at_noisy_point(method, START):
        noise = [a - b for a, b in zip(weights_of(model), clean, strict=True)]
    assert 0.099 < noise[0].abs().max() <= 0.1  # 1200 draws from U(−a, a)
    assert noise[0].std() == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
    assert noise[1].abs().max() > 0.05
    assert noise[2].count_nonzero() == noise[3].count_nonzero() == 0
    all_of_them = make_method("smoothout", model, strength=0.1, exclude_bn=False)
    assert len(all_of_them.noisy) == 4


# NSO


def test_nso_is_s_sgd_with_absolute_gaussian_noise_everywhere():
    model, other = network(), network()
    run_steps(make_method("nso", model, noise_scale=0.1), 4)
    settings = {"noise_law": "gaussian", "noise_relative_to": "none", "exclude": "none"}
    run_steps(make_method("s-sgd", other, noise_scale=0.1, **settings), 4)
    assert_near(weights_of(model), weights_of(other))


@pytest.mark.parametrize(
    ("settings", "passes"),
    [({}, 2), ({"clean_pass": True}, 3), ({"noisy_share": 0.5, "pairs": 2}, 5),
     ({"two_point": False}, 1)],
)  # fmt: skip
def test_the_clean_pass_of_nso_alone_moves_the_statistics(settings, passes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    method = make_method("nso", model, noise_scale=0.5, **settings)
    inputs, targets = minibatch(0)
    at_w = 0.1 * model[0](inputs).detach().mean(dim=0)
    method.gradient((inputs, targets), START)
    assert method.passes.gradients == passes == method.passes_per_step(method.settings)
    assert torch.allclose(model[1].running_mean, at_w) == (method.settings.clean)


def test_shares_above_one_are_refused():
    for name in ("nso", "rwp", "m-arwp"):
        with pytest.raises(InputError, match=r"noisy_share=1\.5 should be at most 1"):
            METHODS[name].Settings(noisy_share=1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_smoothout_keeps_a_draw_of_zero(dtype):
    """A bias' entry is a filter of its own, and one in 2²⁴ draws of it is zero."""
    model = network().to(dtype)
    method = make_method("smoothout", model, adapt_type="filter", strength=0.2)
    units = [torch.zeros_like(parameter) for parameter in model.parameters()]
    assert not any(noise.any() for noise in method.scale_noise(units, START))  # NaN is "any"
