"""Sweeps for tests: a stand-in for `convert`, and targets where a model's folder tells its cost."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from android_bench import results, sweep
from android_bench.measurement import Counted, Facts, Machine, Options, Round, TargetError
from shufflelite.progress import Progress

DEFAULTS = Options()
# Stands in for our command: writes a bundle, logs that it was called, or does what WIDTH asks for.
CONVERT = """
import hashlib, json, os, pathlib, shutil, signal, sys, time
flags = [word.removeprefix("--").partition("=") for word in sys.argv[1:]]
options = dict(value.split("=") for name, _, value in flags if name == "option")
values = {name: value for name, _, value in flags}
with open(os.environ["LOG"], "a") as log:
    log.write(f"{os.getpid()} {values['model']} {options} {values['resolution']}\\n")
width = options.get("width")
if width == "0.1":
    sys.exit("convert: quantize: 1.0 s\\nconvert: Expected a wider network, got 0.1.")
if width == "0.2":
    print("convert: Unknown command line flag 'precison' (see --help)", file=sys.stderr)
    sys.exit(2)
if width == "0.3":
    os.kill(os.getpid(), signal.SIGKILL)
if width in ("0.4", "0.6"):
    pathlib.Path(values["out"], "half").mkdir()
    if width == "0.6":
        os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(600)
if width == "0.7":
    sys.exit(0)
name = f"{values['model']}_x{width}_{values['resolution']}"
bundle = pathlib.Path(values["out"], name)
bundle.mkdir()
shutil.copyfile(os.environ["TOY"], bundle / "model.tflite")
with open(bundle / "model.tflite", "ab") as file:
    file.write(name.encode())  # so that no two files are equal
report = {
    "settings": {"model": {"name": values["model"], "num_classes": 1000},
                 "quantization": {"precision": values["precision"]}},
    "options": {name: json.loads(value) for name, value in options.items()},
    "audit": {"input": {"shape": [1, int(values["resolution"]), 32, 3]}},
    "fidelity": {"top1": None}, "params": 10, "multiply_adds": 1000,
}
(bundle / "report.json").write_text(json.dumps(report))
"""


@dataclass
class Scripted:
    """A target where a model costs what the width in its folder's name says."""

    cpu: str = "scripted"
    version: str = "1.0"
    counts: bool = False
    partitions: int = 1
    dies: tuple[str, ...] = ()
    interrupts: str | None = None
    loaded: list[str] = field(default_factory=list)
    most_at_once: int = 0
    open: set[str] = field(default_factory=set)

    def machine(self) -> Machine:
        return Machine(cpu=self.cpu, governor=None, load_average=None)

    def load(self, path: Path, *, warmup: int, seed: int) -> "ScriptedSession":
        name = path.parent.name
        if name == self.interrupts:
            raise KeyboardInterrupt
        if name in self.dies:
            raise TargetError("died")
        self.loaded.append(name)
        self.open.add(name)
        self.most_at_once = max(self.most_at_once, len(self.open))
        return ScriptedSession(self, name)

    def close(self) -> None:
        pass


@dataclass
class ScriptedSession:
    target: Scripted
    name: str

    def measure(self, *, runs: int) -> Round | Counted:
        cost = float(self.name.split("_x")[1].split("_")[0])
        if self.target.counts:
            return Counted({"dot": int(cost * 100)})
        return Round(cost, cost, cost, cost, runs)

    def finish(self) -> Facts:
        delegate = "xnnpack" if self.target.partitions else "none"
        return Facts(
            1.0, 1.0, None, None, delegate, self.target.partitions, {}, self.target.version
        )

    def close(self) -> None:
        self.target.open.remove(self.name)


@dataclass
class Bench:
    """A folder with the stand-in for `convert`, and a sweep's cache and rows."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def out(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def converted(self) -> int:
        log = Path(os.environ["LOG"])
        return len(log.read_text().splitlines()) if log.exists() else 0

    def run(
        self,
        settings: sweep.SweepSettings,
        *targets: Scripted,
        names: str = "host",
        options: Options = DEFAULTS,
        **others: Any,
    ) -> sweep.SweepResult:
        return sweep.run(
            settings,
            targets=dict(zip(names.split(), targets, strict=True)),
            options=options,
            command="python -m android_bench --sweep",
            cache=self.cache,
            out=self.out,
            progress=Progress("android_bench"),
            **others,
        )


def grid(*widths: float, model: str = "mobilenet_v1", **settings: Any) -> sweep.SweepSettings:
    measured = sweep.MeasureSettings(**{"rounds": 2, "runs": 3, "warmup": 0, **settings})
    return sweep.SweepSettings(grid=(sweep.Grid(model, 32, {"width": widths}),), measure=measured)


def names(rows: Iterable[results.Row]) -> list[str]:
    return [row.model for row in rows]
