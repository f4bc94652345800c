"""The networks in PyTorch, for the converters that read it or ONNX; needs torch.

Channels are those of `keras_models`, padding is PyTorch's own (`padding="symmetric"` there).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

RESOLUTION = 224
CLASSES = 1000


def conv_bn(
    before: int, channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, relu: str = ""
) -> nn.Sequential:
    """A convolution and batch norm; `relu` is "", "relu" or "relu6"."""
    convolution = nn.Conv2d(
        before, channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    activation = {"": [], "relu": [nn.ReLU()], "relu6": [nn.ReLU6()]}[relu]
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), *activation)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle, as torchvision writes it."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleV2Unit(nn.Module):
    """arXiv:1807.11164, Figure 3(c) and 3(d)."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        inputs = before if stride == 2 else half
        self.left = None
        if stride == 2:
            self.left = nn.Sequential(
                conv_bn(before, before, 3, stride=2, groups=before),
                conv_bn(before, half, relu="relu"),
            )
        self.right = nn.Sequential(
            conv_bn(inputs, half, relu="relu"),
            conv_bn(half, half, 3, stride=stride, groups=half),
            conv_bn(half, half, relu="relu"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the unit, with the shuffle at its end."""
        if self.left is None:
            left, right = x.chunk(2, dim=1)
        else:
            left, right = self.left(x), x
        return shuffle(torch.cat((left, self.right(right)), dim=1), 2)


class ShuffleV1Unit(nn.Module):
    """arXiv:1707.01083, Figure 2(b) and 2(c)."""

    def __init__(self, before: int, channels: int, stride: int, groups: int, first: int) -> None:
        super().__init__()
        middle = channels // 4
        self.groups = groups
        self.reduce = conv_bn(before, middle, groups=first, relu="relu")
        self.depthwise = conv_bn(middle, middle, 3, stride=stride, groups=middle)
        expanded = channels - before if stride == 2 else channels
        self.expand = conv_bn(middle, expanded, groups=groups)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Computes the unit."""
        branch = self.expand(self.depthwise(shuffle(self.reduce(x), self.groups)))
        both = x + branch if self.pool is None else torch.cat((self.pool(x), branch), dim=1)
        return torch.relu(both)


class InvertedResidual(nn.Module):
    """arXiv:1801.04381, Figure 4(d)."""

    def __init__(self, before: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = before * expansion
        self.adds = stride == 1 and before == channels
        self.branch = nn.Sequential(
            *([conv_bn(before, middle, relu="relu6")] if expansion != 1 else []),
            conv_bn(middle, middle, 3, stride=stride, groups=middle, relu="relu6"),
            conv_bn(middle, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the unit."""
        return x + self.branch(x) if self.adds else self.branch(x)


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def shufflenet_v2() -> nn.Module:
    """ShuffleNet V2 1.0x."""
    units, before = [], 24
    for channels, repeats in ((116, 4), (232, 8), (464, 4)):
        for unit in range(repeats):
            units.append(ShuffleV2Unit(before, channels, 1 if unit else 2))
            before = channels
    stem = [conv_bn(3, 24, 3, stride=2, relu="relu"), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *units, conv_bn(464, 1024, relu="relu"), *_head(1024))


def shufflenet_v1() -> nn.Module:
    """ShuffleNet V1 1x with 3 groups."""
    units, before, groups = [], 24, 3
    for channels, repeats in ((240, 4), (480, 8), (960, 4)):
        for unit in range(repeats):
            first = groups if before > 24 else 1  # Section 3.2: few channels
            units.append(ShuffleV1Unit(before, channels, 1 if unit else 2, groups, first))
            before = channels
    stem = [conv_bn(3, 24, 3, stride=2, relu="relu"), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *units, *_head(960))


def mobilenet_v2() -> nn.Module:
    """MobileNet V2 1.0; columns of Table 2."""
    units, before = [], 32
    for expansion, channels, repeats, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for unit in range(repeats):
            units.append(InvertedResidual(before, channels, 1 if unit else stride, expansion))
            before = channels
    stem = conv_bn(3, 32, 3, stride=2, relu="relu6")
    return nn.Sequential(stem, *units, conv_bn(320, 1280, relu="relu6"), *_head(1280))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "shufflenet_v2": shufflenet_v2,
    "shufflenet_v1": shufflenet_v1,
    "mobilenet_v2": mobilenet_v2,
}


def build(name: str) -> nn.Module:
    """Returns a network with random weights, its batch norms with the statistics of noise."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of the one batch below
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0.5, 0.2)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        network.train()(torch.rand(8, 3, RESOLUTION, RESOLUTION) * 2 - 1)
    return network.eval()
