"""Prints what the benchmark tools print, from random durations: the parser's independent oracle.

Every number that a tool tells is computed here from the durations themselves, in the way and with
the rounding of the tool's version.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Version:
    """How a version of a tool writes."""

    prefix: bool = True  # severities
    percentiles: bool = True
    headline: str = "new"  # "old", "oldest"
    footprint: str = "Memory footprint delta from the start of the tool (MB)"
    signature: bool = True
    rss: bool = True
    compiled: bool = False
    source: bool = False  # LiteRT's logger names its source file
    colon: str = ":"
    applied: str = "new"
    logcat: str = ""
    profile: str = "new"  # "start": a column of starts; "2.1.6", "2.2": LiteRT's own tables
    type_width: int = 40
    end: str = "\n"


OLD = Version(
    prefix=False,
    percentiles=False,
    footprint="Peak memory footprint (MB)",
    signature=False,
    rss=False,
    applied="old",
    profile="start",
    type_width=24,
)
VERSIONS = {
    "tf2.2_no_stats": replace(OLD, headline="oldest"),
    "tf2.2": replace(OLD, headline="old"),
    "tf2.4": replace(OLD, colon=" :"),
    "tf2.8": replace(OLD, footprint=Version.footprint, applied="new"),
    "tf2.12": Version(percentiles=False, signature=False, rss=False, type_width=24),
    "tf2.18": Version(percentiles=False, rss=False, type_width=36),
    "litert1.1": Version(),
    "litert2.2": Version(end="\r\n"),
    "compiled_model2.0": Version(compiled=True),
    "compiled_model2.1.0": Version(compiled=True, source=True),
    "compiled_model2.1.6": Version(compiled=True, source=True, profile="2.1.6"),
    "compiled_model2.2": Version(compiled=True, source=True, profile="2.2"),
    "apk_threadtime": Version(prefix=False, logcat="threadtime"),
    "apk_time": Version(prefix=False, logcat="time", rss=False),
    "apk_compiled_model": Version(prefix=False, compiled=True, logcat="threadtime", source=True),
}


@dataclass(frozen=True)
class Run:
    """What really happened."""

    graph: str
    warmup_us: Sequence[int]
    regular_us: Sequence[int]
    warmup_loop: tuple[int, float, float]  # at least runs, at least seconds, at most seconds
    regular_loop: tuple[int, float, float]
    init_us: int
    size_bytes: int
    init_kb: int
    overall_kb: int
    peak_mb: float | None
    delegate: str | None = None  # requested
    outcome: str | None = None
    kernels: int | None = None
    nodes: int = 60
    noise: Sequence[str] = ()


def g(value: float) -> str:
    """A number by C++'s `<<`: six significant digits."""
    return f"{value:g}"


def percentile(values: Sequence[int], percent: int) -> int:
    return sorted(values)[len(values) * percent // 100]


def deviation(values: Sequence[int]) -> int:
    """The tool cuts the variance to a whole number, and its root again."""
    if not values or min(values) == max(values):
        return 0
    avg = sum(values) / len(values)
    return int(math.sqrt(int(sum(float(v) * v for v in values) / len(values) - avg * avg)))


def statistics(values: Sequence[int], *, percentiles: bool) -> str:
    if not values:
        tail = " p5=0 median=0 p95=0" if percentiles else ""
        return f"count=0{tail}"
    text = f"count={len(values)}"
    if min(values) == max(values):
        text += f" curr={values[-1]}" + ("(all same)" if len(values) > 1 else "")
    else:
        text += f" first={values[0]} curr={values[-1]} min={min(values)} max={max(values)}"
        text += f" avg={g(sum(values) / len(values))} std={deviation(values)}"
    if percentiles:
        text += " p5={} median={} p95={}".format(*(percentile(values, p) for p in (5, 50, 95)))
    return text


def average(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0


def lines(run: Run, version: Version) -> list[tuple[str, str]]:
    """The output as (stream or severity, line)."""
    printed: list[tuple[str, str]] = []

    def say(text: str, severity: str = "INFO", stream: str = "out") -> None:
        prefix = f"{severity}: " if version.prefix else ""
        printed.append((stream, prefix + text))

    def litert(text: str) -> None:
        source = "[benchmark_litert_model.h:89] " if version.source else ""
        severity = "" if version.logcat else "INFO: "  # LiteRT never writes without
        for number, line in enumerate(text.split("\n")):
            printed.append(("err", (severity + source if number == 0 else "") + line))

    def runtime(text: str, severity: str = "INFO") -> None:
        printed.append(("err", text if version.logcat else f"{severity}: {text}"))

    def parameter(name: str, value: object) -> None:
        say(f"{name}{version.colon} [{value}]")

    if not version.logcat:
        say("STARTING!")
    if run.delegate == "unknown_flag":
        say("Unconsumed cmdline flags: --use_gpu=true", "WARN")
    if version.headline == "new":
        say("Log parameter values verbosely: [0]")
    say(f"Min num runs: [{run.regular_loop[0]}]")
    say("Num threads: [2]")
    say(f"Min warmup runs: [{run.warmup_loop[0]}]")
    if not version.compiled:
        say(f"Graph: [{run.graph}]")
        if version.signature:
            say("Signature to run: []")
    if run.delegate and not version.compiled and run.delegate != "unknown_flag":
        say("#threads used for CPU inference: [2]")
        parameter(
            {"xnnpack": "Use xnnpack", "gpu": "Use gpu", "nnapi": "Use NNAPI"}[run.delegate], 1
        )
    if version.compiled:
        litert(f"Loading model from: {run.graph}")
    else:
        say(f"Loaded model {run.graph}")
    runtime("Initialized TensorFlow Lite runtime.")
    for line in run.noise:
        runtime(line)
    _delegate(run, version, say, runtime)
    say(f"The input model file size (MB): {g(run.size_bytes / 1e6)}")
    say(f"Initialized session in {g(run.init_us / 1e3)}ms.")
    for loop, values in ((run.warmup_loop, run.warmup_us), (run.regular_loop, run.regular_us)):
        say(
            f"Running benchmark for at least {loop[0]} iterations and at least {g(loop[1])} seconds"
            f" but terminate if exceeding {g(loop[2])} seconds."
        )
        say(statistics(values, percentiles=version.percentiles))
        printed.append(("out", ""))
    if version.compiled:
        _results(run, litert)
        return printed
    first = run.warmup_us[0] if run.warmup_us else 0
    warmup, regular = g(average(run.warmup_us)), g(average(run.regular_us))
    if version.headline == "new":
        say(
            f"Inference timings in us: Init: {run.init_us}, First inference: {first},"
            f" Warmup (avg): {warmup}, Inference (avg): {regular}"
        )
    else:
        word = "Inference" if version.headline == "old" else "no stats"
        say(
            f"Average inference timings in us: Warmup: {warmup}, Init: {run.init_us},"
            f" {word}: {regular}"
        )
    if version.headline != "oldest":
        say("Note: as the benchmark tool itself affects memory footprint, it is APPROXIMATE.")
        say(f"{version.footprint}: init={g(run.init_kb / 1024)} overall={g(run.overall_kb / 1024)}")
    if run.peak_mb is not None and version.headline == "new":
        say(f"Overall peak memory footprint (MB) via periodic monitoring: {g(run.peak_mb)}")
        if version.rss:
            say("Memory status at the end of exeution:")
            say("- VmRSS              : 25 MB")
            say("+ RssAnnon           : 18 MB")
            say("+ RssFile + RssShmem : 7 MB")
    return printed


def _delegate(run: Run, version: Version, say, runtime) -> None:
    runtime_name = {
        "xnnpack": "TfLiteXNNPackDelegate",
        "gpu": "LITERT_CL" if version.compiled else "TfLiteGpuDelegateV2",
        "nnapi": "TfLiteNnapiDelegate",
    }.get(run.delegate or "")
    title = {"xnnpack": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI"}.get(run.delegate or "")
    if runtime_name is None or run.outcome is None:
        runtime("Created TensorFlow Lite XNNPACK delegate for CPU.")
        return
    if run.outcome in ("whole", "partial"):
        taken = run.nodes if run.outcome == "whole" else run.nodes - 7
        parts = 1 if run.outcome == "whole" else 2 * (run.kernels or 1)
        runtime(
            f"Replacing {taken} out of {run.nodes} node(s) with delegate ({runtime_name}) node,"
            f" yielding {parts} partitions for subgraph 0 (main).",
            "VERBOSE",
        )
    if run.delegate != "xnnpack" and run.outcome != "whole":
        runtime("Created TensorFlow Lite XNNPACK delegate for CPU.")
    if version.compiled:
        return
    new = version.applied == "new"
    verb, how = ("Explicitly applied", "by") if new else ("Applied", "w/")
    if run.outcome == "whole":
        say(
            f"{verb} {title} delegate, and the model graph will be completely executed {how} the"
            " delegate."
        )
    elif run.outcome == "partial":
        many = f" w/ {run.kernels} delegate kernels" if new else ""
        say(
            f"{verb} {title} delegate, and the model graph will be partially executed {how} the"
            f" delegate{many}."
        )
    elif run.outcome == "declined":
        say(
            f"Though {title} delegate is explicitly applied, the model graph will not be executed"
            " by the delegate."
        )
    elif run.outcome == "unavailable":
        say(f"{title} acceleration is unsupported on this platform.", "WARN")


def _results(run: Run, litert) -> None:
    def ms(us: float) -> str:
        return f"{us / 1000:.2f}"

    warmup, regular = run.warmup_us, run.regular_us
    litert("\n========== BENCHMARK RESULTS ==========")
    litert("Signature name:       serving_default")
    litert(f"Model initialization: {ms(run.init_us)} ms")
    litert(f"Warmup (first):       {ms(warmup[0] if warmup else 0)} ms")
    litert(f"Warmup (avg):         {ms(average(warmup))} ms ({len(warmup)} runs)")
    litert(f"Inference (avg):      {ms(average(regular))} ms ({len(regular)} runs)")
    litert(f"Inference (min):      {ms(min(regular))} ms")
    litert(f"Inference (max):      {ms(max(regular))} ms")
    litert(f"Inference (std):      {ms(deviation(regular))}")
    litert("Throughput:           12.34 MB/s")
    litert("\nMemory Usage:")
    litert(f"Init footprint:       {run.init_kb / 1024:.2f} MB")
    litert(f"Overall footprint:    {run.overall_kb / 1024:.2f} MB")
    if run.peak_mb is None:
        litert("Peak memory usage not available. (peak_mem_mb <= 0)")
    else:
        litert(f"Peak memory:          {run.peak_mb:.2f} MB")
    litert("======================================\n")


def text(run: Run, version: Version, *, pid: int = 4321, profile: Sequence[str] = ()) -> str:
    """All of the output, which ends with the lines of a profile."""
    printed = [line for _, line in lines(run, version)] + [*profile]
    if version.logcat:
        return logcat(printed, version, pid=pid)
    return "".join(line + version.end for line in printed)


def logcat(printed: Sequence[str], version: Version, *, pid: int) -> str:
    if version.logcat == "threadtime":
        head = "11-02 08:15:04.407 {pid:5} {pid:5} I {tag}  : "
    else:
        head = "11-02 08:15:04.407 I/{tag}  ({pid:5}): "
    return "--------- beginning of main\n" + "".join(
        head.format(pid=pid, tag="litert" if "[benchmark_litert" in line else "tflite")
        + line
        + "\n"
        for line in printed
    )


def random_us(rng: random.Random, size: int, base: float) -> list[int]:
    """Durations around `base` with a tail; now and then all are equal."""
    if rng.random() < 0.1:
        return [int(base) + 1] * size
    spread = rng.choice([0.001, 0.02, 0.3])
    values = [base * math.exp(abs(rng.gauss(0, spread))) for _ in range(size)]
    if size > 2 and rng.random() < 0.3:
        values[rng.randrange(size)] *= 12
    return [int(value) + 1 for value in values]


def random_loop(rng: random.Random, us: Sequence[int]) -> tuple[int, float, float]:
    total_s = sum(us) / 1e6
    kind = rng.random()
    if kind < 0.5 or not us:
        return len(us), 0, 150
    if kind < 0.85:  # went on until the time was over
        return rng.randint(1, len(us)), float(g(total_s * 1.01)), 150
    return len(us) + rng.randint(1, 9), 1, float(g(total_s * 0.99))


def random_run(rng: random.Random) -> Run:
    base = math.exp(rng.uniform(math.log(40), math.log(3e6)))
    warmup = random_us(rng, rng.choice([0, 1, 1, 2, 5]), base * 1.5)
    regular = random_us(rng, rng.choice([1, 2, 3, 10, 20, 50, 50, 137]), base)
    delegate = rng.choice([None, None, "xnnpack", "gpu", "nnapi", "unknown_flag"])
    outcome = kernels = None
    if delegate in ("xnnpack", "gpu", "nnapi"):
        outcome = rng.choice(["whole", "partial", "declined", "unavailable"])
        kernels = {"whole": 1, "partial": rng.randint(1, 9)}.get(outcome)
    return Run(
        graph=rng.choice(["/data/local/tmp/m.tflite", "/tmp/a b [avg=5]/count=3 é.tflite"]),
        warmup_us=warmup,
        regular_us=regular,
        warmup_loop=random_loop(rng, warmup),
        regular_loop=random_loop(rng, regular),
        init_us=int(math.exp(rng.uniform(math.log(300), math.log(2e6)))),
        size_bytes=rng.randint(10_000, 30_000_000),
        init_kb=rng.randint(-500, 90_000),
        overall_kb=rng.randint(100, 300_000),
        peak_mb=rng.choice([None, rng.uniform(1, 900)]),
        delegate=delegate,
        outcome=outcome,
        kernels=kernels,
        noise=rng.choice([(), ("Loaded OpenCL library with dlopen.",)]),
    )


def truth(run: Run, version: Version) -> dict[str, object]:
    """The fields of a result, from the durations."""
    same = min(run.regular_us) == max(run.regular_us)
    percents = version.percentiles or same
    median, p5, p95 = (
        percentile(run.regular_us, p) / 1000 if percents else None for p in (50, 5, 95)
    )
    footprints = version.headline != "oldest"
    return {
        "graph": run.graph,
        "runs": len(run.regular_us),
        "avg_ms": average(run.regular_us) / 1000,
        "min_ms": min(run.regular_us) / 1000,
        "max_ms": max(run.regular_us) / 1000,
        "std_ms": deviation(run.regular_us) / 1000,
        "median_ms": median,
        "p5_ms": p5,
        "p95_ms": p95,
        "init_ms": run.init_us / 1000,
        "first_ms": run.warmup_us[0] / 1000 if run.warmup_us else None,
        "warmup_runs": len(run.warmup_us),
        "warmup_ms": average(run.warmup_us) / 1000 if run.warmup_us else None,
        "init_memory_mb": run.init_kb / 1024 if footprints else None,
        "memory_mb": run.overall_kb / 1024 if footprints else None,
        "peak_memory_mb": run.peak_mb if version.headline == "new" else None,
        "model_size_mb": run.size_bytes / 1e6,
    }
