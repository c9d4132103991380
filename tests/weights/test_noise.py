import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssgd_analysis.errors import InputError
from ssgd_analysis.weights import LAWS, SCALES, Noise
from ssgd_analysis.weights.noise import random_signs

SHAPES = [(5, 3, 2, 2), (4, 6), (7,), (), (1, 1)]
MANY = 400_000


def draw(law: str, scale: str, weight: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return Noise(law=law, scale=scale).sample(weight, nets.generator(seed))


def sizes(weight: torch.Tensor, scale: str) -> torch.Tensor:
    """The documented size of each weight's noise, entry by entry."""
    if scale == "weight":
        return weight.abs()
    if scale == "none":
        return torch.ones_like(weight)
    if scale == "layer" or weight.ndim < 2:
        return torch.full_like(weight, float(weight.square().mean().sqrt()))
    rows = [torch.full_like(row, float(row.square().mean().sqrt())) for row in weight]
    return torch.stack(rows)


@pytest.mark.parametrize("law", LAWS)
def test_mean_zero_and_rms_one(law):
    noise = draw(law, "none", torch.empty(MANY, dtype=torch.float64))
    assert abs(noise.mean()) < 5 / MANY**0.5  # five standard errors of a mean of unit variables
    # the square of a Laplace variable has variance 6 - 1, the widest of the laws
    assert abs(noise.square().mean() - 1) < 5 * (5 / MANY) ** 0.5


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_binary_has_exactly_the_documented_magnitude(scale, shape):
    weight = nets.randn(*shape, seed=5)
    noise = draw("binary", scale, weight)
    torch.testing.assert_close(noise.abs(), sizes(weight, scale), rtol=1e-14, atol=0)


@pytest.mark.parametrize("law", ["gaussian", "uniform", "laplace"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_scale_multiplies_the_same_unit_draw(law, scale, shape):
    weight = nets.randn(*shape, seed=5)
    unit = draw(law, "none", weight)
    torch.testing.assert_close(
        draw(law, scale, weight), unit * sizes(weight, scale), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (4, 6)])
def test_sphere_has_the_norm_of_each_filter(shape):
    weight = nets.randn(*shape, seed=5)
    noise = draw("sphere", "filter", weight)
    for n, w in zip(noise, weight, strict=True):
        assert float(n.norm()) == pytest.approx(float(w.norm()), rel=1e-13)
    assert not torch.allclose(noise.abs(), sizes(weight, "filter"))  # a direction, not signs


@pytest.mark.parametrize("shape", SHAPES)
def test_sphere_has_the_norm_of_each_layer(shape):
    weight = nets.randn(*shape, seed=5)
    noise = draw("sphere", "layer", weight)
    assert float(noise.norm()) == pytest.approx(float(weight.norm()), rel=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_absolute_sphere_has_rms_one(shape):
    noise = draw("sphere", "none", nets.randn(*shape))
    assert float(noise.square().mean()) == pytest.approx(1, rel=1e-13)


def test_laws_have_their_own_kurtosis():
    # E x⁴ / (E x²)²: binary 1, uniform 9/5, Gaussian 3, Laplace 6. The standard error of x⁴ is
    # below 10/√MANY but for Laplace: E x⁸ = 8!/2⁴ = 2520, so √(2520 − 36)/√MANY
    wanted = {"binary": 1.0, "uniform": 1.8, "gaussian": 3.0, "sphere": 3.0}
    for law, kurtosis in wanted.items():
        noise = draw(law, "none", torch.empty(MANY, dtype=torch.float64))
        assert float(noise.pow(4).mean()) == pytest.approx(kurtosis, abs=50 / MANY**0.5)
    heavy = draw("laplace", "none", torch.empty(MANY, dtype=torch.float64))
    assert float(heavy.pow(4).mean()) == pytest.approx(6, abs=5 * 50 / MANY**0.5)
    # E |x| = 1/√2, and both signs
    assert float(heavy.abs().mean()) == pytest.approx(0.5**0.5, abs=5 * 0.5**0.5 / MANY**0.5)
    assert float(heavy.sign().mean()) == pytest.approx(0, abs=5 / MANY**0.5)


def test_uniform_stays_within_root_three():
    assert draw("uniform", "none", torch.empty(MANY)).abs().max() <= 3**0.5


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scale", SCALES)
def test_seed_decides_everything(law, scale):
    weight = nets.randn(6, 5)
    first = draw(law, scale, weight, seed=1)
    torch.manual_seed(123)
    assert torch.equal(first, draw(law, scale, weight, seed=1))
    assert not torch.equal(first, draw(law, scale, weight, seed=2))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_like_the_weight_and_leaves_it_alone(law, scale, dtype):
    weight = nets.randn(6, 5).to(dtype)
    before = nets.bits(weight)
    noise = draw(law, scale, weight)
    assert noise.dtype == dtype
    assert noise.shape == weight.shape
    assert nets.bits(weight) == before


@pytest.mark.parametrize("law", LAWS)
def test_memory_order_of_the_weight_does_not_matter(law):
    weight = nets.randn(4, 3, 2, 2)
    other = weight.to(memory_format=torch.channels_last)
    assert torch.equal(draw(law, "filter", weight), draw(law, "filter", other))


def test_zero_weights_get_no_relative_noise():
    for scale in ("filter", "layer", "weight"):
        assert not draw("gaussian", scale, torch.zeros(3, 4)).any()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scale", SCALES)
def test_several_parameters_are_drawn_at_once(law, scale):
    weights = [nets.randn(*shape, seed=5) for shape in SHAPES]
    weights.append(nets.randn(3, 4).float())
    scales = [0.5, -0.25, 2.0, 1.0, 0.0, 3.0]
    noise = Noise(law=law, scale=scale)
    units = Noise(law=law, scale=scale).units(weights, nets.generator(3))
    for found, unit, weight, c in zip(noise.draw(weights, scales, 3), units, weights, scales,
                                      strict=True):  # fmt: skip
        assert found.dtype == weight.dtype
        exact = {torch.float64: 1e-13, torch.float32: 1e-6}[weight.dtype]
        torch.testing.assert_close(found, c * unit * sizes(weight, scale), rtol=exact, atol=0)
    rest = torch.cat([unit.flatten().double() for unit in units])
    assert len(rest.unique()) == 2 if law == "binary" else len(rest.unique()) > len(rest) / 2
    assert noise.draw([], [], 3) == []


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'gaussian'"):
        Noise(law="gausian")
    with pytest.raises(InputError, match="did you mean 'filter'"):
        Noise(scale="filters")


@given(count=st.integers(0, 300), seed=st.integers(0, 2**31))
@settings(deadline=None, database=None, derandomize=True, max_examples=50)
def test_signs_are_signs_at_every_count(count, seed):
    signs = random_signs(count, nets.generator(seed))
    assert signs.shape == (count,)
    assert bool((signs.abs() == 1).all())


def test_signs_are_fair_at_every_bit():
    words = random_signs(64 * 20_000, nets.generator()).reshape(-1, 64)
    # 64 columns of 20,000 fair signs: the largest of 64 means exceeds 4.5 errors once in 2,000
    assert float(words.mean(dim=0).abs().max()) < 4.5 / 20_000**0.5


@pytest.mark.parametrize("lag", [1, 2, 7, 8, 9, 63, 64, 65])
def test_signs_are_independent_of_their_neighbours(lag):
    signs = random_signs(MANY, nets.generator(3))
    assert abs(float((signs[lag:] * signs[:-lag]).mean())) < 4.5 / MANY**0.5
