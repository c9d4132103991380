"""What feeds one output unit, and what is a constant, against what autograd says of the layer."""

import warnings
from collections.abc import Callable

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from transformers.pytorch_utils import Conv1D

from ssgd_analysis.weights import LAWS, PLAIN, Filters, Noise, filters_of, grouped, rms, ungrouped
from ssgd_analysis.weights.groups import group_norms

IMAGES, TOKENS = (2, 4, 5, 5), torch.tensor([[0, 1, 2, 3, 4, 5, 6]])


def images(*shape: int) -> Callable[[nn.Module], Tensor]:
    return lambda layer: layer(nets.randn(*shape))


def recurrent(layer: nn.Module) -> Tensor:
    return layer(nets.randn(3, 2, 4))[0]


# layer, its weight, how it is run, and the axis of its output units in what it returns
LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), "weight", images(5, 4), -1),
    "conv1d": (lambda: nn.Conv1d(4, 3, 2), "weight", images(2, 4, 5), 1),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), "weight", images(*IMAGES), 1),
    "conv2d, groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), "weight", images(*IMAGES), 1),
    "conv3d": (lambda: nn.Conv3d(4, 3, 2), "weight", images(2, 4, 3, 3, 3), 1),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 3, 2), "weight", images(2, 4, 5), 1),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 3, 2), "weight", images(*IMAGES), 1),
    "transposed 2d, groups": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
        "weight",
        images(*IMAGES),
        1,
    ),
    "transposed, depthwise": (
        lambda: nn.ConvTranspose1d(4, 8, 2, groups=4),
        "weight",
        images(2, 4, 5),
        1,
    ),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 3, 2), "weight", images(2, 4, 3, 3, 3), 1),
    "lazy": (lambda: nn.LazyConvTranspose2d(3, 2), "weight", images(*IMAGES), 1),
    "embedding": (lambda: nn.Embedding(7, 3), "weight", lambda layer: layer(TOKENS), -1),
    "bag": (lambda: nn.EmbeddingBag(7, 3), "weight", lambda layer: layer(TOKENS), -1),
    "hugging face": (lambda: Conv1D(3, 4), "weight", images(5, 4), -1),
    "bilinear": (
        lambda: nn.Bilinear(4, 2, 3),
        "weight",
        lambda layer: layer(nets.randn(5, 4), nets.randn(5, 2, seed=1)),
        -1,
    ),
    # an RNN's new state: each unit's own rows; the second step would mix them
    "rnn": (lambda: nn.RNN(4, 3), "weight_ih_l0", lambda layer: recurrent(layer)[:1], -1),
    "weight norm, g": (
        lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
        "parametrizations.weight.original0",
        images(5, 4),
        -1,
    ),
    "weight norm, v": (
        lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
        "parametrizations.weight.original1",
        images(5, 4),
        -1,
    ),
    "weight norm, transposed, g": (
        lambda: parametrizations.weight_norm(nn.ConvTranspose2d(4, 3, 2), dim=1),
        "parametrizations.weight.original0",
        images(*IMAGES),
        1,
    ),
    "weight norm, transposed, v": (
        lambda: parametrizations.weight_norm(nn.ConvTranspose2d(4, 3, 2), dim=1),
        "parametrizations.weight.original1",
        images(*IMAGES),
        1,
    ),
    "weight norm by hooks, g": (
        lambda: hooked(nn.ConvTranspose1d(4, 3, 2)),
        "weight_g",
        images(2, 4, 5),
        1,
    ),
    "weight norm by hooks, v": (
        lambda: hooked(nn.ConvTranspose1d(4, 3, 2)),
        "weight_v",
        images(2, 4, 5),
        1,
    ),
    "pruned": (
        lambda: prune.identity(nn.ConvTranspose1d(4, 3, 2), "weight"),
        "weight_orig",
        images(2, 4, 5),
        1,
    ),
}


def hooked(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in use
        return nn.utils.weight_norm(layer, dim=1)


def made(name: str) -> tuple[nn.Module, Tensor, list[Tensor]]:
    """A layer, its weight, and a mask of the weight for each output unit, by autograd."""
    make, parameter, run, axis = LAYERS[name]
    with nets.seeded():
        layer = make()
        layer = layer.double()
        run(layer)  # makes lazy layers
    weight = layer.get_parameter(parameter)
    units = run(layer).movedim(axis, 0)
    masks = [
        torch.autograd.grad(unit.square().sum(), weight, retain_graph=True)[0] != 0
        for unit in units
    ]
    return layer, weight.detach(), masks


def filters_at(layer: nn.Module, name: str) -> Filters:
    return filters_of(layer, [layer.get_parameter(LAYERS[name][1])])[0]


@pytest.mark.parametrize("name", LAYERS)
def test_a_filter_is_what_feeds_one_output_unit(name):
    layer, weight, masks = made(name)
    filters = filters_at(layer, name)
    assert int(sum(mask.sum() for mask in masks)) == weight.numel()  # each entry feeds one unit
    assert filters.count(weight.shape) == len(masks)
    numbers = torch.arange(weight.numel()).reshape(weight.shape)
    rows = grouped(numbers, "filter", filters)
    for row, mask in zip(rows, masks, strict=True):
        assert sorted(row.tolist()) == numbers[mask].tolist()
    assert torch.equal(ungrouped(rows, numbers.shape, "filter", filters), numbers)


@pytest.mark.parametrize("name", LAYERS)
def test_sizes_are_the_rms_of_what_feeds_the_unit(name):
    layer, weight, masks = made(name)
    filters = filters_at(layer, name)
    sizes = torch.zeros_like(weight)
    for mask in masks:
        sizes[mask] = weight[mask].square().mean().sqrt()
    close = {"rtol": 1e-14, "atol": 0.0}
    noise = Noise(law="binary").sample(weight, nets.generator(), filters)
    torch.testing.assert_close(noise.abs(), sizes, **close)
    torch.testing.assert_close(rms(weight, "filter", filters).expand_as(weight), sizes, **close)
    sphere = Noise(law="sphere").sample(weight, nets.generator(), filters)
    for mask in masks:
        torch.testing.assert_close(sphere[mask].norm(), weight[mask].norm(), rtol=1e-13, atol=0)
    values = torch.arange(1.0, len(masks) + 1, dtype=torch.float64)
    spread = filters.spread(values, weight).expand_as(weight)
    for value, mask in zip(values, masks, strict=True):
        assert bool((spread[mask] == value).all())


@given(
    name=st.sampled_from(sorted(LAYERS)),
    law=st.sampled_from(LAWS),
    unit=st.integers(0, 7),
    factor=st.sampled_from([0.01, 0.3, 7.0, 300.0]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, database=None, derandomize=True, max_examples=150)
def test_noise_follows_the_scale_of_a_unit(name, law, unit, factor, seed):
    layer, weight, masks = made(name)
    mask = masks[unit % len(masks)]
    scaled = torch.where(mask, factor * weight, weight)
    before, after = (
        Noise(law=law).sample(w, nets.generator(seed), filters_at(layer, name))
        for w in (weight, scaled)
    )
    assert torch.equal(before[~mask], after[~mask])
    torch.testing.assert_close(after[mask], factor * before[mask], rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("make", "name", "axis"),
    [
        # four gates, one under the other; queries, keys and values likewise
        (lambda: nn.LSTM(4, 3), "weight_hh_l0", 0),
        (lambda: nn.GRU(4, 3), "weight_ih_l0", 0),
        (lambda: nn.LSTM(4, 3, proj_size=2), "weight_hr_l0", 0),
        (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight", 0),
        (lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=3), "k_proj_weight", 0),
        # along a dim that is no output axis a factor on v's slice still changes nothing
        (lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 3, 2)),
         "parametrizations.weight.original1", 0),
        (lambda: parametrizations.weight_norm(nn.Linear(4, 3), dim=1),
         "parametrizations.weight.original1", 1),
        # one norm of the whole: the layer's own axis
        (lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 3, 2), dim=None),
         "parametrizations.weight.original1", 1),
        (lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 3, 2), dim=None),
         "parametrizations.weight.original0", 0),
        (lambda: parametrizations.spectral_norm(nn.ConvTranspose1d(4, 3, 2)),
         "parametrizations.weight.original", 1),
        (lambda: nn.utils.spectral_norm(nn.ConvTranspose1d(4, 3, 2)), "weight_orig", 1),
        (lambda: nn.ParameterList([nn.Parameter(torch.ones(2, 3, 4))]), "0", 0),
        (lambda: nn.ConvTranspose1d(4, 3, 2), "bias", 0),
        (lambda: nn.Sequential(nn.Sequential(nn.Embedding(5, 2))), "0.0.weight", 1),
    ],
)  # fmt: skip
def test_other_tensors(make, name, axis):
    layer = make()
    assert filters_of(layer, [layer.get_parameter(name)])[0].axis == axis


def test_without_a_model_and_for_strange_tensors_it_is_axis_0():
    layer = nn.ConvTranspose1d(4, 3, 2)
    assert filters_of(None, layer.parameters()) == [PLAIN, PLAIN]
    assert filters_of(layer, [torch.ones(2, 2)]) == [PLAIN]


class OwnConv1D(nn.Module):
    """Of the same name, with an image's kernel: no linear layer of Hugging Face."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4, 2))


OwnConv1D.__name__ = "Conv1D"


def test_a_name_alone_is_not_enough():
    layer = OwnConv1D()
    assert filters_of(layer, [layer.weight]) == [PLAIN]


def shared(*modules: nn.Module) -> nn.Module:
    """The first one's weight for all."""
    for module in modules[1:]:
        module.weight = modules[0].weight
    return nn.ModuleList(modules)


@pytest.mark.parametrize("order", [1, -1])
def test_a_shared_weight_has_axis_0_if_one_use_has(order):
    for modules in (
        [nn.Embedding(5, 4, padding_idx=2), nn.Linear(4, 5)],
        [nn.ConvTranspose1d(4, 5, 2), nn.Conv1d(5, 4, 2)],
    ):
        model = shared(*modules[::order])
        assert filters_of(model, [modules[0].weight]) == [PLAIN]


# --- padding rows: constants of the function that is differentiated ---

PADDED = {
    "embedding": (lambda: nn.Embedding(7, 3, padding_idx=2), "weight", 2),
    "from the end": (lambda: nn.Embedding(7, 3, padding_idx=-1), "weight", 6),
    "bag": (lambda: nn.EmbeddingBag(7, 3, padding_idx=2), "weight", 2),
    "two alike": (
        lambda: shared(nn.Embedding(7, 3, padding_idx=2), nn.Embedding(7, 3, padding_idx=2)),
        "0.weight",
        2,
    ),
    "two unlike": (
        lambda: shared(nn.Embedding(7, 3, padding_idx=2), nn.Embedding(7, 3, padding_idx=1)),
        "0.weight",
        None,
    ),
    "one without": (
        lambda: shared(nn.Embedding(7, 3, padding_idx=2), nn.Embedding(7, 3)),
        "0.weight",
        None,
    ),
    "with a head": (
        lambda: shared(nn.Embedding(7, 3, padding_idx=2), nn.Linear(3, 7)),
        "0.weight",
        None,
    ),
    "weight norm": (
        lambda: parametrizations.weight_norm(nn.Embedding(7, 3, padding_idx=2)),
        "parametrizations.weight.original1",
        2,
    ),
    "weight norm, g": (
        lambda: parametrizations.weight_norm(nn.Embedding(7, 3, padding_idx=2)),
        "parametrizations.weight.original0",
        2,
    ),
    # the norm of a column holds the padding row's entry, too
    "weight norm of columns": (
        lambda: parametrizations.weight_norm(nn.Embedding(7, 3, padding_idx=2), dim=1),
        "parametrizations.weight.original1",
        None,
    ),
}


def padded(name: str) -> tuple[nn.Module, Tensor, int | None]:
    make, parameter, row = PADDED[name]
    with nets.seeded():
        model = make().double()
    with torch.no_grad():
        for own in model.parameters():  # torch's own padding rows start at zero
            own.copy_(nets.randn(*own.shape))
    return model, model.get_parameter(parameter), row


@pytest.mark.parametrize("name", PADDED)
def test_a_constant_is_what_autograd_gives_no_gradient(name):
    model, weight, row = padded(name)
    layers = list(model) if isinstance(model, nn.ModuleList) else [model]
    outputs = [
        layer(nets.randn(7, 3) if isinstance(layer, nn.Linear) else TOKENS) for layer in layers
    ]
    (slope,) = torch.autograd.grad(sum(y.square().sum() for y in outputs), [weight])
    still = [place for place, part in enumerate(slope) if not part.any()]
    assert still == ([] if row is None else [row])
    assert filters_of(model, [weight])[0].constant == row


@pytest.mark.parametrize("scale", ["filter", "layer", "weight", "none"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", PADDED)
def test_constants_get_no_noise_and_take_none_from_the_others(name, law, scale):
    model, weight, row = padded(name)
    weight, (filters,) = weight.detach(), filters_of(model, [weight])
    others = torch.arange(7) != (7 if row is None else row)
    first, second = nets.randn(4), nets.randn(2, 2)  # drawn before and after it
    noise = Noise(law=law, scale=scale)
    found = noise.draw([first, weight, second], [1.0] * 3, 5, [PLAIN, filters, PLAIN])
    plain = noise.draw([first, weight, second], [1.0] * 3, 5)
    assert torch.equal(found[0], plain[0])
    assert torch.equal(found[2], plain[2])
    assert bool((found[1][others] != 0).all())
    assert row is None or not found[1][row].any()
    if law != "sphere":  # the same numbers, in the sizes of the rows that are weights
        units = noise.units([weight], nets.generator(), [filters])[0]
        whole = noise.units([weight], nets.generator())[0]
        assert torch.equal(units[others], whole[others])
    axis = None if scale != "filter" else (1 - filters.axis,)
    if scale in ("filter", "layer") and law in ("binary", "sphere"):
        sizes = [part[others].square().mean(axis).sqrt() for part in (found[1], weight)]
        torch.testing.assert_close(*sizes, rtol=1e-13, atol=0)
        norms, count = group_norms(weight, scale, filters)
        torch.testing.assert_close(
            (norms / count**0.5).expand_as(weight)[others],
            rms(weight[others], scale, Filters(filters.axis)).expand_as(weight[others]),
            rtol=1e-14,
            atol=0,
        )
