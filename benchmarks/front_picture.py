"""The README's picture, from the tables in docs: int8 accuracy against latency.

python benchmarks/front_picture.py --out docs/pictures/front.png

Latencies of lowered networks and of MobileNets are from docs/measuring.md; that of a ShuffleNet
translated layer by layer is its own over the ratio in docs/lowering.md, measured in one run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags
from matplotlib.lines import Line2D

from android_bench.plots.labels import place_labels
from android_bench.plots.names import family_name, width_name
from android_bench.plots.points import make_logarithmic
from shufflelite import atomic, plot_style
from shufflelite.plot_style import COLOURS

DOCS = Path(__file__).parents[1] / "docs"
LINES = {  # (model, groups): the name in docs/lowering.md, without options
    ("mobilenet_v1", "-"): "MobileNet V1",
    ("mobilenet_v2", "-"): "MobileNet V2",
    ("shufflenet_v1", "3"): "ShuffleNet V1",
    ("shufflenet_v2", "-"): "ShuffleNet V2",
}
flags.DEFINE_string("out", None, "The picture.", required=True)


@dataclass(frozen=True)
class Point:
    """A network at 224; `direct_ms` is its latency translated layer by layer, if measured."""

    width: float
    top1: float
    lowered_ms: float
    direct_ms: float | None


def main(argv: list[str]) -> None:
    """Reads the tables and draws the picture."""
    atomic.write(Path(flags.FLAGS.out), draw(read_points()))


def read_points() -> dict[str, list[Point]]:
    """The points of each line, by its name in the picture."""
    ratios = {row["network"]: float(row["ratio"]) for row in rows("lowering.md", "x86: direct")}
    points: dict[str, list[Point]] = {}
    for row in rows("measuring.md", "host ms"):
        line = LINES.get((row["model"], row["groups"]))
        if line is None or row["resolution"] != "224":
            continue
        groups = "" if row["groups"] == "-" else f" g={row['groups']}"
        names = (f"{line} {width}{groups}" for width in (f"{row['width']}x", f"{row['width']}.0x"))
        ratio = next((ratios[name] for name in names if name in ratios), None)
        ms = float(row["host ms"])
        points.setdefault(f"{family_name(row['model'])}{groups}", []).append(
            Point(
                float(row["width"]),
                float(row["published top-1 %"]),
                ms,
                None if ratio is None else ms / ratio,
            )
        )
    return points


def rows(page: str, column: str) -> Iterator[dict[str, str]]:
    """The rows of the first Markdown table that has the column."""
    names = None
    for text in (DOCS / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if names and not text.startswith("|"):
            return
        if names and not text.startswith("| ---") and not text.startswith("|---"):
            yield dict(zip(names, cells, strict=True))
        elif text.startswith("|") and column in cells:
            names = cells


def draw(points: dict[str, list[Point]]) -> bytes:
    """Solid markers: files that `convert` writes; hollow ones: the same, translated directly."""
    colours = dict(zip(points, COLOURS, strict=False))
    with plot_style.styled(4.6) as figure:
        axes = figure.add_subplot()
        labels = []
        for name, line in points.items():
            look = {"color": colours[name], "markersize": 6, "marker": "o"}
            axes.plot(
                [p.lowered_ms for p in line],
                [p.top1 for p in line],
                linewidth=1.8,
                markeredgecolor="white",
                markeredgewidth=0.6,
                zorder=3,
                **look,
            )
            for point in line:
                labels.append(
                    (point.lowered_ms, point.top1, width_name(point.width), look["color"])
                )
                if point.direct_ms is None:
                    continue
                axes.plot([point.direct_ms], [point.top1], fillstyle="none", zorder=2, **look)
                axes.annotate(
                    "",
                    (point.lowered_ms, point.top1),
                    (point.direct_ms, point.top1),
                    arrowprops={
                        "arrowstyle": "-|>",
                        "color": look["color"],
                        "linewidth": 0.9,
                        "linestyle": (0, (3, 2)),
                        "shrinkA": 4,
                        "shrinkB": 4,
                    },
                )
        make_logarithmic(axes.xaxis)
        axes.set_xlabel("time of an inference on one x86 core, ms")
        axes.set_ylabel("top-1 on ImageNet as published, %")
        plot_style.add_title(
            axes,
            "ShuffleNet in int8: translated layer by layer (hollow), and lowered first (full)",
            "224 x 224, AMD EPYC, LiteRT 2.3.0 with XNNPACK, 1 thread, 2026-11-22. Labels: widths.",
        )
        handles = [Line2D([], [], color=c, marker="o", label=name) for name, c in colours.items()]
        grey = {"color": "#555555", "linestyle": "", "marker": "o"}
        handles += [
            Line2D([], [], fillstyle="none", label="layer by layer: --lowering direct", **grey),
            Line2D([], [], label="lowered, as convert does", **grey),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        place_labels(figure, axes, labels)
        return plot_style.png(figure)


if __name__ == "__main__":
    app.run(main)
