"""The noise of S-SGD and its one-sided kin: where it goes, how it changes, what it does."""

import math

import pytest
import torch
from readings.base import Still, bits, make_method, minibatch, network, run_steps
from torch import Tensor, nn

from ssgd_analysis.errors import InputError
from ssgd_analysis.methods.moving import moving_weights
from ssgd_analysis.methods.weight_noise import WeightNoiseSettings, scheduled
from ssgd_analysis.methods.when import When
from ssgd_analysis.weights import LAWS, SCALES, Noise

# On a quadratic


def _linear_regression(name: str, steps: int = 10) -> list[Tensor]:
    """Weights after some steps on a linear model with squared error: a quadratic in w."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    method = make_method(name, model, optimizer, loss="mse")
    for number in range(steps):
        inputs, _ = minibatch(number)
        method.step((inputs, inputs[:, :2].sin()), When(step=number, fraction_done=number / steps))
    return [parameter.detach() for parameter in model.parameters()]


def test_on_a_quadratic_symmetric_noise_cancels_exactly():
    for found, expected in zip(_linear_regression("s-sgd"), _linear_regression("sgd"), strict=True):
        # equal but for float64 rounding over ten steps
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["wni", "wni-2"])
def test_on_a_quadratic_one_sided_noise_does_not(name):
    found, expected = _linear_regression(name), _linear_regression("sgd")
    assert (found[0] - expected[0]).abs().max() > 1e-3


# Schedules


def _multiple(done: float, rate: float = 1.0, **settings) -> float:
    return scheduled(WeightNoiseSettings(**settings), When(fraction_done=done, lr_share=rate))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sqrt"])
@pytest.mark.parametrize("end", [0.0, 0.3, 2.0])
def test_a_schedule_goes_from_one_to_its_end(schedule, end):
    chosen = {"noise_schedule": schedule, "noise_end": end}
    assert _multiple(0.0, **chosen) == 1
    assert _multiple(1.0, **chosen) == pytest.approx(end)
    points = [_multiple(t / 20, **chosen) for t in range(21)]
    assert points == sorted(points, reverse=end < 1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", 1.0),
        ("linear", 0.75 + 0.25 * 0.2),
        ("cosine", 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2),
        ("sqrt", 0.5 + 0.5 * 0.2),
    ],
)
def test_a_schedule_at_a_quarter_of_training(schedule, expected):
    chosen = {"noise_schedule": schedule, "noise_end": 0.2}
    assert _multiple(0.25, **chosen) == pytest.approx(expected)
    later = _multiple(0.5, noise_start=0.4, noise_stop=0.8, **chosen)  # a quarter of its span
    assert later == pytest.approx(expected)


def test_there_is_noise_from_its_start_to_its_stop_only():
    span = {"noise_start": 0.25, "noise_stop": 0.75}
    found = [_multiple(t / 8, **span) for t in range(9)]
    assert found == [0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert _multiple(1.0) == 1  # the end of a training whose noise never stops


def test_a_schedule_may_follow_the_learning_rate():
    assert _multiple(0.5, rate=0.3, noise_schedule="lr") == 0.3
    method = make_method("wni", network(), noise_schedule="lr", noise_scale=0.5)
    for share in (1.0, 0.5, 2.0):
        assert method.scale(When(lr_share=share)) == pytest.approx(0.5 * share)


@pytest.mark.parametrize(
    "span", [{"noise_start": 0.6, "noise_stop": 0.5}, {"noise_stop": 1.5}, {"noise_start": 2.0}]
)
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(InputError, match="start ≤ stop"):
        WeightNoiseSettings(**span)


def test_half_way_down_a_line_the_noise_is_half_as_large():
    def trained(done: float, **settings) -> list[bytes]:
        model = network()
        make_method("s-sgd", model, **settings).step(minibatch(0), When(fraction_done=done))
        return bits(model)

    falling = trained(0.5, noise_scale=0.4, noise_schedule="linear")
    assert falling == trained(0.0, noise_scale=0.2)
    gone = trained(1.0, noise_scale=0.4, noise_schedule="linear")
    assert gone == trained(0.0, noise_scale=0.0)
    constant = trained(0.5, noise_scale=0.4, noise_end=0.1)  # an end without a schedule is idle
    assert constant == trained(0.0, noise_scale=0.4)


# Which parameters


def _moved_names(model: nn.Module, **settings) -> set[str]:
    """Names of the parameters that differ from w while the model is called."""
    clean = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    moved = set()

    def look(*_: object) -> None:
        moved.update(n for n, p in model.named_parameters() if not torch.equal(p, clean[n]))

    model.register_forward_pre_hook(look)
    run_steps(make_method("wni", model, Still(model.parameters()), **settings), 1)
    return moved


def _normalised() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    nn.init.normal_(model[1].bias)  # relative noise on zeros is zero
    return model


ALL = {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("1d", {"0.weight", "2.weight"}),
        ("none", ALL),
        ("2.*", ALL - {"2.weight", "2.bias"}),
        ("*.bias,0.weight", {"1.weight", "2.weight"}),
        ("0.*,1.*,2.b*", {"2.weight"}),
    ],
)
def test_spared_parameters_are_not_moved(exclude, expected):
    assert _moved_names(_normalised(), exclude=exclude) == expected


@pytest.mark.parametrize("pattern", ["2.*, 0.*", "2.*,0.*"])
def test_patterns_may_be_parted_by_a_comma_and_a_space(pattern):
    assert _moved_names(_normalised(), exclude=pattern) == {"1.weight", "1.bias"}


# The context manager


def test_noisy_weights_are_symmetric_and_repeat():
    model = network()
    weight = model[0].weight
    clean = weight.detach().clone()

    def noise(sign: int, seed: int) -> Tensor:
        with moving_weights([(weight, 0.5)], Noise()) as move:
            move(seed, sign)
            return weight.detach() - clean

    rms = clean.square().mean(dim=1, keepdim=True).sqrt()
    # float64: the difference loses bits of w, here at most 1e-16
    torch.testing.assert_close(noise(1, 0).abs(), (0.5 * rms).expand(5, 4), rtol=1e-12, atol=0)
    torch.testing.assert_close(noise(1, 0), -noise(-1, 0), rtol=1e-12, atol=0)
    assert torch.equal(noise(1, 0), noise(1, 0))
    assert not torch.equal(noise(1, 0), noise(1, 1))
    assert torch.equal(weight, clean)


def test_noise_takes_no_part_in_the_graph():
    model = network()
    with moving_weights([(model[0].weight, 0.5)], Noise()) as move:
        move(0, 1)
        assert model[0].weight.is_leaf
        assert model[0].weight.requires_grad
        model(minibatch(0)[0]).sum().backward()
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), ()])
def test_empty_and_single_parameters_have_noise_of_their_shape(law, shape):
    generator = torch.Generator().manual_seed(0)
    for scale in SCALES:
        noise = Noise(law=law, scale=scale).sample(torch.ones(shape), generator)
        assert noise.shape == shape
        assert noise.isfinite().all()


@pytest.mark.parametrize("name", ["s-sgd", "wni", "nso", "anti-pgd", "lpf-sgd"])
def test_a_model_whose_parameters_are_all_spared_is_refused(name):
    """Otherwise a run without noise would cost, and be called, what it is not."""
    model = nn.Sequential(nn.LayerNorm(4), nn.Flatten())
    with pytest.raises(InputError, match="exclude=1d leaves no parameter with noise"):
        make_method(name, model, exclude="1d")
