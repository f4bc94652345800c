"""Tables: the published variants, the stages of one network, several networks in columns."""

import functools
import itertools
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_models import registry
from keras_models.registry import Published
from keras_models.summary import Summary
from shufflelite import cli

if TYPE_CHECKING:
    from keras_models.counts import LayerCount, LayerTypeCount, StageCount

    Counted = LayerCount | StageCount | LayerTypeCount

WIDTH = 100  # of the text below tables
COSTS = ("parameters", "multiply-adds", "share")
BAR = 24  # characters of a bar that stands for everything
EIGHTHS = " ▏▎▍▌▋▊▉"


def print_list() -> None:
    """Prints each published variant, then where the figures are from."""
    entries = {name: registry.find(name) for name in registry.names()}
    headings = "model", "options", "size", "parameters", "multiply-adds", "top-1"
    rows = [
        [name, describe(p.options), f"{p.resolution}", *_figures(p), _percent(p.top1)]
        for name, entry in entries.items()
        for p in entry.published
    ]
    cli.print_table(headings, rows, left=2, file=sys.stdout)
    sources: dict[tuple[str, str], list[str]] = {}
    for name, entry in entries.items():
        sources.setdefault((entry.paper, entry.note), []).append(name)
    for (paper, note), same in sources.items():
        print(_wrapped(f"{', '.join(same)}: {note} {paper}"))


def print_model(summary: Summary, *, layers: bool) -> None:
    """Prints what each stage (or each layer) costs, and each kind of operator."""
    print(_title(summary))
    if layers:
        headings = ["layer", "operator", "output"]
        rows = [[c.name, c.operator, *_cost(c, summary)] for c in summary.layers]
    else:
        headings = ["stage", "", "units", "layers", "output"]
        rows = [
            [c.name, _bar(c, summary), f"{c.units}", f"{c.layers}", *_cost(c, summary)]
            for c in summary.stages
        ]
    blank = [""] * (len(headings) - 1)
    rows.append(["total", *blank, f"{summary.params:,}", f"{summary.multiply_adds:,}", ""])
    if summary.published:
        rows.append(["published", *blank, *_figures(summary.published), ""])
        rows.append(["deviation", *blank, *_deviations(summary, summary.published), ""])
    cli.print_table([*headings, *COSTS], rows, left=2, file=sys.stdout)
    print()
    operators = [
        [o.name, _bar(o, summary), f"{o.layers}", *_work(o, summary)] for o in summary.operators
    ]
    cli.print_table(["operator", "", "layers", *COSTS], operators, left=2, file=sys.stdout)
    print()
    print(_below(summary))


def print_comparison(summaries: Sequence[Summary]) -> None:
    """Prints a column for each network; all are compared with the first."""
    first = summaries[0]
    relative = "  to the first"
    rows: list[tuple[str, Callable[[Summary], str]]] = [
        ("resolution", lambda s: f"{s.resolution}"),
        ("classes", lambda s: f"{s.num_classes}"),
        ("parameters", lambda s: f"{s.params:,}"),
        (relative, lambda s: f"x {s.params / first.params:.2f}"),
        ("multiply-adds", lambda s: f"{s.multiply_adds:,}"),
        (relative, lambda s: f"x {s.multiply_adds / first.multiply_adds:.2f}"),
        ("activations", lambda s: f"{s.activations:,}"),
        (relative, lambda s: f"x {s.activations / first.activations:.2f}"),
        *_section("published"),
        ("  parameters", lambda s: f"{s.published.params:,}" if s.published else "-"),
        ("  multiply-adds", lambda s: f"{s.published.mmadds:,} M" if s.published else "-"),
        ("  top-1", lambda s: _percent(s.published.top1) if s.published else "-"),
        *_section("multiply-adds by map"),
        *(
            (f"  image / {stride}" if stride else "  1x1", functools.partial(_at_stride, stride))
            for stride in _strides(summaries)
        ),
        *_section("layers"),
        ("  all", lambda s: f"{len(s.layers)}"),
        *((f"  {name}", functools.partial(_layers_of, name)) for name in _operators(summaries)),
    ]
    options = itertools.zip_longest(*(_words(s.options) for s in summaries), fillvalue="")
    lines = [["" if i else "options", *words] for i, words in enumerate(options)]
    lines += [[label, *map(cell, summaries)] for label, cell in rows]
    cli.print_table(["", *(s.model for s in summaries)], lines, file=sys.stdout)


def describe(options: Mapping[str, Any]) -> str:
    """Returns options as users type them: "width=0.5 groups=8"."""
    return " ".join(_words(options))


def _words(options: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in options.items()
    ]


def _title(summary: Summary) -> str:
    words = [summary.model, describe(summary.options)]
    words += [f"resolution={summary.resolution}", f"num_classes={summary.num_classes}"]
    return " ".join(filter(None, words))


def _below(summary: Summary) -> str:
    if p := summary.published:
        top1 = f"Published top-1: {p.top1} %. " if p.top1 else ""
        text = f"{top1}{summary.note}"
    else:
        text = "Not published with these options, this resolution and number of classes."
    return f"{_wrapped(text)}\n{summary.paper}"


def _cost(counted: "LayerCount | StageCount", summary: Summary) -> list[str]:
    return ["x".join(map(str, counted.output_shape)), *_work(counted, summary)]


def _work(counted: "Counted", summary: Summary) -> list[str]:
    share = 100 * counted.multiply_adds / summary.multiply_adds
    return [f"{counted.params:,}", f"{counted.multiply_adds:,}", f"{share:.1f} %" if share else ""]


def _bar(counted: "Counted", summary: Summary) -> str:
    share = counted.multiply_adds / summary.multiply_adds
    return bar(share, length=BAR, encoding=sys.stdout.encoding or "ascii")


def bar(share: float, *, length: int, encoding: str) -> str:
    """Returns a bar of `share` times `length` characters, to an eighth if `encoding` can."""
    eighths = round(8 * length * share)
    try:
        EIGHTHS.encode(encoding)
    except UnicodeEncodeError:
        return "#" * round(eighths / 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def _figures(published: Published) -> list[str]:
    return [f"{published.params:,}", f"{published.mmadds:,} M"]


def _percent(top1: float | None) -> str:
    return "-" if top1 is None else f"{top1} %"


def _deviations(summary: Summary, published: Published) -> list[str]:
    mmadds = summary.multiply_adds / 1e6
    return [
        f"{100 * (summary.params / published.params - 1):+.2f} %",
        "rounding"
        if round(mmadds) == published.mmadds
        else f"{100 * (mmadds / published.mmadds - 1):+.2f} %",
    ]


def _section(title: str) -> list[tuple[str, Callable[[Summary], str]]]:
    return [("", lambda _: ""), (title, lambda _: "")]


def _strides(summaries: Sequence[Summary]) -> list[int]:
    strides = {c.stride for s in summaries for c in s.strides if c.multiply_adds}
    return sorted(strides, key=lambda stride: (stride == 0, stride))


def _at_stride(stride: int, summary: Summary) -> str:
    madds = sum(c.multiply_adds for c in summary.strides if c.stride == stride)
    return f"{madds / 1e6:,.1f} M {100 * madds / summary.multiply_adds:5.1f} %" if madds else "-"


def _operators(summaries: Sequence[Summary]) -> list[str]:
    """The operators of all networks: convolutions first, then the most frequent."""
    most: dict[str, tuple[float, int]] = {}
    for s in summaries:
        for o in s.operators:
            share, layers = most.get(o.name, (0, 0))
            most[o.name] = max(share, o.multiply_adds / s.multiply_adds), max(layers, o.layers)
    return sorted(most, key=lambda name: (-most[name][0], -most[name][1], name))


def _layers_of(operator: str, summary: Summary) -> str:
    return next((f"{o.layers}" for o in summary.operators if o.name == operator), "-")


def _wrapped(text: str) -> str:
    together = text.replace(" %", "\xa0%")  # no line begins with a percent sign
    lines = textwrap.fill(together, WIDTH, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\xa0", " ")
