"""Model cards of bundled weights; the file of weights itself holds all their figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_models import registry
from keras_models.checkpoints.native import Trained
from shufflelite.cli import markdown_table
from shufflelite.display import Markdown, markdown, markdown_link

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = "python -m keras_models.train"
_CARD = """# {title}

| | |
|---|---|
{table}

## Data

CIFAR-10 (JPEG): the 50,000 training and 10,000 test pictures of A. Krizhevsky, [Learning Multiple
Layers of Features from Tiny Images](https://www.cs.toronto.edu/~kriz/cifar.html), 2009, as their
publisher re-encoded them (JPEG of quality 75, 4:2:0). Accuracies on it cannot be compared with
published ones of CIFAR-10. The data set comes without a licence; none of its pictures is here.

## Use

To try, test and measure conversion, quantization and apps with a network that really classifies.
It knows these ten classes alone, and answers with one of them whatever it sees; its pictures were
taken from the web, small and with one thing in their middle. It is nothing to decide by.

The weights are licensed as this project is: Apache-2.0.
"""


def card(path: Path, trained: Trained) -> str:
    """The card of the bundled weights at `path`, as Markdown."""
    origin = trained.origin
    rows = [
        ("network", Markdown(f"{_network(trained)} ([paper]({_paper(trained)}))")),
        ("input", f"{trained.resolution} x {trained.resolution}, RGB, {_input(trained)}"),
        ("classes", ", ".join(trained.class_names or ())),
        ("parameters", f"{origin['params']:,}"),
        ("multiply-adds", _millions(origin["multiply_adds"])),
        ("file", f"{path.stat().st_size:,} bytes: kernels float16, all else float32"),
        ("top-1", _top1(origin["accuracy"])),
        ("top-5", f"{origin['accuracy']['top5']:.2f} %"),
        ("measured on", f"{origin['accuracy']['pictures']:,} test pictures, in float32"),
        ("top-1 before rounding to float16", _top1(origin["trained_accuracy"])),
        ("trained by", Markdown(f"`{_TRAIN} --config {markdown(origin['config'])}`")),
        ("epochs", f"{origin['epochs']}; the last one's weights, not the best one's"),
        ("training pictures", f"SHA-256 {origin['pictures_sha256']}"),
        ("test pictures", f"SHA-256 {origin['test_sha256']}"),
        ("versions", _versions(origin["versions"])),
    ]
    table = "\n".join(f"| {name} | {markdown(value)} |" for name, value in rows)
    return _CARD.format(title=markdown(path.stem), table=table)


def index(bundled: Mapping[Path, Trained]) -> str:
    """A table of all bundled weights, as Markdown."""
    rows = [
        [
            markdown_link(path.stem, f"{path.stem}.md"),
            _network(trained),
            f"{trained.resolution}",
            _millions(trained.origin["multiply_adds"]),
            f"{trained.origin['params']:,}",
            _top1(trained.origin["accuracy"]),
        ]
        for path, trained in sorted(bundled.items())
    ]
    head = ["weights", "network", "resolution", "multiply-adds", "parameters", "top-1, float"]
    return "# Bundled weights\n\n" + markdown_table(head, rows, left=2) + "\n"


def _paper(trained: Trained) -> str:
    return registry.find(trained.model).paper


def _network(trained: Trained) -> str:
    options = (f"{name}={value}" for name, value in trained.options.items())
    return " ".join([trained.model, *options])


def _input(trained: Trained) -> str:
    (mean, *_), (std, *_) = trained.preprocessing.mean, trained.preprocessing.std
    return f"(pixel - {mean:g}) / {std:g}"


def _millions(multiply_adds: int) -> str:
    return f"{multiply_adds / 1e6:.1f} M"


def _top1(accuracy: Mapping[str, Any]) -> str:
    (low, high), top1 = accuracy["interval"], accuracy["top1"]
    return f"{top1:.2f} % (95 % interval {low:.2f} to {high:.2f})"


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items() if number)
