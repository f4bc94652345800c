"""Tables of sweeps, claims and comparisons in Markdown."""

from collections.abc import Mapping, Sequence

from android_bench import paper_claims, results
from android_bench.build_cache import Wanted
from android_bench.compare import Comparison
from android_bench.paper_claims import Claim
from android_bench.results import Row
from android_bench.run_table import milliseconds, number
from shufflelite.cli import markdown_table as table

COLUMN_OPTIONS = ("width", "groups")  # that have a column of their own


def sweep_table(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """All networks, one a line, what is known of them, and their costs on each target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    by_model = {model: [row for row in rows if row.model == model] for model in models}
    heads = [by_model[model][0] for model in models]
    columns = {
        "model": [label(row) for row in heads],
        "width": [_option(row, "width") for row in heads],
        "resolution": [_told(row, "resolution") for row in heads],
        "groups": [_option(row, "groups") for row in heads],
        "M multiply-adds": [_millions(row, "multiply_adds", 1) for row in heads],
        "M parameters": [_millions(row, "params", 2) for row in heads],
        "size kB": [f"{row.size_bytes / 1000:.0f}" for row in heads],
        "operators": [str(sum(row.operators.values())) for row in heads],
        "partitions": [
            number(next(filter(None, (row.delegate_partitions for row in by_model[model])), None))
            for model in models
        ],
        "published top-1 %": [_percent(row, "published_top1") for row in heads],
        "measured top-1 %": [_percent(row, "top1") for row in heads],
    }
    for target in targets:
        same = [row for row in rows if row.target == target]
        cells = {row.model: _cost_cells(row, same) for row in same}
        for name in dict.fromkeys(name for cell in cells.values() for name in cell):
            columns[f"{target} {name}"] = [cells.get(model, {}).get(name, "-") for model in models]
    columns = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    if not all(map(_counts, rows)):
        notes = ["ms are the reference's median, times the ratio.", *notes]
    lines = [table([*columns], list(zip(*columns.values(), strict=True)))]
    return "\n\n".join([*lines, *_foot(rows, notes)]) + "\n"


def claims_table(
    asked: Sequence[Claim], rows: Sequence[Row], models: Mapping[Wanted, str], notes: Sequence[str]
) -> str:
    """Each claim, the paper's figure, and ours on each target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    found = {(row.target, row.model): row for row in rows}
    footnotes = list(dict.fromkeys(claim.note for claim in asked if claim.note))
    lines = []
    for claim in asked:
        names = [models.get(side.wanted) for side in (claim.numerator, claim.denominator)]
        pairs = [[found.get((target, str(name))) for name in names] for target in targets]
        cells = [_figure(claim, *pair) for pair in pairs]
        mark = f" [{footnotes.index(claim.note) + 1}]" if claim.note else ""
        if claim.quantity != "cost":  # counted: the same wherever the files were measured
            cells = [next((cell for cell in cells if cell != "-"), "-"), *["" for _ in targets]]
        else:
            cells = ["", *cells]
        figure = "-".join(f"{value:g}" for value in claim.figure)
        figure = f"{figure}{'' if claim.is_exponent else 'x'}" if figure else "no figure"
        lines.append([f"{claim.text}{mark}", claim.place, figure, *cells])
    counted = {row.target for row in rows if _counts(row)}
    units = [f"{t}, {'instructions' if t in counted else 'time'}" for t in targets]
    text = [table(["claim", "where", "the paper's", "counted", *units], lines, left=2)]
    text += [f"[{number}] {note}" for number, note in enumerate(footnotes, start=1)]
    return "\n\n".join([*text, *_foot(rows, notes)]) + "\n"


def comparison_table(found: Comparison) -> str:
    """Then and now, the worst first, and what had nothing to be compared with."""
    lines = [
        [
            change.model,
            change.target,
            change.measure,
            _amount(change.before, change.measure),
            _amount(change.after, change.measure),
            f"{100 * change.growth:+.2f} %",
            "SLOWER" if change in found.slower else "" if change.apart else "within the noise",
        ]
        for change in sorted(found.changes, key=lambda change: -change.growth)
    ]
    headings = ["model", "target", "compared by", "before", "now", "change", "verdict"]
    text = [table(headings, lines, left=3)]
    text += [f"Not the same: {difference}." for difference in found.differences]
    if found.missing:
        text.append(f"In the baseline, and not measured now: {', '.join(found.missing)}.")
    if found.new:
        text.append(f"Not in the baseline: {', '.join(found.new)}.")
    return "\n\n".join(text) + "\n"


def profile_tables(rows: Sequence[Row], *, costliest: int = 0) -> str:
    """The cost of operators by type, their sum beside the whole; empty without any profile.

    Args:
      rows: Of any targets.
      costliest: So many single operators of each row are shown too.
    """
    text = []
    for row in rows:
        unit = "M instructions" if _counts(row) else "ms"
        if row.profile:
            text += [f"{row.model} on {row.target}, operators by type:"]
            text += [table(["type", "operators", unit, "% of the sum"], _type_lines(row))]
        if row.profile and costliest:
            text += [f"{row.model} on {row.target}, the costliest operators:"]
            lines = _operator_lines(row)[:costliest]
            text += [table(["operator", "type", unit, "% of the sum"], lines, left=2)]
    return "\n" + "\n\n".join(text) + "\n" if text else ""


def label(row: Row) -> str:
    """The network's name and what has no column of its own; else the row's."""
    if row.network is None:
        return row.model
    options = row.network["options"]
    others = (
        name if value is True else f"{name}={value}"
        for name, value in options.items()
        if name not in COLUMN_OPTIONS
    )
    return " ".join([row.network["name"], *others])


def _type_lines(row: Row) -> list[list[str]]:
    by_type = results.by_type(row)
    total = sum(cost for _, cost in by_type.values())
    lines = [(name, str(calls), cost) for name, (calls, cost) in by_type.items()]
    lines += [("sum", str(sum(calls for calls, _ in by_type.values())), total)]
    lines += [("all at once", "", _whole(row))]
    return [[name, calls, *_share_cells(row, cost, total)] for name, calls, cost in lines]


def _operator_lines(row: Row) -> list[list[str]]:
    costs = [(results.operator_cost(one), one) for one in row.profile]
    total = sum(cost for cost, _ in costs)
    return [
        # The name of an operator that others are fused into is that of them all.
        [one["name"].split(";")[0], one["type"], *_share_cells(row, cost, total)]
        for cost, one in sorted(costs, key=lambda pair: -pair[0])
    ]


def _share_cells(row: Row, cost: float, total: float) -> tuple[str, str]:
    told = f"{cost / 1e6:.3f}" if _counts(row) else f"{cost:.4f}"
    return told, f"{100 * cost / total:.1f}" if total else "-"


def _whole(row: Row) -> float:
    if row.instructions is not None:
        return sum(row.instructions.values())
    assert row.median_ms is not None
    return row.median_ms


def _cost_cells(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    spread = f"{row.ratio:.2f} ({row.ratio_p5:.2f}-{row.ratio_p95:.2f})"
    if row.instructions is not None:
        return {
            "M instructions": f"{sum(row.instructions.values()) / 1e6:.1f}",
            "ratio": f"{row.ratio:.2f}",
        }
    return {
        "ms": milliseconds(results.latency_ms(row, rows)),
        "ratio (p5-p95)": "1" if row.model == row.ratio_to else spread,
        "peak MB": number(row.peak_memory_mb, 1),
    }


def _foot(rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        same = [row for row in rows if row.target == target]
        head = same[0]
        dates = sorted({row.date_utc[:10] for row in same})
        told = [
            results.device(head),
            f"{head.runtime} {head.runtime_version or ''}".strip(),
            f"delegate {' and '.join(dict.fromkeys(row.delegate for row in same))}",
            f"{head.threads} thread{'s' * (head.threads != 1)}",
            f"{head.rounds} rounds" + ("" if _counts(head) else f" of {head.runs} runs"),
            " to ".join(dict.fromkeys((dates[0], dates[-1]))),
            *dict.fromkeys(note for row in same for note in row.notes),
        ]
        lines.append(f"{target}: {', '.join(told)}.")
    if rows:
        head = rows[0]
        lines.append(
            f"Ratios are to {head.ratio_to}, within the same round: median, and p5-p95 over the "
            "rounds. "
            + ("Instructions are no time. " if any(map(_counts, rows)) else "")
            + f"ShuffleLite {head.shufflelite_version or '(not installed)'}, "
            f"Python {head.python_version}."
        )
    if notes:
        lines.append(" ".join(notes))
    return lines


def _figure(claim: Claim, numerator: Row | None, denominator: Row | None) -> str:
    if numerator is None or denominator is None:
        return "-"
    if numerator.network is None or denominator.network is None:
        return "-"
    value = paper_claims.ours(claim, numerator, denominator)
    return f"{value:.2f}{'' if claim.is_exponent else 'x'}"


def _counts(row: Row) -> bool:
    return row.instructions is not None


def _amount(value: float, measure: str) -> str:
    if measure == "instructions":
        return f"{value / 1e6:.3f} M"
    return milliseconds(value) if measure == "ms" else f"{value:.3f}"


def _option(row: Row, name: str) -> str:
    if row.network is None or name not in row.network["options"]:
        return "-"
    return f"{row.network['options'][name]:g}"


def _told(row: Row, name: str) -> str:
    value = row.network and row.network[name]
    return "-" if value is None else f"{value:g}"


def _percent(row: Row, name: str) -> str:
    return number(row.network[name] if row.network else None, 1)


def _millions(row: Row, name: str, digits: int) -> str:
    return "-" if row.network is None else f"{row.network[name] / 1e6:.{digits}f}"
