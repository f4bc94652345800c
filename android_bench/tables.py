"""The tables for people: of a run as plain text; of sweeps, claims and comparisons in Markdown."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from android_bench import paper_claims, results
from android_bench.build_cache import NetworkSpec
from android_bench.bundle_info import BundleInfo
from android_bench.compare import Comparison
from android_bench.paper_claims import Claim
from android_bench.results import Row
from shufflelite import cli
from shufflelite.cli import markdown_table
from shufflelite.display import markdown_page, printable_line

COLUMN_OPTIONS = ("width", "groups")  # that have a column of their own


def print_run(rows: Sequence[Row], *, file: TextIO) -> None:
    """Prints the table of one run."""
    columns = {
        "median ms": [milliseconds(row.median_ms) for row in rows],
        "p95 ms": [milliseconds(row.p95_ms) for row in rows],
        "first ms": [milliseconds(row.first_ms) for row in rows],
        "init ms": [milliseconds(row.init_ms) for row in rows],
        "M instr": [_millions(row, 2) if _counts(row) else "-" for row in rows],
        "ratio": [f"{row.ratio:.3f}" for row in rows],
        "p5-p95": [f"{row.ratio_p5:.3f}-{row.ratio_p95:.3f}" for row in rows],
        "peak MB": [_number(row.peak_memory_mb, 1) for row in rows],
        "size kB": [f"{row.size_bytes / 1000:.0f}" for row in rows],
        "ops": [str(sum(row.operators.values())) for row in rows],
        "partitions": [_number(row.delegate_partitions) for row in rows],
        "CPU ops": [
            "-" if (ops := row.undelegated_operators) is None else str(sum(ops.values()))
            for row in rows
        ],
    }
    columns = _without_empty(columns)
    names = [row.model for row in rows]
    cli.print_table(["model", *columns], zip(names, *columns.values(), strict=True), file=file)
    head = rows[0]
    delegates = " and ".join(dict.fromkeys(row.delegate for row in rows))
    facts = (
        f"{head.target}, {head.cpu}, {results.instruction_set(head)}: {head.runtime}"
        f" {head.runtime_version}, delegate {delegates},"
        f" threads {head.threads}, {head.rounds} rounds of {head.runs} runs. Read the ratios: each"
        f" is to {head.ratio_to} within the same round, so that the machine's noise cancels out."
    )
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    for line in (*notes, facts):
        print(printable_line(line), file=file)


def sweep_table(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """One line for each network: its properties, and its costs on each target."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    heads = [same[0] for same in by_model.values()]

    def of_network(text: Callable[[BundleInfo], str]) -> list[str]:
        return ["-" if row.network is None else text(row.network) for row in heads]

    columns = {
        "model": [network_label(row) for row in heads],
        "width": of_network(lambda network: _option(network, "width")),
        "resolution": of_network(lambda network: str(network.resolution)),
        "groups": of_network(lambda network: _option(network, "groups")),
        "M multiply-adds": of_network(lambda network: f"{network.multiply_adds / 1e6:.1f}"),
        "M parameters": of_network(lambda network: f"{network.params / 1e6:.2f}"),
        "size kB": [f"{row.size_bytes / 1000:.0f}" for row in heads],
        "operators": [str(sum(row.operators.values())) for row in heads],
        "partitions": [
            _number(next(filter(None, (row.delegate_partitions for row in same)), None))
            for same in by_model.values()
        ],
        "published top-1 %": of_network(lambda network: _number(network.published_top1, 1)),
        "measured top-1 %": of_network(lambda network: _number(network.top1, 1)),
    }
    for target in dict.fromkeys(row.target for row in rows):
        same = [row for row in rows if row.target == target]
        cells = {row.model: _cost_cells(row, same) for row in same}
        for name in dict.fromkeys(name for cell in cells.values() for name in cell):
            columns[f"{target} {name}"] = [
                cells.get(model, {}).get(name, "-") for model in by_model
            ]
    columns = _without_empty(columns)
    if not all(map(_counts, rows)):
        notes = ["ms are the reference's median, times the ratio.", *notes]
    table = markdown_table([*columns], list(zip(*columns.values(), strict=True)))
    return markdown_page([table, *_footer(rows, notes)])


def claims_table(
    claims: Sequence[Claim],
    rows: Sequence[Row],
    models: Mapping[NetworkSpec, str],
    notes: Sequence[str],
) -> str:
    """Each claim, the paper's figure, and ours on each target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    by_target = {(row.target, row.model): row for row in rows}
    footnotes = list(dict.fromkeys(claim.note for claim in claims if claim.note))
    lines = []
    for claim in claims:
        names = [models.get(operand.network) for operand in (claim.numerator, claim.denominator)]
        pairs = [[by_target.get((target, str(name))) for name in names] for target in targets]
        cells = [_figure(claim, *pair) for pair in pairs]
        mark = f" [{footnotes.index(claim.note) + 1}]" if claim.note else ""
        if claim.quantity != "cost":  # counted: the same on all targets
            cells = [next((cell for cell in cells if cell != "-"), "-"), *["" for _ in targets]]
        else:
            cells = ["", *cells]
        figure = "-".join(f"{value:g}" for value in claim.figure)
        figure = f"{figure}{'' if claim.is_exponent else 'x'}" if figure else "no figure"
        lines.append([f"{claim.text}{mark}", claim.place, figure, *cells])
    counted = {row.target for row in rows if _counts(row)}
    units = [f"{t}, {'instructions' if t in counted else 'time'}" for t in targets]
    text: list[str] = [
        markdown_table(["claim", "where", "the paper's", "counted", *units], lines, left=2)
    ]
    text += [f"[{number}] {note}" for number, note in enumerate(footnotes, start=1)]
    return markdown_page([*text, *_footer(rows, notes)])


def comparison_table(comparison: Comparison) -> str:
    """Then and now, the largest growth first, and the models without a counterpart."""
    lines = [
        [
            change.model,
            change.target,
            change.metric,
            _amount(change.before, change.metric),
            _amount(change.after, change.metric),
            f"{100 * change.growth:+.2f} %",
            comparison.verdict(change),
        ]
        for change in sorted(comparison.changes, key=lambda change: -change.growth)
    ]
    headings = ["model", "target", "compared by", "before", "now", "change", "verdict"]
    text: list[str] = [markdown_table(headings, lines, left=3)]
    text += [f"Not the same: {difference}." for difference in comparison.differences]
    if comparison.missing:
        text.append(f"In the baseline, and not measured now: {', '.join(comparison.missing)}.")
    if comparison.new:
        text.append(f"Not in the baseline: {', '.join(comparison.new)}.")
    return markdown_page(text)


def profile_tables(rows: Sequence[Row], *, costliest: int = 0) -> str:
    """The cost of operators by type, with their sum and the whole; empty without any profile.

    Args:
      rows: of any targets.
      costliest: so many single operators of each row are listed too.
    """
    text = []
    for row in rows:
        unit = "M instructions" if _counts(row) else "ms"
        if row.profile:
            text += [f"{row.model} on {row.target}, operators by type:"]
            headings = ["type", "operators", unit, "% of the sum"]
            text += [markdown_table(headings, _type_lines(row))]
        if row.profile and costliest:
            text += [f"{row.model} on {row.target}, the costliest operators:"]
            headings = ["operator", "type", "calls", unit, "% of the sum"]
            text += [markdown_table(headings, _operator_lines(row)[:costliest], left=2)]
    return "\n" + markdown_page(text) if text else ""


def network_label(row: Row) -> str:
    """The network's name and the options without a column; the row's name without a network."""
    if row.network is None:
        return row.model
    others = (
        name if value is True else f"{name}={value}"
        for name, value in row.network.options.items()
        if name not in COLUMN_OPTIONS
    )
    return " ".join([row.network.name, *others])


def _type_lines(row: Row) -> list[list[str]]:
    by_type = results.costs_by_type(row)
    total = sum(cost for _, cost in by_type.values())
    whole = results.total_instructions(row) if _counts(row) else row.median_ms
    assert whole is not None
    lines = [(name, str(calls), cost) for name, (calls, cost) in by_type.items()]
    lines += [("sum", str(sum(calls for calls, _ in by_type.values())), total)]
    lines += [("all at once", "", whole)]
    return [[name, calls, *_share_cells(row, cost, total)] for name, calls, cost in lines]


def _operator_lines(row: Row) -> list[list[str]]:
    costs = [(results.operator_cost(operator), operator) for operator in row.profile]
    total = sum(cost for cost, _ in costs)
    return [
        [
            # The name of a fused operator lists those of all its operators.
            re.sub(r";[^,\]]*", "", operator.name),
            operator.type,
            str(operator.calls),
            *_share_cells(row, cost, total),
        ]
        for cost, operator in sorted(costs, key=lambda pair: -pair[0])
    ]


def _share_cells(row: Row, cost: float, total: float) -> tuple[str, str]:
    amount = f"{cost / 1e6:.3f}" if _counts(row) else f"{cost:.4f}"
    return amount, f"{100 * cost / total:.1f}" if total else "-"


def _cost_cells(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    if _counts(row):
        return {"M instructions": _millions(row, 1), "ratio": f"{row.ratio:.2f}"}
    spread = f"{row.ratio:.2f} ({row.ratio_p5:.2f}-{row.ratio_p95:.2f})"
    return {
        "ms": milliseconds(results.latency_ms(row, rows)),
        "ratio (p5-p95)": "1" if row.model == row.ratio_to else spread,
        "peak MB": _number(row.peak_memory_mb, 1),
    }


def _footer(rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    """One line for each target, and one for all."""
    lines = []
    for target in dict.fromkeys(row.target for row in rows):
        same = [row for row in rows if row.target == target]
        head = same[0]
        dates = sorted({row.date_utc[:10] for row in same})
        facts = [
            results.device(head),
            f"{head.runtime} {head.runtime_version or ''}".strip(),
            f"delegate {' and '.join(dict.fromkeys(row.delegate for row in same))}",
            f"{head.threads} thread{'s' * (head.threads != 1)}",
            f"{head.rounds} rounds" + ("" if _counts(head) else f" of {head.runs} runs"),
            " to ".join(dict.fromkeys((dates[0], dates[-1]))),
            *dict.fromkeys(note for row in same for note in row.notes),
        ]
        lines.append(f"{target}: {', '.join(facts)}.")
    if rows:
        head = rows[0]
        lines.append(
            f"Ratios are to {head.ratio_to}, within the same round: median, and p5-p95 over the "
            "rounds. "
            + ("Instruction counts do not predict latency. " if any(map(_counts, rows)) else "")
            + f"ShuffleLite {head.shufflelite_version or '(not installed)'}, "
            f"Python {head.python_version}."
        )
    if notes:
        lines.append(" ".join(notes))
    return lines


def _figure(claim: Claim, numerator: Row | None, denominator: Row | None) -> str:
    if numerator is None or numerator.network is None:
        return "-"
    if denominator is None or denominator.network is None:
        return "-"
    value = paper_claims.measured_figure(claim, numerator, denominator)
    return "-" if math.isnan(value) else f"{value:.2f}{'' if claim.is_exponent else 'x'}"


def _without_empty(columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: cells for name, cells in columns.items() if set(cells) != {"-"}}


def _counts(row: Row) -> bool:
    return row.instructions is not None


def _millions(row: Row, digits: int) -> str:
    return f"{results.total_instructions(row) / 1e6:.{digits}f}"


def _amount(value: float, metric: str) -> str:
    if metric == "instructions":
        return f"{value / 1e6:.3f} M"
    return milliseconds(value) if metric == "ms" else f"{value:.3f}"


def _option(network: BundleInfo, name: str) -> str:
    value = network.options.get(name, "-")
    return f"{value:g}" if isinstance(value, (int, float)) else value


def milliseconds(value: float | None) -> str:
    """A time with at least three significant digits."""
    if value is None:
        return "-"
    digits = 2 - math.floor(math.log10(value)) if 0 < value < math.inf else 2
    return f"{value:.{max(0, digits)}f}"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
