"""Residual networks in the form made for CIFAR: ResNet-20/32/56 and WRN-28-10."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssgd_analysis.models.simple import image_channels


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut without parameters.

    Where the shape changes, the shortcut skips every other pixel and pads the new channels
    with zeros (He et al. 2016, option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        half = self.new_channels // 2
        skip = x[:, :, :: self.stride, :: self.stride]
        return F.relu(out + F.pad(skip, (0, 0, 0, 0, half, self.new_channels - half)))


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each convolution, 1×1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


def _stages(block: type[nn.Module], inputs: int, widths: list[int], blocks: int) -> nn.Sequential:
    """``blocks`` blocks at each width; every stage but the first halves the image."""
    layers: list[nn.Module] = []
    for stage, width in enumerate(widths):
        for index in range(blocks):
            layers.append(block(inputs, width, 2 if stage and not index else 1))
            inputs = width
    return nn.Sequential(*layers)


def resnet(depth: int, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """ResNet of the CIFAR form (He et al. 2016, section 4.2); depth = 6n + 2."""
    model = nn.Sequential(
        _conv3(image_channels(f"resnet{depth}", input_shape), 16),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _stages(BasicBlock, 16, [16, 32, 64], (depth - 2) // 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_outputs),
    )
    return _he_initialised(model)


def wrn28_10(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Wide ResNet of depth 28 and width 10, no dropout (Zagoruyko and Komodakis 2016)."""
    model = nn.Sequential(
        _conv3(image_channels("wrn28-10", input_shape), 16),
        _stages(PreActivationBlock, 16, [160, 320, 640], 4),
        nn.BatchNorm2d(640),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(640, num_outputs),
    )
    return _he_initialised(model)


def _he_initialised(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
