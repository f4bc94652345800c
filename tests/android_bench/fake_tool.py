"""A benchmark tool for tests: prints and writes what a real one did (`tool_samples.py`).

`write` makes a program of this file, which holds the output of one generation of the tool.  Only
the model's path is adapted, and the warning of flags that the generation does not know.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

OUTPUTS = ""  # JSON of the files by name
GENERATION = "head"
BEHAVIOUR = ""

_HEAD = "classic_litert_head/models_shufflenet_v1_g3.direct.tflite"
_RESULT, _INFO = "result_file_path", "model_runtime_info_output_file"
_PROFILE = ("op_profiling_output_mode", "op_profiling_output_file")
UNKNOWN = {  # flags that a generation does not know
    "old": (_RESULT, _INFO, "export_model_runtime_info", *_PROFILE),
    "2.20": (_RESULT,),
    "head": (),
    "compiled": ("use_xnnpack", "enable_op_profiling", "export_model_runtime_info", _INFO),
}
BEHAVIOURS = {
    "crash": "dies of SIGABRT",
    "hang": "never ends",
    "fails": "reports an error",
    "slow": "takes 0.1 s for each inference",
    "declines": "XNNPACK takes no operator",
    "dynamic": "XNNPACK cannot be applied by its flag",
    "contradicts": "the runtime info is of another delegate",
    "garbles": "the result file is of another run",
    "cuts": "the result file is cut off",
    "late": "prints the profile a second after the figures",
    "line break": "has one in an operator's name",
}


def write(path: Path, *, generation: str = "head", behaviour: str = "") -> Path:
    """Writes the program."""
    from tests.android_bench import tool_samples

    assert behaviour in ("", *BEHAVIOURS)
    names = {name for flags in _all_flags() for name in _chosen(generation, flags).values()}
    names |= {"compiled_model_2.2/td_custom_sinh.txt", "classic_litert_head/fp16.txt"}
    files = {name: tool_samples.samples()[name].decode("latin-1") for name in sorted(names)}
    text = Path(__file__).read_text()
    for name, value in (
        ("OUTPUTS", json.dumps(files)),
        ("GENERATION", generation),
        ("BEHAVIOUR", behaviour),
    ):
        text = re.sub(
            rf'\n{name} = ".*"', lambda _, n=name, v=value: f"\n{n} = {v!r}", text, count=1
        )
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def _all_flags() -> list[dict[str, str]]:
    delegates: list[dict[str, str]] = [{}, {"use_xnnpack": "true"}, {"use_xnnpack": "false"}]
    delegates += [{"use_gpu": "true"}, {"use_nnapi": "true"}]
    profiles: list[dict[str, str]] = [{}, {"enable_op_profiling": "true", "use_profiler": "true"}]
    profiles += [{**profiles[1], _PROFILE[1]: "/p"}]
    peaks = ({}, {"report_peak_memory_footprint": "true"})
    return [{**a, **b, **c} for a in delegates for b in profiles for c in peaks]


def _chosen(generation: str, flags: Mapping[str, str]) -> dict[str, str]:
    """Names of the outputs for flags: "" is printed, the others by the flag of their path."""
    profile = "enable_op_profiling" in flags
    xnnpack = flags.get("use_xnnpack")
    if generation == "compiled":
        folder = "compiled_model_2.2"
        if "use_gpu" in flags:
            return {"": f"{folder}/gpu.txt"}
        if "use_profiler" in flags:
            return {"": f"{folder}/prof_model.tflite.txt"}
        peak = "_peak" if "report_peak_memory_footprint" in flags else ""
        return {"": f"{folder}/{'xnnflag' if xnnpack else f'cpu{peak}'}.txt"}
    for delegate in ("gpu", "nnapi"):
        if f"use_{delegate}" in flags:
            if delegate == "gpu" and generation == "old":
                return {"": "reported/01_gpu_created_kernels.txt"}
            folder = "classic_litert_head" if generation == "head" else "classic_2.20"
            return {"": f"{folder}/{delegate}.txt"}
    if generation == "head":
        start = f"{_HEAD}_{ {None: 'dflt', 'true': 'xnn', 'false': 'none'}[xnnpack] }"
        if not profile:
            files = {_RESULT: f"{start}.result.pb", _INFO: f"{start}.ri.pb"}
            return {"": f"{start}_res.txt", **files}
        if _PROFILE[1] not in flags:
            return {"": f"{start}_ptext.txt"}
        return {"": f"{start}_pproto.txt", _PROFILE[1]: f"{start}.prof.pb"}
    if profile:
        name = "_aarch64/txt" if xnnpack == "true" else "/prof_text"
    elif xnnpack == "true" and generation == "old":
        return {"": "reported/02_whole_graph.txt"}
    else:
        name = {None: "/default_quick", "true": "/xnn_true", "false": "/xnn_false"}[xnnpack]
    return {"": f"classic_2.20{name}.txt"}


def _printed(text: str, flags: Mapping[str, str]) -> str:
    """The text of a sample, for this model and these flags."""
    text = re.sub(r"\A# .*\n", "", text)
    model = re.search(r"Graph: \[(.+)\]|Loading model from: (.+)", text)
    if model:
        text = text.replace(model[1] or model[2], flags["graph"])
    if GENERATION == "old":
        text = re.sub(r"( p5=\d+)? median=\d+ p95=\d+", "", text)
    unknown = [f"--{name}={flags[name]}" for name in UNKNOWN[GENERATION] if name in flags]
    if unknown and "Unconsumed" not in text:
        warning = f"WARN: Unconsumed cmdline flags: {' '.join(unknown)}\n"
        text = text.replace("STARTING!\n", f"STARTING!\n{warning}", 1)
    if BEHAVIOUR == "line break":
        text = text.replace("shufflenet_v1/conv1/Relu", "shufflenet_v1/con\nv1/Relu")
    if BEHAVIOUR == "declines":
        text = re.sub(
            r"Explicitly applied (\w+) delegate, and the model graph will be .*",
            r"Though \1 delegate is explicitly applied, the model graph will not be executed by the"
            " delegate.",
            text,
        )
    return text


def main() -> int:
    """Prints and writes what the real tool did with such flags."""
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
    outputs: Mapping[str, str] = json.loads(OUTPUTS)
    chosen = _chosen(GENERATION, flags)
    text = outputs[chosen.pop("")]
    if BEHAVIOUR == "fails":
        text = outputs["compiled_model_2.2/td_custom_sinh.txt"]
    if BEHAVIOUR == "dynamic" and flags.get("use_xnnpack") == "true":
        text = outputs["classic_litert_head/fp16.txt"]
    code = int((re.search(r"\A#.* rc=(-?\d+)", text) or ["", "0"])[1])
    text = _printed(text, flags)
    if BEHAVIOUR in ("crash", "hang"):
        text = text[: text.index("Initialized session")].rpartition("\n")[0] + "\n"
    if BEHAVIOUR == "slow":
        time.sleep(0.1 * int(flags["num_runs"]))
    start, title, tables = text.partition("INFO: Profiling Info for Benchmark Initialization")
    print(start, end="", flush=True)
    if BEHAVIOUR == "late":
        time.sleep(1)
    print(title + tables, end="", flush=True)
    if BEHAVIOUR == "hang":
        time.sleep(600)
    if BEHAVIOUR == "crash" or code == -6:
        os.abort()
    if code:
        return code
    for flag in (_RESULT, _INFO, _PROFILE[1]):
        if flag not in flags or flag in UNKNOWN[GENERATION]:
            continue
        path, name = Path(flags[flag]), chosen.get(flag)
        if name is None or (BEHAVIOUR == "declines" and flag == _INFO):
            path.unlink(missing_ok=True)  # that of an earlier start
            continue
        other = {"garbles": _RESULT, "contradicts": _INFO}.get(BEHAVIOUR) == flag
        data = outputs[name.replace("_xnn", "_dflt") if other else name].encode("latin-1")
        cut = BEHAVIOUR == "cuts" and flag == _RESULT
        path.write_bytes(data[: len(data) // 2] if cut else data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
