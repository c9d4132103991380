import pytest
import torch

from ssgd_analysis.errors import InputError
from ssgd_analysis.models import MODELS, load_model

GREY, COLOUR = (1, 8, 8), (3, 32, 32)
# Published counts for 3×32×32 and ten classes: He et al. 2016 (0.27, 0.46, 0.85 M, option A),
# Zagoruyko and Komodakis 2016 (36.5 M), VGG-16-BN with one linear layer (14.7 M).
PARAMETERS = {
    "mlp": 3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10,
    "cnn": 27 * 16 + 32 + 9 * 16 * 32 + 64 + 9 * 32 * 32 + 64 + 32 * 10 + 10,
    "cnn1d": (5 + 1) * 25 + 2 * (3 * 25 + 1) * 25 + (5 * 25 + 1) * 10,  # 40 → 19 → 10 → 5
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet56": 853_018,
    "wrn28-10": 36_479_194,
    "vgg16_bn": 14_728_266,
}
SIGNALS = {"cnn1d"}  # for inputs of shape (length,)
SIGNAL = (40,)
BIG = {"wrn28-10"}  # seconds for one forward pass
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in BIG else n for n in MODELS]


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [GREY, COLOUR])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_one_value_for_each_class(name, shape):
    shape = SIGNAL if name in SIGNALS else shape
    model = load_model(name, shape, 7)
    outputs = model(torch.randn(3, *shape))
    assert outputs.shape == (3, 7)
    assert outputs.isfinite().all()
    outputs.sum().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    assert name in PARAMETERS, f"'{name}' is new: state its number of parameters"
    with torch.device("meta"):  # shapes only: the wide network is 146 MB
        model = load_model(name, SIGNAL if name in SIGNALS else COLOUR, 10)
    assert _count(model) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet20"])
def test_initial_weights_come_from_the_global_generator(name):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(load_model(name, GREY, 10).parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"mlp"} - SIGNALS))
@pytest.mark.parametrize("shape", [(40,), (8, 8), (1, 2, 3, 4)])
def test_image_models_refuse_other_shapes(name, shape):
    with pytest.raises(InputError) as caught:
        load_model(name, shape, 10)
    assert name in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [GREY, (8, 8), (7,)])
@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_signal_models_refuse_other_shapes(name, shape):
    with pytest.raises(InputError) as caught:
        load_model(name, shape, 10)
    assert name in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(40,), (2,), (2, 3)])
def test_mlp_takes_any_shape(shape):
    assert load_model("mlp", shape, 4)(torch.randn(5, *shape)).shape == (5, 4)


def test_residual_shortcut_pads_new_channels_with_zeros():
    """Option A: with both BatchNorm scales at zero, a block is ReLU of the subsampled input."""
    model = load_model("resnet20", COLOUR, 10)
    block = model[3][3]  # the first block of the second stage: 16 to 32 channels, stride 2
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 16, 8, 8)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = x[:, :, ::2, ::2].relu()
    assert torch.equal(block(x), expected)


# torchvision


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_torchvision_models_follow_channels_and_classes(channels):
    model = load_model("torchvision:resnet18", (channels, 32, 32), 6)
    assert model.conv1.in_channels == channels
    assert (model.conv1.stride, model.conv1.padding) == ((2, 2), (3, 3))
    assert model.conv1.bias is None
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 6)


def test_torchvision_with_three_channels_is_torchvisions_own():
    # torchvision's ResNet-18: 11,689,512 with 1000 classes; the last layer has 513 a class
    assert _count(load_model("torchvision:resnet18", COLOUR, 10)) == 11_689_512 - 990 * 513


def test_torchvision_convolution_with_a_bias_keeps_it():
    model = load_model("torchvision:vgg11", (1, 32, 32), 3)
    assert model.features[0].bias is not None
    assert model.features[0].in_channels == 1


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(InputError, match="unknown model 'resnet-20': did you mean 'resnet20'"):
        load_model("resnet-20", GREY, 10)
    with pytest.raises(InputError, match="did you mean 'resnet18'"):
        load_model("torchvision:resnet-18", GREY, 10)
    with pytest.raises(InputError, match="shape"):
        load_model("torchvision:resnet18", (40,), 10)
