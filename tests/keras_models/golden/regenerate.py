"""Writes the golden files beside it.  Needs PyTorch and Lightning, which nothing else here does.

  python tests/keras_models/golden/regenerate.py

The networks are defined after their papers and have the modules of the released ones, so that
the names of their weights and their outputs are the same.  state_dicts.json holds the names and
shapes, logits.npz the outputs under the weights of drawn.py, and the .pth files are real ones.
"""

import argparse
import json
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import torch
from drawn import draw, image, tiny
from torch import nn

HERE = Path(__file__).parent
Layers = list[nn.Module]


def conv_bn(
    channels: int,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
    epsilon: float = 1e-5,
) -> Layers:
    conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = [conv, nn.BatchNorm2d(filters, eps=epsilon)]
    return [*layers, activation()] if activation else layers


def shuffle(x: torch.Tensor, rows: int) -> torch.Tensor:
    b, c, h, w = x.shape
    return x.view(b, rows, c // rows, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleV1Unit(nn.Module):
    def __init__(self, channels: int, filters: int, groups: int, first: bool, stride: int):
        super().__init__()
        self.groups, self.stride = groups, stride
        mid = filters // 4
        branch = conv_bn(channels, mid, groups=1 if first else groups, activation=nn.ReLU)
        self.branch_main_1 = nn.Sequential(*branch, *conv_bn(mid, mid, 3, stride, groups=mid))
        expanded = filters - channels if stride == 2 else filters
        self.branch_main_2 = nn.Sequential(*conv_bn(mid, expanded, groups=groups))
        self.pool = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch_main_1(x)
        y = self.branch_main_2(shuffle(y, y.shape[1] // self.groups))
        if self.stride == 1:
            return torch.relu(x + y)
        return torch.cat([self.pool(x), torch.relu(y)], 1)


class ShuffleV2Unit(nn.Module):
    """Of the authors: even channels pass, odd ones are convolved."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        passing = channels if stride == 2 else channels // 2
        mid = filters // 2
        self.branch_main = nn.Sequential(
            *conv_bn(passing, mid, activation=nn.ReLU),
            *conv_bn(mid, mid, 3, stride, groups=mid),
            *conv_bn(mid, filters - passing, activation=nn.ReLU),
        )
        if stride == 2:
            self.branch_proj = nn.Sequential(
                *conv_bn(channels, channels, 3, stride, groups=channels),
                *conv_bn(channels, channels, activation=nn.ReLU),
            )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            return torch.cat([x[:, ::2], self.branch_main(x[:, 1::2])], 1)
        return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)


class Megvii(nn.Module):
    """Both ShuffleNets of their authors; V2 where there are no groups."""

    def __init__(
        self,
        stem: int,
        stages: Iterable[int],
        *,
        groups: int = 0,
        head: int = 0,
        classes: int = 1000,
    ):
        super().__init__()
        self.first_conv = nn.Sequential(*conv_bn(3, stem, 3, 2, activation=nn.ReLU))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        units: Layers = []
        channels = stem
        for filters, repeats in zip(stages, (4, 8, 4), strict=True):
            for index in range(repeats):
                stride = 2 if index == 0 else 1
                units.append(
                    ShuffleV1Unit(channels, filters, groups, not units, stride)
                    if groups
                    else ShuffleV2Unit(channels, filters, stride)
                )
                channels = filters
        self.features = nn.Sequential(*units)
        self.conv_last = nn.Sequential(
            *(conv_bn(channels, head, activation=nn.ReLU) if head else [])
        )
        self.classifier = nn.Sequential(nn.Linear(head or channels, classes, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_last(self.features(self.maxpool(self.first_conv(x))))
        return self.classifier(x.mean((2, 3)))


class TorchvisionShuffleUnit(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        half = filters // 2
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(
                *conv_bn(channels, channels, 3, 2, groups=channels),
                *conv_bn(channels, half, activation=nn.ReLU),
            )
        self.branch2 = nn.Sequential(
            *conv_bn(channels if stride == 2 else half, half, activation=nn.ReLU),
            *conv_bn(half, half, 3, stride, groups=half),
            *conv_bn(half, half, activation=nn.ReLU),
        )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = (x, x) if self.stride == 2 else x.chunk(2, 1)
        return shuffle(torch.cat([self.branch1(left), self.branch2(right)], 1), 2)


class TorchvisionShuffleNetV2(nn.Module):
    def __init__(self, stages: tuple[int, int, int], head: int = 1024):
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn(3, 24, 3, 2, activation=nn.ReLU))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 24
        for stage, filters, repeats in zip((2, 3, 4), stages, (4, 8, 4), strict=True):
            units = [TorchvisionShuffleUnit(channels, filters, 2)]
            units += [TorchvisionShuffleUnit(filters, filters, 1) for _ in range(repeats - 1)]
            self.add_module(f"stage{stage}", nn.Sequential(*units))
            channels = filters
        self.conv5 = nn.Sequential(*conv_bn(channels, head, activation=nn.ReLU))
        self.fc = nn.Linear(head, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduced: int, activation: nn.Module, gate: nn.Module):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)
        self.activation, self.gate = activation, gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.activation(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * self.gate(self.fc2(s))


class Residual(nn.Module):
    """A block under the name that torchvision gives it, added to its input where that fits."""

    def __init__(self, name: str, layers: Layers, *, adds: bool):
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))
        self.adds = adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (block,) = self.children()
        return x + block(x) if self.adds else block(x)


class Torchvision(nn.Module):
    def __init__(self, features: Layers, classifier: Layers):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2() -> nn.Module:
    rows = [  # Table 2: expansion, channels, units, stride
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]  # fmt: skip
    features: Layers = [nn.Sequential(*conv_bn(3, 32, 3, 2, activation=nn.ReLU6))]
    channels = 32
    for expansion, filters, units, first_stride in rows:
        for index in range(units):
            stride = first_stride if index == 0 else 1
            mid = channels * expansion
            depthwise = conv_bn(mid, mid, 3, stride, groups=mid, activation=nn.ReLU6)
            parts: Layers = [nn.Sequential(*depthwise), *conv_bn(mid, filters)]
            if expansion > 1:
                parts.insert(0, nn.Sequential(*conv_bn(channels, mid, activation=nn.ReLU6)))
            features.append(Residual("conv", parts, adds=stride == 1 and channels == filters))
            channels = filters
    features.append(nn.Sequential(*conv_bn(channels, 1280, activation=nn.ReLU6)))
    return Torchvision(features, [nn.Dropout(), nn.Linear(1280, 1000)])


def mobilenet_v3_small() -> nn.Module:
    rows = [  # Table 2: kernel, expanded, channels, squeeze-excite between, hard-swish, stride
        (3, 16, 16, 8, False, 2), (3, 72, 24, 0, False, 2), (3, 88, 24, 0, False, 1),
        (5, 96, 40, 24, True, 2), (5, 240, 40, 64, True, 1), (5, 240, 40, 64, True, 1),
        (5, 120, 48, 32, True, 1), (5, 144, 48, 40, True, 1), (5, 288, 96, 72, True, 2),
        (5, 576, 96, 144, True, 1), (5, 576, 96, 144, True, 1),
    ]  # fmt: skip
    options = {"epsilon": 1e-3, "activation": nn.Hardswish}
    features: Layers = [nn.Sequential(*conv_bn(3, 16, 3, 2, **options))]
    channels = 16
    for kernel, mid, filters, reduced, hard_swish, stride in rows:
        options["activation"] = nn.Hardswish if hard_swish else nn.ReLU
        parts: Layers = [nn.Sequential(*conv_bn(mid, mid, kernel, stride, groups=mid, **options))]
        if mid != channels:
            parts.insert(0, nn.Sequential(*conv_bn(channels, mid, **options)))
        if reduced:
            parts.append(SqueezeExcite(mid, reduced, nn.ReLU(), nn.Hardsigmoid()))
        parts.append(nn.Sequential(*conv_bn(mid, filters, epsilon=1e-3)))
        features.append(Residual("block", parts, adds=stride == 1 and channels == filters))
        channels = filters
    options["activation"] = nn.Hardswish
    features.append(nn.Sequential(*conv_bn(channels, 576, **options)))
    head = [nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(), nn.Linear(1024, 1000)]
    return Torchvision(features, head)


def efficientnet_v2_s() -> nn.Module:
    rows = [  # Table 4: fused, expansion, channels, units, stride
        (True, 1, 24, 2, 1), (True, 4, 48, 4, 2), (True, 4, 64, 4, 2),
        (False, 4, 128, 6, 2), (False, 6, 160, 9, 1), (False, 6, 256, 15, 2),
    ]  # fmt: skip
    options = {"epsilon": 1e-3, "activation": nn.SiLU}
    features: Layers = [nn.Sequential(*conv_bn(3, 24, 3, 2, **options))]
    channels = 24
    for fused, expansion, filters, units, first_stride in rows:
        stage: Layers = []
        for index in range(units):
            stride = first_stride if index == 0 else 1
            mid = channels * expansion
            parts = (
                [conv_bn(channels, mid, 3, stride, **options)]
                if fused
                else [
                    conv_bn(channels, mid, **options),
                    conv_bn(mid, mid, 3, stride, groups=mid, **options),
                    [SqueezeExcite(mid, channels // 4, nn.SiLU(), nn.Sigmoid())],
                ]
            )
            if expansion > 1:
                parts.append(conv_bn(mid, filters, epsilon=1e-3))
            layers = [p[0] if len(p) == 1 else nn.Sequential(*p) for p in parts]
            adds = stride == 1 and channels == filters
            stage.append(Residual("block", layers, adds=adds))
            channels = filters
        features.append(nn.Sequential(*stage))
    features.append(nn.Sequential(*conv_bn(channels, 1280, **options)))
    return Torchvision(features, [nn.Dropout(), nn.Linear(1280, 1000)])


# PyTorch's padding is TensorFlow's at odd sizes and another at even ones.
NETWORKS = {  # name: (network, sizes)
    "megvii_shufflenet_v1_g3": (lambda: Megvii(24, (240, 480, 960), groups=3), (224, 193)),
    "megvii_shufflenet_v1_g8": (lambda: Megvii(24, (384, 768, 1536), groups=8), (224, 193)),
    "megvii_shufflenet_v2": (lambda: Megvii(24, (116, 232, 464), head=1024), (224, 193)),
    "torchvision_shufflenet_v2": (lambda: TorchvisionShuffleNetV2((116, 232, 464)), (224, 193)),
    "torchvision_mobilenet_v2": (mobilenet_v2, (224, 193)),
    "torchvision_mobilenet_v3_small": (mobilenet_v3_small, (224, 193)),
    "torchvision_efficientnet_v2_s": (efficientnet_v2_s, (128,)),
}


def narrow() -> nn.Module:
    """ShuffleNet V1, 0.1x with 3 groups and 10 classes."""
    return Megvii(3, (24, 48, 96), groups=3, classes=10)


def drawn(network: nn.Module) -> nn.Module:
    state = network.state_dict()
    network.load_state_dict(
        {name: torch.from_numpy(draw(name, tuple(state[name].shape))) for name in state}
    )
    return network.eval()


def logits(network: nn.Module, size: int) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(image(size))).numpy()[0]


def tiny_state_dict() -> OrderedDict[str, torch.Tensor]:
    """The tensors of drawn.tiny(), some of them as views of others."""
    tensors = OrderedDict((name, torch.from_numpy(a.copy())) for name, a in tiny().items())
    grid = tensors["contiguous"]
    tensors["transposed"] = grid.permute(2, 0, 1)
    tensors["sliced"] = grid[1, 1:, ::2]
    tensors["row"] = grid[1, 2]
    tensors["parameter"] = nn.Parameter(tensors["parameter"])
    tensors["bfloat16"] = tensors["bfloat16"].to(torch.bfloat16)
    return tensors


def save_files(folder: Path) -> None:
    torch.save(tiny_state_dict(), folder / "tiny.pth")
    torch.save(tiny_state_dict(), folder / "tiny_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(tiny_state_dict(), folder / "tiny_protocol_4.pt", pickle_protocol=4)
    averaged = {
        "epoch": 3,
        "arch": "tiny",
        "args": argparse.Namespace(lr=0.1, size=torch.Size([2, 3])),
        "state_dict": OrderedDict(contiguous=torch.zeros(2, 3, 4)),
        "state_dict_ema": OrderedDict(
            (f"module.{name}", tensor) for name, tensor in tiny_state_dict().items()
        ),
    }
    torch.save(averaged, folder / "tiny_averaged.pth")
    network = drawn(narrow())
    torch.save(network.state_dict(), folder / "narrow.pth")
    parallel = nn.DataParallel(network)
    optimizer = torch.optim.SGD(network.classifier.parameters(), lr=0.1, momentum=0.9)
    network(torch.from_numpy(image(64))).sum().backward()
    optimizer.step()
    drawn(network)
    torch.save(
        {"state_dict": parallel.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3},
        folder / "narrow.pth.tar",
        _use_new_zipfile_serialization=False,
    )


class Classifier(lightning.LightningModule):
    """The narrow network with a head of its own, as fine-tuned with Lightning."""

    def __init__(self, **hyperparameters: object) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = drawn(narrow())
        self.head = self.backbone.classifier[0]
        self.backbone.classifier = nn.Identity()

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return self.head(self.backbone(batch[0])).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=0.0)


def save_checkpoint(path: Path) -> None:
    """Writes a checkpoint of Lightning, beside hyperparameters of many classes."""
    network = Classifier(
        folder=Path("pictures"),
        arguments=argparse.Namespace(lr=0.1),
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        activation=nn.ReLU,
        steps=deque([1, 2]),
        groups=defaultdict(list, {"head": [1]}),
        initialize=partial(nn.init.normal_, std=0.1),
        devices={1, 2},
        mean=np.arange(3.0),
        dtype=torch.float32,
    )
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    pictures = torch.utils.data.TensorDataset(torch.from_numpy(image(64)))
    trainer.fit(network, torch.utils.data.DataLoader(pictures))
    drawn_again = Classifier()  # the step moved the statistics of the batch norms
    network.load_state_dict(drawn_again.state_dict())
    trainer.save_checkpoint(path)


def main() -> None:
    shapes = {}
    outputs = {"narrow/64": logits(drawn(narrow()), 64)}
    for name, (build, sizes) in NETWORKS.items():
        network = drawn(build())
        shapes[name] = {key: list(t.shape) for key, t in network.state_dict().items()}
        for size in sizes:
            outputs[f"{name}/{size}"] = logits(network, size)
    lines = [
        f'"{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in shapes.items()
    ]
    (HERE / "state_dicts.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.savez_compressed(HERE / "logits.npz", **outputs)
    save_files(HERE)
    save_checkpoint(HERE / "narrow.ckpt")


if __name__ == "__main__":
    main()
