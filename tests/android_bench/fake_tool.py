"""The benchmark tool for tests: runs the model by LiteRT on this host, prints as the tool prints.

Formats: tflite/tools/benchmark/benchmark_model.cc and benchmark_tflite_model.cc of LiteRT, and
litert/tools/benchmark_litert_model.h for the tool of LiteRT's CompiledModel.  `write` makes a
program of this file.
"""

import os
import resource
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

VERSION = "new"  # "old": TF 2.8, "compiled": the tool of CompiledModel
BEHAVIOUR = ""  # "crash", "hang", "declines", "fails", "slow", "garbles" its log, "cuts" its file
TIMES = ""  # of the inferences of each phase in us, repeated; "": as measured


def write(
    path: Path, *, version: str = "new", behaviour: str = "", times_us: Sequence[int] = ()
) -> Path:
    """Writes the program."""
    text = Path(__file__).read_text()
    times = " ".join(map(str, times_us))
    for name, value in (("VERSION", version), ("BEHAVIOUR", behaviour), ("TIMES", times)):
        text = text.replace(f'\n{name} = "', f"\n{name} = {value!r}  # ", 1)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def say(line: str) -> None:
    """Prints a line of the tool's log."""
    if VERSION == "old":
        print(line, file=sys.stderr, flush=True)
    else:
        print(f"INFO: {line}", flush=True)


def stat(times_us: list[int]) -> str:
    """Returns a line of statistics in us."""
    ordered = sorted(times_us)
    text = f"count={len(ordered)}"
    if ordered[0] == ordered[-1]:
        text += f" curr={ordered[0]:.0f}" + "(all same)" * (len(ordered) > 1)
    else:
        text += (
            f" first={times_us[0]:.0f} curr={times_us[-1]:.0f} min={ordered[0]:.0f}"
            f" max={ordered[-1]:.0f} avg={statistics.fmean(ordered):g}"
            f" std={int(statistics.pstdev(ordered))}"
        )
    if VERSION != "old":
        p5, median, p95 = percentiles(ordered)
        if BEHAVIOUR == "garbles" and len(ordered) > 2:
            median = p5  # which is plausible
        text += f" p5={p5:.0f} median={median:.0f} p95={p95:.0f}"
    return text


def percentiles(times_us: list[int]) -> list[int]:
    """The 5th, 50th and 95th, as the tool counts them."""
    return [sorted(times_us)[len(times_us) * percent // 100] for percent in (5, 50, 95)]


def main() -> int:
    """Runs the model that --graph names."""
    options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
    graph, runs = options["graph"], int(options.get("num_runs", 50))
    print("STARTING!", file=sys.stderr if VERSION == "old" else sys.stdout, flush=True)
    say("Log parameter values verbosely: [0]")
    say(f"Min num runs: [{runs}]")
    say(f"Num threads: [{options.get('num_threads', 1)}]")
    say(f"Graph: [{graph}]")
    if options.get("enable_op_profiling") == "true":
        say("Enable op profiling: [1]")
    if VERSION == "old" and "result_file_path" in options:
        say(f"Unconsumed cmdline flags: --result_file_path={options['result_file_path']}")
    delegate = next(
        (name for name in ("gpu", "nnapi", "xnnpack") if options.get(f"use_{name}")), None
    )
    if BEHAVIOUR == "crash":
        os.abort()
    if BEHAVIOUR == "hang":
        time.sleep(600)
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        start = time.perf_counter()
        interpreter = Interpreter(
            graph,
            num_threads=int(options.get("num_threads", 1)),
            experimental_op_resolver_type=(
                OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                if options.get("use_xnnpack") == "false"
                else OpResolverType.AUTO
            ),
        )
        say(f"Loaded model {graph}")
        interpreter.allocate_tensors()
        if BEHAVIOUR == "fails":
            raise RuntimeError("Failed to allocate tensors!")
    except (RuntimeError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        print("ERROR: Benchmarking failed.", file=sys.stderr)
        return 1
    init_us = int((time.perf_counter() - start) * 1e6)
    if delegate and options[f"use_{delegate}"] == "true":
        name = {"gpu": "GPU", "nnapi": "NNAPI", "xnnpack": "XNNPACK"}[delegate]
        if BEHAVIOUR == "declines":
            say(
                f"Though {name} delegate is explicitly applied, the model graph will not be"
                " executed by the delegate."
            )
        else:
            say(
                f"Explicitly applied {name} delegate, and the model graph will be completely"
                " executed by the delegate."
            )
    say(f"The input model file size (MB): {os.path.getsize(graph) / 1e6:g}")
    say(f"Initialized session in {init_us / 1e3:g}ms.")

    def invoke(count: int) -> list[int]:
        times = []
        fixed_us = [int(time_us) for time_us in TIMES.split()]
        for number in range(count):
            begin = time.perf_counter()
            interpreter.invoke()
            if BEHAVIOUR == "slow":
                time.sleep(0.1)
            measured = int((time.perf_counter() - begin) * 1e6)
            times.append(fixed_us[number % len(fixed_us)] if fixed_us else measured)
        return times

    def phase(count: int, seconds: float) -> list[int]:
        say(
            f"Running benchmark for at least {count} iterations and at least {seconds:g} seconds"
            " but terminate if exceeding 150 seconds."
        )
        times = invoke(count)
        say(stat(times))
        say("")
        return times

    warmup = phase(int(options.get("warmup_runs", 1)), float(options.get("warmup_min_secs", 0.5)))
    timed = phase(runs, float(options.get("min_secs", 1)))
    average = statistics.fmean(timed)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if VERSION != "old" and "result_file_path" in options:
        data = result_file(init_us, warmup, timed)
        Path(options["result_file_path"]).write_bytes(
            data[: len(data) // 2] if BEHAVIOUR == "cuts" else data
        )
    if VERSION == "compiled":
        lines = [
            "\n========== BENCHMARK RESULTS ==========",
            f"Model initialization: {init_us / 1e3:.2f} ms",
            f"Warmup (first):       {warmup[0] / 1e3:.2f} ms",
            f"Warmup (avg):         {statistics.fmean(warmup) / 1e3:.2f} ms ({len(warmup)} runs)",
            f"Inference (avg):      {average / 1e3:.2f} ms ({len(timed)} runs)",
            f"Inference (min):      {min(timed) / 1e3:.2f} ms",
            f"Inference (max):      {max(timed) / 1e3:.2f} ms",
            f"Inference (std):      {statistics.pstdev(timed) / 1e3:.2f}",
            "\nMemory Usage:",
            "Init footprint:       25.60 MB",
            "Overall footprint:    32.40 MB",
            f"Peak memory:          {peak_mb:.2f} MB",
            "======================================",
        ]
        for line in lines:
            print(f"INFO: {line}", file=sys.stderr, flush=True)
        return 0
    say(
        f"Inference timings in us: Init: {init_us:.0f}, First inference: {warmup[0]:.0f},"
        f" Warmup (avg): {statistics.fmean(warmup):g}, Inference (avg): {average:g}"
    )
    say(
        "Note: as the benchmark tool itself affects memory footprint, the following is only"
        " APPROXIMATE to the actual memory footprint of the model at runtime. Take the information"
        " at your discretion."
    )
    say(
        f"Memory footprint delta from the start of the tool (MB): init=2.5 overall={peak_mb / 10:g}"
    )
    if options.get("report_peak_memory_footprint") == "true":
        say(f"Overall peak memory footprint (MB) via periodic monitoring: {peak_mb:g}")
    if options.get("enable_op_profiling") == "true":
        profile(interpreter, options)
    return 0


def result_file(init_us: int, warmup: list[int], timed: list[int]) -> bytes:
    """The BenchmarkResult of benchmark_result.proto, without its memory."""
    p5, median, p95 = percentiles(timed)
    times_us = [
        *(statistics.fmean(timed), min(timed), max(timed), int(statistics.pstdev(timed))),
        *(median, p5, p95, init_us, warmup[0], statistics.fmean(warmup)),
    ]
    latency = b"".join(
        struct.pack("<Bf", number << 3 | 5, us / 1000)
        for number, us in enumerate(times_us, start=1)
    )
    runs = bytes([2 << 3, len(timed), 3 << 3, len(warmup)])  # of less than 128
    misc = struct.pack("<Bf", 1 << 3 | 5, 0.0) + runs + struct.pack("<Bf", 4 << 3 | 5, 0.0)
    return b"".join(
        bytes([number << 3 | 2, len(part)]) + part for number, part in ((2, latency), (4, misc))
    )


def profile(interpreter: object, options: dict[str, str]) -> None:
    """Prints tables of the operators; node i took i + 1 us."""
    nodes = [
        (node["op_name"], i + 1, f"[layer_{i}]:{i}")
        for i, node in enumerate(interpreter._get_ops_details())  # type: ignore[attr-defined]
        if node["op_name"] != "DELEGATE"
    ]
    total = sum(us for _, us, _ in nodes)
    file = options.get("profiling_output_csv_file") or options.get("op_profiling_output_file")
    tab, cell_format, digits = (", ", "{}", "g") if file else ("\t", "[{}]", ".3f")

    def row(*cells: str) -> str:
        return tab.join(cells) if file else tab + tab.join(cells)

    def head(text: str) -> str:
        cells = text.split("|")
        return row(*(cell_format.format(cell) for cell in cells))

    rows, done = {}, 0
    for type_, us, name in nodes:
        done += us
        shares = (f"{100 * part / total:{digits}}%" for part in (us, done))
        times = f"{us / 1e3:.3f}", f"{us / 1e3:.3f}"
        rows[us] = row(type_, *times, *shares, "0.000", "1", name)
    types = {type_: [us for other, us, _ in nodes if other == type_] for type_, _, _ in nodes}
    summary, done = [], 0
    for type_, all_us in types.items():
        us = sum(all_us)
        done += us
        shares = (f"{100 * part / total:{digits}}%" for part in (us, done))
        summary.append(
            row(type_, f"{len(all_us)}", f"{us / 1e3:.3f}", *shares, "0.000", f"{len(all_us)}")
        )
    average, share = ("avg_ms", "avg_ms") if file else ("avg ms", "avg ms")
    heading = head(
        f"node type|first|{average}|%|cdf%|mem KB|times called|{'n' if file else 'N'}ame"
    )
    kinds = head(f"{'n' if file else 'N'}ode type|count|{share}|avg %|cdf %|mem KB|times called")
    rule = "=" * 30
    table = [
        *(f"{rule} Run Order {rule}", heading, *rows.values(), ""),
        *(f"{rule} Top by Computation Time {rule}", heading),
        *(*(rows[us] for us in sorted(rows, reverse=True)[:10]), ""),
        *(f"Number of nodes executed: {len(nodes)}", f"{rule} Summary by node type {rule}"),
        *(kinds, *summary, ""),
        *(f"Timings (microseconds): count=1 curr={total}", "Memory (bytes): count=0"),
        f"{len(nodes)} nodes observed",
    ]
    say = "" if file or VERSION == "old" else "INFO: "
    lines = []
    for title in (
        "Profiling Info for Benchmark Initialization:",
        "Operator-wise Profiling Info for Regular Benchmark Runs:",
    ):
        lines += [f"{say}{title}", *table, "", ""]
    text = "\n".join(lines) + "\n"
    if file:
        Path(file).write_text(text)
    else:
        print(text, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
