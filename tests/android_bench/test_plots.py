"""Pictures of rows: what is drawn where, and the same bytes each time."""

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from android_bench import plots
from android_bench.measurement import OperatorCount, OperatorTime
from android_bench.plots import bars, scatter
from android_bench.plots.names import width_name
from android_bench.plots.points import points_of
from android_bench.results import Row
from keras_models import registry
from shufflelite.plot_style import PIXELS_PER_POINT
from tests.android_bench.rows import network, row

CLASSES = (
    "dot",
    "mmla",
    "widening multiply",
    "other SIMD multiply",
    "SIMD float",
    "other SIMD",
    "vector load/store",
    "scalar load/store",
    "prefetch",
    "integer ALU",
    "branch",
    "system",
)


def swept(*, counted: bool = False) -> list[Row]:
    """Every published variant of the four families at any resolution, as a large sweep has them."""
    rng = np.random.default_rng(0)
    rows = []
    for name in ("shufflenet_v1", "shufflenet_v2", "mobilenet_v1", "mobilenet_v2"):
        for variant in registry.find(name).published:
            if variant.options.keys() - {"width", "groups"}:
                continue
            cost = (0.3 + 0.02 * variant.mmadds) * rng.uniform(0.8, 1.2)
            info = network(
                name,
                options=dict(variant.options),
                resolution=variant.resolution,
                multiply_adds=variant.mmadds * 10**6,
                published_top1=variant.top1,
            )
            model = f"{name} {len(rows)}"
            costs: dict[str, Any] = {"median_ms": cost, "ratio": cost / 0.7}
            if counted:
                costs = {
                    "instructions": {
                        name: int(cost * 1e7 / (i + 1)) for i, name in enumerate(CLASSES)
                    }
                }
            rows.append(row(model, network=info, ratio_to="shufflenet_v1 0", **costs))
    base = rows[0].ratio
    return [Row(**{**vars(r), "ratio": r.ratio / base}) for r in rows]


def profiled() -> list[Row]:
    types = [f"Type {number} (NHWC, QC8)" for number in range(12)]
    profile = [
        OperatorTime(f"layer{number}", kind, number + 1.0, calls=1, delegated=True)
        for number, kind in enumerate([*types, *types])
    ]
    return [row("base", profile=profile), row("other", profile=profile[:3])]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, as they were when they became bytes."""
    figures: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *words: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *words, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


PICTURES = [
    (plots.cost_against_multiply_adds, swept()),
    (plots.accuracy_against_cost, swept()),
    (plots.cost_against_multiply_adds, swept(counted=True)),
    (plots.accuracy_against_cost, swept(counted=True)),
    (plots.instructions_by_class, swept(counted=True)),
    (plots.operator_profile, profiled()),
]


@pytest.mark.parametrize(("picture", "rows"), PICTURES)
def test_a_picture_is_1660_pixels_wide_and_the_same_each_time(
    picture: Callable[[Sequence[Row]], bytes | None], rows: list[Row]
) -> None:
    first = picture(rows)
    assert first is not None
    assert size(first)[0] == 1660  # 830, twice as fine
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):  # a user's own taste
        assert picture(rows) == first


@pytest.mark.parametrize(("picture", "rows"), PICTURES)
def test_no_text_covers_another_or_leaves_the_picture(
    picture: Callable[[Sequence[Row]], bytes | None], rows: list[Row], drawn: list[Figure]
) -> None:
    picture(rows)
    (figure,) = drawn
    (axes,) = figure.axes
    (legend,) = figure.legends
    ticks = [
        tick.label1
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]
    names = [axes._left_title, axes.xaxis.label, axes.yaxis.label, *legend.get_texts()]
    texts = [text for text in (*axes.texts, *names, *ticks) if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert len(boxes) > 20
    for (name, box), (other, its) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(its), f"{name} and {other}"
    for name, box in boxes:
        assert figure.bbox.x0 <= box.x0, name
        assert figure.bbox.y0 <= box.y0, name
        assert box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name


@pytest.mark.parametrize("picture", [plots.cost_against_multiply_adds, plots.accuracy_against_cost])
def test_no_label_covers_a_point_and_most_networks_have_one(
    picture: Callable[[Sequence[Row]], bytes | None], drawn: list[Figure]
) -> None:
    picture(swept())
    (axes,) = drawn[0].axes
    labels = [text for text in axes.texts if text.get_text().replace(".", "").isdigit()]
    marked = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    points = np.concatenate(
        [axes.transData.transform(np.asarray(line.get_xydata())) for line in marked]
    )
    assert len(points) == len(swept())
    assert len(labels) >= 20
    for text in labels:
        box = text.get_window_extent()
        inside = (points > [box.x0, box.y0]) & (points < [box.x1, box.y1])
        assert not inside.all(axis=1).any(), text.get_text()


@pytest.mark.parametrize("counted", [False, True])
def test_each_line_of_a_cost_picture_has_a_label(counted: bool, drawn: list[Figure]) -> None:
    rows = [one for one in swept(counted=counted) if "groups" not in one.network.options]
    rows += [one for one in swept(counted=counted) if one.network.options.get("groups") == 3]
    plots.cost_against_multiply_adds(rows)
    (axes,) = drawn[0].axes
    # The points, and the label that each has beside it, if it has one.
    labelled: dict[tuple[str, int], set[str]] = {}
    near = 45 * PIXELS_PER_POINT
    texts = [text for text in axes.texts if text.get_text().replace(".", "").isdigit()]
    for point in points_of(rows):
        labels = labelled.setdefault((point.line, point.resolution), set())
        position = axes.transData.transform((point.multiply_adds, point.cost))
        for text in texts:
            box = text.get_window_extent()
            middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
            if text.get_text() == width_name(point.width) and math.dist(middle, position) < near:
                labels.add(text.get_text())
    assert len(labelled) >= 10
    assert all(labelled.values()), labelled


def test_a_family_has_its_colour_in_every_picture(drawn: list[Figure]) -> None:
    rows = [*swept(), row("last", network=network("augshufflenet", options={"width": 0.5}))]
    rows = [rows[-1], *rows[:-1]]  # the one that has no accuracy first
    plots.cost_against_multiply_adds(rows)
    plots.accuracy_against_cost(rows)
    colours = [
        {handle.get_label(): handle.get_color() for handle in figure.legends[0].get_lines()}
        for figure in drawn
    ]
    shared = colours[0].keys() & colours[1].keys()
    assert {"ShuffleNet V1 g=3", "ShuffleNet V2", "MobileNet V1", "MobileNet V2"} <= shared
    assert all(colours[0][name] == colours[1][name] for name in shared)
    families = [colours[0][name] for name in ("ShuffleNet V1 g=3", "ShuffleNet V2", "MobileNet V1")]
    assert len(set(families)) == 3
    assert colours[0]["ShuffleNet V1 g=3"] == colours[0]["ShuffleNet V1 g=8"]
    label = drawn[1].axes[0].texts[0].get_text().replace("\n", " ")
    assert "None published: AugShuffleNet." in label


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_beats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.integers(0, 12, (30, 2))]  # many are equal

    def beaten(point: tuple[float, float]) -> bool:
        return any(o[0] <= point[0] and o[1] >= point[1] and o != point for o in points)

    front = scatter.pareto(points)
    assert {points[i] for i in front} == {point for point in points if not beaten(point)}
    costs, gains = zip(*(points[i] for i in front), strict=True)
    assert list(costs) == sorted(set(costs))
    assert list(gains) == sorted(set(gains))


def test_points_have_the_drift_between_batches_taken_out(drawn: list[Figure]) -> None:
    # The second batch ran on a machine that was twice as slow; ratios do not know.
    rows = [
        row("base", median_ms=2.0, network=network(options={"width": 0.5}, multiply_adds=10**6)),
        row(
            "net",
            median_ms=8.0,
            ratio=2.0,
            network=network(options={"width": 1.0}, multiply_adds=4 * 10**6),
        ),
    ]
    plots.cost_against_multiply_adds(rows)
    line = drawn[0].axes[0].lines[0]
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[1, 2], [4, 4]])


def test_instructions_are_never_called_time(drawn: list[Figure]) -> None:
    counts = [OperatorCount("a", "CONV_2D", 2_500_000, calls=1, delegated=None)]
    rows = [replace(one, profile=counts) for one in swept(counted=True)]
    for picture in plots.PICTURES.values():
        picture(rows)
    assert len(drawn) == 4
    assert {patch.get_width() for patch in drawn[-1].axes[0].patches} == {2.5}  # millions
    for figure in drawn:
        (axes,) = figure.axes
        words = " ".join([axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()]).lower()
        assert "instructions" in words
        assert not {"ms", "latency", "time"} & set(words.replace(",", "").split())


def test_bars_add_up_and_small_parts_are_others(drawn: list[Figure]) -> None:
    plots.operator_profile(profiled())
    (axes,) = drawn[0].axes
    ends = {round(patch.get_y(), 3): 0.0 for patch in axes.patches}
    for patch in axes.patches:
        ends[round(patch.get_y(), 3)] += patch.get_width()
    whole = 2 * sum(range(1, 13))  # each type runs twice
    assert sorted(ends.values()) == pytest.approx([1 + 2 + 3, sum(range(1, 25))])
    assert whole < max(ends.values())
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert len(names) == bars.PARTS + 1
    assert names[-1] == bars.REST
    assert names[0] == "Type 11 (NHWC, QC8)"  # the longest first


def test_only_pictures_that_have_data_are_written(tmp_path: Path) -> None:
    bare = [row("a", network=None), row("b", network=None)]
    assert plots.draw(bare, tmp_path) == []
    assert not list(tmp_path.iterdir())
    written = plots.draw([*swept(), *swept(counted=True)], tmp_path / "new")
    assert [path.name for path in written] == [
        "cost_host.png",
        "accuracy_host.png",
        "cost_emulated_a53.png",
        "accuracy_emulated_a53.png",
        "instructions_emulated_a53.png",
    ]
    assert sorted((tmp_path / "new").iterdir()) == sorted(written)
