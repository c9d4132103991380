"""VGG-16 with BatchNorm, in the form used on CIFAR: one linear layer, 15 M parameters."""

from torch import nn

from ssgd_analysis.models.simple import image_channels

WIDTHS = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]


def vgg16_bn(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """VGG-16-BN (Simonyan and Zisserman 2015, configuration D); any image size."""
    inputs = image_channels("vgg16_bn", input_shape)
    layers: list[nn.Module] = []
    for stage in WIDTHS:
        for width in stage:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # an image of one pixel stays one pixel
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_outputs)
    )
