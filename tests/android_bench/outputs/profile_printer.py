"""Prints the profiles of operators that the benchmark tools print, as `printer.py` the rest."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.android_bench.outputs.printer import Version, g, random_us, statistics


@dataclass(frozen=True)
class Operator:
    name: str
    type: str
    us: Sequence[Sequence[int]]  # runs, calls within a run


@dataclass(frozen=True)
class Profile:
    operators: Sequence[Operator]
    runs: int
    initial: Sequence[Operator] = ()
    subgraph: Sequence[Operator] = ()
    internal: Sequence[Operator] = field(default_factory=tuple)


TYPES = {
    "CONV_2D": "[t{0};x, u{0}]:{0}",
    "RESIZE_NEAREST_NEIGHBOR": "[net/t {0}]:{0}",
    "TfLiteNnapiDelegate": "[]:{0}",
    "Convolution (NHWC, QC8) IGEMM": "Delegate/Convolution (NHWC, QC8) IGEMM:{0}",
    "convolution_2d 0 -> relu 1": "Delegate/convolution_2d 0 -> relu 1:{0}",
    "depth_to_space 5": "Delegate/depth_to_space 5:{0}",
}
LITERT_TYPES = {
    "CONV_2D": "[Builtin]:{0}",
    "Delegate/Fully Connected (NC, QS8, QC8W) GEMM": "[Delegate]:{0}",
    "Delegate/convolution_2d 0 -> relu 1": "[Delegate]:{0}",
}


def random_operators(
    rng: random.Random, runs: int, types: dict[str, str], *, fractional: bool
) -> list[Operator]:
    operators = []
    for index in range(rng.randint(1, 14)):
        type_ = rng.choice(list(types))
        base = math.exp(rng.uniform(0, math.log(20_000)))
        calls = rng.choice([1, 1, 1, 1, 3, 13])
        us = [random_us(rng, calls, base) for _ in range(runs)]
        if fractional and rng.random() < 0.1:
            us[0] = us[0][1:]  # not called in each run
        operators.append(Operator(types[type_].format(index), type_, us))
    return operators


def random_profile(rng: random.Random, *, runs: int | None = None) -> Profile:
    """A profile of the classic tool; of LiteRT's if `runs` is set."""
    if runs is not None:
        return Profile(random_operators(rng, runs, LITERT_TYPES, fractional=False), runs)
    runs = rng.choice([1, 2, 10, 50])
    initial = [
        Operator("ModifyGraphWithDelegate/0", "ModifyGraphWithDelegate", [[rng.randint(1, 10**6)]]),
        Operator("AllocateTensors/0", "AllocateTensors", [[rng.randint(1, 99), rng.randint(1, 9)]]),
    ]
    extra = {"subgraph": (), "internal": ()}
    for name in extra:
        if rng.random() < 0.15:
            extra[name] = random_operators(rng, runs, TYPES, fractional=False)
    operators = random_operators(rng, runs, TYPES, fractional=runs > 1)
    if not any(us for op in operators for us in op.us):
        return random_profile(rng)
    return Profile(operators, runs, rng.choice([(), initial]), **extra)


def expected(operators: Sequence[Operator], runs: int) -> list[tuple[str, str, float, int]]:
    """(name, type, ms per inference, whole calls per inference)."""
    rows = []
    for op in operators:
        flat = [us for one in op.us for us in one]
        if flat:
            rows.append((op.name, op.type, sum(flat) / runs / 1000, len(flat) // runs))
    return rows


def profile_lines(profile: Profile, version: Version) -> list[str]:
    """The tables in the output."""
    if version.profile in ("2.1.6", "2.2"):
        return ["INFO: [benchmark_litert_model.h:192] ", *_litert(profile, version)]
    prefix = "INFO: " if version.prefix else ""
    printed = []
    if not version.compiled:
        if profile.initial:
            printed.append(prefix + "Profiling Info for Benchmark Initialization:")
            printed += [*_tables(profile.initial, 1, version, csv=False), "", ""]
        printed.append(prefix + "Operator-wise Profiling Info for Regular Benchmark Runs:")
    return [*printed, *_graphs(profile, version, csv=False), "", ""]


def csv(profile: Profile, version: Version) -> str:
    printed = []
    if profile.initial:
        printed.append("Profiling Info for Benchmark Initialization:")
        printed += [*_tables(profile.initial, 1, version, csv=True), "", ""]
    printed.append("Operator-wise Profiling Info for Regular Benchmark Runs:")
    printed += [*_graphs(profile, version, csv=True), "", ""]
    return "".join(line + version.end for line in printed)


def _graphs(profile: Profile, version: Version, *, csv: bool) -> list[str]:
    printed = ["Primary graph (name: main) profile:"] if profile.subgraph else []
    printed += _tables(profile.operators, profile.runs, version, csv=csv)
    if profile.subgraph:
        title = "Subgraph (index: 1, name: body) "
        printed += [f"{title}profile:"]
        printed += _tables(profile.subgraph, profile.runs, version, csv=csv, title=title)
    if profile.internal:
        printed += ["Delegate internal: "]
        printed += _tables(profile.internal, profile.runs, version, csv=csv)
    return printed


def _field(value: object, width: int) -> str:
    return "\t" + (f"{value:.3f}" if isinstance(value, float) else str(value)).rjust(width)


def _tables(
    operators: Sequence[Operator], runs: int, version: Version, *, csv: bool, title: str = ""
) -> list[str]:
    start = version.profile == "start"
    rule = "=" * 30
    flat = {op.name: [us for one in op.us for us in one] for op in operators}
    operators = [op for op in operators if flat[op.name]]
    per_run = [sum(sum(op.us[run]) for op in operators) for run in range(runs)]
    total = sum(per_run)
    width = version.type_width

    def row(op: Operator, before: int) -> str:
        us = flat[op.name]
        share = sum(us) * 100 / total if total else math.nan
        cdf = (before + sum(us)) * 100 / total if total else math.nan
        first, avg, calls = us[0] / 1000, sum(us) / len(us) / 1000, len(us) // runs
        if csv:
            name = op.name if start else op.name.replace(",", "\t")
            starts = ["12.5"] if start else []
            numbers = [g(first), g(avg), g(share) + "%", g(cdf) + "%", "0", str(calls)]
            return ", ".join([op.type, *starts, *numbers, name])
        starts = _field(12.5, 17) if start else ""
        return (
            _field(op.type, width)
            + starts
            + _field(first, 9)
            + _field(avg, 9)
            + _field(share, 7)
            + "%"
            + _field(cdf, 7)
            + "%"
            + _field(0.0, 10)
            + _field(calls, 9)
            + "\t"
            + op.name
        )

    columns = ["[start]", "[first]"] if start else ["[first]"]
    heading = _field("[node type]", width) + "".join(
        _field(name, 9) for name in [*columns, "[avg ms]", "[%]", "[cdf%]", "[mem KB]"]
    )
    heading += _field("[times called]", 9) + "\t[Name]"
    if csv:
        starts = "start, " if start else ""
        heading = f"node type, {starts}first, avg_ms, %, cdf%, mem KB, times called, name"
    printed = []
    slowest = sorted(operators, key=lambda op: -sum(flat[op.name]) / len(flat[op.name]))[:10]
    for name, chosen in (("Run Order", operators), ("Top by Computation Time", slowest)):
        printed += [f"{rule} {name} {rule}", heading]
        before = 0
        for op in chosen:
            printed.append(row(op, before))
            before += sum(flat[op.name])
        printed.append("")
    printed += [
        f"Number of nodes executed: {len(operators)}",
        f"{rule} Summary by node type {rule}",
    ]
    if csv:
        printed.append("node type, count, avg_ms, avg %, cdf %, mem KB, times called")
    else:
        names = ["[count]", "[avg ms]", "[avg %]", "[cdf %]", "[mem KB]", "[times called]"]
        printed.append(_field("[Node type]", width) + "".join(_field(name, 10) for name in names))
    types = sorted({op.type for op in operators})
    cut = {t: sum(sum(flat[op.name]) // runs for op in operators if op.type == t) for t in types}
    everything, cdf = sum(cut.values()), 0.0
    for type_ in sorted(types, key=lambda t: -cut[t]):
        share = cut[type_] * 100 / everything if everything else math.nan
        cdf += share
        own = [op for op in operators if op.type == type_]
        calls = sum(len(flat[op.name]) // runs for op in own)
        ms = cut[type_] / 1000
        if csv:
            printed.append(f"{type_}, {len(own)}, {g(ms)}, {g(share)}%, {g(cdf)}%, 0, {calls}")
        else:
            printed.append(
                _field(type_, width)
                + _field(len(own), 9)
                + _field(ms, 10)
                + _field(share, 10)
                + "%"
                + _field(cdf, 10)
                + "%"
                + _field(0.0, 10)
                + _field(calls, 9)
            )
    printed += ["", f"{title}Timings (microseconds): {statistics(per_run, percentiles=False)}"]
    return [*printed, "Memory (bytes): count=0", f"{len(operators)} nodes observed", ""]


def _litert(profile: Profile, version: Version) -> list[str]:
    new = version.profile == "2.2"
    total = sum(us for op in profile.operators for one in op.us for us in one)

    def title(name: str, width: int) -> str:
        if not new:
            return f"{'=' * 30} {name} {'=' * 30}"
        left = (width - len(name) - 2) // 2
        return "=" * left + f" {name} " + "=" * (width - len(name) - 2 - left)

    width, start = (60, f" {'[start]':>10}") if new else (30, "")
    heading = f"{'[node type]':>{width}}{start}" + "".join(
        f" {name:>10}" for name in ("[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]")
    )
    heading += (
        f" {'[times called]':>14}   [Name]" if new else f" {'[times called]':>10} {'[Name]':>10}"
    )
    printed = []
    slowest = sorted(profile.operators, key=lambda op: -sum(map(sum, op.us)))
    for name, chosen in (("Run Order", profile.operators), ("Top by Computation Time", slowest)):
        printed += [title(name, 150), heading]
        before = 0
        for op in chosen:
            own, calls = sum(map(sum, op.us)), sum(map(len, op.us))
            before += own
            starts = f" {1.25:10.3f}" if new else ""
            printed.append(
                f"{op.type:>{width}}{starts} {op.us[0][0] / 1000:10.3f} {own / calls / 1000:10.3f}"
                f" {own * 100 / total:9.3f}% {before * 100 / total:9.3f}% {0:10.3f}"
                + (f" {calls:14}   {op.name}" if new else f" {calls:10} {op.name}")
            )
        printed.append("")
    printed += [f"Number of nodes executed: {len(profile.operators)}", *([""] if new else [])]
    printed.append(title("Summary by node type", 130))
    printed.append(
        f"{'[Node type]':>{width}} {'[count]':>10} {'[avg ms]':>10} {'[times called]':>14}"
    )
    for type_ in sorted({op.type for op in profile.operators}):
        own_ops = [op for op in profile.operators if op.type == type_]
        own = sum(sum(map(sum, op.us)) for op in own_ops)
        calls = sum(sum(map(len, op.us)) for op in own_ops)
        share = own * 100 / total
        printed.append(
            f"{type_:>{width}} {len(own_ops):10} {own / calls / 1000:10.3f} {share:9.3f}%"
            f" {share:9.3f}% {0:10.3f} {calls:14}"
        )
    delegated = ["Op Name      Count    Avg(us)", "Delegate/Convolution 12 3.25 1 9 39"]
    if new:
        printed += ["", title("Delegate Statistics", 135), *delegated]
    printed += ["", f"Timings (microseconds): count={len(profile.operators)} curr={total}"]
    printed += ["Memory (bytes): count=0", f"{len(profile.operators)} nodes observed"]
    return printed + ([] if new else ["", "Delegate Statistics:", *delegated])
